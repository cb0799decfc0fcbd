"""A pool whose pages are rendered in the tests' own process: the same answers, without a process for each run.

That pages are rendered by processes which may crash alone is tried in tests/rendering, and by every command in a test.
"""

import asyncio
import os
import tempfile

from olmocr.rendering.pool import RenderPool
from olmocr.rendering.render import open_document
from olmocr.rendering.worker import _answer, _OpenDocuments


class WorkerHere:
    """Answers what a worker is asked as its process does."""

    def __init__(self):
        self._documents = _OpenDocuments(open_document)
        self._pixels = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115

    async def ask(self, request, time_limit):
        await asyncio.sleep(0)  # others have their turn, as they have while a process is waited for
        answer = _answer(request, self._documents, self._pixels.fileno())
        width, height = answer.get("size", (0, 0))
        return answer, os.pread(self._pixels.fileno(), width * height * 3, 0)

    async def close(self):
        for _, stack in self._documents._open.values():
            stack.close()
        self._pixels.close()


class PoolHere(RenderPool):
    """Give this to a run as its *open_pool*."""

    def __init__(self):
        super().__init__(1)
        self._make_worker = WorkerHere
