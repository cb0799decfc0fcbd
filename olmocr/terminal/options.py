"""Options that several commands share, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def quiet(panel: str | None = None) -> Any:
    """Return the option ``--quiet``, listed under *panel*."""
    return typer.Option("--quiet", help="Print only warnings and errors.", rich_help_panel=panel)


def private(panel: str | None = None) -> Any:
    """Return the option ``--private``, listed under *panel*."""
    return typer.Option("--private", help="Make the repository private.", rich_help_panel=panel)


def license_id(panel: str | None = None) -> Any:
    """Return the option ``--license``, listed under *panel*."""
    what = "The source's license, as the Hub spells it; not needed for olmOCR-2."
    return typer.Option("--license", metavar="ID", help=what, show_default=False, rich_help_panel=panel)


def base_model(panel: str | None = None) -> Any:
    """Return the option ``--base-model``, listed under *panel*."""
    what = "If the source is a folder: its repository, or the one that it was trained from."
    return typer.Option("--base-model", metavar="ORG/NAME", help=what, show_default=False, rich_help_panel=panel)


def collection(panel: str | None = None) -> Any:
    """Return the option ``--collection``, listed under *panel*."""
    what = "Collection to add the repository to."
    return typer.Option("--collection", metavar="SLUG", help=what, show_default=False, rich_help_panel=panel)


Quiet = Annotated[bool, quiet()]
License = Annotated[str | None, license_id()]
BaseModel = Annotated[str | None, base_model()]
ModelFolder = Annotated[Path, typer.Argument(help="A converted model's folder.", show_default=False)]
MadeFrom = Annotated[
    Path | None, typer.Option("--source", help="The folder of the Hugging Face checkpoint that it was made from.")
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens in one answer.")]
JsonObject = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
