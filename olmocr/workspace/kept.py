"""What a run keeps its work in, whichever kind of workspace it has: in a folder with SQLite, or in a store."""

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
    """What a workspace remembers. All but *away* wait until what they do is done.

    A page is a document's by the SHA-256 of its content. Each raises OutputError where that cannot be read or written.
    """

    is_shared: bool
    """Whether several machines are to work in it at once."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    async def away(self, call: Callable[[], T]) -> T:
        """Return what *call*, which uses the workspace, returns; what takes long holds up nobody meanwhile."""

    def end_waiting(self) -> None:
        """Have requests that are waited for fail at once, since the run is ended."""

    def look_again(self) -> None:
        """Take up what other processes have done since the last look, as soon as it is asked for."""

    def has_company(self) -> bool:
        """Say whether other machines may work on the same documents."""

    def add_page(self, sha256: str, page: PageRecord) -> None:
        """Keep a page; one that fell back replaces none that was read."""

    def page(self, sha256: str, number: int) -> PageRecord | None:
        """Return what is known of one page."""

    def pages(self, sha256: str) -> dict[int, PageRecord]:
        """Return what is known of a document's pages, by number, in order."""

    def finished_numbers(self, sha256: str, *, with_fallback: bool) -> set[int]:
        """Return the numbers of the pages that need no model any more; those that are flagged do, unless told so."""

    def readings(self, sha256: str) -> set[tuple[str, str]]:
        """Return by which models, and how asked, a document's pages were read that have an answer."""

    def only_model(self) -> str | None:
        """Return the model that read the first pages; None if there were several, or none."""

    def read_anew(self, sha256: str, numbers: Iterable[int]) -> None:
        """Have pages be read again, by this run or a later one; what is known of each stays until then."""

    def numbers_to_replace(self, sha256: str) -> set[int]:
        """Return the numbers of the pages that are to be read again."""

    def replaced(self, sha256: str) -> None:
        """Have no page be read again any more."""

    def led_elsewhere(self, key: str, spellings: Iterable[str]) -> set[str]:
        """Note that *spellings* are of the document *key*; return the documents that have no name any more."""

    def add_document(self, document: KnownDocument) -> None:
        """Keep what came of a source, instead of what was known of it."""

    def forget_document(self, key: str) -> None:
        """Forget what came of a source; its pages stay."""

    def document(self, key: str) -> KnownDocument | None:
        """Return what came of a source, None if it was never finished."""

    def documents(self) -> Iterator[KnownDocument]:
        """Yield all documents by name."""

    def failures(self) -> Iterator[Failure]:
        """Yield all documents that failed, by name, and why."""

    def tally(self, sha256: str) -> Tally:
        """Return a document's pages, counted."""

    def add_run(self, numbers: dict[str, Any]) -> None:
        """Keep the numbers of the run that ends: what its ``metrics.json`` has."""

    def runs(self) -> Iterator[dict[str, Any]]:
        """Yield the numbers of each run that ended here."""

    def done_by_others(self, source: Source) -> bool:
        """Say whether another program has read a document here, so that it is not to be read again."""

    def others_done(self) -> int:
        """Return how many documents other programs have read here."""

    def lock(self, name: str) -> bool:
        """Take a lock if it is free, ours, or that of a process that is dead or has been silent for long."""

    def beat(self) -> None:
        """Say that the owner of this process's locks is alive."""

    def release(self, name: str) -> None:
        """Give a lock back."""

    def release_all(self) -> None:
        """Give all locks of this process back."""


class Results(Protocol):
    """Where everything goes that a person looks at. Paths are a folder's, or a store's below the workspace."""

    def result_id(self, source: Source, sha256: str | None) -> str | None:
        """Return what the text of a document's result is known by; None if there is none of that content."""

    def failed_result(self, source: Source) -> dict[str, Any] | None:
        """Return the Dolma line of what could be read of a document that failed; None if nothing could."""

    def write_result(self, source: Source, line: dict[str, Any]) -> None:
        """Keep the Dolma line of a document that was read; an earlier failure is forgotten."""

    def write_failure(
        self, source: Source, why: str, line: dict[str, Any] | None = None, *, keep: bool = False
    ) -> None:
        """Keep why a document failed, and what could be read of it; what was read before goes, but with *keep*."""

    def forget(self, key: str) -> None:
        """Remove all of a document whose name is another document's now."""

    def remove_stale(self, source: Source, made_of: str) -> None:
        """Remove all beside a document's result that was not made of the same text, or so that it *made_of* begins."""

    def write_markdown(self, source: Source, text: str, made_of: str = "") -> PurePath:
        """Write the document's text and return where."""

    def write_pages(self, source: Source, texts: Mapping[int, str], made_of: str = "") -> None:
        """Write each page's text by its number; those of an earlier reading go."""

    def write_page_records(self, source: Source, records: dict[str, Any], made_of: str = "") -> None:
        """Write what is known of a document's pages."""

    def write_attached(self, source: Source, files: Mapping[str, str | Path], made_of: str = "") -> PurePath | None:
        """Write the document's figures and tables, and return their folder; without any, those of before go."""

    def has_all_attached(self, source: Source) -> bool:
        """Say whether all figures and tables are there that were written for the document."""

    def markdown_made_of(self, source: Source) -> str | None:
        """Return what the document's markdown was made of; None if there is none under the source's name."""

    def pages_made_of(self, source: Source) -> str | None:
        """Return what the files of its pages were made of; None if they are not all there."""

    def page_records_made_of(self, source: Source) -> str | None:
        """Return what the file of what is known of its pages was made of; None if there is none."""

    def markdown_path(self, source: Source) -> PurePath:
        """Return the document's own markdown path, whether or not anything lies there."""

    def pages_path(self, source: Source) -> PurePath:
        """Return the folder of the files of the document's pages."""

    def reserve(self, source: Source, *, markdown: bool, pages: bool, page_records: bool) -> None:
        """Have the document own a path of each kind that is asked for, where that is to be decided beforehand."""

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Write ``failures.jsonl``; none leaves no file."""

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write ``metrics.json``: a run's numbers."""
