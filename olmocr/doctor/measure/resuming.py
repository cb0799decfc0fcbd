"""A run over documents that is killed in the middle and run again."""

from __future__ import annotations

import time
from pathlib import Path

from olmocr.doctor.measure.answers import config_for
from olmocr.doctor.measure.apart import Apart
from olmocr.doctor.measure.terms import MeasureTerms
from olmocr.pipeline.run import run_pipeline_sync
from olmocr.reports.machine import MeasuredResumption
from olmocr.validate.known_pages.page_set import documents_in, read_page_set
from olmocr.workspace.document import PageRecord

_KILLED_AFTER = 3  # pages
_LOOK = 0.05  # seconds between two checks of its progress


def kill_and_resume(apart: Apart, model: Path, terms: MeasureTerms, workspace: Path) -> MeasuredResumption:
    """Read documents in a process that is killed when some pages are saved, and finish them in another process.

    Raises:
        MissingDependencyError: as in `Apart.call`.
        PartFailedError: as in `Apart.call`.
    """
    documents = tuple(map(str, documents_in(terms.demo.pages)[:: 4 if terms.is_quick else 3]))
    ledgers = workspace.with_suffix(".first"), workspace.with_suffix(".second")
    with apart.started(read_into, workspace, documents, model, terms.longest_side, ledgers[0]) as first:
        started = time.monotonic()
        while not first.has_ended and len(lines(ledgers[0])) < _KILLED_AFTER:
            if time.monotonic() - started > apart.limit:
                break
            time.sleep(_LOOK)
        if first.has_ended:
            first.result(apart.limit)  # raises the process's error, if it failed
        first.kill()
    before = set(lines(ledgers[0]))
    done = apart.call(read_into, workspace, documents, model, terms.longest_side, ledgers[1])
    pages = len(read_page_set([Path(each) for each in documents]))
    after = set(lines(ledgers[1]))
    return MeasuredResumption(
        pages=pages,
        pages_before=len(before),
        asked_again=len(before & after),
        missing=pages - len(before | after) + done,
    )


def read_into(workspace: Path, documents: tuple[str, ...], model: Path, longest_side: int, ledger: Path) -> int:
    """Read *documents*, and add a line to *ledger* for each saved page; return how many documents failed."""

    def note(source: object, record: PageRecord) -> None:
        with ledger.open("a", encoding="utf-8") as file:
            file.write(f"{Path(getattr(source, 'name', '')).name} {record.page_number}\n")

    summary = run_pipeline_sync(config_for(model, documents, longest_side, workspace), on_page=note)
    return len(summary.failures)


def lines(ledger: Path) -> list[str]:
    """Return the complete lines of *ledger*, or none if it does not exist yet."""
    text = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
