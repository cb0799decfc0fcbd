"""BenchReport -> the file from which the Hub takes an olmOCR-bench score, or why there must not be one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from olmocr.errors import ExitCode, OlmocrError
from olmocr.publish.front_matter import REPO_ID
from olmocr.reports.bench import ANSWERS, BENCH_REPORT_FILE, BenchReport

DATA_SET = "allenai/olmOCR-bench"

FULL_RUN: Mapping[str, int] = {
    "arxiv_math": 2927,
    "baseline": 1394,
    "headers_footers": 760,
    "long_tiny_text": 442,
    "multi_column": 884,
    "old_scans": 526,
    "old_scans_math": 458,
    "table_tests": 1022,
}
"""How many checks each category of the complete benchmark has; the mean over these eight is the score."""

DOCUMENTS = 1403

_READ_ELSEWHERE: Mapping[str, str] = {
    ANSWERS: "existing answers were scored, and it is unknown which weights gave them",
    "server": "a server read the pages, and it is unknown which weights it has",
}
"""Why a score is not for these weights, by the report's backend."""


class NotAFullRunError(OlmocrError):
    """A partial run of a benchmark does not give a score."""

    exit_code = ExitCode.GATE_FAILED


def why_no_score(report: BenchReport) -> tuple[str, ...]:
    """Return every reason why *report* is not an olmOCR-bench score for the Hub; none for a full run."""
    return tuple(_reasons(report))


def eval_results(report: BenchReport, bits_per_weight: float, title: str) -> str:
    """Return the YAML for a full run: the overall score and each category's, in percent, as its authors give them.

    *title* is the model's repository, where it has one.

    Raises:
        NotAFullRunError: it is not a full run; the message says why.
    """
    reasons = why_no_score(report)
    if reasons:
        raise NotAFullRunError(
            f"no olmOCR-bench score was written, because this is not a full run: {'; '.join(reasons)}"
        )
    scores = {"overall": report.score, **{each.category: each.score for each in report.categories}}
    entries = [_entry(report, task, score, bits_per_weight, title) for task, score in scores.items()]
    return str(yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=120))


def _entry(report: BenchReport, task: str, score: float | None, bits: float, title: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "dataset": {"id": DATA_SET, "task_id": task, "revision": report.revision},
        "value": round(100 * (score or 0.0), 1),
        "date": report.date,
    }
    if REPO_ID.fullmatch(title):
        where = f"https://huggingface.co/{title}/blob/main/{BENCH_REPORT_FILE}"
        entry["source"] = {"url": where, "name": BENCH_REPORT_FILE}
    made_with = f"olmocr {report.versions.get('olmocr', 'of unknown version')}"
    entry["notes"] = f"MLX, {bits:.2f} bits per weight, {report.longest_side} px, {made_with}"
    return entry


def _reasons(report: BenchReport) -> Iterator[str]:
    if report.backend in _READ_ELSEWHERE:
        yield _READ_ELSEWHERE[report.backend]
    yield from report.incomplete
    if not report.complete and not report.incomplete:
        yield "the report says that it is not complete"
    there = {each.category: each for each in report.categories}
    missing, other = sorted(set(FULL_RUN) - set(there)), sorted(set(there) - set(FULL_RUN))
    if missing:
        yield f"these categories are missing: {', '.join(missing)}"
    if other:
        yield f"these categories are not in the benchmark: {', '.join(other)}"
    for name, count in FULL_RUN.items():
        found = there.get(name)
        if found and found.scored != count:
            yield f"{found.scored} checks of {name} were scored, but it has {count}"
    if report.documents != DOCUMENTS:
        yield f"{report.documents} documents were read, but it has {DOCUMENTS}"
    if report.revision is None:
        yield "the revision of the data set is unknown; fetch it with hf download --local-dir"
    yield from _contradictions(report)


def _contradictions(report: BenchReport) -> Iterator[str]:
    """Yield where the report's own numbers contradict each other; one scored elsewhere may have any."""
    if report.score is None or not report.categories:
        yield "it has no score"
        return
    shares = [each.passed / each.scored if each.scored else 0.0 for each in report.categories]
    stated = [report.score, *(each.score or 0.0 for each in report.categories)]
    computed = [sum(shares) / len(shares), *shares]
    if any(abs(one - two) > 1e-6 for one, two in zip(stated, computed, strict=True)):
        yield "its scores do not match its counts"
