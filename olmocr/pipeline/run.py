"""Workspace -> documents -> RunSummary."""

from __future__ import annotations

import contextlib
import datetime
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmocr.device import REFERENCE_BLAS, start_mlx
from olmocr.errors import ExitCode, InputError
from olmocr.model_folder import find_model
from olmocr.page import Ask
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.document import Document, Page, make_page, why_failed
from olmocr.pipeline.local_file import content_hash, local_file
from olmocr.pipeline.ocr_page import PageResult, ocr_page
from olmocr.pipeline.outputs import dolma_record
from olmocr.pipeline.render import Pages, open_document
from olmocr.pipeline.sources import Source, find_sources
from olmocr.pipeline.workspace import Workspace, open_workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A document that was not read, and why."""

    source: str
    why: str


@dataclass(frozen=True)
class RunSummary:
    """What a run did. *done* and *pages* count this run's; *skipped* documents were done before.

    *seconds* is the time spent on pages, from the first rendered to the last written, without loading the model.
    """

    done: int
    skipped: int
    failures: tuple[Failure, ...]
    pages: int
    fallback_pages: int
    output_tokens: int
    seconds: float

    @property
    def exit_code(self) -> ExitCode:
        """What a command that ran this ends with."""
        return ExitCode.SOME_DOCUMENTS_FAILED if self.failures else ExitCode.OK


OnPage = Callable[[Source, int, PageResult], None]
"""Called after each page, with its number from 1."""


async def run_pipeline(
    config: PipelineConfig,
    *,
    on_page: OnPage = lambda source, number, result: None,
    ask: Ask | None = None,
) -> RunSummary:
    """Read every document of *config* that its workspace does not hold yet.

    A document that cannot be read is reported in the summary and kept apart as failed; the others go on.
    Each document is written as soon as it is read, so that an interrupted run loses only the one in hand.

    Args:
        config: what to do.
        on_page: called after each page.
        ask: answers instead of the config's backend and model.

    Raises:
        OlmocrError: nothing could be started, or nothing more can be written.
    """
    sources = find_sources(config.pdfs, apart_from=config.workspace)
    workspace = open_workspace(config.workspace)
    with tempfile.TemporaryDirectory(prefix="olmocr-") as scratch:
        return await _read_all(sources, _Run(config, workspace, on_page, Path(scratch)), ask)


async def _read_all(sources: tuple[Source, ...], run: _Run, ask: Ask | None) -> RunSummary:
    waiting = [source for source in sources if not run.is_done(source)]
    if waiting:
        async with _backend(run.config) if ask is None else contextlib.nullcontext(ask) as answering:
            started = time.monotonic()
            for source in waiting:
                await run.read(source, answering)
            run.seconds = time.monotonic() - started
    return run.summary()


@contextlib.asynccontextmanager
async def _backend(config: PipelineConfig) -> AsyncIterator[Ask]:
    """Yield what answers, ready to be asked."""
    folder = find_model(config.model)
    device = start_mlx()
    if device.blas == REFERENCE_BLAS:
        log.warning("MLX computes with its reference BLAS, which is slow: pip install 'olmocr[blas]'")
    # Only now, since it imports MLX, which must find its BLAS loaded.
    from olmocr.inference.engine import Engine

    with Engine(folder, device) as engine:
        log.info("%s: %s", folder.name, engine)
        yield engine.ask


@dataclass
class _Run:
    """A run that is under way, and its counts."""

    config: PipelineConfig
    workspace: Workspace
    on_page: OnPage
    scratch: Path
    done: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    pages: int = 0
    fallback_pages: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def is_done(self, source: Source) -> bool:
        """Say whether *source* needs no reading; markdown that is asked for only now is written from its record."""
        try:
            record = self.workspace.finished_record(source, self.scratch)
        except InputError:
            return False  # it will fail in its turn, and be reported
        if record is None:
            return False
        if self.config.markdown and not self.workspace.markdown_path(source).exists():
            self.workspace.write_markdown(source, record["text"])
        self.skipped += 1
        return True

    async def read(self, source: Source, ask: Ask) -> None:
        """Read one document and write it, or why it could not be read."""
        try:
            document = await self._document(source, ask)
        except InputError as error:
            self._fail(source, str(error), None)
            return
        self._count(document)
        record = dolma_record(document, self.config.model, datetime.date.today())
        why = why_failed(document, self.config.max_page_error_rate)
        if why:
            self._fail(source, why, record)
            return
        # The record first: a run that is stopped between the two writes the markdown next time.
        self.workspace.write_result(source, record)
        if self.config.markdown:
            self.workspace.write_markdown(source, record["text"])
        self.done += 1

    async def _document(self, source: Source, ask: Ask) -> Document:
        with local_file(source, self.scratch) as path, open_document(path, source.name) as pages:
            digest = content_hash(path, source.name)
            numbers = range(1, pages.page_count + 1)
            return Document(source, digest, tuple([await self._page(source, pages, n, ask) for n in numbers]))

    async def _page(self, source: Source, pages: Pages, number: int, ask: Ask) -> Page:
        config = self.config
        try:
            image = pages.render(number, config.target_longest_image_dim)
        except InputError as error:
            if pages.page_count == 1:
                raise
            result, text_layer = PageResult(None, None, 0, (str(error),)), None
        else:
            result = await ocr_page(image, ask, max_attempts=config.max_page_retries, max_tokens=config.max_tokens)
            text_layer = pages.text(number) if result.page is None else None
        self.on_page(source, number, result)
        return make_page(result, text_layer)

    def _count(self, document: Document) -> None:
        self.pages += len(document.pages)
        self.fallback_pages += len(document.fallback_pages)
        self.output_tokens += sum(page.result.answer.output_tokens for page in document.pages if page.result.answer)

    def _fail(self, source: Source, why: str, record: dict[str, Any] | None) -> None:
        self.workspace.write_failure(source, why, record)
        self.failures.append(Failure(source.name, why))
        log.warning("%s failed: %s", source.name, why)

    def summary(self) -> RunSummary:
        return RunSummary(
            done=self.done,
            skipped=self.skipped,
            failures=tuple(self.failures),
            pages=self.pages,
            fallback_pages=self.fallback_pages,
            output_tokens=self.output_tokens,
            seconds=self.seconds,
        )
