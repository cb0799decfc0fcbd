"""A converted folder and a benchmark -> BenchReport: the pipeline reads the pages, and their text is checked."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError, UsageError
from olmocr.files import cache_folder, write_whole
from olmocr.inputs.local_file import content_hash
from olmocr.model_folder import ModelFolder, read_config
from olmocr.page import Ask
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import run_pipeline_sync
from olmocr.reports.bench import (
    ANSWERS,
    BENCH_CHECKS_FILE,
    BENCH_REPORT_FILE,
    BenchReport,
    CategoryScore,
    Comparison,
    Outcome,
    TypeCount,
    outcomes_jsonl,
)
from olmocr.reports.parts import Interval
from olmocr.reports.typed_json import parse_as, report_json
from olmocr.runtime.facts import machine, versions, weight_hashes
from olmocr.strays import files_in
from olmocr.validate.bench.answers import Readings, read_answers
from olmocr.validate.bench.checks import BenchCheck, BenchSet, Formula, Phrase, read_bench_set
from olmocr.validate.bench.formulas.draw import CannotDrawError, Draftsman
from olmocr.validate.bench.formulas.drawn import Drawings
from olmocr.validate.bench.rules import formulas_to_draw, holds
from olmocr.validate.bench.statistics import CONFIDENCE, CheckCounts, compare, interval, mcnemar, overall, tally
from olmocr.validate.known_pages.page_set import longest_side_for
from olmocr.validate.score import places, similarity
from olmocr.workspace.document import PageRecord
from olmocr.workspace.records import Records

logger = logging.getLogger(__name__)

_FORMAT = 1  # of the workspace's name; another one is read anew
_READERS = ("olmocr", "mlx", "mlx-vlm")
_SIGNIFICANT = 1 - CONFIDENCE


def _nobody() -> Draftsman:
    raise CannotDrawError("no program to draw them was given")


@dataclass(frozen=True)
class BenchTerms:
    """The options of a run: *longest_side* is in pixels, None for what suits the model.

    *sample* is how many documents of each category to read, None for all. *work* is the folder for stored results of
    pages, None for one in the user's cache. *server* is the address of one that has the model, or of several that do,
    and answers instead of this process; *server_model* is its name there, None if it is the same. *ray* is the address
    of a Ray cluster whose machines have the folder, and read the pages. *ask* replaces all of these. *draftsman* finds
    a program to draw formulas, and is called if there are any.
    """

    longest_side: int | None = None
    sample: int | None = None
    work: Path | None = None
    max_tokens: int = 8000
    max_attempts: int = 8
    server: str | tuple[str, ...] | None = None
    server_model: str | None = None
    ray: str | None = None
    ask: Ask | None = None
    draftsman: Callable[[], Draftsman] = _nobody


@dataclass(frozen=True)
class BenchRun:
    """A report, and the outcome of each check in it."""

    report: BenchReport
    outcomes: tuple[Outcome, ...]


OnPage = Callable[[], None]


@dataclass(frozen=True)
class _Chosen:
    """The part of a benchmark to run, the complete benchmark, and the program to draw its formulas, or why none."""

    full: BenchSet
    part: BenchSet
    draftsman: Draftsman | None
    why_not_drawn: str
    started: float


@dataclass(frozen=True)
class _Reader:
    """What a report says about who read the pages."""

    model: str
    weights: dict[str, str]
    backend: str
    longest_side: int | None = None
    max_tokens: int | None = None
    answers_sha256: str | None = None


def run_bench(folder: Path, bench: Path, terms: BenchTerms = BenchTerms(), on_page: OnPage = lambda: None) -> BenchRun:
    """Have the model in *folder* read a benchmark's pages, score them, and leave the report beside its weights.

    An interrupted run resumes with its current page; *on_page* is called after each page.

    Raises:
        CheckpointError: *folder* does not hold a loadable model.
        InputError: the benchmark is invalid.
        MissingDependencyError: MLX, mlx-vlm, rapidfuzz or fuzzysearch is not installed.
        OutputError: the report cannot be written.
        ServerError: the server cannot be used.
    """
    started = _begun()
    read_config(ModelFolder(folder))
    weights = weight_hashes(folder)
    chosen = _choose(bench, terms, started)
    side = terms.longest_side or longest_side_for(folder)
    readings = _read_pages(folder, chosen.part, _workspace(weights, side, terms), side, terms, on_page)
    backend = "server" if terms.server else "mlx"
    run = _scored(bench, chosen, readings, _Reader(_name(folder), weights, backend, side, terms.max_tokens))
    write_bench(folder, run)
    return run


def score_answers(answers: Path, bench: Path, terms: BenchTerms = BenchTerms()) -> BenchRun:
    """Score the answers in a folder, as :func:`read_answers` finds them; write nothing.

    Raises:
        InputError: the benchmark or the answers are invalid.
        MissingDependencyError: rapidfuzz or fuzzysearch is not installed.
    """
    chosen = _choose(bench, terms, _begun())
    found = read_answers(answers, chosen.part)
    return _scored(bench, chosen, found.readings, _Reader(_name(answers), {}, ANSWERS, answers_sha256=found.sha256))


def _begun() -> float:
    """Return the start time of a run. Missing libraries are reported now, not after hours of reading."""
    started = time.monotonic()
    similarity("", "")
    places("a", "", 0)
    return started


def _name(folder: Path) -> str:
    return folder.resolve().name


def _choose(bench: Path, terms: BenchTerms, started: float) -> _Chosen:
    full = read_bench_set(bench)
    part = _sampled(full, terms.sample)
    draftsman, why = None, ""
    if any(isinstance(check.rule, Formula) for check in part.checks):
        try:
            draftsman = terms.draftsman()
        except CannotDrawError as error:
            why = str(error)
            logger.warning("formulas will not be scored: %s", why)
    return _Chosen(full, part, draftsman, why, started)


def _scored(bench: Path, chosen: _Chosen, readings: Readings, reader: _Reader) -> BenchRun:
    """Return the results of the checks, and the report."""
    full, part = chosen.full, chosen.part
    drawings, why_not_drawn = _drawings(chosen, readings)
    outcomes = tuple(_outcome(check, readings, drawings) for check in part.checks)
    tallied = tally(outcomes)
    pages = {(check.document, check.page) for check in part.checks}
    without = sum(all(text is None for text in readings.get(page, ())) for page in pages)
    skipped = {"math": f"formulas are compared as drawn by a browser with KaTeX, but {why_not_drawn}"}
    why = tuple(_why_incomplete(chosen, outcomes, skipped, without if reader.backend == ANSWERS else 0))
    report = BenchReport(
        **dataclasses.asdict(reader),
        data_set=_name(bench),
        checks_sha256=full.checks_sha256,
        revision=full.revision,
        complete=not why,
        incomplete=why,
        score=tallied.overall() if tallied.categories else None,
        interval=interval(overall(tallied.scores(tallied.draws()))) if len(tallied.documents) > 1 else None,
        categories=tuple(_categories(outcomes, tallied)),
        types=tuple(_types(outcomes, skipped)),
        documents=len(part.documents),
        documents_left_out=len(full.documents) - len(part.documents),
        pages=len(pages),
        pages_without_answer=without,
        absent_in_nothing=sum(_is_empty_pass(check, readings) for check in part.checks),
        comparison=None,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=machine(),
        seconds=round(time.monotonic() - chosen.started, 2),
        versions={**versions(), **(chosen.draftsman.versions if chosen.draftsman else {})},
    )
    return BenchRun(report, outcomes)


def _drawings(chosen: _Chosen, readings: Readings) -> tuple[Drawings | None, str]:
    """Return the drawings of all formulas needed; or none, and why."""
    if chosen.draftsman is None:
        return None, chosen.why_not_drawn
    wanted = [
        formula
        for check in chosen.part.checks
        for text in readings.get((check.document, check.page), ())
        for formula in formulas_to_draw(check, text or "")
    ]
    logger.info("drawing %d formulas", len(set(wanted)))
    try:
        drawings = chosen.draftsman.draw(wanted)
    except CannotDrawError as error:
        return None, str(error)
    odd = [check.id for check in chosen.part.checks if _is_undrawn(check, drawings)]
    if odd:
        logger.warning("%d formulas in checks cannot be drawn, the first in %s", len(odd), odd[0])
    return drawings, ""


def _is_undrawn(check: BenchCheck, drawings: Drawings) -> bool:
    return isinstance(check.rule, Formula) and drawings.get(check.rule.math, True) is None


def write_bench(folder: Path, run: BenchRun) -> None:
    """Write bench_report.json and bench_checks.jsonl beside the weights.

    Raises:
        OutputError: they cannot be written.
    """
    write_whole(folder / BENCH_CHECKS_FILE, outcomes_jsonl(run.outcomes))
    write_whole(folder / BENCH_REPORT_FILE, report_json(run.report))


@dataclass(frozen=True)
class EarlierRun:
    """What identifies an earlier run, and its outcomes."""

    model: str
    weights: Mapping[str, str]
    checks_sha256: str
    outcomes: tuple[Outcome, ...] = ()


def read_earlier(path: Path) -> EarlierRun:
    """Return what an earlier run left in a model's folder, given as the folder or its report.

    Raises:
        InputError: it is missing, unusable, or about other weights than those beside it.
    """
    folder = path.parent if path.name == BENCH_REPORT_FILE else path
    report_path, checks_path = folder / BENCH_REPORT_FILE, folder / BENCH_CHECKS_FILE
    try:
        run = parse_as(EarlierRun, report_path.read_text(encoding="utf-8"))
        lines = checks_path.read_text(encoding="utf-8").splitlines()
        run = dataclasses.replace(run, outcomes=tuple(parse_as(Outcome, line) for line in lines))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing; run the benchmark on that model first") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{report_path} and {checks_path.name} cannot be used: {error}; make them again") from error
    has_weights = bool(files_in(folder, ".safetensors"))  # reports may be here without them
    if has_weights and run.weights != weight_hashes(folder):
        raise InputError(f"{report_path} is about other weights than those beside it; run the benchmark again")
    return run


def other_run(path: Path, bench: Path, terms: BenchTerms, on_page: OnPage = lambda: None) -> EarlierRun:
    """Return a run to compare with: of a model, measured first if it lacks a report, or of answers.

    A server has one model, not the one in *path*, so that one reads in this process.

    Raises:
        OlmocrError: as :func:`run_bench`, :func:`score_answers` and :func:`read_earlier` do.
    """
    if not path.is_dir() or (path / BENCH_REPORT_FILE).exists():
        return read_earlier(path)
    if files_in(path, ".safetensors"):
        run = run_bench(path, bench, dataclasses.replace(terms, server=None, server_model=None), on_page)
    else:
        run = score_answers(path, bench, terms)
    return EarlierRun(run.report.model, run.report.weights, run.report.checks_sha256, run.outcomes)


def compared(run: BenchRun, other: EarlierRun) -> BenchRun:
    """Return *run* with a comparison to another model's outcomes of the same checks.

    Raises:
        UsageError: the two runs used different checks.
    """
    if other.checks_sha256 != run.report.checks_sha256:
        raise UsageError(f"{other.model} was measured with other checks than {run.report.model}; use the same data set")
    theirs = {outcome.id: outcome for outcome in other.outcomes if outcome.passed is not None}
    ours = [outcome for outcome in run.outcomes if outcome.passed is not None and outcome.id in theirs]
    if not ours:
        raise UsageError(f"no check was scored for both {other.model} and {run.report.model}; use the same documents")
    matched = [theirs[outcome.id] for outcome in ours]
    found = compare(tally(ours), tally(matched))
    alone = Counter((one.passed, two.passed) for one, two in zip(ours, matched, strict=True))
    only_this, only_other = alone[True, False], alone[False, True]
    comparison = Comparison(
        other=other.model,
        other_weights=other.weights,
        documents=_documents(ours),
        checks=len(ours),
        score=found.score,
        other_score=found.other_score,
        difference=found.difference,
        interval=found.interval,
        p_value=found.p_value,
        only_this=only_this,
        only_other=only_other,
        mcnemar_p_value=mcnemar(only_this, only_other),
        verdict=_verdict(run.report.model, other.model, found.difference, found.interval, found.p_value, len(ours)),
    )
    return BenchRun(dataclasses.replace(run.report, comparison=comparison), run.outcomes)


def _verdict(model: str, other: str, difference: float, within: Interval, p_value: float, checks: int) -> str:
    between = f"{100 * within.low:+.1f} to {100 * within.high:+.1f}"
    numbers = f"{100 * difference:+.1f} points, {within.confidence:.0%}: {between}, p {p_value:.3f}"
    if p_value < _SIGNIFICANT:
        how = "better" if difference > 0 else "worse"
        return f"{model} reads {how} than {other} by these {checks} checks: {numbers}"
    return f"{model} does not differ significantly from {other} in these {checks} checks: {numbers}"


def _read_pages(
    folder: Path, bench: BenchSet, workspace: Path, side: int, terms: BenchTerms, on_page: OnPage
) -> Readings:
    """Return the one reading of each page; pages in the workspace are not read again."""
    paths = {document: bench.document_path(document) for document in bench.documents}
    config = PipelineConfig(
        workspace=workspace,
        pdfs=tuple(str(path) for path in paths.values()),
        model=terms.server_model if terms.server else str(folder),
        server=terms.server,
        ray=terms.ray,
        target_longest_image_dim=side,
        max_page_retries=terms.max_attempts,
        max_tokens=terms.max_tokens,
    )
    run_pipeline_sync(config, on_page=lambda source, record: on_page(), ask=terms.ask)
    with Records(workspace) as records:
        return {
            (document, number): (_text(record),)
            for document, path in paths.items()
            for number, record in records.pages(content_hash(path, str(path))).items()
        }


def _text(record: PageRecord) -> str | None:
    """Return a page's text; a fallback page holds the file's own text, which the model did not read."""
    return None if record.is_fallback else record.response.natural_text or ""


def _workspace(weights: dict[str, str], side: int, terms: BenchTerms) -> Path:
    """Return the folder for pages read by this model with these options and these versions of the software."""
    readers = {name: version for name, version in versions().items() if name in _READERS}
    # Several servers must have the same model, so it does not matter which they are.
    several = terms.server if isinstance(terms.server, str) else "several"
    of_server = [several, terms.server_model] if terms.server else []
    parts = [_FORMAT, weights, side, terms.max_tokens, terms.max_attempts, readers, *of_server]
    key = json.dumps(parts, sort_keys=True)
    return (terms.work or default_bench_work()) / hashlib.sha256(key.encode()).hexdigest()[:16]


def default_bench_work() -> Path:
    """Return the default folder for pages, in the user's cache."""
    return cache_folder("bench")


def _sampled(full: BenchSet, count: int | None) -> BenchSet:
    """Return this many documents of each folder of the benchmark, always the same ones, and their checks."""
    if count is None:
        return full
    folders: dict[str, list[str]] = {}
    for document in sorted(full.documents, key=lambda name: hashlib.sha256(name.encode()).digest()):
        folders.setdefault(document.rpartition("/")[0], []).append(document)
    kept = {document for documents in folders.values() for document in documents[:count]}
    return dataclasses.replace(
        full,
        documents=tuple(document for document in full.documents if document in kept),
        checks=tuple(check for check in full.checks if check.document in kept),
    )


def _outcome(check: BenchCheck, readings: Readings, drawings: Drawings | None) -> Outcome:
    """Return a check's result: of several readings more than half must pass, and one without an answer fails."""
    texts = readings.get((check.document, check.page), ())
    held = [holds(check, text or "", drawings) and text is not None for text in texts or (None,)]
    passed = None if None in held else sum(map(bool, held)) > len(held) / 2
    return Outcome(check.id, check.type, check.category, check.document, check.page, passed)


def _is_empty_pass(check: BenchCheck, readings: Readings) -> bool:
    texts = readings.get((check.document, check.page), ())
    is_absent = isinstance(check.rule, Phrase) and check.rule.absent
    return is_absent and bool(texts) and all(text is not None and not text.strip() for text in texts)


def _categories(outcomes: Sequence[Outcome], tallied: CheckCounts) -> Iterable[CategoryScore]:
    drawn = tallied.scores(tallied.draws())
    columns = {name: number for number, name in enumerate(tallied.categories)}
    for name in dict.fromkeys(outcome.category for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.category == name]
        scored = [outcome for outcome in own if outcome.passed is not None]
        passed = sum(bool(outcome.passed) for outcome in scored)
        yield CategoryScore(
            category=name,
            documents=_documents(own),
            scored=len(scored),
            passed=passed,
            skipped=len(own) - len(scored),
            score=passed / len(scored) if scored else None,
            interval=interval(drawn[:, columns[name]]) if _documents(scored) > 1 else None,
        )


def _documents(outcomes: Iterable[Outcome]) -> int:
    return len({outcome.document for outcome in outcomes})


def _types(outcomes: Sequence[Outcome], why_skipped: Mapping[str, str]) -> Iterable[TypeCount]:
    scored = Counter(outcome.type for outcome in outcomes if outcome.passed is not None)
    passed = Counter(outcome.type for outcome in outcomes if outcome.passed)
    for name, count in sorted(Counter(outcome.type for outcome in outcomes).items()):
        skipped = count - scored[name]
        yield TypeCount(name, scored[name], passed[name], skipped, why_skipped[name] if skipped else None)


def _why_incomplete(
    chosen: _Chosen, outcomes: Sequence[Outcome], why_skipped: Mapping[str, str], without_answer: int
) -> Iterable[str]:
    left_out = len(chosen.full.documents) - len(chosen.part.documents)
    if left_out:
        yield f"{left_out} of {len(chosen.full.documents)} documents were left out"
    if without_answer:
        yield f"{without_answer} pages have no answer in the folder, so all their checks failed"
    for each in _types(outcomes, why_skipped):
        if each.skipped:
            yield f"{each.skipped} checks of type {each.type} were not scored: {each.why_skipped}"
