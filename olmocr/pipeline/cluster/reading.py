"""A run's documents, read by many machines: which machine is asked what, as machines join, rest and leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from olmocr.backends.choice import Answering
from olmocr.backends.client import ServerInfo
from olmocr.backends.fleet import Fleet
from olmocr.backends.server_list import NamedServer
from olmocr.errors import InputError, MissingDependencyError, OlmocrError, OutputError, ServerError, reason_of
from olmocr.errors import ServerUnavailableError as Unavailable
from olmocr.inputs.local_file import content_hash, fetched, is_elsewhere
from olmocr.inputs.sources import Source
from olmocr.page import ModelResponse, PageRequest
from olmocr.pipeline.answers import Answers
from olmocr.pipeline.cluster.desk import (
    Answer,
    Fault,
    OpenedThere,
    PageQuestion,
    ReaderInfo,
    ReaderTerms,
    SentDocument,
    reader_terms,
)
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.turns import Place
from olmocr.stages import Loading, OnStage, unwatched
from olmocr.version import __version__
from olmocr.workspace.document import PageRecord

log = logging.getLogger(__name__)

SHORT_PAGES = 16
"""A document with at most this many pages is read by one reader, unless another one has little else to do."""

TOGETHER_PAGES = 8
"""How many consecutive pages of a longer document one reader reads; it fetches the document once for them."""

LOOK_SECONDS = 10.0
"""How often to look for machines that have joined, are about to leave, or have left."""

_WAITING = 2  # pages asked for at once, per page of the readers' room: some wait for the reader that has their document

State = Literal["ready", "draining"]
"""Whether a reader takes new questions, or its machine is about to leave."""

Question = SentDocument | PageQuestion

A = TypeVar("A", OpenedThere, PageRecord)


class ThereReader(Protocol):
    """A reader on some machine. Its methods raise `ServerUnavailableError` if it, or the machine, is gone."""

    async def load(self) -> ReaderInfo | Fault:
        """See :meth:`~olmocr.pipeline.cluster.desk.Desk.load`."""

    async def open(self, document: SentDocument) -> OpenedThere | Fault:
        """See :meth:`~olmocr.pipeline.cluster.desk.Desk.open`."""

    async def read(self, question: PageQuestion) -> PageRecord | Fault:
        """See :meth:`~olmocr.pipeline.cluster.desk.Desk.read`."""


class Cluster(Protocol):
    """Machines with named places for readers."""

    async def places(self) -> Mapping[str, State]:
        """Return the places for readers that exist now.

        Raises:
            ServerError: there are none, and there is no sign that there will be.
        """

    def reader(self, place: str, terms: ReaderTerms) -> AbstractAsyncContextManager[ThereReader]:
        """Start a reader in a place."""

    async def send(self, content: Path) -> Any:
        """Return what gives any reader access to a file's bytes, as long as it is kept."""


OpenCluster = Callable[[str], AbstractAsyncContextManager[Cluster]]
"""Connects to a cluster by its address."""

Sleep = Callable[[float], Awaitable[None]]


class ClusterReading:
    """Reads the documents of a run with *config* on the readers of the cluster that *open_cluster* connects to.

    :class:`~olmocr.pipeline.answers.Answers` opens :meth:`answering`. *sleep* waits while a reader is unavailable, and
    *on_stage* is called when models are being loaded.
    """

    def __init__(
        self,
        config: PipelineConfig,
        scratch: Path,
        open_cluster: OpenCluster,
        sleep: Sleep = asyncio.sleep,
        on_stage: OnStage = unwatched,
    ) -> None:
        self._config = config
        self._scratch = scratch
        self._open_cluster = open_cluster
        self._sleep = sleep
        self._on_stage = on_stage
        self._terms = reader_terms(config)
        self._known: dict[str, NamedServer] = {}
        self._gone: set[str] = set()
        self._readers: dict[str, ThereReader] = {}
        self._cluster: Cluster | None = None
        self._fleet: Fleet[Question, Answer] | None = None

    @property
    def readers(self) -> int:
        """How many readers exist or are being started."""
        return len(self._known) - len(self._gone)

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[Answering]:
        """Yield what answers, once one reader has its model.

        Raises:
            OlmocrError: there is no such cluster, or no reader can load the model.
        """
        async with self._open_cluster(self._config.ray or "") as cluster:
            fleet: Fleet[Question, Answer] = Fleet((), connect=self._connected, look=self._look, sleep=self._sleep)
            self._cluster = cluster
            async with fleet:
                self._fleet = fleet
                self._follow(await cluster.places(), fleet)
                log.info("starting %d readers; each begins as soon as it has its model", self.readers)
                self._on_stage(Loading(self._terms.named))
                watch = asyncio.create_task(self._watch(cluster, fleet))
                try:
                    await fleet.somebody()
                    yield Answering(
                        _ask_nobody,
                        self._terms.named,
                        fleet.fault,
                        by_server=fleet.counts,
                        pages_at_once=lambda: _WAITING * fleet.room,
                    )
                finally:
                    watch.cancel()

    @contextlib.asynccontextmanager
    async def opened(self, source: Source, place: Place, answers: Answers) -> AsyncIterator[DocumentThere]:
        """Yield a document that some reader has opened.

        Raises:
            InputError: it cannot be fetched or opened.
            ServerUnavailableError: no reader answers for now.
        """
        async with contextlib.AsyncExitStack() as stack:
            path = None if is_elsewhere(source) else await stack.enter_async_context(fetched(source, self._scratch))
            async with answers.turn(place):  # the first turn opens the cluster
                cluster, fleet = self._cluster, self._fleet
                assert cluster is not None
                assert fleet is not None
                content = None if path is None else await cluster.send(path)
                sent = SentDocument(secrets.token_hex(8), source, content)
                opened = _given(await fleet.ask(sent, party=(sent.token, 0), is_page=False), OpenedThere)
            yield DocumentThere(sent, opened, path, self._scratch, fleet, answers)

    def _follow(self, places: Mapping[str, State], fleet: Fleet[Question, Answer]) -> None:
        """Start readers in new places, ask nothing new of those about to leave, and drop those that are gone."""
        for name, state in places.items():
            if name not in self._known:
                self._known[name] = NamedServer(name)
                fleet.join(self._known[name])
            elif state == "draining":
                fleet.rest(self._known[name])
        for name in self._known.keys() - places.keys() - self._gone:
            self._gone.add(name)
            fleet.dismiss(self._known[name], ServerError(f"the machine of {name} is gone"))

    async def _watch(self, cluster: Cluster, fleet: Fleet[Question, Answer]) -> None:
        while True:
            await self._sleep(LOOK_SECONDS)
            try:
                places = await cluster.places()
            except OlmocrError as error:  # readers that answer continue; the others report their own errors
                log.warning("%s", error)
            else:
                self._follow(places, fleet)

    @contextlib.asynccontextmanager
    async def _connected(
        self, server: NamedServer, model: str | None
    ) -> AsyncIterator[tuple[Callable[[Question], Awaitable[Answer]], ServerInfo]]:
        assert self._cluster is not None
        async with self._cluster.reader(server.url, self._terms) as reader:
            self._readers[server.url] = reader

            async def ask(question: Question) -> Answer:
                answer = await (reader.read(question) if isinstance(question, PageQuestion) else reader.open(question))
                if isinstance(answer, Fault) and not isinstance(answer.error, InputError):
                    raise _as_the_readers(answer.error, server.url)
                return answer

            yield ask, await self._look(server, model)

    async def _look(self, server: NamedServer, model: str | None) -> ServerInfo:
        """Have a reader load its model, and check that program and model are the same as elsewhere."""
        found = await self._readers[server.url].load()
        if isinstance(found, Fault):
            raise _as_the_readers(found.error, server.url)
        if found.version != __version__:
            raise MissingDependencyError(
                f"{server.url} has olmocr {found.version}, but this machine has {__version__}; "
                "install the same version everywhere"
            )
        named, weights = self._terms.named, found.weights and f"sha256 {found.weights}"
        return ServerInfo(server.url, named, (named,), "olmocr", found.version, None, found.room, weights)


@dataclass(frozen=True)
class DocumentThere:
    """A document that readers have *opened*. *path* is its file on this disk, if it is a local one."""

    sent: SentDocument
    opened: OpenedThere
    path: Path | None
    scratch: Path
    fleet: Fleet[Question, Answer]
    answers: Answers

    @property
    def sha256(self) -> str:
        """The SHA-256 of its bytes."""
        return self.opened.sha256

    async def page_count(self) -> int:
        """Return how many pages it has."""
        return self.opened.page_count

    async def read(self, number: int, place: Place, *, is_only: bool) -> PageRecord:
        """Return a page; raises the errors of :meth:`~olmocr.pipeline.one_document.PageReader.read`."""
        question = PageQuestion(self.sent, self.sha256, number, place, is_only)
        async with self.answers.turn(place):
            return _given(await self.fleet.ask(question, self._party(number)), PageRecord)

    def _party(self, number: int) -> tuple[str, int]:
        """Return the pages that go to one reader along with this one: all of a short document, or a few in a row."""
        is_short = self.opened.page_count <= SHORT_PAGES
        return self.sent.token, 0 if is_short else (number - 1) // TOGETHER_PAGES

    @contextlib.asynccontextmanager
    async def on_this_disk(self) -> AsyncIterator[Path]:
        """Yield the path of its file here, fetched if it is elsewhere.

        Raises:
            InputError: it cannot be fetched, or has changed.
        """
        if self.path is not None:
            yield self.path
            return
        source = self.sent.source
        async with fetched(source, self.scratch) as path:
            if await asyncio.to_thread(content_hash, path, source.name) != self.sha256:
                raise InputError(f"{source.name} changed while it was being read; run it again")
            yield path


def _given(answer: Answer, kind: type[A]) -> A:
    """Return an answer of this kind, or raise the error that it carries."""
    if isinstance(answer, Fault):
        raise answer.error
    assert isinstance(answer, kind)
    return answer


def _as_the_readers(error: OlmocrError, reader: str) -> OlmocrError:
    """Return a reader's error as the run treats it: a full disk on the reader's machine does not end the run."""
    if isinstance(error, OutputError):
        return Unavailable(f"{reader}: {error}")
    if isinstance(error, Unavailable):
        return Unavailable(f"{reader}: {error}", error.retry_after)
    return type(error)(f"{reader}: {reason_of(error)}")


async def _ask_nobody(request: PageRequest) -> ModelResponse:
    raise NotImplementedError("pages are read where they are rendered")
