"""A Ray cluster -> its places for readers, and the readers there, each an actor. Only this module uses Ray.

It uses nothing of Ray's internals: only its list of nodes, actors bound to a node, and its exceptions. On a node that
is about to leave, Ray starts nothing new. To detect such a node, this module requests a task that needs no resources.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

from olmocr.errors import (
    InputError,
    MissingDependencyError,
    OlmocrError,
    ServerError,
    ServerUnavailableError,
    reason_of,
)
from olmocr.pipeline.cluster.desk import (
    Desk,
    Fault,
    Fetch,
    OpenedThere,
    PageQuestion,
    ReaderInfo,
    ReaderTerms,
    SentDocument,
)
from olmocr.pipeline.cluster.reading import Cluster, State, ThereReader
from olmocr.runtime.extras import install_command
from olmocr.runtime.threads import EventLoopThread, in_a_lasting_thread
from olmocr.text import one_line
from olmocr.workspace.document import PageRecord

log = logging.getLogger(__name__)

A = TypeVar("A", ReaderInfo, OpenedThere, PageRecord)

MakeDesk = Callable[[ReaderTerms, Fetch], Desk]
"""Makes the desk of a reader, in the reader's own process."""

LOCAL = "local"
"""The address that starts Ray on this machine; it stops when the run ends."""

MLX_RESOURCE = "mlx"
"""The resource that a Mac must declare, since Ray does not detect it: ray start --resources='{"mlx": 1}'."""

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 20.0  # for a reader to clean up before it is killed
_LOOK_SECONDS = 10.0  # for a node to start a task that needs no resources
_DRAIN_SECONDS = 30.0  # between two such tasks on a node: each may start a process; clouds give two minutes' notice


@dataclass(frozen=True)
class PlaceForReader:
    """A place for a reader: its node, and which of the node's resources the reader has to itself."""

    node: str
    cpus: float = 0.0
    gpus: float = 0.0
    mlx: float = 0.0


def places_on(nodes: Iterable[Mapping[str, Any]]) -> dict[str, PlaceForReader]:
    """Return the places for readers on nodes, as Ray lists them, by names that a person can tell apart.

    There is one place for each GPU. If no node has a GPU, there is one for each ``mlx`` resource, which Macs declare.
    Otherwise there is one for each node with CPUs; its reader gets all of them, since a model on CPUs uses all.
    """
    alive = sorted((node for node in nodes if node.get("Alive")), key=lambda node: str(node["NodeID"]))
    for resource in ("GPU", MLX_RESOURCE, "CPU"):
        found = {
            f"{node.get('NodeManagerHostname') or node.get('NodeManagerAddress')}-{node['NodeID'][:8]}/{number}": place
            for node in alive
            for number, place in enumerate(_places_of(node, resource), 1)
        }
        if found:
            return found
    return {}


def _places_of(node: Mapping[str, Any], resource: str) -> list[PlaceForReader]:
    count, name = int(node["Resources"].get(resource, 0)), str(node["NodeID"])
    if resource == "CPU":
        return [PlaceForReader(name, cpus=count)] if count else []
    return [PlaceForReader(name, **{{"GPU": "gpus"}.get(resource, resource): 1.0})] * count


@contextlib.asynccontextmanager
async def ray_cluster(
    address: str, make_desk: MakeDesk = Desk, drain_seconds: float = _DRAIN_SECONDS
) -> AsyncIterator[Cluster]:
    """Yield the Ray cluster at *address*, as ``ray.init`` takes it; ``local`` starts one on this machine.

    If this process has already joined a Ray cluster, that one is used and left running. *make_desk* makes the desk of
    each reader. Every *drain_seconds*, this checks whether a node is about to leave.

    Raises:
        MissingDependencyError: Ray is not installed.
        ServerError: there is no such cluster.
    """
    ray = _ray()
    is_own = not ray.is_initialized()
    if is_own:
        # In a thread, since Ray would take over the main thread's signals, and in one that nothing waits for.
        await asyncio.wrap_future(in_a_lasting_thread(lambda: _join(ray, address)))
    cluster = RayCluster(ray, address, make_desk, math.inf if address == LOCAL else drain_seconds)
    with _to_the_log():
        try:
            yield cluster
        finally:
            await cluster.close()
            if is_own:
                await asyncio.to_thread(ray.shutdown)


@contextlib.contextmanager
def _to_the_log() -> Iterator[None]:
    """Send what Ray prints about dying nodes to the debug log: standard output may carry results."""
    before, sys.stdout = sys.stdout, _WithoutRay(sys.stdout)
    ours = sys.stdout
    try:
        yield
    finally:
        if sys.stdout is ours:
            sys.stdout = before


class _WithoutRay:
    """A stream that works as before, except for Ray's threads, which are recognized by their names."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not threading.current_thread().name.startswith("ray_"):
            return self._stream.write(text)
        for line in text.splitlines():
            if line.strip():
                log.debug("%s", line)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports usage to its makers
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            f"Ray is not installed ({error}); install it with: {install_command('ray')}"
        ) from error
    return ray


def _join(ray: Any, address: str) -> None:
    own: dict[str, Any] = {}
    if address == LOCAL:
        own = {"include_dashboard": False}
        if sys.platform == "darwin":
            own["resources"] = {MLX_RESOURCE: 1}
    _require_listener(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except Exception as error:  # Ray has no class of its own here: ConnectionError, ValueError, RuntimeError
        what = "Ray could not be started here" if address == LOCAL else f"there is no Ray cluster at {address}"
        raise ServerError(f"{what}: {one_line(reason_of(error), 300)}") from error


def _require_listener(address: str) -> None:
    """Find out within seconds that nothing listens at HOST:PORT; Ray itself tries for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or reason_of(error)
        raise ServerError(f"there is no Ray cluster at {address}: {why}; give the HOST:PORT of its head") from error


class RayCluster:
    """The cluster that this process has joined. Every *drain_seconds*, it checks whether nodes are about to leave."""

    def __init__(self, ray: Any, address: str, make_desk: MakeDesk, drain_seconds: float) -> None:
        self._ray = ray
        self._address = address
        self._make_desk = make_desk
        self._drain_seconds = drain_seconds
        self._looked = time.monotonic()
        self._places: dict[str, PlaceForReader] = {}
        self._draining: set[str] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for readers to end."""
        await asyncio.gather(*self._ending)

    async def places(self) -> Mapping[str, State]:
        """Return the places for readers that exist now.

        Raises:
            ServerError: no node has anything that a model could run on.
        """
        found = places_on(await asyncio.to_thread(self._ray.nodes))
        if not found and not self._places:
            raise ServerError(
                f"no machine of the Ray cluster at {self._address} has a GPU, an {MLX_RESOURCE} resource, or a CPU"
            )
        self._places |= found
        if time.monotonic() - self._looked >= self._drain_seconds:
            self._looked = time.monotonic()
            await asyncio.gather(*map(self._look_at, {place.node for place in found.values()} - self._draining))
        return {name: "draining" if place.node in self._draining else "ready" for name, place in found.items()}

    async def _look_at(self, node: str) -> None:
        task = self._ray.remote(_nothing).options(num_cpus=0, max_retries=0, scheduling_strategy=self._only_on(node))
        ref = task.remote()
        try:
            await asyncio.wait_for(_value(self._ray, ref), _LOOK_SECONDS)
        except self._ray.exceptions.TaskUnschedulableError:
            nodes = await asyncio.to_thread(self._ray.nodes)
            if any(each["NodeID"] == node and each["Alive"] for each in nodes):  # and is not gone already
                self._draining.add(node)
                log.warning("a machine is about to leave the cluster; it finishes the pages that it has in hand")
        except (TimeoutError, self._ray.exceptions.RayError):  # it is busy, or gone, which its readers notice
            pass

    def _only_on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)

    @contextlib.asynccontextmanager
    async def reader(self, place: str, terms: ReaderTerms) -> AsyncIterator[ThereReader]:
        """Start a reader in a place. Ray restarts it if its process ends, as long as its node exists."""
        at = self._places[place]
        actor_class = self._ray.remote(_ReaderActor).options(
            num_cpus=at.cpus,
            num_gpus=at.gpus,
            resources={MLX_RESOURCE: at.mlx} if at.mlx else {},
            max_restarts=-1,
            scheduling_strategy=self._only_on(at.node),
        )
        actor = actor_class.remote(terms, self._make_desk)
        try:
            yield RayReader(self._ray, actor, place)
        finally:  # all readers end at the same time
            self._ending.add(asyncio.create_task(self._end(actor)))

    async def _end(self, actor: Any) -> None:
        with contextlib.suppress(TimeoutError, self._ray.exceptions.RayError):
            await asyncio.wait_for(_value(self._ray, actor.close.remote()), _CLOSE_SECONDS)
        self._ray.kill(actor)

    async def send(self, content: Path) -> Any:
        """Return what gives readers access to a file's bytes, which travel only on demand, and then once."""

        def put() -> Any:
            return self._ray.put(content.read_bytes())

        try:
            # In a list, since Ray would send the bytes of a bare reference with each question.
            return [await asyncio.to_thread(put)]
        except OSError as error:
            raise InputError(f"{content} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class RayReader:
    """A reader that is an actor."""

    ray: Any = field(repr=False)
    actor: Any
    place: str

    async def load(self) -> ReaderInfo | Fault:
        """Load the model, and describe this reader."""
        return await self._given(self.actor.load.remote(), ReaderInfo)

    async def open(self, document: SentDocument) -> OpenedThere | Fault:
        """Open a document, which is then kept for its pages."""
        return await self._given(self.actor.open.remote(document), OpenedThere)

    async def read(self, question: PageQuestion) -> PageRecord | Fault:
        """Read a page."""
        return await self._given(self.actor.read.remote(question), PageRecord)

    async def _given(self, ref: Any, kind: type[A]) -> A | Fault:
        try:
            answer = await _value(self.ray, ref)
        except self.ray.exceptions.RayTaskError as error:  # an unexpected error, which Ray wrapped
            cause = error.cause
            raise cause if isinstance(cause, Exception) else RuntimeError(reason_of(error)) from error
        except self.ray.exceptions.RayError as error:
            raise ServerUnavailableError(f"{self.place} is gone: {_what_ray_says(error)}") from error
        assert isinstance(answer, Fault | kind)
        return answer


def _what_ray_says(error: Exception) -> str:
    """Return the beginning of an error's message: Ray's run to pages."""
    return one_line(reason_of(error), 160)


async def _value(ray: Any, ref: Any) -> Any:
    """Return the value of *ref*; if the caller stops waiting, cancel its task."""
    try:
        return await asyncio.wrap_future(ref.future())
    except asyncio.CancelledError:
        ray.cancel(ref)
        raise


def _nothing() -> None:
    pass


class _ReaderActor:
    """A reader in one of Ray's processes. It does all its work in its own event loop, not in Ray's."""

    def __init__(self, terms: ReaderTerms, make_desk: MakeDesk) -> None:
        self._loop = EventLoopThread()
        self._loop.__enter__()
        self._desk = make_desk(terms, _bytes_of)
        self._loop.run(self._desk.__aenter__())

    async def load(self) -> ReaderInfo | Fault:
        return await self._loop.run_beside(self._desk.load())

    async def open(self, document: SentDocument) -> OpenedThere | Fault:
        return await self._loop.run_beside(self._desk.open(document))

    async def read(self, question: PageQuestion) -> PageRecord | Fault:
        return await self._loop.run_beside(self._desk.read(question))

    async def close(self) -> None:
        await self._loop.run_beside(self._desk.__aexit__(None, None, None))


async def _bytes_of(content: Any) -> bytes:
    import ray

    (ref,) = content
    try:
        data: bytes = await asyncio.wrap_future(ref.future())
    except ray.exceptions.RayError as error:
        raise _lost(error) from error
    return data


def _lost(error: Exception) -> OlmocrError:
    return ServerUnavailableError(f"a document's bytes did not arrive: {_what_ray_says(error)}")
