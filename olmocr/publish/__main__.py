"""The command ``python -m olmocr.publish``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from olmocr.errors import ExitCode, UsageError, output_error
from olmocr.files import write_whole
from olmocr.terminal import options
from olmocr.terminal.command import (
    CommandWithBothSpellings,
    byte_columns,
    ends_with_exit_code,
    progress_bar,
    say,
    start_logging,
)
from olmocr.terminal.options import BaseModel, License, MadeFrom, Quiet
from olmocr.terminal.stage_view import shown_download

if TYPE_CHECKING:
    from olmocr.hub.write import Hub
    from olmocr.model_folder import ModelFolder
    from olmocr.publish.card import Variant

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

_log = logging.getLogger("olmocr.publish")

_WHERE = "Where it goes"

Folder = Annotated[Path, typer.Argument(help="A folder that olmocr.convert_to_mlx made.", show_default=False)]
Sibling = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR|ORG/NAME",
        help="Another variant, a folder or a repository, to list in the card's tables; can be repeated.",
    ),
]


@app.callback()
def publish() -> None:
    """Describe a converted model, and put it on the Hub."""


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def card(
    folder: Folder,
    repo: Annotated[str | None, typer.Option(help="ORG/NAME to publish it as.")] = None,
    sibling: Sibling = None,
    base_model: BaseModel = None,
    license_id: License = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: README.md in DIR.")
    ] = None,
) -> None:
    """Write a model's card from the reports beside it; it says what was not measured."""
    from olmocr.hub.write import Hub
    from olmocr.publish.card import make_card, make_chart
    from olmocr.publish.front_matter import find_facts
    from olmocr.publish.scan import CHART_FILE
    from olmocr.publish.siblings import read_repository, tell_apart
    from olmocr.runtime.origin import package_repository

    siblings = tell_apart(sibling or [])
    variant, others = _variants(folder, repo, siblings.folders)
    remote = [read_repository(each, Hub()) for each in siblings.repositories]
    rows = [each.row for each in (*others, *remote)]
    facts = find_facts(variant.reports.conversion, base_model, license_id)
    file = output.expanduser() if output else folder.expanduser() / "README.md"
    _write(file, make_card(variant, facts, rows, repository=package_repository()))
    chart = make_chart([variant.row, *rows])
    if chart:
        _write(file.parent / CHART_FILE, chart)
    _write_eval_results(file.parent, variant)
    say(f"{file}: {'with' if chart else 'without'} a chart of size against fidelity")


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def push(
    folder: Folder,
    repo: Annotated[str, typer.Option(help="ORG/NAME; created if it does not exist.", rich_help_panel=_WHERE)],
    private: Annotated[bool, options.private(_WHERE)] = False,
    create_pr: Annotated[
        bool,
        typer.Option(
            "--create-pr", help="Offer it as a pull request to an existing repository.", rich_help_panel=_WHERE
        ),
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch to push to, or refs/pr/N to continue a pull request. Default: main.", rich_help_panel=_WHERE
        ),
    ] = None,
    collection: Annotated[str | None, options.collection(_WHERE)] = None,
    sibling: Sibling = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Drop the other variants listed in the card on the Hub.")
    ] = False,
    base_model: BaseModel = None,
    license_id: License = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every file and what would change, without changing it.")
    ] = False,
    card_file: Annotated[
        Path | None,
        typer.Option("--card", metavar="FILE", help="Also write the card to a file, so that you can look at it."),
    ] = None,
    allow_failing: Annotated[
        list[str] | None,
        typer.Option(metavar="GATE", help="Publish even if weights, smoke or fidelity failed; the card says so."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a repository that this package did not make.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Publish a model that is complete, reads, and is close to its source: weights first, the card last.

    Run it again after any failure: files already on the Hub are not sent again.
    """
    from olmocr.hub.write import Hub
    from olmocr.publish.front_matter import find_facts
    from olmocr.publish.push import Push, card_text, carry_out, plan_push, show_plan
    from olmocr.publish.siblings import tell_apart

    start_logging(quiet=quiet)
    named = tell_apart(sibling or [])
    allowed = tuple(allow_failing or ())
    asked = Push(repo, private, create_pr, revision, force, allowed, collection, alone, named.repositories)
    variant, siblings = _variants(folder, repo, named.folders)
    hub = Hub()
    plan = plan_push(asked, variant, siblings, find_facts(variant.reports.conversion, base_model, license_id), hub)
    if card_file:
        _write(card_file.expanduser(), card_text(plan))
    if dry_run:
        say(show_plan(plan))
        return
    done = carry_out(plan, hub, _log.info)
    say(f"{done.where}: {len(done.uploaded)} files uploaded, {len(done.deleted)} deleted, at {done.sha}")


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def reproduce(
    folder: Folder,
    source: Annotated[
        str | None, typer.Option(help="Folder or repository of the source. Default: the one in the report.")
    ] = None,
    calibrate_on: Annotated[
        list[Path] | None,
        typer.Option(help="The pages used for calibration, unless they were drawn.", show_default=False),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Convert the source again, as conversion_report.json says, and compare: the bytes should be the same.

    Calibrated models come out the same only on the same kind of machine. Ends with exit code 11 if they differ.
    """
    from olmocr.publish.reproduce import reproduce as convert_again

    console = start_logging(quiet=quiet)
    with progress_bar(console, *byte_columns(), quiet=quiet) as progress:
        task = progress.add_task("converting again", total=None)
        pages = [path.expanduser() for path in calibrate_on or ()]
        found = convert_again(folder.expanduser(), source, lambda nbytes: progress.advance(task, nbytes), pages)
    for file in found.files:
        say(f"{'same' if file.same else 'OTHER':<6}  {file.name}  {file.detail}")
    for name, (then, now) in found.versions.items():
        say(f"{name} was {then} and is {now}")
    if not found.source_is_same:
        say("the source is not the one in the report, by the hashes of its shards")
    if not found.pages_are_same:
        say("the calibration pages are not the ones in the report, by their hashes")
    say(f"{folder} {'is' if found.holds else 'is NOT'} reproduced by its report")
    if not found.holds:
        raise typer.Exit(ExitCode.GATE_FAILED)


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def audit(
    model: Annotated[str, typer.Argument(help="Any MLX model: its folder, or a Hub repository.")],
    source: MadeFrom = None,
    base_model: BaseModel = None,
    license_id: License = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write a corrected card there.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Offer the corrected card to the repository.")] = False,
    quiet: Quiet = False,
) -> None:
    """Look at an MLX model: its actual bits, settings, template, files, card. Ends with 11 if one is wrong."""
    from olmocr.hub.find import find_model
    from olmocr.hub.write import Hub
    from olmocr.publish.audit import audit_lines, audit_model, corrected_card
    from olmocr.publish.front_matter import stated_facts
    from olmocr.publish.push import offer_card

    console = start_logging(quiet=quiet)
    facts = stated_facts(base_model, license_id)
    with shown_download(console, quiet=quiet) as on_stage:
        folder = find_model(model, on_stage=on_stage)
    if create_pr and folder.repo_id is None:
        raise UsageError(f"{model} is a local folder; --create-pr offers the card to a repository, so name that")
    hub = Hub() if folder.repo_id else None
    card_text = _card_of(folder, hub)
    found = audit_model(folder, card_text, source.expanduser() if source else None, facts=facts)
    for line in audit_lines(found):
        say(line)
    corrected = corrected_card(found, card_text, facts)
    if output:
        _write(output.expanduser(), corrected)
        say(f"{output}: a corrected card")
    if create_pr and hub and folder.repo_id:
        say(f"{offer_card(hub, folder.repo_id, corrected)}: the corrected card is offered")
    if not found.holds:
        raise typer.Exit(ExitCode.GATE_FAILED)


def _card_of(model: ModelFolder, hub: Hub | None) -> str:
    """Return a model's card; a repository's is not among the files downloaded with it."""
    from olmocr.publish.scan import CARD_FILE

    if hub is None or model.repo_id is None:
        path = model.path / CARD_FILE
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    state = hub.read_state(model.repo_id, model.revision)
    there = state.files.get(CARD_FILE) if state else None
    if state is None or there is None:
        return ""
    return hub.read_text(model.repo_id, state.sha, CARD_FILE, there.size) or ""


def _variants(folder: Path, repo: str | None, siblings: Sequence[Path]) -> tuple[Variant, list[Variant]]:
    """Read *folder* and *siblings*, under their folders' names, in the organisation of *repo*."""
    from olmocr.publish.card import Variant
    from olmocr.publish.folder_reports import read_reports
    from olmocr.publish.front_matter import REPO_ID

    if repo is not None and not REPO_ID.fullmatch(repo):
        raise UsageError(f"--repo {repo} is not a repository's name; give one like ORG/NAME")
    organisation = f"{repo.partition('/')[0]}/" if repo else ""
    others = [Variant(f"{organisation}{path.resolve().name}", read_reports(path)) for path in siblings]
    return Variant(repo or folder.resolve().name, read_reports(folder.expanduser())), others


def _write_eval_results(folder: Path, variant: Variant) -> None:
    """Write the score of a full benchmark run, or say why there is none."""
    from olmocr.publish.eval_results import eval_results, why_no_score
    from olmocr.publish.scan import EVAL_RESULTS_FILE

    bench = variant.reports.bench
    if bench is None:
        return
    file, reasons = folder / EVAL_RESULTS_FILE, why_no_score(bench)
    if reasons:
        say(f"no {file}, because this is not a full run of olmOCR-bench: {'; '.join(reasons)}")
        return
    text = eval_results(bench, variant.reports.conversion.bits_per_weight, variant.title)
    write_whole(file, text)
    say(f"{file}: the score of olmOCR-bench")


def _write(path: Path, text: str) -> None:
    """Write a file, replacing a link of its name; something that is not a file, like a pipe, is written to."""
    if path.is_file() or (path.parent.is_dir() and not path.exists()):
        write_whole(path, text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise output_error(error, str(path)) from error


if __name__ == "__main__":
    app()
