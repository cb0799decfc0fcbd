"""Workspace -> documents -> RunSummary: pages are read side by side and kept one by one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from olmocr.backends.choice import Answering, Sleep, answering
from olmocr.errors import ExitCode, InputError, OutputError, ServerError, ServerUnavailableError, output_error
from olmocr.files import write_whole
from olmocr.inputs.local_file import content_hash, local_file
from olmocr.inputs.origins import TarMember, ZipMember
from olmocr.inputs.sources import STANDARD_INPUT, Source, find_sources
from olmocr.memory import peak_memory
from olmocr.page import Ask
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.document_filter import SAMPLE_PAGES, why_filtered
from olmocr.pipeline.ocr_page import Terms, ocr_page
from olmocr.pipeline.repetition import has_looped, is_looping
from olmocr.pipeline.turns import Turns
from olmocr.rendering.pool import RenderPool, default_workers
from olmocr.workspace.document import Document, PageRecord, blank_record, record_of, unrendered_record, why_failed
from olmocr.workspace.folder import Workspace, open_workspace
from olmocr.workspace.outputs import dolma_record, markdown_of, page_markdown, pages_json
from olmocr.workspace.records import HEARTBEAT_SECONDS, DocumentRecord, Records

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"

_UNANSWERED_IN_A_ROW = 3
"""So many pages that nobody answered, one after the other, and the server is taken for gone."""

_LOOK_AGAIN_SECONDS = 2.0

_SMALL = 28  # pixels, where only a page's text is wanted


@dataclass(frozen=True)
class Failure:
    """A document that was not read, and why."""

    source: str
    why: str


@dataclass(frozen=True)
class RunSummary:
    """What a run did. *done* and *pages* count this run's; *skipped* documents were done before, *filtered* left out.

    Of the *pages*, *blank_pages* had nothing on them, *retried_pages* took more than one attempt, *fallback_pages* got
    no good answer, and *poor_pages* have an answer that lacks much of the file's own text. *seconds* is the time spent
    on pages, from the first rendered to the last written, without loading the model.
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
    input_tokens: int
    output_tokens: int
    seconds: float

    @property
    def exit_code(self) -> ExitCode:
        """What a command that ran this ends with."""
        return ExitCode.SOME_DOCUMENTS_FAILED if self.failures else ExitCode.OK


OnPage = Callable[[Source, PageRecord], None]
"""Called after each page that this run read."""

OnDocument = Callable[[Source, int, int], None]
"""Called when a document is begun: how many of its pages are to be read, and how many documents wait behind it."""


async def run_pipeline(
    config: PipelineConfig,
    *,
    on_page: OnPage = lambda source, page: None,
    on_document: OnDocument = lambda source, pages, waiting: None,
    ask: Ask | None = None,
    sleep: Sleep = asyncio.sleep,
) -> RunSummary:
    """Read every document of *config* that its workspace does not hold yet.

    A document that cannot be read is reported in the summary and kept apart as failed; the others go on. Each page is
    kept as soon as it is read, so that a run that is stopped loses only the pages in hand. Several processes may work
    in one workspace: each document is read by one of them.

    Args:
        config: what to do.
        on_page: called after each page.
        on_document: called when a document is begun.
        ask: answers instead of the config's backend and model.
        sleep: waits before a server that is away is asked again.

    Raises:
        OlmocrError: nothing could be started, nobody answers any more, or nothing more can be written.
    """
    with contextlib.ExitStack() as stack:
        sources = find_sources(config.pdfs, apart_from=config.workspace)
        workspace = open_workspace(config.workspace, config.output_dir)
        records = stack.enter_context(Records(config.workspace))
        scratch = stack.enter_context(scratch_folder())
        if not config.pdfs:
            sources = _sources_to_retry(records)
        run = _Run(config, workspace, records, scratch, on_page, on_document)
        run.order = {source.key: number for number, source in enumerate(sources)}
        if config.writes_beside:
            for source in sources:  # in this order, and not in that in which they are finished
                workspace.markdown_path(source)
        waiting = [source for source in sources if not run.is_done(source)]
        run.waiting = len(waiting)
        try:
            if waiting:
                await _read_all(run, waiting, _Answers(config, ask, sleep))
        finally:  # what ended the run is one thing, what failed before another
            summary = run.summary()
            _write_reports(run, summary)
        return summary


def run_pipeline_sync(
    config: PipelineConfig,
    *,
    on_page: OnPage = lambda source, page: None,
    on_document: OnDocument = lambda source, pages, waiting: None,
    ask: Ask | None = None,
) -> RunSummary:
    """Do what :func:`run_pipeline` does, for scripts, and for notebooks, whose cells run in an event loop already."""

    def run() -> RunSummary:
        return asyncio.run(run_pipeline(config, on_page=on_page, on_document=on_document, ask=ask))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder for copies of what does not lie on this disk.

    Raises:
        OutputError: none can be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="olmocr-", ignore_cleanup_errors=True)
    except OSError as error:
        raise output_error(error, "a temporary folder (TMPDIR names another place)") from error
    with folder as path:
        yield Path(path)


def _sources_to_retry(records: Records) -> tuple[Source, ...]:
    """Return all documents that failed, or have pages that fell back, and are there still."""
    found: list[Source] = []
    for document in records.documents():
        if document.name != STANDARD_INPUT and _wants_retry(document, records):
            try:
                found += find_sources([document.name])
            except InputError as error:
                log.warning("%s is left as it is: %s", document.name, error)
    return tuple(found)


def _wants_retry(document: DocumentRecord, records: Records) -> bool:
    if document.state == "failed" or document.sha256 is None:
        return True
    return any(page.is_fallback for page in records.pages(document.sha256).values())


async def _read_all(run: _Run, waiting: list[Source], answers: _Answers) -> None:
    async with contextlib.AsyncExitStack() as stack:
        run.pool = await stack.enter_async_context(RenderPool())
        run.answers = await stack.enter_async_context(answers)
        started = time.monotonic()
        beating = asyncio.create_task(run.beat())
        stack.callback(beating.cancel)
        queue = iter(waiting)
        try:
            await _all(run.read_some(queue) for _ in range(run.config.workers))
            await run.read_what_others_left()
        finally:
            run.seconds = time.monotonic() - started - run.answers.seconds


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run *coroutines* side by side; the first error ends them all, and is raised."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _write_reports(run: _Run, summary: RunSummary) -> None:
    """Write what has failed in the workspace, this run's failures included, and this run's numbers."""
    failed = ((each.name, each.why or "") for each in run.records.documents() if each.state == "failed")
    run.workspace.write_failures(failed)
    metrics = {name: value for name, value in vars(summary).items() if name != "failures"}
    metrics |= {"failed": len(summary.failures), "pages_per_minute": pages_per_minute(summary)}
    metrics |= {"attempts_ended": dict(run.ends), "peak_memory_bytes": peak_memory(), "engine": run.engine_counts()}
    write_whole(run.workspace.folder / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")


def pages_per_minute(summary: RunSummary) -> float:
    """Return how fast pages were read; 0 if none were."""
    return round(60 * summary.pages / summary.seconds, 2) if summary.seconds else 0.0


class _Answers:
    """What answers, opened when the first page needs it: a pile that was read before loads no model.

    *seconds* is what that took. With *ask* there is nothing to open.
    """

    def __init__(self, config: PipelineConfig, ask: Ask | None, sleep: Sleep) -> None:
        self._config = config
        self._sleep = sleep
        self._opened = Answering(ask, config.model or "") if ask else None
        self._opening = asyncio.Lock()
        self.seconds = 0.0

    async def __aenter__(self) -> Self:
        self._stack = contextlib.AsyncExitStack()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.__aexit__(*exception)

    async def opened(self) -> Answering:
        """Return what answers.

        Raises:
            ServerError: a server is not there from the first: that is a wrong address rather than a fault that passes.
        """
        async with self._opening:
            if self._opened is None:
                started = time.monotonic()
                try:
                    opening = answering(
                        self._config,
                        folder=self._config.workspace,
                        longest_side=self._config.target_longest_image_dim,
                        is_looping=is_looping,
                        sleep=self._sleep,
                    )
                    self._opened = await self._stack.enter_async_context(opening)
                except ServerUnavailableError as error:  # no page's fault, and nothing was read yet
                    raise ServerError(str(error)) from error
                self.seconds = time.monotonic() - started
        return self._opened


@dataclass
class _Run:
    """A run that is under way, and its counts."""

    config: PipelineConfig
    workspace: Workspace
    records: Records
    scratch: Path
    on_page: OnPage
    on_document: OnDocument
    done: int = 0
    skipped: int = 0
    filtered: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seconds: float = 0.0

    def __post_init__(self) -> None:
        config = self.config
        self.pool: RenderPool
        self.answers: _Answers
        self.engine_counts: Callable[[], dict[str, float]] = dict
        self.asking = Turns(config.pages_at_once)
        # Pages that are rendered or asked: what is ahead of the model is as much as the renderers have in hand.
        self.in_hand = Turns(config.pages_at_once + default_workers() + 1)
        self.left_to_others: list[Source] = []
        self.order: dict[str, int] = {}
        self.ends: Counter[str] = Counter()
        self.unanswered = self.waiting = 0
        self.began = time.time()
        self.anew: set[str] = set()
        self.turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.terms = Terms(
            max_attempts=config.max_page_retries,
            max_tokens=config.max_tokens,
            timeout=config.page_timeout,
            time_limit=config.page_time_limit,
            prompt=config.prompt,
            guided=config.guided_decoding,
            is_looping=has_looped,
        )

    async def beat(self) -> None:
        """Tell other processes that this one is alive."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                self.records.beat()
            except OutputError as error:  # the next beat may do it, and what cannot go on ends with the next page
                log.warning("%s", error)

    def is_done(self, source: Source) -> bool:
        """Say whether *source* needs no reading; what is asked for only now is written from its pages."""
        known = self.records.document(source.key)
        if known is None or known.sha256 is None or not self._is_as_asked(known, source):
            return False
        if self.workspace.result(source, known.sha256) is None or not self._write_what_is_new(known, source):
            return False
        self.skipped += 1
        return True

    def _is_as_asked(self, known: DocumentRecord, source: Source) -> bool:
        """Say whether a document was read as this run would read it, and has not changed as far as can be seen."""
        is_same = known.stat != "" and known.stat == _stat(source) and known.selection == self._selection
        if known.state != "done" or not is_same or self.config.force:
            return False
        return not (self.config.retry_failed and _wants_retry(known, self.records))

    def _write_what_is_new(self, known: DocumentRecord, source: Source) -> bool:
        """Write what is asked for beside the result and is not there; return whether that could be done."""
        config = self.config
        lacks_markdown = config.markdown_folder and not self.workspace.markdown_path(source).exists()
        if lacks_markdown or config.page_files or config.page_records:
            document = self._assembled(source, known.sha256 or "", known.page_count or 0)
            if document is None:
                return False
            self._write_beside(document)
        return True

    async def read_some(self, queue: Iterator[Source]) -> None:
        """Read documents from *queue* until it is empty."""
        for source in queue:
            await self.read(source)

    async def read_what_others_left(self) -> None:
        """Read what other processes had in hand, as soon as they are done with it, or dead."""
        if self.left_to_others:
            log.info("waiting for %d documents that another process reads", len(self.left_to_others))
        while self.left_to_others:
            waiting, self.left_to_others = self.left_to_others, []
            for source in waiting:
                if not self.is_done(source):
                    await self.read(source)
            if self.left_to_others:
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def read(self, source: Source) -> None:
        """Read one document and write it, or why it could not be read."""
        stat = _stat(source)
        try:
            async with self._local(source) as path:
                sha256 = await asyncio.to_thread(content_hash, path, source.name)
                async with self.turns[sha256]:  # of two files with one content the second finds all pages read
                    if not self.records.lock(sha256):
                        self.left_to_others.append(source)
                        return
                    try:
                        await self._read_pages(source, path, sha256, stat)
                    finally:
                        self.records.release(sha256)
        except InputError as error:
            self._fail(source, str(error), DocumentRecord(source.key, source.name, stat, None, "", None, "failed"))

    @contextlib.asynccontextmanager
    async def _local(self, source: Source) -> AsyncIterator[Path]:
        is_over = threading.Event()  # a thread cannot be cancelled, and a download may take long
        manager = local_file(source, self.scratch, is_over=is_over.is_set)
        try:
            path = await asyncio.to_thread(manager.__enter__)
        except asyncio.CancelledError:
            is_over.set()
            raise
        try:
            yield path
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)

    async def _read_pages(self, source: Source, path: Path, sha256: str, stat: str) -> None:
        count = await self.pool.page_count(path, source.name)
        numbers = self._numbers(source, count)
        why = await self._why_filtered(path, source.name, count) if self.config.apply_filter else None
        if why:
            record = DocumentRecord(source.key, source.name, stat, sha256, self._selection, count, "filtered", why)
            self.records.add_document(record)
            self.filtered += 1
            log.info("%s is left out: %s", source.name, why)
            return
        finished = self._finished(source, sha256)
        missing = [number for number in numbers if number not in finished]
        self.waiting = max(0, self.waiting - 1)
        self.on_document(source, len(missing), self.waiting)
        reading = _Reading(source, path, sha256, count)
        await self._read_missing(reading, missing)
        if reading.unanswered:
            record = DocumentRecord(source.key, source.name, stat, sha256, self._selection, count, "failed")
            self._fail(source, _why_unanswered(reading), record, is_lasting=False)
            return
        document = self._assembled(source, sha256, count)
        if document is None:
            raise InputError(f"{source.name} lost a page while it was read; run it again")
        self._finish(document, DocumentRecord(source.key, source.name, stat, sha256, self._selection, count, "done"))

    async def _why_filtered(self, path: Path, name: str, count: int) -> str | None:
        texts = []
        for number in range(1, min(count, SAMPLE_PAGES) + 1):
            with contextlib.suppress(InputError):  # a damaged page says nothing
                texts.append((await self.pool.render(path, name, number, _SMALL)).text_layer or "")
        has_form = await self.pool.has_form(path, name)
        return why_filtered("\n".join(texts), has_form=has_form, languages=self.config.languages)

    def _finished(self, source: Source, sha256: str) -> set[int]:
        """Return the pages that are not read again.

        What is read anew is so once: not again where it lies there twice, or another process has just done it.
        """
        known = self.records.document(source.key)
        is_first = sha256 not in self.anew and not (known is not None and known.updated >= self.began)
        self.anew.add(sha256)
        if self.config.force and is_first:
            self.records.forget_pages(sha256)
        # What fell back is asked again where it made the document fail, or where that is asked for.
        is_retry = self.config.retry_failed or (known is not None and known.state == "failed")
        return self.records.finished_numbers(sha256, with_fallback=not (is_retry and is_first))

    @property
    def _selection(self) -> str:
        return self.config.pages or ""

    def _numbers(self, source: Source, count: int) -> tuple[int, ...]:
        selection = self.config.selection
        numbers = selection.numbers(count) if selection else tuple(range(1, count + 1))
        if not numbers:
            raise InputError(f"{source.name} has no page {self.config.pages}: it ends with page {count}")
        return numbers

    async def _read_missing(self, reading: _Reading, numbers: list[int]) -> None:
        """Read pages side by side, as many as may be in hand; the first error but a page's own ends all."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            for number in numbers:
                await self.in_hand.take(self._place(reading, number))
                task = asyncio.create_task(self._read_page(reading, number))
                tasks.add(task)
                task.add_done_callback(lambda task: self.in_hand.give())
                for ended in [each for each in tasks if each.done()]:
                    tasks.discard(ended)
                    ended.result()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _place(self, reading: _Reading, number: int) -> tuple[int, int]:
        """Return a page's place in the order: documents are finished as they were given, one after the other."""
        return self.order.get(reading.source.key, 0), number

    async def _read_page(self, reading: _Reading, number: int) -> None:
        """Read a page and keep it; one that nobody answers is not kept, so that the next run asks for it."""
        try:
            page = await self._page(reading, number)
        except ServerUnavailableError as error:
            self._give_up(reading, number, error)
            return
        self.records.add_page(reading.sha256, page)
        self._count(page)
        self.on_page(reading.source, page)

    async def _page(self, reading: _Reading, number: int) -> PageRecord:
        name, side = reading.source.name, self.config.target_longest_image_dim
        try:
            rendered = await self.pool.render(reading.path, name, number, side)
        except InputError as error:
            if reading.count == 1:
                raise
            return unrendered_record(number, str(error))
        if rendered.is_blank:
            return blank_record(number)
        async with self.asking.turn(self._place(reading, number)):
            answers = await self.answers.opened()
            self.engine_counts = answers.counts
            result = await ocr_page(rendered.image, answers.ask, self.terms, text_layer=rendered.text_layer)
        if result.page is None and (fault := answers.fault()) is not None:
            raise fault  # the page ran out of time while it waited for a server: that says nothing of the page
        self.unanswered = 0
        return record_of(number, result, rendered.text_layer, answers.model)

    def _give_up(self, reading: _Reading, number: int, error: ServerUnavailableError) -> None:
        """Give a page up for this run, and the run if nobody has answered for several pages."""
        self.unanswered += 1
        if self.unanswered >= _UNANSWERED_IN_A_ROW:
            raise ServerError(
                f"{error}; the run ends after {self.unanswered} pages in a row without an answer, go on with it later"
            ) from error
        reading.unanswered[number] = str(error)
        log.warning("page %d of %s: %s", number, reading.source.name, error)

    def _assembled(self, source: Source, sha256: str, count: int) -> Document | None:
        """Return the document from its pages' records; None if one is missing."""
        pages = self.records.pages(sha256)
        selection = self.config.selection
        numbers = selection.numbers(count) if selection else range(1, count + 1)
        if not numbers or any(number not in pages for number in numbers):
            return None
        return Document(source, sha256, tuple(pages[number] for number in numbers), count)

    def _finish(self, document: Document, record: DocumentRecord) -> None:
        why = why_failed(document, self.config.max_page_error_rate)
        result = dolma_record(document, datetime.date.today())
        if why:
            self._fail(document.source, why, record, result)
            return
        # The record first: a run that is stopped between the two writes the markdown next time.
        self.workspace.write_result(document.source, result)
        self._write_beside(document)
        self.records.add_document(record)
        self.done += 1

    def _write_beside(self, document: Document) -> None:
        """Write what is asked for beside the result."""
        config, workspace, source = self.config, self.workspace, document.source
        front_matter = config.front_matter
        if config.markdown_folder:
            text = markdown_of(document, separator=config.page_separator, front_matter=front_matter)
            workspace.write_markdown(source, text)
        if config.page_files:
            texts = {page.page_number: page_markdown(page, front_matter=front_matter) for page in document.pages}
            workspace.write_pages(source, texts)
        if config.page_records:
            workspace.write_page_records(source, pages_json(document))

    def _count(self, page: PageRecord) -> None:
        self.counts["pages"] += 1
        self.counts["blank_pages"] += page.status == "blank"
        self.counts["retried_pages"] += page.attempts > 1
        self.counts["fallback_pages"] += page.is_fallback
        self.counts["poor_pages"] += page.lacks_text
        self.counts["input_tokens"] += page.input_tokens
        self.counts["output_tokens"] += page.output_tokens
        self.ends.update(page.ends)

    def _fail(
        self,
        source: Source,
        why: str,
        record: DocumentRecord,
        result: dict[str, Any] | None = None,
        *,
        is_lasting: bool = True,
    ) -> None:
        """Keep why a document failed; what was read of the same content before stays if that is not *is_lasting*."""
        stays = not is_lasting and self.workspace.result(source, record.sha256) is not None
        self.workspace.write_failure(source, why, result, keep=stays)
        failed = DocumentRecord(**{**vars(record), "state": "failed", "why": why})
        self.records.add_document(failed)
        self.failures[source.key] = Failure(source.name, why)
        log.warning("%s failed: %s", source.name, why)

    def summary(self) -> RunSummary:
        """Return what was done so far."""
        names = ("pages", "blank_pages", "retried_pages", "fallback_pages", "poor_pages")
        return RunSummary(
            done=self.done,
            skipped=self.skipped,
            filtered=self.filtered,
            failures=tuple(self.failures[key] for key in sorted(self.failures, key=self.order.__getitem__)),
            **{name: self.counts[name] for name in (*names, "input_tokens", "output_tokens")},
            seconds=self.seconds,
        )


@dataclass
class _Reading:
    """A document that is being read, and why of each page that nobody answered."""

    source: Source
    path: Path
    sha256: str
    count: int
    unanswered: dict[int, str] = field(default_factory=dict)


def _why_unanswered(reading: _Reading) -> str:
    number, why = min(reading.unanswered.items())
    pages = f"page {number}" if len(reading.unanswered) == 1 else f"{len(reading.unanswered)} pages (first: {number})"
    return f"{pages} of {reading.source.name} had no answer: {why}"


def _stat(source: Source) -> str:
    """Return what tells cheaply that a file, or its archive, has not changed; nothing for what is elsewhere."""
    match source.origin:
        case Path() as path:
            pass
        case ZipMember(archive, _) | TarMember(archive, _):
            path = Path(archive)
        case _:
            return ""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
