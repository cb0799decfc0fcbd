"""What a workspace remembers -> which documents and pages are still to be read, and by which process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

from olmocr.disk_dict import DiskDict
from olmocr.errors import InputError
from olmocr.inputs.local_file import version_of
from olmocr.inputs.sources import STANDARD_INPUT, Source, find_sources, key_of_archive, listed
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.page_ranges import wanted_numbers
from olmocr.pipeline.page_records import how_asked
from olmocr.pipeline.shown import NOTHING, Looked, Showing
from olmocr.pipeline.turns import Place
from olmocr.workspace.document import Document
from olmocr.workspace.kept import Memory, Results
from olmocr.workspace.outputs import markdown_of, page_markdown, pages_json, text_id
from olmocr.workspace.records import KnownDocument

log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 2.0


def sources_to_retry(records: Memory) -> DiskDict[Source]:
    """Return all documents that failed or have pages that fell back, and that still exist."""
    return listed(_to_retry(records))


def _to_retry(records: Memory) -> Iterator[Source]:
    for document in records.documents():
        if document.name != STANDARD_INPUT and _wants_retry(document, records):
            try:
                yield from find_sources([document.name])
            except InputError as error:
                log.warning("%s is left as it is: %s", document.name, error)


def _wants_retry(document: KnownDocument, records: Memory) -> bool:
    if document.state == "failed" or document.sha256 is None:
        return True
    return records.tally(document.sha256)["flagged"] > 0


def write_beside(workspace: Results, document: Document, config: PipelineConfig, looked: Looked = NOTHING) -> None:
    """Write the files that *config* requests beside a document's result; *looked* is what its pages show."""
    source, front_matter = document.source, config.front_matter
    made_of = _made_of(text_id(document), config)
    if config.page_records:
        workspace.write_page_records(source, pages_json(document), made_of["page_records"])
    if config.markdown_folder is None and not config.page_files:
        return
    showing = Showing(document, looked, config.form)
    showing.tell()
    attached = workspace.write_attached(source, showing.files(), made_of["markdown"])
    if config.markdown_folder:
        shown = showing.linked(attached, workspace.markdown_path(source).parent)
        text = markdown_of(shown, separator=config.page_separator, front_matter=front_matter)
        workspace.write_markdown(source, text, made_of["markdown"])
    if config.page_files:
        shown = showing.linked(attached, workspace.pages_path(source))
        texts = {page.page_number: page_markdown(page, front_matter=front_matter) for page in shown.pages}
        workspace.write_pages(source, texts, made_of["pages"])


def _made_of(text: str, config: PipelineConfig) -> dict[str, str]:
    """Return what each kind of file beside a result is made of: a document's text, by its id, and the text's form."""
    otherwise = [config.shown_otherwise] if config.shown_otherwise else []
    return {
        "markdown": f"{text} {json.dumps([config.page_separator, config.front_matter, *otherwise])}",
        "pages": f"{text} {json.dumps([config.front_matter, *otherwise] if otherwise else config.front_matter)}",
        "page_records": text,
    }


def _is_one_model(one: str, other: str) -> bool:
    """Say whether two names refer to one model: they are equal, or lead to the same folder."""
    if one == other:
        return True
    try:
        return Path(one).expanduser().samefile(Path(other).expanduser())
    except (OSError, ValueError, RuntimeError):
        return False


class _Turns:
    """One turn at a time for each name; unused names are forgotten."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Hold the turn of a name."""
        self._users[name] += 1
        try:
            async with self._locks.setdefault(name, asyncio.Lock()):
                yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name], self._locks[name]


class Unfinished:
    """What a run over *sources* has to do in its workspace, where other processes may work too.

    *on_skipped* is called for each document that needs no reading.
    """

    def __init__(
        self,
        config: PipelineConfig,
        workspace: Results,
        records: Memory,
        sources: DiskDict[Source],
        on_skipped: Callable[[], None],
    ) -> None:
        self._config = config
        self._workspace = workspace
        self._records = records
        self._sources = sources
        self._found: DiskDict[Source] = DiskDict()
        self._on_skipped = on_skipped
        self._waiting = 0
        self._updated_before: DiskDict[float | None] = DiskDict()
        self._kept: Counter[tuple[str, str]] = Counter()
        self._first_kept: dict[tuple[str, str], str] = {}
        self._turns = _Turns()
        self._begun_anew: DiskDict[None] = DiskDict()
        self._archives: set[str] = set()
        self._left_to_others: list[Source] = []
        self._counting = threading.Lock()

    def find(self) -> int:
        """Find the documents to read, and return how many; for the others, write the files requested since."""
        for source in self._sources.values():
            if not self._skipped(source, self._is_done(source)):
                self._found[source.key] = source
        self._waiting = len(self._found)
        return self._waiting

    def found(self) -> Iterator[Source]:
        """Yield these documents in their order; if other processes are at work, begin at a random one."""
        start = 0
        if self._records.is_shared and len(self._found) and self._records.has_company():
            start = random.randrange(len(self._found))  # noqa: S311
        yield from self._found.values(start)
        yield from self._found.values(0, start)  # or all machines would read the same document at the same time

    async def is_done_by_now(self, source: Source) -> bool:
        """Say whether another machine has read a document since this run began."""
        if not self._skipped(source, await self._records.away(lambda: self._is_done(source))):
            return False
        self._waiting = max(0, self._waiting - 1)
        return True

    def _skipped(self, source: Source, is_done: bool) -> bool:
        if is_done:
            self._on_skipped()
        return is_done

    def place(self, source: Source, number: int) -> Place:
        """Return a page's place in the order: documents are finished one by one, in the order they were given."""
        return self._sources.place(source.key), number

    def _is_done(self, source: Source) -> bool:
        if not self._config.force and self._records.done_by_others(source):
            return True
        known = self._records.document(source.key)
        if source.key not in self._updated_before:
            self._updated_before[source.key] = known.updated if known else None
        if known is None or known.sha256 is None or not self._is_as_asked(known, source):
            return False
        text_id = self._workspace.result_id(source, known.sha256)
        if text_id is None:
            return False
        self.forget_what_had_the_name(source)
        if not self._write_what_is_new(known, source, text_id):
            return False
        self._note_readings(source, known.sha256)
        return True

    def _is_as_asked(self, known: KnownDocument, source: Source) -> bool:
        """Say whether a document was read as this run would read it, and does not seem to have changed."""
        is_same = known.stat != "" and known.stat == version_of(source)
        if known.state != "done" or not is_same or known.selection != (self._config.pages or "") or self._config.force:
            return False
        if self._records.numbers_to_replace(known.sha256 or ""):  # a run that should have read it again was stopped
            return False
        return not (self._config.retry_failed and _wants_retry(known, self._records))

    def _write_what_is_new(self, known: KnownDocument, source: Source, text: str) -> bool:
        """Write the requested files that are missing or in another form; return whether that was possible."""
        config, workspace = self._config, self._workspace
        wanted = _made_of(text, config)
        is_there = (
            not config.markdown_folder or workspace.markdown_made_of(source) == wanted["markdown"],
            not config.page_files or workspace.pages_made_of(source) == wanted["pages"],
            not config.page_records or workspace.page_records_made_of(source) == wanted["page_records"],
            not (config.figures or config.tables == "csv") or workspace.has_all_attached(source),
        )
        if not all(is_there):
            if config.form.looks_into_pages and not all((is_there[0], is_there[1], is_there[3])):
                return False  # the document must be opened again, though no page is read again
            document = self.assembled(source, known.sha256 or "", known.page_count or 0)
            if document is None:
                return False
            write_beside(self._workspace, document, config)
        return True

    @contextlib.asynccontextmanager
    async def held(self, source: Source, sha256: str) -> AsyncIterator[bool]:
        """Lock a document's content while its pages are read; yield False if another process has the lock."""
        async with self._turns.turn(sha256):  # a second file with the same content finds all pages read
            if not await self._records.away(lambda: self._records.lock(sha256)):
                self._left_to_others.append(source)
                yield False
                return
            try:
                yield True
            finally:
                await self._records.away(lambda: self._records.release(sha256))

    async def left_to_others(self) -> AsyncIterator[Source]:
        """Yield documents that other processes held but did not finish, once they release them or die."""
        if self._left_to_others:
            log.info("waiting for %d documents that another process is reading", len(self._left_to_others))
        while self._left_to_others:
            left, self._left_to_others = self._left_to_others, []
            self._records.look_again()
            for source in left:
                if not await self.is_done_by_now(source):
                    yield source
            if self._left_to_others:
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def begin(self, source: Source, sha256: str, numbers: Iterable[int]) -> tuple[list[int], int]:
        """Return the numbers of a document's pages to read, and how many documents wait behind it.

        Content is read again only once: not again for a second copy, nor after another process has just read it.
        """
        known = self._records.document(source.key)
        updated = known.updated if known else None
        was_looked_at = source.key in self._updated_before
        is_as_it_was = not was_looked_at or updated == self._updated_before.get(source.key)
        is_first = sha256 not in self._begun_anew and is_as_it_was
        self._begun_anew[sha256] = None
        if self._config.force and is_first:
            self._records.read_anew(sha256, numbers)
        # Pages that fell back are asked again if they made the document fail, or if a retry is requested.
        is_retry = self._config.retry_failed or (known is not None and known.state == "failed")
        finished = self._records.finished_numbers(sha256, with_fallback=not (is_retry and is_first))
        with self._counting:
            self._waiting = max(0, self._waiting - 1)
        missing = [number for number in numbers if number not in finished]
        if finished.intersection(numbers):
            self._note_readings(source, sha256)
        return missing, self._waiting

    def forget_what_had_the_name(self, source: Source) -> None:
        """Forget documents that had *source*'s names before, through links that now lead to it, and no other name."""
        for key in self._records.led_elsewhere(source.key, source.spellings):
            if key not in self._sources:
                self._forget(key)
        archive = key_of_archive(source)
        if archive is not None and archive not in self._archives:  # it was damaged, but no longer is
            self._archives.add(archive)
            known = self._records.document(archive)
            if known is not None and known.state == "failed":
                self._forget(archive)

    def _forget(self, key: str) -> None:
        self._workspace.forget(key)
        self._records.forget_document(key)

    def _note_readings(self, source: Source, sha256: str) -> None:
        for reading in self._records.readings(sha256):
            self._kept[reading] += 1
            self._first_kept.setdefault(reading, source.name)

    def tell_what_was_read_otherwise(self, model: str | None) -> None:
        """Log which documents keep pages that were read differently from how this run with *model* would read them."""
        asked = how_asked(self._config.prompt, self._config.target_longest_image_dim, self._config.guided_decoding)
        for (other, how), count in sorted(self._kept.items()):
            if model and not _is_one_model(other, model):
                differs = f"{other}, not with {model}"
            elif how and how != asked:
                differs = f"other options ({how}; now {asked})"
            else:
                continue
            log.warning(
                "%d documents (first: %s) keep pages that were read with %s; `force=True` reads them again",
                count, self._first_kept[other, how], differs,
            )  # fmt: skip

    def assembled(self, source: Source, sha256: str, page_count: int) -> Document | None:
        """Return the document from its pages' records; None if one is missing."""
        pages = self._records.pages(sha256)
        numbers = wanted_numbers(self._config.selection, page_count)
        if not numbers or any(number not in pages for number in numbers):
            return None
        return Document(source, sha256, tuple(pages[number] for number in numbers), page_count)
