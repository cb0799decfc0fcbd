"""One reader of a cluster: documents that it is sent, or finds itself -> their pages, read with its own model.

It does not depend on Ray, so a test, or another way to connect machines, can use it as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from olmocr.backends.choice import Answering, answering
from olmocr.backends.local_server import free_port
from olmocr.errors import InputError, OlmocrError, output_error
from olmocr.files import is_folder
from olmocr.hub.find import find_settings
from olmocr.inputs.local_file import content_hash, fetched, scratch_folder
from olmocr.inputs.sources import Source
from olmocr.model_folder import weights_sha256
from olmocr.pipeline.answers import Answers
from olmocr.pipeline.config import ReadingConfig
from olmocr.pipeline.one_document import PageReader, terms_of
from olmocr.pipeline.repetition import is_looping
from olmocr.pipeline.turns import Place
from olmocr.rendering.pool import RenderPool
from olmocr.version import __version__
from olmocr.workspace.document import PageRecord

T = TypeVar("T")

_KEPT_FILES = 16
"""How many documents that nobody is reading are kept: more pages of a long one may be requested."""


@dataclass(frozen=True)
class ReaderTerms:
    """What a reader uses: *config*, with a model that other machines can find, and that model as the run *named* it."""

    config: ReadingConfig
    named: str


@dataclass(frozen=True)
class SentDocument:
    """A document for a reader.

    *token* is new each time that a run opens the document. *content* gives access to its bytes; if it is None, the
    reader fetches them from their source.
    """

    token: str
    source: Source
    content: Any = None


@dataclass(frozen=True)
class OpenedThere:
    """What a reader found: the SHA-256 of a document's bytes, and how many pages it has."""

    sha256: str
    page_count: int


@dataclass(frozen=True)
class PageQuestion:
    """A page to read: its number in a document with this SHA-256, and its place in the order of all pages."""

    document: SentDocument
    sha256: str
    number: int
    place: Place
    is_only: bool


@dataclass(frozen=True)
class ReaderInfo:
    """A reader that has its model: its olmocr version, how many pages it takes at once, and a hash of the weights."""

    version: str
    room: int
    weights: str | None


@dataclass(frozen=True)
class Fault:
    """Why there is no answer. It is sent as an answer, because Ray raises errors as classes of its own."""

    error: OlmocrError


Answer = OpenedThere | PageRecord | ReaderInfo | Fault

Fetch = Callable[[Any], Awaitable[bytes]]
"""Returns the bytes that a document's *content* stands for."""

OpenAnswering = Callable[[], AbstractAsyncContextManager[Answering]]


def reader_terms(config: ReadingConfig) -> ReaderTerms:
    """Return what readers on other machines use: no keys, nothing that only a run needs, and absolute paths."""
    values = {each.name: getattr(config, each.name) for each in fields(ReadingConfig)} | {"api_key": None}
    named = config.model or ""
    folder = Path(named).expanduser()
    if named and is_folder(folder):
        values["model"] = str(folder.resolve())
    return ReaderTerms(ReadingConfig(**values), named)


@dataclass
class _File:
    """A document on this disk, once it is fetched, and how many questions need it."""

    fetching: asyncio.Task[tuple[Path, str]]
    stack: contextlib.AsyncExitStack
    users: int = 0


class Desk:
    """Reads pages on *terms*; *fetch* gets the bytes of sent documents. Use it as an async context manager.

    *open_pool* opens what renders, and *open_answering* what answers, instead of what the terms say.
    """

    def __init__(
        self,
        terms: ReaderTerms,
        fetch: Fetch,
        *,
        open_pool: Callable[[], AbstractAsyncContextManager[RenderPool]] = RenderPool,
        open_answering: OpenAnswering | None = None,
    ) -> None:
        self._config = terms.config
        self._named = terms.named
        self._fetch = fetch
        self._open_pool = open_pool
        self._open_answering = open_answering or self._answering
        self._stack = contextlib.AsyncExitStack()
        self._files: dict[str, _File] = {}

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._scratch = stack.enter_context(scratch_folder())
            self._pool = await stack.enter_async_context(self._open_pool())
            answers = Answers(self._config, self._scratch, opening=self._open_answering)
            self._answers = await stack.enter_async_context(answers)
            stack.push_async_callback(self._forget_all)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.__aexit__(*exception)  # type: ignore[arg-type]

    async def load(self) -> ReaderInfo | Fault:
        """Load the model, and describe this reader."""
        return await _told(self._load())

    async def open(self, document: SentDocument) -> OpenedThere | Fault:
        """Open a document, which is then kept for its pages."""
        return await _told(self._open(document))

    async def read(self, question: PageQuestion) -> PageRecord | Fault:
        """Read a page."""
        return await _told(self._read(question))

    async def _load(self) -> ReaderInfo:
        await self._answers.open()
        return ReaderInfo(__version__, self._answers.in_hand.count, await asyncio.to_thread(self._weights))

    def _weights(self) -> str | None:
        """Return a hash of the model's weights, if it is known without reading them."""
        try:
            return weights_sha256(find_settings(self._config.model or ""))
        except OlmocrError:
            return None

    async def _open(self, document: SentDocument) -> OpenedThere:
        async with self._file_of(document) as (path, sha256):
            return OpenedThere(sha256, await self._pool.page_count(path, document.source.name))

    async def _read(self, question: PageQuestion) -> PageRecord:
        name, side = question.document.source.name, self._config.target_longest_image_dim
        async with self._file_of(question.document) as (path, sha256):
            if sha256 != question.sha256:
                raise InputError(f"{name} changed while it was being read; run it again")
            reader = PageReader(path, name, self._pool, side, terms_of(self._config), question.is_only)
            return await reader.read(question.number, self._answers.turn(question.place))

    @contextlib.asynccontextmanager
    async def _file_of(self, document: SentDocument) -> AsyncIterator[tuple[Path, str]]:
        """Yield a document's path on this disk, and its hash. The document is fetched once for all its pages."""
        file = self._files.pop(document.token, None)
        if file is None:
            stack = contextlib.AsyncExitStack()
            file = _File(asyncio.ensure_future(self._fetched(document, stack)), stack)
        self._files[document.token] = file  # the most recently used is removed last
        file.users += 1
        try:
            yield await asyncio.shield(file.fetching)
        except BaseException:
            if file.fetching.done() and (file.fetching.cancelled() or file.fetching.exception()):
                self._files.pop(document.token, None)  # the next question tries again
            raise
        finally:
            file.users -= 1
            await self._forget_oldest()

    async def _fetched(self, document: SentDocument, stack: contextlib.AsyncExitStack) -> tuple[Path, str]:
        source = document.source
        if document.content is None:
            path = await stack.enter_async_context(fetched(source, self._scratch))
        else:
            path = self._scratch / document.token
            stack.callback(path.unlink, missing_ok=True)
            data = await self._fetch(document.content)
            try:
                await asyncio.to_thread(path.write_bytes, data)
            except OSError as error:
                raise output_error(error, f"a copy of {source.name} in {path.parent}") from error
        return path, await asyncio.to_thread(content_hash, path, source.name)

    async def _forget_oldest(self) -> None:
        unused = [token for token, file in self._files.items() if not file.users and file.fetching.done()]
        for token in unused[: max(0, len(unused) - _KEPT_FILES)]:
            await self._files.pop(token).stack.aclose()

    async def _forget_all(self) -> None:
        for file in self._files.values():
            file.fetching.cancel()
            await asyncio.gather(file.fetching, return_exceptions=True)
            await file.stack.aclose()

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[Answering]:
        """Yield what answers; its records name the model as the run did."""
        config = _with_port_of_its_own(self._config)
        side = config.target_longest_image_dim
        async with answering(config, folder=self._scratch, longest_side=side, is_looping=is_looping) as found:
            yield replace(found, model=self._named)


async def _told(answer: Awaitable[T]) -> T | Fault:
    try:
        return await answer
    except OlmocrError as error:
        return Fault(error)


def _with_port_of_its_own(config: ReadingConfig) -> ReadingConfig:
    """Return a config whose server, if one is started, has a free port: one machine may run several."""
    if config.is_in_process or config.port is not None:
        return config
    return replace(config, port=free_port())
