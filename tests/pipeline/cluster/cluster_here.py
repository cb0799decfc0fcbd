"""A cluster of readers in the tests' own process: places that come, drain and go, and readers that die."""

import asyncio
import contextlib

from olmocr.backends.choice import Answering
from olmocr.errors import ServerError, ServerUnavailableError
from olmocr.pipeline.cluster.desk import Desk
from tests.pipeline.doubles import Reader
from tests.rendered_here import PoolHere


class ReaderThere:
    """A desk on another machine, whose model is *model*, until it is killed; *load_fault* is raised as it loads.

    What it is asked to read it adds to *all_asked* too, as (place, document, page).
    """

    def __init__(self, place, terms, model, load_fault=None, all_asked=None):
        self.place, self.model, self.load_fault = place, model, load_fault
        self.opened, self.read_numbers = [], []
        self.all_asked = [] if all_asked is None else all_asked
        self.is_killed = asyncio.Event()
        self.desk = Desk(terms, fetch, open_pool=PoolHere, open_answering=lambda: self.answering(terms.named))

    @contextlib.asynccontextmanager
    async def answering(self, named):
        if self.load_fault:
            raise self.load_fault
        yield Answering(self.model.ask, named)

    async def load(self):
        return await self._unless_killed(self.desk.load())

    async def open(self, document):
        self.opened.append(document.source.name)
        return await self._unless_killed(self.desk.open(document))

    async def read(self, question):
        self.read_numbers.append((question.document.source.name, question.number))
        self.all_asked.append((self.place, question.document.source.name, question.number))
        return await self._unless_killed(self.desk.read(question))

    async def _unless_killed(self, work):
        task, killed = asyncio.ensure_future(work), asyncio.ensure_future(self.is_killed.wait())
        try:
            await asyncio.wait((task, killed), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ServerUnavailableError(f"{self.place} is gone")
            return task.result()
        finally:
            task.cancel()
            killed.cancel()


async def fetch(content):
    return content[0]


class ClusterHere:
    """Give its *opened* to a run as *open_cluster*. *models* are those of its places, by name.

    *asked* is what its readers were asked to read, in order, as (place, document, page).
    """

    def __init__(self, *names, models=None, load_faults=None):
        self.states = dict.fromkeys(names, "ready")
        self.models = models or {}
        self.load_faults = load_faults or {}
        self.readers = {}
        self.sent, self.asked = [], []
        self.ending = []
        self.address = None

    @contextlib.asynccontextmanager
    async def opened(self, address):
        self.address = address
        try:
            yield self
        finally:
            await asyncio.gather(*self.ending)

    async def places(self):
        if not self.states:
            raise ServerError("no machine of the cluster has a processor")
        return dict(self.states)

    @contextlib.asynccontextmanager
    async def reader(self, place, terms):
        model = self.models.setdefault(place, Reader())
        self.readers[place] = reader = ReaderThere(place, terms, model, self.load_faults.get(place), self.asked)
        await reader.desk.__aenter__()
        try:
            yield reader
        finally:  # and whoever waits for it may be cancelled
            self.ending.append(asyncio.create_task(reader.desk.__aexit__(None, None, None)))

    async def send(self, content):
        self.sent.append(content.name)
        return [content.read_bytes()]
