"""Workspace -> documents -> RunSummary."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from olmocr.errors import ExitCode, InputError
from olmocr.model_folder import find_model
from olmocr.page import Ask
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.document import Document, Page, make_page, why_failed
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
    sources = find_sources(config.pdfs)
    workspace = open_workspace(config.workspace)
    tally = _Tally()
    waiting = [source for source in sources if not _is_done(workspace, source, config, tally)]
    if waiting:
        async with _backend(config) if ask is None else contextlib.nullcontext(ask) as answering:
            started = time.monotonic()
            for source in waiting:
                await _run_document(source, workspace, config, answering, on_page, tally)
            tally.seconds = time.monotonic() - started
    return tally.summary()


@dataclass
class _Tally:
    """Counts of a run that is under way."""

    done: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    pages: int = 0
    fallback_pages: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def count(self, document: Document) -> None:
        self.pages += len(document.pages)
        self.fallback_pages += len(document.fallback_pages)
        self.output_tokens += sum(page.result.answer.output_tokens for page in document.pages if page.result.answer)

    def fail(self, source: Source, why: str) -> None:
        log.warning("%s failed: %s", source.name, why)
        self.failures.append(Failure(source.name, why))

    def summary(self) -> RunSummary:
        return RunSummary(**{**vars(self), "failures": tuple(self.failures)})


def _is_done(workspace: Workspace, source: Source, config: PipelineConfig, tally: _Tally) -> bool:
    """Say whether *source* needs no reading; a markdown file that is asked for only now is written from its record."""
    try:
        record = workspace.finished_record(source)
    except InputError:
        return False  # it will fail in its turn, and be reported
    if record is None:
        return False
    if config.markdown and not workspace.markdown_path(source).exists():
        workspace.write_markdown(source, record["text"])
    tally.skipped += 1
    return True


@contextlib.asynccontextmanager
async def _backend(config: PipelineConfig) -> AsyncIterator[Ask]:
    """Yield what answers, ready to be asked."""
    from olmocr.device import start_mlx

    folder = find_model(config.model)
    device = start_mlx()
    from olmocr.inference.engine import Engine

    with Engine(folder, device) as engine:
        log.info("%s: %s", folder.name, engine)
        yield engine.ask


async def _run_document(
    source: Source, workspace: Workspace, config: PipelineConfig, ask: Ask, on_page: OnPage, tally: _Tally
) -> None:
    try:
        document = await _read_document(source, config, ask, on_page)
    except InputError as error:
        workspace.write_failure(source, str(error), None)
        tally.fail(source, str(error))
        return
    tally.count(document)
    record = dolma_record(document, config.model, datetime.date.today())
    why = why_failed(document, config.max_page_error_rate)
    if why:
        workspace.write_failure(source, why, record)
        tally.fail(source, why)
        return
    _write_document(source, record, workspace, config)
    tally.done += 1


async def _read_document(source: Source, config: PipelineConfig, ask: Ask, on_page: OnPage) -> Document:
    content_hash = source.content_hash()
    with open_document(source) as pages:
        read = [await _read_page(source, pages, number, config, ask, on_page) for number in _numbers(pages)]
    return Document(source, content_hash, tuple(read))


def _numbers(pages: Pages) -> Iterator[int]:
    return iter(range(1, pages.page_count + 1))


async def _read_page(
    source: Source, pages: Pages, number: int, config: PipelineConfig, ask: Ask, on_page: OnPage
) -> Page:
    try:
        image = pages.render(number, config.target_longest_image_dim)
    except InputError as error:
        if pages.page_count == 1:
            raise
        result, text_layer = PageResult(None, None, (str(error),)), None
    else:
        result = await ocr_page(image, ask, max_attempts=config.max_page_retries, max_tokens=config.max_tokens)
        text_layer = pages.text(number) if result.page is None else None
    on_page(source, number, result)
    return make_page(result, text_layer)


def _write_document(source: Source, record: dict[str, Any], workspace: Workspace, config: PipelineConfig) -> None:
    """Write the record first: a run that is stopped between the two writes the markdown next time."""
    workspace.write_result(source, record)
    if config.markdown:
        workspace.write_markdown(source, record["text"])
