"""The result of a smoke test, as data: smoke_report.json (docs/smoke.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SMOKE_REPORT_FILE = "smoke_report.json"
SMOKE_REPORT_VERSION = 1


@dataclass(frozen=True)
class SmokePage:
    """The result for one page.

    *problems* are why it did not pass; *rejected* says for each rejected answer which rule it broke. *phrases* are what
    its text must contain, and *missing_phrases* those that it lacks. *character_error_rate* is None if the true text is
    unknown. *rotation* is how far the pipeline turned the page, counter-clockwise, *output_tokens* are those of all
    attempts, *seconds* from the first question to the last answer.
    """

    document: str
    page_number: int
    kind: str
    passed: bool
    problems: tuple[str, ...]
    status: Literal["valid", "blank", "fallback", "missing"]
    attempts: int
    rejected: tuple[str, ...]
    finish_reason: str | None
    rotation: int
    input_tokens: int
    output_tokens: int
    phrases: tuple[str, ...]
    missing_phrases: tuple[str, ...]
    character_error_rate: float | None
    seconds: float


@dataclass(frozen=True)
class KnownFault:
    """An installed library in a version known to be bad."""

    package: str
    installed: str
    why: str


@dataclass(frozen=True)
class SmokeReport:
    """Whether a model reads: *problems* are those not tied to a page.

    *model* is the folder's own name, *weights* the SHA-256 of each file of weights; *page_set* says where the pages
    came from, *longest_side* is in pixels. *known_faults* are those of the installed versions. They do not fail the
    test, but say what to check if it fails.
    """

    model: str
    weights: Mapping[str, str]
    backend: str
    page_set: str
    longest_side: int
    passed: bool
    problems: tuple[str, ...]
    pages: tuple[SmokePage, ...]
    known_faults: tuple[KnownFault, ...]
    seconds: float
    versions: Mapping[str, str]
    version: int = SMOKE_REPORT_VERSION


def smoke_lines(report: SmokeReport) -> list[str]:
    """Return *report* as text: a line for each page, what is wrong with it, and a verdict."""
    lines = [line for page in report.pages for line in _page_lines(page)]
    lines += report.problems
    lines += [f"{each.package} {each.installed} is known to be bad: {each.why}" for each in report.known_faults]
    return [*lines, smoke_verdict(report)]


def smoke_verdict(report: SmokeReport) -> str:
    """Return in one sentence whether the model reads."""
    passed = sum(page.passed for page in report.pages)
    verdict = "reads" if report.passed else "does not read as it should"
    pages = f"{passed} of {len(report.pages)} pages ({report.page_set}, {report.longest_side} px)"
    return f"{report.model} {verdict}: {pages} passed in {report.seconds:.1f} s"


def _page_lines(page: SmokePage) -> list[str]:
    rate = "" if page.character_error_rate is None else f", {page.character_error_rate:.1%} errors"
    found = len(page.phrases) - len(page.missing_phrases)
    phrases = f", {found} of {len(page.phrases)} phrases" if page.phrases else ""
    state = "ok" if page.passed else "broken"
    first = (
        f"{state:<6}  {page.document}, page {page.page_number} ({page.kind}): {page.status}, {page.attempts} attempts, "
        f"{page.output_tokens} tokens{rate}{phrases}, {page.seconds:.1f} s"
    )
    return [first, *(f"{'':<8}{problem}" for problem in page.problems)]
