"""The interface to where a run keeps its work, whichever kind of workspace: a folder with SQLite, or a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol, Self, TypeVar

from olmocr.inputs.sources import Source
from olmocr.workspace.document import Failure, PageRecord
from olmocr.workspace.records import KnownDocument
from olmocr.workspace.tally import Tally

T = TypeVar("T")


class Memory(Protocol):
    """What a workspace remembers. All methods except *away* wait until their work is done.

    A page belongs to a document by the SHA-256 of its content. Each raises OutputError if reading or writing fails.
    """

    is_shared: bool
    """Whether several machines may work in it at once."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    async def away(self, call: Callable[[], T]) -> T:
        """Return what *call*, which uses the workspace, returns; a slow call does not delay others."""

    def end_waiting(self) -> None:
        """Make pending requests fail at once, since the run has ended."""

    def look_again(self) -> None:
        """Read what other processes have done since the last look, when it is next needed."""

    def has_company(self) -> bool:
        """Return whether other machines may work on the same documents."""

    def add_page(self, sha256: str, page: PageRecord) -> None:
        """Keep a page; a page that fell back does not replace one that was read."""

    def page(self, sha256: str, number: int) -> PageRecord | None:
        """Return what is known of one page."""

    def pages(self, sha256: str) -> dict[int, PageRecord]:
        """Return what is known of a document's pages, by number, in order."""

    def finished_numbers(self, sha256: str, *, with_fallback: bool) -> set[int]:
        """Return the pages that need no model any more; flagged pages still do, unless told otherwise."""

    def readings(self, sha256: str) -> set[tuple[str, str]]:
        """Return with which models, and how asked, the document's pages that have an answer were read."""

    def only_model(self) -> str | None:
        """Return the model that read the first pages; None if there were several, or none."""

    def read_anew(self, sha256: str, numbers: Iterable[int]) -> None:
        """Mark pages to be read again, by this run or a later one; what is known of each stays until then."""

    def numbers_to_replace(self, sha256: str) -> set[int]:
        """Return the numbers of the pages to be read again."""

    def replaced(self, sha256: str) -> None:
        """Remove the marks of pages to be read again."""

    def led_elsewhere(self, key: str, spellings: Iterable[str]) -> set[str]:
        """Note that *spellings* belong to the document *key*; return the documents that have lost their last name."""

    def add_document(self, document: KnownDocument) -> None:
        """Keep the outcome of a source, replacing what was known of it."""

    def forget_document(self, key: str) -> None:
        """Forget the outcome of a source; its pages stay."""

    def document(self, key: str) -> KnownDocument | None:
        """Return the outcome of a source, None if it was never finished."""

    def documents(self) -> Iterator[KnownDocument]:
        """Yield all documents by name."""

    def failures(self) -> Iterator[Failure]:
        """Yield all documents that failed, by name, and why."""

    def tally(self, sha256: str) -> Tally:
        """Return a document's pages, counted."""

    def add_run(self, numbers: dict[str, Any]) -> None:
        """Keep the numbers of a run that ends: the content of its ``metrics.json``."""

    def runs(self) -> Iterator[dict[str, Any]]:
        """Yield the numbers of each run that ended here."""

    def done_by_others(self, source: Source) -> bool:
        """Return whether another program has read a document here, so that it is not read again."""

    def others_done(self) -> int:
        """Return how many documents other programs have read here."""

    def lock(self, name: str) -> bool:
        """Take a lock if it is free, ours, or owned by a process that is dead or has been silent for long."""

    def beat(self) -> None:
        """Signal that the owner of this process's locks is alive."""

    def release(self, name: str) -> None:
        """Release a lock."""

    def release_all(self) -> None:
        """Release all locks of this process."""


class Results(Protocol):
    """Where everything for people is written. Paths are a folder's, or are in a store, below the workspace."""

    def result_id(self, source: Source, sha256: str | None) -> str | None:
        """Return the hash of the text in a document's result; None if there is no result for that content."""

    def failed_result(self, source: Source) -> dict[str, Any] | None:
        """Return the Dolma line of what could be read of a failed document; None if nothing could."""

    def write_result(self, source: Source, line: dict[str, Any]) -> None:
        """Keep the Dolma line of a document that was read; an earlier failure is forgotten."""

    def write_failure(
        self, source: Source, why: str, line: dict[str, Any] | None = None, *, keep: bool = False
    ) -> None:
        """Keep why a document failed, and what could be read of it; what was read before is removed, unless *keep*."""

    def forget(self, key: str) -> None:
        """Remove everything about a document whose name now belongs to another."""

    def remove_stale(self, source: Source, made_of: str) -> None:
        """Remove files beside a document's result, except those of the same text whose note begins with *made_of*."""

    def write_markdown(self, source: Source, text: str, made_of: str = "") -> PurePath:
        """Write the document's text and return its path."""

    def write_pages(self, source: Source, texts: Mapping[int, str], made_of: str = "") -> None:
        """Write each page's text by its number; those of an earlier reading are removed."""

    def write_page_records(self, source: Source, records: dict[str, Any], made_of: str = "") -> None:
        """Write what is known of a document's pages."""

    def write_attached(self, source: Source, files: Mapping[str, str | Path], made_of: str = "") -> PurePath | None:
        """Write the document's figures and tables, and return their folder; earlier ones are removed in any case."""

    def has_all_attached(self, source: Source) -> bool:
        """Return whether all figures and tables that were written for the document still exist."""

    def markdown_made_of(self, source: Source) -> str | None:
        """Return what the document's markdown was made of; None if there is none under the source's name."""

    def pages_made_of(self, source: Source) -> str | None:
        """Return what the files of its pages were made of; None if some are missing."""

    def page_records_made_of(self, source: Source) -> str | None:
        """Return what the file with its pages' records was made of; None if there is none."""

    def markdown_path(self, source: Source) -> PurePath:
        """Return the document's own markdown path, whether or not anything is there."""

    def pages_path(self, source: Source) -> PurePath:
        """Return the folder of the files of the document's pages."""

    def reserve(self, source: Source, *, markdown: bool, pages: bool, page_records: bool) -> None:
        """Reserve a path for the document for each kind of output requested, where paths are decided beforehand."""

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Write ``failures.jsonl``; without failures there is no file."""

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write ``metrics.json``: a run's numbers."""
