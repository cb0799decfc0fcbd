"""The command ``python -m olmocr.convert_to_mlx``: arguments -> convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olmocr.command import CommandWithBothSpellings, ends_with_exit_code, progress_bar, say, start_logging

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def convert_to_mlx(
    model: Annotated[str, typer.Argument(help="A Hugging Face olmOCR checkpoint: its folder, or a Hub repository.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make. Default: NAME-mlx-RECIPE, here.")
    ] = None,
    quantize: Annotated[str, typer.Option("--quantize", "-q", help="Recipe: none, 4bit or 8bit.")] = "none",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub repository.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:
    """Convert a Hugging Face olmOCR checkpoint to MLX weights.

    The new folder appears when it is whole; a failure leaves none.
    """
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from olmocr.conversion.folder import plan_conversion, write_model
    from olmocr.conversion.recipe import find_recipe
    from olmocr.model_folder import find_model

    console = start_logging(quiet=quiet)
    recipe = find_recipe(quantize)
    folder = find_model(model, revision)
    output = (
        output.expanduser() if output else Path(f"{folder.name}-mlx{f'-{recipe.name}' if recipe.quantizes else ''}")
    )
    plan = plan_conversion(folder, recipe)
    columns = (
        TextColumn("converting"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with progress_bar(console, *columns, quiet=quiet) as progress:
        task = progress.add_task("converting", total=sum(tensor.source.nbytes for tensor in plan.tensors))
        report = write_model(plan, output, lambda nbytes: progress.advance(task, nbytes))
    if not quiet:
        say(
            f"{output}: {report.weight_bytes / 1e9:.3f} GB, {report.bits_per_weight:.2f} bits per weight, "
            f"{report.tensors} tensors in {report.seconds:.1f} s"
        )
        say(f"read a PDF with it: olmocr workspace --pdfs FILE.pdf --model {output} --markdown")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
