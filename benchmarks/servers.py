"""How much faster two and four servers are than one, with scripted servers that take a fixed time for each answer.

The servers run in this process, on the loopback interface; pages are rendered in this process too. With ``--clock own``
the clock counts this process's processor time and skips its waiting, so other work on the machine has no effect.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import selectors
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from machine import describe_machine
from pipeline import FRONT_MATTER, make_documents

from olmocr import PipelineConfig, run_pipeline

sys.path.append(str(Path(__file__).parents[1]))
from tests.rendered_here import PoolHere


def main() -> None:
    args = _arguments()
    logging.disable(logging.WARNING)
    print(f"{describe_machine()}; {args.seconds:g} s an answer, {args.room} pages at once for each server\n")
    print("| servers | pages | seconds | pages/s | times one server | of linear | asked twice | pages by server |")
    print(f"|{' ---: |' * 7} --- |")
    one = 0.0
    for kinds in args.servers:
        row = _measured(kinds, args)
        one = one or row["rate"]
        times, linear = row["rate"] / one, sum(args.seconds / kind for kind in kinds)
        shown = " + ".join(f"{kind:g} s" for kind in kinds) if len(set(kinds)) > 1 else str(len(kinds))
        cells = [
            shown,
            row["pages"],
            f"{row['seconds']:.1f}",
            f"{row['rate']:.2f}",
            f"{times:.2f}",
            f"{times / linear:.3f}",
            row["asked_twice"],
            ", ".join(map(str, row["by_server"])),
        ]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of an answer (default: %(default)s)")
    parser.add_argument("--room", type=int, default=4, help="pages at once for each server (default: %(default)s)")
    parser.add_argument("--answers", type=int, default=20, help="one after the other (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="pixels of a page's longest side (default: %(default)s)")
    parser.add_argument("--clock", choices=("real", "own"), default="real", help="default: %(default)s")
    args = parser.parse_args()
    slow = 4 * args.seconds
    args.servers = [[args.seconds], [args.seconds] * 2, [args.seconds] * 4, [args.seconds, args.seconds, slow]]
    return args


def _measured(kinds: list[float], args: argparse.Namespace) -> dict[str, Any]:
    """Read as many pages as keep all servers busy for the same time; return the speed."""
    pages = round(args.answers * args.room * sum(args.seconds / kind for kind in kinds))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_documents(folder, 1, pages)
        loop_factory = _OwnTimeLoop if args.clock == "own" else asyncio.SelectorEventLoop
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            seconds, by_server = runner.run(_read(folder, kinds, args))
        counts = json.loads((folder / "ws/metrics.json").read_text())["servers"]
    assert sum(by_server) == pages
    return {
        "pages": pages,
        "seconds": seconds,
        "rate": pages / seconds,
        "asked_twice": sum(each.get("asked_second", 0) for each in counts.values()),
        "by_server": by_server,
    }


async def _read(folder: Path, kinds: list[float], args: argparse.Namespace) -> tuple[float, list[int]]:
    """Return the seconds of the run, and how many pages each server answered."""
    clock = asyncio.get_running_loop().time
    async with _servers(kinds) as urls:
        config = PipelineConfig(
            workspace=folder / "ws",
            pdfs=(str(folder / "00000.pdf"),),
            server=urls,
            max_concurrent_pages=args.room,
            target_longest_image_dim=args.side,
        )
        started = clock()
        summary = await run_pipeline(config, open_pool=PoolHere)
        seconds = clock() - started
    assert not summary.failures
    return seconds, [int(summary.servers[f"{url}/v1"]["pages"]) for url in urls]


class _OwnTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is this process's processor time, and which skips waiting."""

    def __init__(self) -> None:
        super().__init__(_SkippingSelector(self))
        self.skipped = 0.0
        self.in_threads = 0

    def time(self) -> float:
        """Return the time in seconds."""
        return time.process_time() + self.skipped

    def run_in_executor(self, *args: Any) -> Any:
        """Run it as usual; while a thread works, nothing is skipped."""
        future = super().run_in_executor(*args)
        self.in_threads += 1
        future.add_done_callback(self._thread_is_done)
        return future

    def _thread_is_done(self, future: Any) -> None:
        self.in_threads -= 1


class _SkippingSelector(selectors.DefaultSelector):
    def __init__(self, loop: _OwnTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(0.005)  # what was sent to this very process is there by then
        if not events and not self._loop.in_threads:
            self._loop.skipped += timeout
        return events


@contextlib.asynccontextmanager
async def _servers(kinds: list[float]) -> AsyncIterator[tuple[str, ...]]:
    """Start a server for each of *kinds*, the seconds of its answers; yield their addresses."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [await asyncio.start_server(_Answering(seconds).serve, "127.0.0.1", 0) for seconds in kinds]
        for server in servers:
            await stack.enter_async_context(server)
        yield tuple(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)


class _Answering:
    """Answers each question after a fixed number of seconds, however many others it has."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((line for line in head.splitlines() if line.startswith("content-length:")), ": 0")
                await reader.readexactly(int(length.partition(":")[2]))
                is_question = head.startswith("post")
                if is_question:
                    await asyncio.sleep(self._seconds)
                body = json.dumps(_ANSWER if is_question else _MODELS).encode()
                known = is_question or " /v1/models " in head
                status = b"200 OK" if known else b"404 Not Found"
                writer.write(b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n" % status)
                writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        writer.close()


_MODELS = {"object": "list", "data": [{"id": "scripted", "object": "model"}]}
_ANSWER = {
    "choices": [{"message": {"content": f"{FRONT_MATTER}A page."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1700, "completion_tokens": 50},
}

if __name__ == "__main__":
    main()
