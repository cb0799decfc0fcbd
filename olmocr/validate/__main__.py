"""The command ``python -m olmocr.validate``."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from olmocr.backends.config import one_or_several
from olmocr.errors import ExitCode, UsageError
from olmocr.terminal.command import (
    CommandWithBothSpellings,
    byte_columns,
    complain,
    counting_columns,
    ends_with_exit_code,
    in_this_commands_words,
    progress_bar,
    say,
    start_logging,
    with_ray_address,
)
from olmocr.terminal.options import JsonObject, MadeFrom, MaxTokens, ModelFolder, Quiet
from olmocr.text import printable
from olmocr.validate.pages import CheckedAnswer, check_answers

if TYPE_CHECKING:
    from olmocr.reports.fidelity import FidelityReport
    from olmocr.validate.weights.check import Check, WeightsReport
    from olmocr.validate.weights.difference import TensorError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


LongestSide = Annotated[
    int | None,
    typer.Option(min=28, max=8192, help="Pixels on the longest side of a page. Default: what suits it, or its source."),
]
KnownPages = Annotated[
    list[Path] | None,
    typer.Option(
        help="Documents, or folders of them, instead of the built-in pages; the true text of NAME.pdf is NAME.md."
    ),
]


@app.callback()
def validate() -> None:
    """Check whether answers and models are as they should be."""


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def pages(
    path: Annotated[Path, typer.Argument(help="One raw answer, or a folder of *.md and *.txt.", show_default=False)],
    strict: Annotated[
        bool, typer.Option("--strict", help="Accept only answers exactly like the training data.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each answer.")] = False,
) -> None:
    """Check raw answers of a model: front matter, fields, values.

    Ends with exit code 11 if an answer is invalid.
    """
    valid = broken = 0
    for answer in check_answers(path, "strict" if strict else "lenient"):
        valid += not answer.breaks
        broken += bool(answer.breaks)
        _say_json(answer) if as_json else _say_answer(answer)
    if not as_json:
        say(f"{valid} of {valid + broken} answers are valid")
    if broken:
        raise typer.Exit(ExitCode.GATE_FAILED)


def _say_answer(answer: CheckedAnswer) -> None:
    if not answer.breaks:
        say(f"{answer.path}: valid")
    for each in answer.breaks:
        say(f"{answer.path}:{each.line}: {each.rule}: {each.message}")


def _say_json(answer: CheckedAnswer) -> None:
    breaks = [dataclasses.asdict(each) for each in answer.breaks]
    say(json.dumps({"path": str(answer.path), "holds": not breaks, "breaks": breaks}))


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def weights(
    folder: Annotated[Path, typer.Argument(help="Any MLX model's folder.", show_default=False)],
    source: MadeFrom = None,
    as_json: JsonObject = False,
    quiet: Quiet = False,
) -> None:
    """Check that an MLX model's folder is complete: files, tensors, packing, values, hashes, loading in mlx-vlm.

    With --source, also how far each tensor is from its source. Ends with exit code 11 if it is broken.
    """
    from olmocr.validate.weights.check import check_weights

    console = start_logging(quiet=quiet)
    with progress_bar(console, *byte_columns(), quiet=quiet) as progress:
        task = progress.add_task("checking", total=None)
        report = check_weights(
            folder.expanduser(),
            source.expanduser() if source else None,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    say(json.dumps(_as_json(report))) if as_json else _say_report(report)
    if not report.holds:
        raise typer.Exit(ExitCode.GATE_FAILED)


_STATES = {True: "ok", False: "broken", None: "not checked"}
_MOST_PROBLEMS = 10
_MOST_ERRORS = 10


def _say_report(report: WeightsReport) -> None:
    for check in report.checks:
        say(f"{_STATES[check.holds]:<11}  {check.name:<7}  {check.detail}")
        for problem in check.problems[:_MOST_PROBLEMS]:
            say(f"{'':<22}{problem}")
        if len(check.problems) > _MOST_PROBLEMS:
            say(f"{'':<22}and {len(check.problems) - _MOST_PROBLEMS} more")
    if report.errors:
        say(f"the largest of {len(report.errors)} relative errors:")
    for error in report.errors[:_MOST_ERRORS]:
        say(_error_line(error))
    say(_verdict(report))


def _error_line(error: TensorError) -> str:
    relative = "none" if error.relative_error is None else f"{error.relative_error:.2e}"
    how = f"{error.bits} bits in groups of {error.group_size}" if error.group_size else f"kept in {error.bits} bits"
    return f"  {relative:<8}  {error.tensor}  ({how}{', padded' if error.padded else ''})"


def _verdict(report: WeightsReport) -> str:
    if not report.holds:
        return f"{report.folder} is broken: {', '.join(_names(report.checks, holds=False))}"
    bits = "" if report.bits_per_weight is None else f", {report.bits_per_weight:.2f} bits per weight"
    size = f"{report.tensors} tensors, {report.bytes / 1e9:.3f} GB{bits}"
    unknown = _names(report.checks, holds=None)
    reservation = f"; not checked: {', '.join(unknown)}" if unknown else ""
    return f"{report.folder} is complete: {size}{reservation}"


def _names(checks: tuple[Check, ...], *, holds: bool | None) -> list[str]:
    return [check.name for check in checks if check.holds is holds]


def _as_json(report: WeightsReport) -> dict[str, Any]:
    return {
        "folder": str(report.folder),
        "holds": report.holds,
        "checks": [
            {"check": check.name, "holds": check.holds, "detail": check.detail, "problems": check.problems}
            for check in report.checks
        ],
        "tensors": report.tensors,
        "bytes": report.bytes,
        "bits_per_weight": report.bits_per_weight,
        "errors": [dataclasses.asdict(error) for error in report.errors],
    }


class _SmokeCommand(CommandWithBothSpellings):
    """Takes ``--pdf a b c``."""

    several = ("--pdf",)


@app.command(cls=_SmokeCommand)
@ends_with_exit_code
def smoke(
    folder: ModelFolder,
    pdf: KnownPages = None,
    longest_side: LongestSide = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print smoke_report.json.")] = False,
    quiet: Quiet = False,
) -> None:
    """Have a converted model read pages through the complete pipeline, and check the results.

    Leaves smoke_report.json beside the weights. Ends with exit code 11 if a page fails.
    """
    from olmocr.reports.smoke import smoke_lines
    from olmocr.reports.typed_json import report_json
    from olmocr.validate.smoke.run import SmokeTerms, smoke_test

    console = start_logging(quiet=quiet)
    terms = SmokeTerms(tuple(path.expanduser() for path in pdf or ()), longest_side)
    with progress_bar(console, quiet=quiet) as progress:
        task = progress.add_task("reading", total=None)
        report = smoke_test(folder.expanduser(), terms, lambda: progress.advance(task))
    say(report_json(report).rstrip("\n")) if as_json else say("\n".join(smoke_lines(report)))
    if not report.passed:
        raise typer.Exit(ExitCode.GATE_FAILED)


class _FidelityCommand(CommandWithBothSpellings):
    """Takes ``--pages a b c``."""

    several = ("--pages",)


@app.command(cls=_FidelityCommand)
@ends_with_exit_code
def fidelity(
    folders: Annotated[
        list[Path], typer.Argument(help="Converted models' folders, all made from the same source.", show_default=False)
    ],
    source: Annotated[Path, typer.Option(help="The folder of their source.", show_default=False)],
    pages: KnownPages = None,
    longest_side: LongestSide = None,
    max_tokens: MaxTokens = 4000,
    gate: Annotated[bool, typer.Option("--gate", help="End with exit code 11 if a limit is broken.")] = False,
    gates: Annotated[
        Path | None, typer.Option(help="A YAML file of limits, instead of the packaged one.", show_default=False)
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for stored measurements. Default: one in the user's cache.")
    ] = None,
    reference: Annotated[
        Literal["transformers"] | None,
        typer.Option(help="Also compare the source in MLX with transformers on the CPU, which is slow."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML page with each page's image beside the texts, which may be private.",
            show_default=False,
        ),
    ] = None,
    html_pages: Annotated[int, typer.Option(min=1, help="Pages that --html shows in full, the worst first.")] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print fidelity_report.json, or a list for several models.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of all models as markdown.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure how far converted models' answers are from their source's: token by token, and as complete answers.

    Leaves fidelity_report.json beside each one's weights. An interrupted measurement resumes where it stopped.
    """
    from olmocr.validate.fidelity.gates import check_gates, read_gates
    from olmocr.validate.fidelity.html import html_target, write_fidelity_html
    from olmocr.validate.fidelity.measure import FidelityTerms, compare, distinct_folders, write_fidelity_report

    console = start_logging(quiet=quiet)
    models = distinct_folders(folders)
    target = html_target(html, [*models, source]) if html else None
    limits = read_gates(gates.expanduser() if gates else None)
    given = tuple(path.expanduser() for path in pages or ())
    terms = FidelityTerms(given, longest_side, max_tokens, work.expanduser() if work else None, reference)
    with progress_bar(console, *counting_columns(), quiet=quiet) as progress:
        task = progress.add_task("loading", total=None)

        def show(name: str, total: int) -> None:
            progress.update(task, description=printable(name), total=total, advance=1)

        with compare(models, source.expanduser(), terms, show) as measured:
            reports = tuple(
                dataclasses.replace(report, gate=check_gates(report, limits, gates)) for report in measured.reports
            )
            for folder, report in zip(models, reports, strict=True):
                write_fidelity_report(folder, report)
            if target:
                nbytes = write_fidelity_html(target, dataclasses.replace(measured, reports=reports), html_pages)
    _say_fidelity(reports, as_json=as_json, markdown=markdown)
    if target:
        complain(f"{target}: {nbytes / 1e6:.1f} MB; it contains the pages' images and text")
    if gate and not all(report.gate and report.gate.passed for report in reports):
        raise typer.Exit(ExitCode.GATE_FAILED)


def _say_fidelity(reports: Sequence[FidelityReport], *, as_json: bool, markdown: bool) -> None:
    from olmocr.reports.fidelity import fidelity_lines
    from olmocr.reports.typed_json import report_json
    from olmocr.validate.fidelity.ladder import ladder_lines, ladder_markdown

    if as_json and len(reports) > 1:
        say(json.dumps([dataclasses.asdict(report) for report in reports], indent=2, allow_nan=False))
    elif as_json:
        say(report_json(reports[0]).rstrip("\n"))
    elif markdown:
        say(ladder_markdown(reports).rstrip("\n"))
    else:
        say("\n".join(ladder_lines(reports) if len(reports) > 1 else fidelity_lines(reports[0])))


class _BenchCommand(CommandWithBothSpellings):
    """Takes ``--ray`` without an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_ray_address(args))


@app.command(cls=_BenchCommand)
@ends_with_exit_code
def bench(
    directory: Annotated[
        str,
        typer.Option(
            "--dir",
            metavar="FOLDER|URL",
            help="A folder in olmOCR-bench's layout, pdfs and *.jsonl; or such a place in a bucket, s3://…",
            show_default=False,
        ),
    ],
    folder: Annotated[Path | None, typer.Argument(help="A converted model's folder.", show_default=False)] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Score the answers in a folder, instead of a model: NAME_pg1_repeat1.md, or NAME.md of one page.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the report on --answers. Default: do not write one.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="What to compare with: another model's folder, a folder of answers, or a bench_report.json.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Read only this many documents of each folder, always the same; not a full run."),
    ] = None,
    katex: Annotated[
        Path | None, typer.Option(help="Folder of KaTeX, for formulas. Default: its npm package, if found.")
    ] = None,
    browser: Annotated[
        str | None,
        typer.Option(
            envvar="OLMOCR_BROWSER",
            help="A Chromium, Chrome, Edge or Brave to draw formulas. Default: an installed one.",
        ),
    ] = None,
    longest_side: LongestSide = None,
    max_tokens: MaxTokens = 8000,
    max_attempts: Annotated[int, typer.Option(min=1, help="Attempts at a page, including the first.")] = 8,
    server: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A server with the model, which reads the pages; repeat it for several."),
    ] = None,
    server_model: Annotated[str | None, typer.Option(help="The model's name there, if the server has several.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="[ADDR]", help="Read on a Ray cluster: auto, HOST:PORT, or no value to start Ray."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for stored results of pages. Default: one in the user's cache."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print bench_report.json.")] = False,
    quiet: Quiet = False,
) -> None:
    """Have a converted model read a benchmark's pages through the complete pipeline, and score it like olmOCR-bench.

    Leaves bench_report.json beside the weights. An interrupted run resumes with its current page. With --answers,
    existing answers are scored. Formulas need a browser and KaTeX.
    """
    from olmocr.reports.bench import bench_lines
    from olmocr.reports.typed_json import report_json
    from olmocr.validate.bench.fetch import bench_folder
    from olmocr.validate.bench.formulas.draw import find_draftsman
    from olmocr.validate.bench.run import (
        BenchTerms,
        compared,
        default_bench_work,
        other_run,
        run_bench,
        score_answers,
        write_bench,
    )

    if (folder is None) == (answers is None):
        raise UsageError("give either a model's folder, or a folder of answers as `answers`")
    if answers and (server or ray):
        asked = "`server`" if server else "`ray`"
        raise UsageError(f"`answers` already exist, so {asked} is not needed; leave out one of the two")
    if output and not answers:
        raise UsageError("a model's report is written beside its weights; use `output` only with `answers`")
    console = start_logging(quiet=quiet)
    terms = BenchTerms(
        longest_side=longest_side,
        sample=sample,
        work=work.expanduser() if work else None,
        max_tokens=max_tokens,
        max_attempts=max_attempts,
        server=one_or_several(server),
        server_model=server_model,
        ray=ray,
        draftsman=functools.cache(lambda: find_draftsman(katex.expanduser() if katex else None, browser)),
    )
    bench = bench_folder(directory, terms.work or default_bench_work())
    with progress_bar(console, quiet=quiet) as progress:
        task = progress.add_task("reading", total=None)

        def advance() -> None:
            progress.advance(task)

        earlier = other_run(against.expanduser(), bench, terms, advance) if against else None
        if folder is not None:
            folder = folder.expanduser()
            home: Path | None = folder
            run = run_bench(folder, bench, terms, advance)
        elif answers is not None:
            home = output.expanduser() if output else None
            run = score_answers(answers.expanduser(), bench, terms)
    if earlier:
        run = compared(run, earlier)
    if home is not None:
        write_bench(home, run)
    lines = in_this_commands_words("\n".join(bench_lines(run.report)))
    say(report_json(run.report).rstrip("\n") if as_json else lines)


if __name__ == "__main__":
    app()
