"""The command ``python -m olmocr.doctor``."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmocr.doctor.checks import Finding, check_machine
from olmocr.errors import ExitCode, UsageError
from olmocr.terminal.command import (
    CommandWithBothSpellings,
    ends_with_exit_code,
    is_watched,
    progress_bar,
    say,
    start_logging,
)
from olmocr.terminal.options import JsonObject, Quiet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from olmocr.doctor.measure.terms import MeasureTerms
    from olmocr.reports.machine import MachineReport

log = logging.getLogger("olmocr.doctor")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_MEASURE = "With --measure"


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def doctor(
    model: Annotated[
        Path | None,
        typer.Option(
            help="A converted model's folder, to check if it fits this machine. With --measure: the model to measure.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonObject = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure this machine with the demo of the clone: about a quarter of an hour, longer with --model. "
            "Writes a report to read and to send (docs/doctor.md).",
            rich_help_panel=_MEASURE,
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the report. Default: machine-report, here.",
            show_default=False,
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Measure only these parts: names from the report, separated by commas.",
            show_default=False,
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Few pages, one round, no calibration: minutes.", rich_help_panel=_MEASURE),
    ] = False,
    demo: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The clone's folder demo. Needed if this package is not in the clone and you do not run it there.",
            show_default=False,
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Report what this machine has and lacks for olmOCR, and what to do. Exits with code 3 on a problem.

    With --measure, report how fast and how well it reads. Exits with code 11 if a result is not as it should be.
    """
    model = model.expanduser() if model else None
    if measure:
        _measure(model, output or Path("machine-report"), parts, demo, is_quick=quick, as_json=as_json, quiet=quiet)
        return
    if output or parts or demo or quick:
        raise UsageError("`output`, `parts`, `quick` and `demo` work only with `measure=True`; add that")
    _check(model, as_json=as_json)


def _check(model: Path | None, *, as_json: bool) -> None:
    findings = []
    for finding in check_machine(model):
        findings.append(finding)
        if not as_json:
            _say_finding(finding)
    problems = [finding.name for finding in findings if finding.state == "problem"]
    if as_json:
        say(json.dumps({"ready": not problems, "findings": [dataclasses.asdict(each) for each in findings]}))
    else:
        say(f"to fix: {', '.join(problems)}" if problems else "ready to read pages")
    if problems:
        raise typer.Exit(ExitCode.MISSING_DEPENDENCY)


def _say_finding(finding: Finding) -> None:
    say(f"{finding.state:<8} {finding.name:<18} {finding.value}")
    if finding.advice:
        say(f"{'':<27} {finding.advice}")


def _measure(
    model: Path | None,
    folder: Path,
    parts: str | None,
    demo: Path | None,
    *,
    is_quick: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from olmocr.doctor.measure.run import chosen_parts, make_folder, write_machine_report
    from olmocr.doctor.measure.terms import MeasureTerms, find_demo
    from olmocr.reports.typed_json import report_json

    names = tuple(each.strip() for each in (parts or "").split(",") if each.strip())
    chosen_parts(names)
    terms = MeasureTerms(find_demo(demo), model.absolute() if model else None, names, is_quick=is_quick)
    make_folder(folder)
    report = _measured(terms, start_logging(quiet=quiet), quiet=quiet)
    files = write_machine_report(folder, report)
    if as_json:
        say(report_json(report).rstrip())
    else:
        _say_report(report, files)
    if report.was_interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not report.is_good:
        raise typer.Exit(ExitCode.GATE_FAILED)


def _measured(terms: MeasureTerms, console: Console, *, quiet: bool) -> MachineReport:
    from rich.progress import BarColumn, TextColumn

    from olmocr.doctor.measure.run import measure_machine

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[left]}"))
    with progress_bar(console, *columns, quiet=quiet) as progress:
        return measure_machine(terms, _shown_in(progress) if is_watched(console) else _logged())


def _shown_in(progress: Progress) -> Callable[[str, str, float, float], None]:
    task: Any = progress.add_task("starting", total=1.0, left="")

    def show(part: str, what: str, done: float, left: float) -> None:
        progress.update(task, description=f"{part}: {what}", completed=done, left=f"{_shown(left)} left")

    return show


def _logged() -> Callable[[str, str, float, float], None]:
    """Return a function that logs one line for each part."""
    told: set[str] = set()

    def tell(part: str, what: str, done: float, left: float) -> None:
        if part not in told:
            told.add(part)
            log.info("%s: %s; %s left", part, what, _shown(left))

    return tell


def _shown(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"


def _say_report(report: MachineReport, files: tuple[Path, Path]) -> None:
    from olmocr.reports.machine_text import CONTENTS

    for part in report.parts:
        say(f"{part.state:<11} {part.name:<22} {part.seconds:>6.1f} s")
        for why in part.why:
            say(f"{'':<11} {why}")
    json_file, markdown = files
    say(f"{markdown}: to read; {json_file}: to send. {CONTENTS}")


if __name__ == "__main__":
    app()
