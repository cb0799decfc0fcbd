"""Documents' pages -> RenderedPages, by worker processes: a page that crashes or hangs PDFium fails alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from PIL import Image

from olmocr.errors import InputError, MissingDependencyError, output_error, reason_of
from olmocr.page import PageImage
from olmocr.rendering.worker import LENGTH, frame
from olmocr.text import one_line

log = logging.getLogger(__name__)

_Answer = tuple[dict[str, Any], bytes]

_FOLDER_OF_PACKAGE = Path(__file__).parents[2]

# Not "-m": that would search the current folder, which may contain untrusted documents, before all other modules.
WORKER_COMMAND = (
    sys.executable,
    "-P",
    "-c",
    f"import sys; sys.path.append({str(_FOLDER_OF_PACKAGE)!r})\nfrom olmocr.rendering.worker import main; main()",
)

TIME_LIMIT = 60.0
"""Seconds that one page may take to be rendered, or a document to be opened."""

MEMORY_LIMIT = 4 * 2**30
"""Bytes of address space of one worker, where the system can limit it."""

GROWN = 256 * 2**20
"""Bytes; PDFium keeps what it has read of a file, and does not give all of it back."""

_STEPS = 60
"""How many steps a time limit is cut into. A step counts once it is over, however long it took: see :func:`_within`."""

_FEWEST_PAGES = 20  # of one process, so that its start is a small part of the work even if each page is huge
_STARTS = 3  # of one process; if it is killed before it is ready, the page is not the cause
_PAUSE = 0.2  # seconds before it is started again
_START_LIMIT = 60.0  # seconds; a worker needs a fraction of one on a machine that is not swapping
_FROM_OUTSIDE = {"SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGXCPU"}
_ANSWERS = {"refused", "unwritten", "size", "page_count", "edges"}
_LONGEST_ANSWER = 64 * 2**20  # bytes, without pixels


@dataclass(frozen=True)
class RenderedPage:
    """A page as pixels, and the text that the file itself has for it, if any. A blank page need not be read."""

    image: PageImage
    text_layer: str | None
    is_blank: bool


def default_workers() -> int:
    """Return how many workers keep a model busy without taking its processors: all except one, at most 4."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(4, max(1, cores - 1))


class RenderPool:
    """Renders pages in *workers* processes, which start when they are first needed and end with the context.

    Requests are answered in the order in which they were made, as workers become free. *time_limit* is in seconds for
    each request, *memory_limit* in bytes for each worker. A worker that has *grown* to that many bytes is replaced
    between two pages.

    A request that crashes a worker, or takes too long, is repeated once. If a document's form is to blame, the document
    is drawn without the form from then on: its fields look as the file says.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        time_limit: float = TIME_LIMIT,
        memory_limit: int = MEMORY_LIMIT,
        grown: int = GROWN,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._time_limit = time_limit
        self._count = workers or default_workers()
        self._make_worker = functools.partial(_Worker, command, memory_limit, grown)
        self._program = command[0]
        self._has_answered = False
        self._workers: list[_Worker] = []
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._formless: set[str] = set()

    async def __aenter__(self) -> Self:
        try:
            self._workers = [self._make_worker() for _ in range(self._count)]
        except OSError as error:
            raise output_error(error, "a temporary file (set TMPDIR to use another folder)") from error
        for worker in self._workers:
            self._idle.put_nowait(worker)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.gather(*(worker.close() for worker in self._workers))

    async def page_count(self, path: Path, name: str) -> int:
        """Return how many pages the document has.

        Raises:
            InputError: it cannot be opened, or opening it crashes or hangs.
        """
        answer, _ = await self._ask({"path": str(path), "name": name}, name)
        return int(answer["page_count"])

    async def has_form(self, path: Path, name: str) -> bool:
        """Return whether the document has text fields to fill in; errors as of `page_count`."""
        answer, _ = await self._ask({"path": str(path), "name": name, "asks_form": True}, name)
        return bool(answer["has_form"])

    async def edges(self, path: Path, name: str, page_number: int) -> tuple[list[str], list[str]]:
        """Return the lines of the page's own text at its upper and its lower edge; errors as of `render`."""
        request = {"path": str(path), "name": name, "page_number": page_number, "asks_edges": True}
        answer, _ = await self._ask(request, f"page {page_number} of {name}")
        top, bottom = answer["edges"]
        return [str(line) for line in top], [str(line) for line in bottom]

    async def render(self, path: Path, name: str, page_number: int, longest_side: int) -> RenderedPage:
        """Return the page (numbers begin at 1) as RGB pixels, its longer side *longest_side*.

        Raises:
            InputError: the document or this page is damaged, or it crashes or hangs the renderer.
            OutputError: the disk has no room for the pixels.
        """
        request = {"path": str(path), "name": name, "page_number": page_number, "longest_side": longest_side}
        answer, pixels = await self._ask(request, f"page {page_number} of {name}")
        width, height = answer["size"]
        image = PageImage(Image.frombytes("RGB", (width, height), pixels))
        return RenderedPage(image, answer["text"], answer["is_blank"])

    async def _ask(self, request: dict[str, Any], what: str) -> _Answer:
        """Return a worker's answer, and the pixels. Errors name *what* was requested."""
        worker = await self._idle.get()
        try:
            answer, pixels = await self._answer(worker, request, what)
        finally:
            self._idle.put_nowait(worker)
        self._has_answered = True
        if "refused" in answer:
            raise InputError(str(answer["refused"]))
        if "unwritten" in answer:
            number = int(answer["unwritten"])
            raise output_error(
                OSError(number, os.strerror(number)), f"a temporary file with {what} (set TMPDIR to use another folder)"
            )
        return answer, pixels

    async def _answer(self, worker: _Worker, request: dict[str, Any], what: str) -> _Answer:
        try:
            return await self._tried_again(worker, request)
        except _StartError as death:
            if self._has_answered or death.was_killed:
                raise InputError(
                    f"{what} was not rendered: the PDF renderer died {_STARTS} times at its start ({death}); "
                    "free some memory and run it again"
                ) from death
            raise MissingDependencyError(
                f"the PDF renderer ({self._program}) does not start: {death}; "
                "python -m olmocr.doctor says what this machine lacks"
            ) from death
        except _DeathError as death:
            if death.was_killed:
                raise InputError(
                    f"{what} was not rendered: the PDF renderer was killed twice ({death}), because memory "
                    "ran out or by another program; run it again"
                ) from death
            raise InputError(
                f"{what} crashed the PDF renderer ({death}); open the file in a viewer and save it again"
            ) from death
        except TimeoutError as error:
            raise InputError(
                f"{what} was not rendered within {self._time_limit:g} seconds; "
                "open the file in a viewer and save it again"
            ) from error

    async def _tried_again(self, worker: _Worker, request: dict[str, Any]) -> _Answer:
        """Return the answer to *request*: repeated after a death, and without the document's form at last.

        The repetition is in a new process: an earlier page may have damaged the old one. A form that hangs will
        hang again.
        """
        path = request["path"]
        if path in self._formless:
            return await self._asked_twice(worker, request | {"with_form": False})
        try:
            answer = await self._asked_twice(worker, request, apart_from=TimeoutError)
        except _StartError:
            raise
        except (TimeoutError, _DeathError):
            answer = await worker.ask(request | {"with_form": False}, self._time_limit)
        if answer[0].get("lacks_form") and path not in self._formless:
            self._formless.add(path)
            log.warning(
                "%s is drawn without its form, which is damaged: fields without an appearance of their own are missing",
                request["name"],
            )
        return answer

    async def _asked_twice(
        self, worker: _Worker, request: dict[str, Any], apart_from: type[Exception] | tuple[()] = ()
    ) -> _Answer:
        try:
            return await worker.ask(request, self._time_limit)
        except _StartError:
            raise
        except apart_from:
            raise
        except (TimeoutError, _DeathError):
            return await worker.ask(request, self._time_limit)


async def _within(seconds: float, exchange: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Return what *exchange* returns, within as many seconds in which the other process could work.

    What stops that process usually stops this one, too: Ctrl-Z, a closed lid, a paused virtual machine. By the clock
    the seconds would then be over, with nothing done. So the time is counted in steps, and a step counts the same
    whatever happens within it.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(exchange)
    try:
        for _ in range(_STEPS):
            await asyncio.wait((task,), timeout=seconds / _STEPS)
            if task.done():
                return task.result()
        raise TimeoutError
    finally:
        if task.cancel():
            await asyncio.wait((task,))


class _DeathError(Exception):
    """A worker ended, or sent nonsense, when it owed an answer. The text says how."""

    @property
    def was_killed(self) -> bool:
        """Whether it was ended from outside: by the system, which had run out of memory, or by a person."""
        return str(self) in _FROM_OUTSIDE


class _StartError(_DeathError):
    """A worker could not be started, or ended before it was ready."""


class _Worker:
    """One process; it is started when a request finds it not running."""

    def __init__(self, command: Sequence[str], memory_limit: int, grown: int) -> None:
        self._command = command
        self._memory_limit = memory_limit
        self._grown = grown
        self._pages = 0
        self._process: asyncio.subprocess.Process | None = None
        self._is_closed = False
        # Without names, so that nothing stays on the disk however the run ends.
        self._pixels = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115

    async def ask(self, request: dict[str, Any], time_limit: float) -> _Answer:
        """Return the answer and its pixels.

        Raises:
            TimeoutError: it took too long, and the process was ended.
            _DeathError: the process died, or cannot be started.
        """
        try:
            process = await self._running()
            answer, pixels = await _within(time_limit, self._exchange(process, request))
        except BaseException:
            await self._stop()  # or its late answer would be taken for the next request's
            raise
        self._pages += "size" in answer
        if self._pages >= _FEWEST_PAGES and answer.get("peak_memory", 0) > self._grown:
            await self._stop()
        return answer, pixels

    async def close(self) -> None:
        """End the process permanently."""
        self._is_closed = True
        await self._stop()
        self._pixels.close()
        self._stderr.close()

    async def _running(self) -> asyncio.subprocess.Process:
        """Return the process, started again if it died between requests."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        for _ in range(_STARTS - 1):
            with contextlib.suppress(_StartError):
                return await self._start()
            await self._stop()
            await asyncio.sleep(_PAUSE)
        return await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        if self._is_closed:
            raise RuntimeError("the pool of renderers is closed")
        self._pages = 0
        self._stderr.seek(0)  # where the next process continues to write
        self._stderr.truncate(0)
        pixels = self._pixels.fileno()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                str(pixels),
                str(self._memory_limit),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=(pixels,),
            )
            async with asyncio.timeout(_START_LIMIT):
                await _read(process)
        except TimeoutError as error:  # a subclass of OSError, so it must come first
            raise _StartError(f"it is not ready after {_START_LIMIT:g} s") from error
        except (OSError, _DeathError) as error:
            raise _StartError(self._complaint() or reason_of(error)) from error
        return process

    def _complaint(self) -> str:
        """Return the last line that the process printed about itself."""
        end = os.lseek(self._stderr.fileno(), 0, os.SEEK_END)
        text = os.pread(self._stderr.fileno(), 2000, max(0, end - 2000)).decode("utf-8", "replace")
        return one_line((text.strip().splitlines() or [""])[-1])

    async def _exchange(self, process: asyncio.subprocess.Process, request: dict[str, Any]) -> _Answer:
        stdin = cast(asyncio.StreamWriter, process.stdin)
        with contextlib.suppress(ConnectionError):  # then it is dead, and reading says how
            stdin.write(frame(request))
            await stdin.drain()
        answer = await _read(process)
        if not _ANSWERS & answer.keys():
            raise _DeathError("its answer cannot be understood")
        try:
            width, height = map(int, answer.get("size", (0, 0)))
        except (TypeError, ValueError) as error:
            raise _DeathError("its answer cannot be understood") from error
        pixels = os.pread(self._pixels.fileno(), width * height * 3, 0)
        if len(pixels) != width * height * 3:
            raise _DeathError("its answer cannot be understood")
        return answer, pixels

    async def _stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._process = None  # not earlier: if this is cancelled while it waits, the next call stops the process


async def _read(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return the next message of *process*.

    Raises:
        _DeathError: it died instead.
    """
    stdout = cast(asyncio.StreamReader, process.stdout)
    try:
        length = LENGTH.unpack(await stdout.readexactly(LENGTH.size))[0]
        if length > _LONGEST_ANSWER:
            raise ValueError(length)
        message = json.loads(await stdout.readexactly(length))
        if not isinstance(message, dict):
            raise ValueError(message)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise _DeathError(_how_it_ended(await process.wait())) from error
    except ValueError as error:
        raise _DeathError("its answer cannot be understood") from error
    return message


def _how_it_ended(code: int) -> str:
    with contextlib.suppress(ValueError):
        if code < 0:
            return signal.Signals(-code).name
    return f"exit status {code}"
