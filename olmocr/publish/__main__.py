"""The command ``python -m olmocr.publish``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from olmocr.command import CommandWithBothSpellings, ends_with_exit_code, say
from olmocr.errors import UsageError, output_error

if TYPE_CHECKING:
    from olmocr.publish.card import Variant

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="A folder that olmocr.convert_to_mlx made.", show_default=False)]
Sibling = Annotated[
    list[Path] | None,
    typer.Option(metavar="DIR", help="Another variant, to stand in the card's tables; may be given again."),
]
BaseModel = Annotated[
    str | None,
    typer.Option(help="The repository that the source is, where the conversion's report names none.", metavar="REPO"),
]
License = Annotated[
    str | None,
    typer.Option(
        "--license", help="The source's license, as the Hub spells it; that of olmOCR-2 is known.", metavar="ID"
    ),
]


@app.callback()
def publish() -> None:
    """Describe a converted model, and put it on the Hub."""


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def card(
    folder: Folder,
    repo: Annotated[str | None, typer.Option(help="ORG/NAME that it is to be published as.")] = None,
    sibling: Sibling = None,
    base_model: BaseModel = None,
    license_id: License = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: README.md in DIR.")
    ] = None,
) -> None:
    """Write a model's card from the reports beside it; what they do not tell is said not to be measured."""
    from olmocr.publish.card import CHART_FILE, make_card, make_chart
    from olmocr.publish.front_matter import find_facts

    variant, siblings = _variants(folder, repo, sibling or [])
    facts = find_facts(variant.reports.conversion, base_model, license_id)
    file = output.expanduser() if output else folder.expanduser() / "README.md"
    _write(file, make_card(variant, facts, siblings))
    chart = make_chart([variant, *siblings])
    if chart:
        _write(file.parent / CHART_FILE, chart)
    say(f"{file}: {'with' if chart else 'without'} a picture of size against fidelity")


def _variants(folder: Path, repo: str | None, siblings: list[Path]) -> tuple[Variant, list[Variant]]:
    """Read *folder* and *siblings*, which are called by their folders' names, in the organisation of *repo*."""
    from olmocr.publish.card import Variant
    from olmocr.publish.front_matter import REPO_ID
    from olmocr.publish.reports import read_reports

    if repo is not None and not REPO_ID.fullmatch(repo):
        raise UsageError(f"--repo {repo} is no repository's name; give one like ORG/NAME")
    organisation = f"{repo.partition('/')[0]}/" if repo else ""
    others = [Variant(f"{organisation}{path.resolve().name}", read_reports(path.expanduser())) for path in siblings]
    return Variant(repo or folder.resolve().name, read_reports(folder.expanduser())), others


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise output_error(error, str(path)) from error


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
