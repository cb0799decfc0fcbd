"""Workspace -> documents -> RunSummary: pages are read side by side and kept one by one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmocr.backends.choice import Sleep
from olmocr.disk_dict import DiskDict
from olmocr.errors import InputError, OlmocrError, OutputError, ServerUnavailableError, UnwritableNameError, reason_of
from olmocr.files import cache_folder, temporary_folder
from olmocr.inputs.local_file import content_hash, fetched, is_elsewhere, scratch_folder, version_of
from olmocr.inputs.sources import Source, list_sources
from olmocr.page import Ask
from olmocr.pipeline.answers import Answers
from olmocr.pipeline.cluster.actors import ray_cluster
from olmocr.pipeline.cluster.reading import ClusterReading, OpenCluster
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.document_filter import SAMPLE_PAGES, why_filtered
from olmocr.pipeline.one_document import DocumentHere, ReadableDocument
from olmocr.pipeline.page_ranges import wanted_numbers
from olmocr.pipeline.shown import NOTHING, Looked, look_into
from olmocr.pipeline.summary import RunCounts, RunSummary, metrics_of
from olmocr.pipeline.turns import Place, side_by_side
from olmocr.pipeline.unfinished import Unfinished, sources_to_retry, write_beside
from olmocr.rendering.pool import RenderPool
from olmocr.runtime.threads import EventLoopThread
from olmocr.stages import OnStage, unwatched
from olmocr.text import in_a_line
from olmocr.workspace.document import Document, PageRecord, why_failed
from olmocr.workspace.kept import Memory, Results
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.opening import opened_workspace
from olmocr.workspace.outputs import dolma_line
from olmocr.workspace.records import HEARTBEAT_SECONDS, KnownDocument

log = logging.getLogger(__name__)

_SMALL = 28  # pixels, where only a page's text is wanted

OpenWorkspace = Callable[[Path | StorePlace, Path | None], AbstractContextManager[tuple[Results, Memory]]]

OnPage = Callable[[Source, PageRecord], None]
"""Called after each page that this run read."""

OnDocument = Callable[[Source, int, int], None]
"""Called when a document begins: how many of its pages are to be read, and how many documents wait behind it."""


async def run_pipeline(
    config: PipelineConfig,
    *,
    on_page: OnPage = lambda source, page: None,
    on_document: OnDocument = lambda source, pages, waiting: None,
    on_stage: OnStage = unwatched,
    ask: Ask | None = None,
    sleep: Sleep = asyncio.sleep,
    open_pool: Callable[[], AbstractAsyncContextManager[RenderPool]] = RenderPool,
    open_workspace: OpenWorkspace = opened_workspace,
    open_cluster: OpenCluster = ray_cluster,
) -> RunSummary:
    """Read every document of *config* that its workspace does not hold yet.

    A document that cannot be read is reported in the summary and recorded as failed; the run continues with the
    others. Each page is kept as soon as it is read, so a stopped run loses only the pages in hand. Several processes
    may work in one workspace; each document is read by one of them.

    Args:
        config: what to do.
        on_page: called after each page.
        on_document: called when a document begins.
        on_stage: called with what happens before there are pages: documents found, a download, loading, first text.
        ask: answers instead of the config's backend and model.
        sleep: waits before an unavailable server is asked again.
        open_pool: opens what renders pages.
        open_workspace: opens what keeps results, and what remembers pages.
        open_cluster: connects to the machines that read pages, if the config names a cluster.

    Raises:
        OlmocrError: the run cannot start, no server answers any more, or nothing more can be written.
    """
    with contextlib.ExitStack() as stack:
        sources = _find_sources(config, on_stage)
        workspace, records = stack.enter_context(open_workspace(config.workspace, config.output_dir))
        scratch = stack.enter_context(scratch_folder())
        if not config.pdfs:
            sources = sources_to_retry(records)
        if config.writes_beside:
            for source in sources.values():  # in this order, not in the order in which they finish
                workspace.reserve(
                    source,
                    markdown=config.markdown_folder is not None,
                    pages=config.page_files,
                    page_records=config.page_records,
                )
        cluster = None
        if config.ray and not ask:
            cluster = ClusterReading(config, scratch, open_cluster, sleep, on_stage)
        opening = cluster.answering if cluster else None
        counts = RunCounts(sources)
        answers = Answers(config, _local(config.workspace), ask, sleep, on_stage, opening)
        unfinished = Unfinished(config, workspace, records, sources, lambda: counts.add_document("skipped"))
        try:
            if unfinished.find():
                async with open_pool() as pool, answers, _beating(records):
                    documents = _Documents(config, scratch, pool, answers, cluster)
                    run = _Run(config, workspace, records, scratch, unfinished, counts, documents, on_page, on_document)
                    with counts.timed(apart_from=lambda: answers.seconds):
                        await documents.get_ready()
                        await run.read_all(unfinished.found())
            if cluster is None:  # a cluster's machines may have a model that this one lacks
                await answers.require_model()
        except asyncio.CancelledError:
            records.end_waiting()
            raise
        finally:  # whatever ended the run, earlier failures are reported
            unfinished.tell_what_was_read_otherwise(answers.model)
            workspace.write_failures(records.failures())
            numbers = metrics_of(counts, answers.counts(), answers.by_server())
            workspace.write_metrics(numbers)
            records.add_run(numbers)
        return counts.summary()


def _find_sources(config: PipelineConfig, on_stage: OnStage) -> DiskDict[Source]:
    """Return the given documents, except those in the workspace itself."""
    place = config.workspace
    if isinstance(place, Path):
        return list_sources(config.pdfs, apart_from=place, on_stage=on_stage)
    return list_sources(config.pdfs, apart_from=place.local_folder, on_stage=on_stage, not_below=f"{place}/")


def _local(place: Path | StorePlace) -> Path:
    """Return a folder on this disk for the output of a server that the run starts."""
    return place if isinstance(place, Path) else cache_folder("servers")


def run_pipeline_sync(
    config: PipelineConfig,
    *,
    on_page: OnPage = lambda source, page: None,
    on_document: OnDocument = lambda source, pages, waiting: None,
    on_stage: OnStage = unwatched,
    ask: Ask | None = None,
) -> RunSummary:
    """Do what :func:`run_pipeline` does, for scripts and notebooks. Ctrl-C, or a notebook's Stop, ends it at once.

    The callbacks are called in another thread.
    """
    with EventLoopThread() as loop:
        return loop.run(run_pipeline(config, on_page=on_page, on_document=on_document, on_stage=on_stage, ask=ask))


class _CallbackError(Exception):
    """An error in the caller's own function: not the fault of a document, and for the caller to handle."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextlib.contextmanager
def _callers_own() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _CallbackError(error) from error


@contextlib.asynccontextmanager
async def _beating(records: Memory) -> AsyncIterator[None]:
    """Tell other processes that this one is alive."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await records.away(records.beat)
            except OutputError as error:  # the next beat may succeed; if not, the next page ends the run
                log.warning("%s", error)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


@dataclass(frozen=True)
class _Documents:
    """Opens documents: here, with *pool* and *answers*, or on the machines of *cluster*."""

    config: PipelineConfig
    scratch: Path
    pool: RenderPool
    answers: Answers
    cluster: ClusterReading | None

    async def get_ready(self) -> None:
        """Find the machines: how many documents are read at once depends on them."""
        if self.cluster is not None:
            await self.answers.open()

    def at_once(self) -> int:
        """Return how many documents are read side by side at the moment."""
        return self.config.workers * max(1, self.cluster.readers) if self.cluster else self.config.documents_at_once

    @contextlib.asynccontextmanager
    async def opened(self, source: Source, place: Place) -> AsyncIterator[ReadableDocument]:
        """Yield a document for reading.

        Raises:
            InputError: it cannot be fetched, or, if that is tried at once, cannot be opened.
            ServerUnavailableError: no machine answers at the moment.
        """
        if self.cluster is not None:
            async with self.cluster.opened(source, place, self.answers) as document:
                yield document
            return
        async with fetched(source, self.scratch) as path:
            sha256 = await asyncio.to_thread(content_hash, path, source.name)
            yield DocumentHere(path, source.name, sha256, self.pool, self.answers, self.config)


@dataclass(frozen=True)
class _Run:
    """Reads the documents of a run."""

    config: PipelineConfig
    workspace: Results
    records: Memory
    scratch: Path
    unfinished: Unfinished
    counts: RunCounts
    documents: _Documents
    on_page: OnPage
    on_document: OnDocument

    async def read_all(self, waiting: Iterable[Source]) -> None:
        """Read documents side by side, then those that other processes left unfinished."""
        async for _ in side_by_side(waiting, self._read, self.documents.at_once):
            pass
        async for source in self.unfinished.left_to_others():
            await self._read(source)

    async def _read(self, source: Source) -> None:
        """Read one document, and write its result or why it could not be read."""
        if self.records.is_shared and await self.unfinished.is_done_by_now(source):
            return
        version, sha256 = version_of(source), None
        unread = KnownDocument(source.key, source.name, version, None, "", None, "failed")
        try:
            async with self.documents.opened(source, self.unfinished.place(source, 0)) as document:
                sha256 = document.sha256
                async with self.unfinished.held(source, sha256) as is_ours:
                    if is_ours:
                        await self._read_content(source, document, version)
        except (InputError, UnwritableNameError) as error:
            # A server may answer anything for a while; a local file that is no longer a document has changed.
            stays = sha256 is None or is_elsewhere(source) or await self._has_result(source, sha256)
            await self._fail(source, str(error), unread, keep=stays)
        except ServerUnavailableError as error:
            await self._fail(source, f"{source.name} got no answer: {error}", unread, keep=True)
        except OlmocrError:
            raise
        except _CallbackError as error:
            raise error.reason from error
        except Exception as error:  # unexpected, but it does not affect the other documents
            log.debug("%s", in_a_line(source.name), exc_info=True)
            why = f"{type(error).__name__}: {reason_of(error)}"
            await self._fail(source, f"{source.name} hit a bug in olmocr; please report it: {why}", unread, keep=True)

    async def _read_content(self, source: Source, content: ReadableDocument, version: str) -> None:
        config, name, sha256 = self.config, source.name, content.sha256
        count = await content.page_count()
        numbers = wanted_numbers(config.selection, count)
        if not numbers:
            raise InputError(f"{name} has no page {config.pages}: it ends with page {count}")
        known = KnownDocument(source.key, name, version, sha256, config.pages or "", count, "done")
        why = await self._why_filtered(content, name, count) if config.apply_filter else None
        if why:
            filtered = replace(known, state="filtered", why=why)
            await self.records.away(lambda: self.records.add_document(filtered))
            self.counts.add_document("filtered")
            log.info("%s is left out: %s", in_a_line(name), why)
            return
        missing, behind = await self.records.away(lambda: self.unfinished.begin(source, sha256, numbers))
        with _callers_own():
            self.on_document(source, len(missing), behind)
        fresh, unanswered = await self._read_pages(source, content, missing, is_only=count == 1)
        if unanswered:
            await self._fail(source, _why_unanswered(name, unanswered), known, keep=True)
            return
        document = await self.records.away(lambda: self.unfinished.assembled(source, sha256, count))
        if document is None:
            raise InputError(f"{name} lost a page while it was being read; run it again")
        with temporary_folder(self.scratch) as folder:
            looked = NOTHING
            if config.form.looks_into_pages:
                async with content.on_this_disk() as path:
                    looked = await look_into(document, path, self.documents.pool, folder, config.form)
            await self._finish(document, fresh, known, looked)

    async def _why_filtered(self, content: ReadableDocument, name: str, count: int) -> str | None:
        texts, pool = [], self.documents.pool
        async with content.on_this_disk() as path:
            for number in range(1, min(count, SAMPLE_PAGES) + 1):
                with contextlib.suppress(InputError):  # a damaged page has no text to judge by
                    texts.append((await pool.render(path, name, number, _SMALL)).text_layer or "")
            has_form = await pool.has_form(path, name)
        return why_filtered("\n".join(texts), has_form=has_form, languages=self.config.languages)

    async def _read_pages(
        self, source: Source, content: ReadableDocument, numbers: Iterable[int], *, is_only: bool
    ) -> tuple[dict[int, PageRecord], dict[int, str]]:
        """Read pages and keep them. Return them, and why others got no answer; the next run asks for those again."""
        fresh: dict[int, PageRecord] = {}
        unanswered: dict[int, str] = {}
        answers, sha256 = self.documents.answers, content.sha256

        async def read(number: int) -> None:
            place = self.unfinished.place(source, number)
            async with answers.in_hand.turn(place):
                try:
                    page = await content.read(number, place, is_only=is_only)
                except ServerUnavailableError as error:
                    unanswered[number] = str(error)
                    log.warning("page %d of %s: %s", number, in_a_line(source.name), error)
                    return
                fresh[number] = page
                await self.records.away(lambda: self.records.add_page(sha256, page))
                self.counts.add_page(page)
                with _callers_own():
                    self.on_page(source, page)

        async for _ in side_by_side(numbers, read, answers.most_in_hand):
            pass
        return fresh, unanswered

    async def _finish(
        self, document: Document, fresh: dict[int, PageRecord], known: KnownDocument, looked: Looked
    ) -> None:
        """Write a document, or its failure. *fresh* has the pages as this run read them, whatever was kept of them."""
        source, today = document.source, datetime.date.today()
        pages = tuple(fresh.get(page.page_number, page) for page in document.pages)
        if why := why_failed(replace(document, pages=pages), self.config.max_page_error_rate):
            line = dolma_line(replace(document, pages=pages), today)
            await self._fail(source, why, known, line, keep=await self._has_result(source, document.content_hash))
            return
        kept = [page.page_number for page in document.pages if page != fresh.get(page.page_number, page)]
        if kept_well := [number for number in kept if fresh[number].is_fallback]:
            log.warning(
                "%s: %d pages (first: %d) got no good answer this time and stay as they were read before",
                source.name, len(kept_well), kept_well[0],
            )  # fmt: skip
        line = dolma_line(document, today)
        await self.records.away(lambda: self._write(document, line, known, looked))
        self.counts.add_document("done")

    def _write(self, document: Document, line: dict[str, Any], known: KnownDocument, looked: Looked) -> None:
        """Write a document, its line first: if the run stops after it, the next run writes the markdown."""
        source = document.source
        self.workspace.write_result(source, line)
        self.unfinished.forget_what_had_the_name(source)
        write_beside(self.workspace, document, self.config, looked)
        self.workspace.remove_stale(source, line["id"])
        self.records.replaced(document.content_hash)
        self.records.add_document(known)

    async def _has_result(self, source: Source, sha256: str) -> bool:
        return await self.records.away(lambda: self.workspace.result_id(source, sha256)) is not None

    async def _fail(
        self,
        source: Source,
        why: str,
        known: KnownDocument,
        line: dict[str, Any] | None = None,
        *,
        keep: bool,
    ) -> None:
        """Record why a document failed. With *keep*, what was read before stays, as it may not have changed."""
        name, why = in_a_line(source.name), in_a_line(why)

        def write() -> None:
            self.workspace.write_failure(source, why, line, keep=keep)
            self.records.add_document(replace(known, state="failed", why=why))

        await self.records.away(write)
        self.counts.add_failure(source, why)
        log.warning("%s failed: %s", name, why)


def _why_unanswered(name: str, unanswered: dict[int, str]) -> str:
    number, why = min(unanswered.items())
    pages = f"page {number}" if len(unanswered) == 1 else f"{len(unanswered)} pages (first: {number})"
    return f"{pages} of {name} got no answer: {why}"
