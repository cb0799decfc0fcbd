"""Many workers and very many pages, simulated: the driver's cost, its requests to a bucket, and who has to wait.

The driver is real, with the real code for a workspace in a bucket and for several servers. It reads a list of
documents, claims them, sends their pages to 1,000 workers, saves each page and writes results. The rest is simulated:

- Workers give scripted answers, which take time on a virtual clock.
- The store is a file that counts requests; each of them takes time on that clock.
- Rendering takes no time, and makes pictures of one pixel.

    python benchmarks/simulation.py --pages 200000

With ``--own-time``, this process's processor time passes on that clock too: workers wait if the driver is slow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import logging
import math
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from machine import describe_machine, peak_bytes
from PIL import Image
from pipeline import FRONT_MATTER
from virtual_time import VirtualLoop

from olmocr.backends.client import ServerInfo
from olmocr.backends.fleet import Fleet
from olmocr.backends.server_list import NamedServer
from olmocr.errors import ServerUnavailableError
from olmocr.inputs.sources import list_sources
from olmocr.page import Ask, ModelResponse, PageImage, PageRequest
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import run_pipeline
from olmocr.rendering.pool import RenderedPage, RenderPool
from olmocr.runtime.memory import resident_memory
from olmocr.stages import FindingDocuments, Stage
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.objects.records import ObjectRecords
from olmocr.workspace.objects.results import ObjectResults
from olmocr.workspace.objects.store import open_store

TEXT = FRONT_MATTER + "".join(
    f"{hashlib.sha256(bytes([line])).hexdigest()[:60]} and so on to the line's end.\n" for line in range(30)
)
PLACE = StorePlace("memory://simulation/ws")
_STORES_THREADS = 16  # of one store: so many of its requests take the time of one


def main() -> None:
    """Run the simulation, and print the result."""
    args = _arguments()
    logging.disable(logging.WARNING)
    print(describe_machine())
    print(
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(vars(args).items())), "\n", flush=True
    )
    with (
        tempfile.TemporaryDirectory() as name,
        asyncio.Runner(loop_factory=lambda: VirtualLoop(args.own_time)) as runner,
    ):
        runner.run(_simulated(Path(name), args))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=int, default=20_000, help="about so many (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--room", type=int, default=4, help="pages at once for each worker (default: %(default)s)")
    parser.add_argument("--pages-a-document", type=float, default=10, help="on average (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="of an answer, on average (default: %(default)s)")
    parser.add_argument("--spread", type=float, default=0.3, help="of workers' speeds, in log (default: %(default)s)")
    parser.add_argument(
        "--long", type=float, default=0.01, help="share of pages that take 6 times (default: %(default)s)"
    )
    parser.add_argument("--away", type=float, default=0.0, help="share of pages over which a worker goes (default: 0)")
    parser.add_argument("--request", type=float, default=0.05, help="seconds, of the store (default: %(default)s)")
    parser.add_argument(
        "--network", type=float, default=0.05, help="seconds, to a worker and back (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--only-list", action="store_true", help="read nothing: find the documents of the list")
    parser.add_argument("--own-time", action="store_true", help="let the driver's processor time go by, too")
    return parser.parse_args()


# The store.


class CountedFile:
    """Objects in a file that ends with the process; counts requests as S3 bills them, and lets each take *seconds*.

    What is written for people, below ``results/``, is counted and not kept: no run reads it.
    """

    def __init__(self, loop: VirtualLoop, seconds: float) -> None:
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self._loop = loop
        self._seconds = seconds
        self._lock = threading.RLock()
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; CREATE TABLE objects (name TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID"
        )

    def get(self, name: str) -> bytes:
        """Return an object's bytes."""
        rows = self._asked("GET", "SELECT data FROM objects WHERE name = ?", name)
        if not rows:
            raise FileNotFoundError(name)
        self.bytes["GET"] += len(rows[0][0])
        return bytes(rows[0][0])

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        self.bytes["PUT"] += len(data)
        kept = b"" if name.startswith("results/") else data
        self._asked("PUT", "INSERT OR REPLACE INTO objects VALUES (?, ?)", name, kept)

    def create(self, name: str, data: bytes) -> None:
        """Write an object that is not there yet."""
        with self._lock:
            if self._db.execute("SELECT 1 FROM objects WHERE name = ?", (name,)).fetchone():
                self._count("PUT")
                raise FileExistsError(name)
            self.put(name, data)

    def names(self, folder: str) -> list[str]:
        """Return the names below a folder."""
        statement = "SELECT name FROM objects WHERE name >= ? AND name < ? ORDER BY name"
        found = [name for (name,) in self._asked("LIST", statement, f"{folder}/", f"{folder}0")]
        self.requests["LIST"] += len(found) // 1000
        return found

    def versions(self, folder: str) -> dict[str, str]:
        """Return the names below a folder."""
        return dict.fromkeys(self.names(folder), "")

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._asked("DELETE", "DELETE FROM objects WHERE name = ?", name)

    def _asked(self, kind: str, statement: str, *values: Any) -> list[Any]:
        with self._lock:
            self._count(kind)
            return self._db.execute(statement, values).fetchall()

    def _count(self, kind: str) -> None:
        self.requests[kind] += 1
        is_one_of_many = threading.current_thread() is not threading.main_thread()
        self._loop.spend(self._seconds / _STORES_THREADS if is_one_of_many else self._seconds)


class Scans(fsspec.AbstractFileSystem):
    """A bucket of documents; each contains only its own name."""

    protocol = "s3"

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
        return io.BytesIO(f"%PDF {path}".encode())


def _write_list(path: Path, args: argparse.Namespace) -> int:
    """Write a list of documents with about *args.pages* pages; return their number of pages."""
    pages = number = 0
    with path.open("w") as file:
        while pages < args.pages:
            name = f"s3://scans/{number:09}.pdf"
            pages += _page_count(name, args.pages_a_document)
            number += 1
            file.write(f"{name}\n")
    return pages


def _page_count(name: str, average: float) -> int:
    """Return how many pages a document has: mostly few, sometimes many, like people's documents."""
    chance = (int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) + 0.5) / 16**12
    return 1 + int(-math.log(chance) * (average - 1))


class Renderer(RenderPool):
    """Derives a document's number of pages from its name; all pages have the same picture of one pixel."""

    def __init__(self, average: float) -> None:
        super().__init__(1)
        self._average = average
        self._page = RenderedPage(PageImage(Image.new("RGB", (1, 1))), None, is_blank=False)

    async def __aenter__(self) -> Renderer:
        return self

    async def page_count(self, path: Path, name: str) -> int:
        """Return how many pages a document has."""
        return _page_count(name, self._average)

    async def render(self, path: Path, name: str, page_number: int, longest_side: int) -> RenderedPage:
        """Return the page."""
        return self._page


# The workers.


@dataclass
class Workers:
    """What all workers do.

    *answered* are the seconds in which they had those pages in hand that they answered, *in_vain* of those that were
    taken back. *busy* are all such seconds up to *now*, *busy_before_end* up to *last_begun*, when a page was begun
    that nobody had in hand before.
    """

    args: argparse.Namespace
    chance: random.Random
    answered: float = 0.0
    in_vain: float = 0.0
    in_hand: int = 0
    now: float = 0.0
    busy: float = 0.0
    busy_before_end: float = 0.0
    last_begun: float = 0.0
    began: float | None = None
    pages: Counter[int] = field(default_factory=Counter)
    speeds: dict[str, float] = field(default_factory=dict)
    back_at: dict[str, float] = field(default_factory=dict)

    def connect(self, server: NamedServer, model: str | None) -> Any:
        """Open a connection to one."""
        self.speeds[server.url] = self.chance.lognormvariate(0, self.args.spread)

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[tuple[Ask, ServerInfo]]:
            yield lambda request: self._ask(server.url, request), await self.look(server, model)

        return opened()

    async def look(self, server: NamedServer, model: str | None) -> ServerInfo:
        """Look at one again."""
        await asyncio.sleep(self.args.network)
        if asyncio.get_running_loop().time() < self.back_at.get(server.url, 0):
            raise ServerUnavailableError(f"{server.url} is away")
        return ServerInfo(server.url, "m", ("m",), "scripted", "1", None, room=self.args.room)

    async def _ask(self, url: str, request: PageRequest) -> ModelResponse:
        self.pages[id(request)] += 1
        try:
            return await self._answer(url, is_first=self.pages[id(request)] == 1)
        finally:
            self.pages[id(request)] -= 1
            if not self.pages[id(request)]:
                del self.pages[id(request)]

    async def _answer(self, url: str, *, is_first: bool) -> ModelResponse:
        loop, args = asyncio.get_running_loop(), self.args
        await asyncio.sleep(args.network)
        if loop.time() < self.back_at.get(url, 0) or self.chance.random() < args.away:
            self.back_at[url] = max(self.back_at.get(url, 0), loop.time() + 300)
            raise ServerUnavailableError(f"{url} went away")
        started = loop.time()
        self.began = started if self.began is None else self.began
        self._take(1)
        if is_first:
            self.last_begun, self.busy_before_end = started, self.busy
        length = 6 if self.chance.random() < args.long else self.chance.lognormvariate(-0.08, 0.4)
        try:
            await asyncio.sleep(args.seconds * length * self.speeds[url])
        except asyncio.CancelledError:
            self.in_vain += loop.time() - started
            raise
        finally:
            self._take(-1)
        self.answered += loop.time() - started
        return ModelResponse(TEXT, "stop", 1700, 600)

    def _take(self, more: int) -> None:
        now = asyncio.get_running_loop().time()
        self.busy += self.in_hand * (now - self.now)
        self.now, self.in_hand = now, self.in_hand + more


# The run.


@dataclass
class Watch:
    """Prints a row each time another twentieth of the pages is read."""

    pages: int
    workers: Workers
    objects: CountedFile
    read: int = 0
    told: int = 0

    def on_page(self, *page: Any) -> None:
        """Count a page."""
        self.read += 1
        if self.read * 10 // self.pages > self.told:
            self.told = self.read * 10 // self.pages
            self.tell()

    def tell(self) -> None:
        """Print a row."""
        cells = [
            f"{self.read:,}",
            f"{asyncio.get_running_loop().time():,.0f}",
            f"{resident_memory(os.getpid()) / 2**20:.0f}",
            f"{peak_bytes() / 2**20:.0f}",
            f"{1000 * time.process_time() / max(1, self.read):.2f}",
            f"{sum(n for kind, n in self.objects.requests.items() if kind != 'DELETE') / max(1, self.read):.2f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


async def _simulated(folder: Path, args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    fsspec.register_implementation("s3", Scans, clobber=True)
    pages = _write_list(folder / "all.txt", args)
    if args.only_list:
        _list_alone(folder / "all.txt")
        return
    workers = Workers(args, random.Random(args.seed))
    objects = CountedFile(loop, args.request)
    watch = Watch(pages, workers, objects)
    names = [f"http://worker-{number}:8000" for number in range(args.workers)]
    print("| pages | seconds of the clock | memory, MiB | most, MiB | processor, ms a page | requests a page |")
    print(f"|{' ---: |' * 6}")
    watch.tell()
    started = loop.time()
    fleet = Fleet([NamedServer(name) for name in names], connect=workers.connect, look=workers.look)
    async with fleet:
        config = PipelineConfig(
            workspace=PLACE,
            pdfs=(str(folder / "all.txt"),),
            server=tuple(names),
            max_concurrent_pages=args.room + 1,  # one more for each than it may have: the next one waits for it here
        )
        summary = await run_pipeline(
            config,
            on_page=watch.on_page,
            ask=fleet.ask,
            open_pool=lambda: Renderer(args.pages_a_document),
            open_workspace=lambda place, output: _opened(objects),
        )
        seconds = loop.time() - started
    assert (summary.pages, summary.failures[:1], summary.retried_pages) == (pages, (), 0)
    _tell(workers, objects, args, summary.done, pages, seconds)


def _list_alone(path: Path) -> None:
    """Find the documents of a list like a run does, and print the memory that this takes."""
    print("| documents found | memory, MiB | processor, ms a document |\n| ---: | ---: | ---: |")
    started = time.process_time()

    def tell(stage: Stage) -> None:
        if isinstance(stage, FindingDocuments) and (stage.documents == 1000 or stage.documents % 20000 == 0):
            cost = 1000 * (time.process_time() - started) / max(1, stage.documents)
            print(f"| {stage.documents:,} | {resident_memory(os.getpid()) / 2**20:.0f} | {cost:.2f} |", flush=True)

    list_sources([str(path)], on_stage=tell)


@contextlib.contextmanager
def _opened(objects: CountedFile) -> Iterator[tuple[ObjectResults, ObjectRecords]]:
    store = open_store(PLACE, objects=objects)
    with ObjectRecords(store, asyncio.get_running_loop().time) as records:
        yield ObjectResults(store, records), records


def _tell(
    workers: Workers, objects: CountedFile, args: argparse.Namespace, documents: int, pages: int, seconds: float
) -> None:
    slots, end = args.workers * args.room, asyncio.get_running_loop().time()
    began = workers.began or 0.0
    idle = 1 - workers.busy_before_end / (slots * (workers.last_begun - began))
    in_all = 1 - workers.busy / (slots * seconds)
    print(f"\n{documents:,} documents, {pages:,} pages in {seconds / 3600:.2f} hours of the virtual clock")
    print(
        f"workers idle: {100 * idle:.2f} % from the first page to the last that was begun, {100 * in_all:.2f} % in all"
    )
    print(f"asked in vain: {100 * workers.in_vain / workers.busy:.2f} % of the time in which workers had pages in hand")
    print(f"start: {began:.1f} s until the first page was asked")
    print(f"end: {end - workers.last_begun:.1f} s after the last page was begun")
    print(f"lost by all that: {seconds - workers.answered / slots:.1f} s of {seconds:.0f} s")
    print(
        "requests a page: "
        + ", ".join(f"{count / pages:.3f} {kind}" for kind, count in sorted(objects.requests.items()))
    )
    print("bytes a page: " + ", ".join(f"{count / pages:.0f} {kind}" for kind, count in sorted(objects.bytes.items())))
    print(
        f"driver: {1000 * time.process_time() / pages:.2f} ms of a processor a page, simulated parts included; ", end=""
    )
    print(f"most memory {peak_bytes() / 2**20:.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
