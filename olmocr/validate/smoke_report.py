"""What a smoke test found, as data: smoke_report.json (docs/smoke.md)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SMOKE_REPORT_FILE = "smoke_report.json"
SMOKE_REPORT_VERSION = 1


@dataclass(frozen=True)
class SmokePage:
    """What came of one page.

    *problems* are why it did not pass; *rejected* says of each answer that was not accepted which rule it broke.
    *phrases* are what its text must hold, and *missing_phrases* those that it lacks. *character_error_rate* is None
    where the true text is not known. *rotation* is how far the pipeline turned it, counter-clockwise, *output_tokens*
    are those of all attempts, *seconds* from the first question to the last answer.
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
    """A library that is installed in a version known to be bad."""

    package: str
    installed: str
    why: str


@dataclass(frozen=True)
class SmokeReport:
    """Whether a model reads: *problems* are what concerns no single page.

    *model* is the folder's own name, *weights* the SHA-256 of each file of weights; *page_set* says where the pages
    came from, *longest_side* is in pixels. *known_faults* are those of the installed versions; it
    does not fail by them, they say what to look at when it does.
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


def smoke_report_json(report: SmokeReport) -> str:
    """Return *report* as JSON."""
    return json.dumps(dataclasses.asdict(report), indent=2, allow_nan=False) + "\n"
