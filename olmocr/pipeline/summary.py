"""What a run has done, counted document by document and page by page -> RunSummary, metrics.json."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from olmocr.disk_dict import DiskDict
from olmocr.errors import ExitCode
from olmocr.inputs.sources import Source
from olmocr.runtime.memory import peak_memory
from olmocr.workspace.document import Failure, PageRecord
from olmocr.workspace.tally import ByServer, Tally, by_server, count_server

_NOTHING: Mapping[str, Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True)
class RunSummary:
    """What a run did. *done* and *pages* count this run's own; *skipped* were done before, *filtered* left out.

    Of the *pages*, *blank_pages* had nothing on them, *retried_pages* took more than one attempt, and *fallback_pages*
    got no good answer. *poor_pages* have an answer that lacks much of the file's own text. *askew_pages* were never
    found upright: every answer called them rotated. *seconds* is the time from rendering the first page to writing the
    last one, without loading the model. *servers* has the pages, tokens and seconds of each model server.
    """

    done: int
    skipped: int
    filtered: int
    failures: tuple[Failure, ...]
    pages: int
    blank_pages: int
    retried_pages: int
    fallback_pages: int
    poor_pages: int
    askew_pages: int
    input_tokens: int
    output_tokens: int
    seconds: float
    servers: ByServer = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command that ran this."""
        return ExitCode.SOME_DOCUMENTS_FAILED if self.failures else ExitCode.OK


class RunCounts:
    """Counts what a run over *sources* does; failures are listed in the order of the sources. *clock* is in seconds."""

    def __init__(self, sources: DiskDict[Source], clock: Callable[[], float] = time.monotonic) -> None:
        self._sources = sources
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._failures: dict[str, Failure] = {}
        self._seconds = 0.0
        self._servers: Tally = Counter()
        self.attempts_ended: Counter[str] = Counter()

    @contextlib.contextmanager
    def timed(self, apart_from: Callable[[], float]) -> Iterator[None]:
        """Count the seconds of a block, minus those that *apart_from* returns at its end."""
        started = self._clock()
        try:
            yield
        finally:
            self._seconds += self._clock() - started - apart_from()

    def add_document(self, state: Literal["done", "skipped", "filtered"]) -> None:
        """Count a document that did not fail."""
        self._counts[state] += 1

    def add_failure(self, source: Source, why: str) -> None:
        """Count a document that failed; one that fails twice counts once."""
        self._failures[source.key] = Failure(source.name, why)

    def add_page(self, page: PageRecord) -> None:
        """Count a page."""
        self._counts["pages"] += 1
        self._counts["blank_pages"] += page.status == "blank"
        self._counts["retried_pages"] += page.attempts > 1
        self._counts["fallback_pages"] += page.is_fallback
        self._counts["poor_pages"] += page.lacks_text
        self._counts["askew_pages"] += page.is_askew
        self._counts["input_tokens"] += page.input_tokens
        self._counts["output_tokens"] += page.output_tokens
        self.attempts_ended.update(page.ends)
        count_server(self._servers, page)

    def summary(self) -> RunSummary:
        """Return what has been done so far."""
        failures = tuple(self._failures[key] for key in sorted(self._failures, key=self._sources.place))
        names = {each.name for each in fields(RunSummary)} - {"failures", "seconds", "servers"}
        numbers = {name: self._counts[name] for name in names}
        return RunSummary(failures=failures, seconds=self._seconds, servers=by_server(self._servers), **numbers)


def pages_per_minute(summary: RunSummary) -> float:
    """Return how fast pages were read; 0 if none were."""
    return round(60 * summary.pages / summary.seconds, 2) if summary.seconds else 0.0


def metrics_of(
    counts: RunCounts, engine: dict[str, float], servers: Mapping[str, Mapping[str, float]] = _NOTHING
) -> dict[str, Any]:
    """Return a run's numbers as the workspace keeps them.

    *engine* has those of the model in this process. *servers* has those known of several servers, apart from what
    they answered.
    """
    summary = counts.summary()
    return {
        **{name: value for name, value in vars(summary).items() if name != "failures"},
        "failed": len(summary.failures),
        "failures": [each.as_json for each in summary.failures],
        "pages_per_minute": pages_per_minute(summary),
        "attempts_ended": dict(counts.attempts_ended),
        "peak_memory_bytes": peak_memory(),
        "engine": engine,
        "servers": _joined(summary.servers, servers),
    }


def _joined(answered: ByServer, did: Mapping[str, Mapping[str, float]]) -> ByServer:
    """Return both sets of numbers for each server, even one that answered nothing."""
    nothing: dict[str, float] = {"pages": 0, "output_tokens": 0, "seconds": 0.0}
    return {url: {**answered.get(url, nothing), **did.get(url, {})} for url in sorted(answered.keys() | did.keys())}
