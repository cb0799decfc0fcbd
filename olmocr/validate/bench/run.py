"""A converted folder and a benchmark -> BenchReport: the pipeline reads its pages, and their text is checked."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
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
from olmocr.validate.bench.checks import SKIPPED_TYPES, BenchCheck, BenchSet, Phrase, read_bench_set
from olmocr.validate.bench.rules import holds
from olmocr.validate.bench.statistics import CONFIDENCE, CheckCounts, compare, interval, mcnemar, overall, tally
from olmocr.validate.known_pages.page_set import longest_side_for
from olmocr.validate.score import places, similarity
from olmocr.workspace.document import PageRecord
from olmocr.workspace.records import Records

_FORMAT = 1  # of the workspace's name; another one is read anew
_READERS = ("olmocr", "mlx", "mlx-vlm")
_SIGNIFICANT = 1 - CONFIDENCE


@dataclass(frozen=True)
class BenchTerms:
    """On which terms a model is tried: *longest_side* is in pixels, None for what suits the model.

    *sample* is how many documents of each category are read, None for all. *work* is the folder in which pages that
    were read are kept, None for one in the user's cache. *ask* answers instead of the folder's model.
    """

    longest_side: int | None = None
    sample: int | None = None
    work: Path | None = None
    max_tokens: int = 8000
    max_attempts: int = 8
    ask: Ask | None = None


@dataclass(frozen=True)
class BenchRun:
    """A report, and the outcome of each check that it counts."""

    report: BenchReport
    outcomes: tuple[Outcome, ...]


Texts = Mapping[tuple[str, int], str | None]
"""The text of each page by its document and number; None where no answer was good."""

OnPage = Callable[[], None]


def run_bench(folder: Path, bench: Path, terms: BenchTerms = BenchTerms(), on_page: OnPage = lambda: None) -> BenchRun:
    """Have the model in *folder* read a benchmark's pages, score them, and leave the report beside its weights.

    A run that is interrupted goes on where it was; *on_page* is called after each page that is read.

    Raises:
        CheckpointError: *folder* holds no model that can be loaded.
        InputError: the benchmark is not what it should be.
        MissingDependencyError: MLX, mlx-vlm, rapidfuzz or fuzzysearch is not installed.
        OutputError: the report cannot be written.
    """
    started = time.monotonic()
    # Where a library is missing, that is said now and not after hours of reading.
    similarity("", "")
    places("a", "", 0)
    read_config(ModelFolder(folder))
    weights = weight_hashes(folder)
    full = read_bench_set(bench)
    chosen = _sampled(full, terms.sample)
    side = terms.longest_side or longest_side_for(folder)
    texts = _read_pages(folder, chosen, _workspace(weights, side, terms), side, terms, on_page)
    outcomes = tuple(_outcome(check, texts) for check in chosen.checks)
    tallied = tally(outcomes)
    pages = {(check.document, check.page) for check in chosen.checks}
    why = tuple(_why_incomplete(full, chosen))
    report = BenchReport(
        model=folder.resolve().name,
        weights=weights,
        backend="mlx",
        data_set=bench.resolve().name,
        checks_sha256=full.checks_sha256,
        revision=full.revision,
        longest_side=side,
        max_tokens=terms.max_tokens,
        complete=not why,
        incomplete=why,
        score=tallied.overall() if tallied.categories else None,
        interval=interval(overall(tallied.scores(tallied.draws()))) if len(tallied.documents) > 1 else None,
        categories=tuple(_categories(outcomes, tallied)),
        types=tuple(_types(outcomes)),
        documents=len(chosen.documents),
        documents_left_out=len(full.documents) - len(chosen.documents),
        pages=len(pages),
        pages_without_answer=sum(texts.get(page) is None for page in pages),
        absent_in_nothing=sum(_is_empty_pass(check, texts) for check in chosen.checks),
        comparison=None,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=machine(),
        seconds=round(time.monotonic() - started, 2),
        versions=versions(),
    )
    run = BenchRun(report, outcomes)
    write_bench(folder, run)
    return run


def write_bench(folder: Path, run: BenchRun) -> None:
    """Write bench_report.json and bench_checks.jsonl beside the weights.

    Raises:
        OutputError: they cannot be written.
    """
    write_whole(folder / BENCH_CHECKS_FILE, outcomes_jsonl(run.outcomes))
    write_whole(folder / BENCH_REPORT_FILE, report_json(run.report))


@dataclass(frozen=True)
class EarlierRun:
    """What tells an earlier run apart, and its outcomes."""

    model: str
    weights: Mapping[str, str]
    checks_sha256: str
    outcomes: tuple[Outcome, ...] = ()


def read_earlier(path: Path) -> EarlierRun:
    """Return what an earlier run left in a model's folder, which is named itself or by its report.

    Raises:
        InputError: there is none, it cannot be used, or it was made of other weights than lie beside it.
    """
    folder = path.parent if path.name == BENCH_REPORT_FILE else path
    report_path, checks_path = folder / BENCH_REPORT_FILE, folder / BENCH_CHECKS_FILE
    try:
        run = parse_as(EarlierRun, report_path.read_text(encoding="utf-8"))
        lines = checks_path.read_text(encoding="utf-8").splitlines()
        run = dataclasses.replace(run, outcomes=tuple(parse_as(Outcome, line) for line in lines))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is not there; run the benchmark on that model first") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{report_path} and {checks_path.name} cannot be used: {error}; make them again") from error
    has_weights = bool(files_in(folder, ".safetensors"))  # reports may have been sent without them
    if has_weights and run.weights != weight_hashes(folder):
        raise InputError(f"{report_path} was made of other weights than lie beside it; run the benchmark again")
    return run


def compared(run: BenchRun, other: EarlierRun) -> BenchRun:
    """Return *run* with a comparison to another model's outcomes of the same checks.

    Raises:
        UsageError: the two were not asked the same.
    """
    if other.checks_sha256 != run.report.checks_sha256:
        raise UsageError(f"{other.model} was measured with other checks than {run.report.model}; use the same data set")
    theirs = {outcome.id: outcome for outcome in other.outcomes if outcome.passed is not None}
    ours = [outcome for outcome in run.outcomes if outcome.passed is not None and outcome.id in theirs]
    if not ours:
        raise UsageError(f"no check was scored both of {other.model} and of {run.report.model}; use the same documents")
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
    return f"{model} is not told apart from {other} by these {checks} checks: {numbers}"


def _read_pages(folder: Path, bench: BenchSet, workspace: Path, side: int, terms: BenchTerms, on_page: OnPage) -> Texts:
    """Return the text of each page; what the workspace has is not read again."""
    paths = {document: bench.document_path(document) for document in bench.documents}
    config = PipelineConfig(
        workspace=workspace,
        pdfs=tuple(str(path) for path in paths.values()),
        model=str(folder),
        target_longest_image_dim=side,
        max_page_retries=terms.max_attempts,
        max_tokens=terms.max_tokens,
    )
    run_pipeline_sync(config, on_page=lambda source, record: on_page(), ask=terms.ask)
    with Records(workspace) as records:
        return {
            (document, number): _text(record)
            for document, path in paths.items()
            for number, record in records.pages(content_hash(path, str(path))).items()
        }


def _text(record: PageRecord) -> str | None:
    """Return a page's text; one that fell back holds the file's own, which the model did not read."""
    return None if record.is_fallback else record.response.natural_text or ""


def _workspace(weights: dict[str, str], side: int, terms: BenchTerms) -> Path:
    """Return the folder for pages that this model reads on these terms, with these versions of what reads them."""
    readers = {name: version for name, version in versions().items() if name in _READERS}
    key = json.dumps([_FORMAT, weights, side, terms.max_tokens, terms.max_attempts, readers], sort_keys=True)
    return (terms.work or default_bench_work()) / hashlib.sha256(key.encode()).hexdigest()[:16]


def default_bench_work() -> Path:
    """Return the folder in which pages are kept unless another is named: in the user's cache."""
    return cache_folder("bench")


def _sampled(full: BenchSet, count: int | None) -> BenchSet:
    """Return so many documents of each folder of the benchmark, the same ones every time, and their checks."""
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


def _outcome(check: BenchCheck, texts: Texts) -> Outcome:
    """Return what comes of a check; on a page without an answer nothing passes."""
    text = texts.get((check.document, check.page))
    passed = holds(check, text or "")
    if passed is not None and text is None:
        passed = False
    return Outcome(check.id, check.type, check.category, check.document, check.page, passed)


def _is_empty_pass(check: BenchCheck, texts: Texts) -> bool:
    text = texts.get((check.document, check.page))
    return isinstance(check.rule, Phrase) and check.rule.absent and text is not None and not text.strip()


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


def _types(outcomes: Sequence[Outcome]) -> Iterable[TypeCount]:
    scored = Counter(outcome.type for outcome in outcomes if outcome.passed is not None)
    passed = Counter(outcome.type for outcome in outcomes if outcome.passed)
    for name, count in sorted(Counter(outcome.type for outcome in outcomes).items()):
        yield TypeCount(name, scored[name], passed[name], count - scored[name], SKIPPED_TYPES.get(name))


def _why_incomplete(full: BenchSet, chosen: BenchSet) -> Iterable[str]:
    left_out = len(full.documents) - len(chosen.documents)
    if left_out:
        yield f"{left_out} of {len(full.documents)} documents were left out"
    for name, count in sorted(Counter(check.type for check in chosen.checks).items()):
        if name in SKIPPED_TYPES:
            yield f"{count} checks of type {name} were not scored: {SKIPPED_TYPES[name]}"
