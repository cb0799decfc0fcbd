"""The command ``python -m olmocr.doctor``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from olmocr.doctor.checks import Finding, check_machine
from olmocr.errors import ExitCode
from olmocr.terminal.command import CommandWithBothSpellings, ends_with_exit_code, say
from olmocr.terminal.options import JsonObject

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def doctor(
    model: Annotated[
        Path | None, typer.Option(help="A converted model's folder: does it fit this machine?", show_default=False)
    ] = None,
    as_json: JsonObject = False,
) -> None:
    """Say what this machine has and lacks for olmOCR, and what to do. Ends with exit code 3 on a problem."""
    findings = []
    for finding in check_machine(model.expanduser() if model else None):
        findings.append(finding)
        if not as_json:
            _say_finding(finding)
    problems = [finding.name for finding in findings if finding.state == "problem"]
    if as_json:
        say(json.dumps({"ready": not problems, "findings": [dataclasses.asdict(each) for each in findings]}))
    else:
        say(f"to be mended: {', '.join(problems)}" if problems else "ready to read pages")
    if problems:
        raise typer.Exit(ExitCode.MISSING_DEPENDENCY)


def _say_finding(finding: Finding) -> None:
    say(f"{finding.state:<8} {finding.name:<18} {finding.value}")
    if finding.advice:
        say(f"{'':<27} {finding.advice}")


if __name__ == "__main__":
    app()
