"""The result of a benchmark, as data: bench_report.json, and each check's outcome beside it (docs/bench.md)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from olmocr.reports.parts import Interval

BENCH_REPORT_FILE = "bench_report.json"
BENCH_REPORT_VERSION = 1
BENCH_CHECKS_FILE = "bench_checks.jsonl"

ANSWERS = "answers"
"""The backend of a report on existing answers."""


@dataclass(frozen=True)
class TypeCount:
    """Checks of one type: the numbers *scored*, *passed* and *skipped*, with the reason for skipping."""

    type: str
    scored: int
    passed: int
    skipped: int
    why_skipped: str | None = None


@dataclass(frozen=True)
class CategoryScore:
    """Checks of one category; *score* is the share of scored ones that passed, None if none was scored.

    *interval* is None if fewer than two documents were scored, because resampling needs at least two.
    """

    category: str
    documents: int
    scored: int
    passed: int
    skipped: int
    score: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """A model compared with *other*, by the checks scored for both.

    *difference* is the model's overall score minus the other's; *p_value* the probability of one as large, either way,
    if the two were alike (labels swapped document by document). *only_this* and *only_other* count checks passed by
    only one of them; *mcnemar_p_value* follows from these two, ignoring documents.
    """

    other: str
    other_weights: Mapping[str, str]
    documents: int
    checks: int
    score: float
    other_score: float
    difference: float
    interval: Interval
    p_value: float
    only_this: int
    only_other: int
    mcnemar_p_value: float
    verdict: str


@dataclass(frozen=True)
class BenchReport:
    """A model's score in a benchmark. *score* is the mean over categories of the share of checks that passed.

    *weights* are the SHA-256 of each file of weights; *checks_sha256* and *revision* identify the data set. For
    existing answers, *backend* is :data:`ANSWERS`, *answers_sha256* identifies them, and nothing more is known:
    *weights* is empty, *longest_side* and *max_tokens* are None. *documents_left_out* are those that a sample left out.
    *pages_without_answer* counts pages without a good answer, whose checks all failed. *absent_in_nothing* counts
    checks that passed because the page's text is empty and a phrase must be absent. *incomplete* says why this is not a
    full run; it is empty if *complete*.
    """

    model: str
    weights: Mapping[str, str]
    backend: str
    data_set: str
    checks_sha256: str
    revision: str | None
    longest_side: int | None
    max_tokens: int | None
    complete: bool
    incomplete: tuple[str, ...]
    score: float | None
    interval: Interval | None
    categories: tuple[CategoryScore, ...]
    types: tuple[TypeCount, ...]
    documents: int
    documents_left_out: int
    pages: int
    pages_without_answer: int
    absent_in_nothing: int
    comparison: Comparison | None
    date: str
    machine: str
    seconds: float
    versions: Mapping[str, str]
    answers_sha256: str | None = None
    version: int = BENCH_REPORT_VERSION


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check; *passed* is None if it was not scored. It contains no text of the page or check."""

    id: str
    type: str
    category: str
    document: str
    page: int
    passed: bool | None


def outcomes_jsonl(outcomes: tuple[Outcome, ...]) -> str:
    """Return *outcomes* as lines of JSON."""
    return "".join(json.dumps(dataclasses.asdict(outcome)) + "\n" for outcome in outcomes)


def bench_lines(report: BenchReport) -> list[str]:
    """Return *report* as text: a line for each category and type, what is missing, and the score."""
    lines = [_category_line(category) for category in report.categories]
    lines += [f"{'':<9}{each.type}: {each.skipped} not scored: {each.why_skipped}" for each in _skipped(report)]
    if report.pages_without_answer:
        lines.append(
            f"{report.pages_without_answer} of {report.pages} pages got no good answer, so all their checks failed"
        )
    if report.absent_in_nothing:
        lines.append(f"{report.absent_in_nothing} checks that a text is absent passed because the page has no text")
    lines.append(_score_line(report))
    lines += [f"not a full run: {why}" for why in report.incomplete]
    return [*lines, *([report.comparison.verdict] if report.comparison else [])]


def percent(share: float) -> str:
    """Return a share in percent, as scores are shown."""
    return f"{share:.1%}"


def _skipped(report: BenchReport) -> list[TypeCount]:
    return [each for each in report.types if each.skipped]


def _category_line(category: CategoryScore) -> str:
    skipped = f", {category.skipped} not scored" if category.skipped else ""
    if category.score is None:
        return f"{'none':>7}  {category.category}: nothing was scored{skipped}"
    within = f", {_shown(category.interval)}" if category.interval else ""
    documents = f"{category.documents} document{'s' if category.documents != 1 else ''}"
    passed = f"{category.passed} of {category.scored} checks of {documents}"
    return f"{percent(category.score):>7}  {category.category}: {passed}{within}{skipped}"


def _score_line(report: BenchReport) -> str:
    if report.score is None:
        return f"{report.model}: nothing was scored"
    scored = sum(category.score is not None for category in report.categories)
    within = f" ({report.interval.confidence:.0%}: {_shown(report.interval)})" if report.interval else ""
    return f"{report.model} scores {percent(report.score)}, the mean of {scored} categories{within}"


def _shown(interval: Interval) -> str:
    return f"{percent(interval.low)} to {percent(interval.high)}"
