"""The command ``python -m olmocr.calibration``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olmocr.calibration.drawn_pages import SEED, draw_pages
from olmocr.errors import output_error
from olmocr.page import TARGET_LONGEST_IMAGE_DIM
from olmocr.terminal.command import CommandWithBothSpellings, ends_with_exit_code, say

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def draw(
    folder: Annotated[Path, typer.Argument(help="Where to draw them.", show_default=False)],
    longest_side: Annotated[
        int, typer.Option(min=28, max=8192, help="Longest side, in pixels, of the pages as the model sees them.")
    ] = TARGET_LONGEST_IMAGE_DIM,
    seed: Annotated[int, typer.Option(help="Another seed draws other pages.")] = SEED,
) -> None:
    """Draw the pages used for calibration by default, each with its true text, so that you can look at them."""
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pages = draw_pages(folder, longest_side, seed)
    except OSError as error:
        raise output_error(error, str(folder)) from error
    for page in pages:
        say(f"{page.path.name:<32} {page.kind:<8} {len(page.truth or ''):>5} characters")
    say(f"{len(pages)} pages for {longest_side} pixels are in {folder}, each as a PDF and its true text as markdown")


if __name__ == "__main__":
    app()
