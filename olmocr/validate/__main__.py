"""The command ``python -m olmocr.validate``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from olmocr.command import CommandWithBothSpellings, ends_with_exit_code, say
from olmocr.errors import ExitCode
from olmocr.validate.pages import CheckedAnswer, check_answers

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def validate() -> None:
    """Say whether answers and models are what they should be."""


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def pages(
    path: Annotated[Path, typer.Argument(help="One raw answer, or a folder of *.md and *.txt.", show_default=False)],
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Accept only what training data looks like, as the model was taught."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each answer.")] = False,
) -> None:
    """Check raw answers of a model: front matter, fields, values.

    Ends with exit code 11 if an answer does not hold.
    """
    held = broken = 0
    for answer in check_answers(path, "strict" if strict else "lenient"):
        held += not answer.breaks
        broken += bool(answer.breaks)
        _say_json(answer) if as_json else _say_answer(answer)
    if not as_json:
        say(f"{held} of {held + broken} answers hold")
    if broken:
        raise typer.Exit(ExitCode.GATE_FAILED)


def _say_answer(answer: CheckedAnswer) -> None:
    if not answer.breaks:
        say(f"{answer.path}: holds")
    for each in answer.breaks:
        say(f"{answer.path}:{each.line}: {each.rule}: {each.message}")


def _say_json(answer: CheckedAnswer) -> None:
    breaks = [dataclasses.asdict(each) for each in answer.breaks]
    say(json.dumps({"path": str(answer.path), "holds": not breaks, "breaks": breaks}))


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
