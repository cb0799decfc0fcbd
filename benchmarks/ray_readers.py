"""How much faster two and four readers on Ray are than one, with scripted answers that take a fixed time.

Each reader is an actor on its own node; the nodes are on this machine. Documents, rendering, Ray and the driver are
real. Counting begins when the readers have answered as many pages as they take at once, and ends with the last page.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from machine import describe_machine

sys.path.append(str(Path(__file__).parents[1]))
from olmocr import PipelineConfig, run_pipeline
from olmocr.inputs.sources import Source
from olmocr.pipeline.cluster.actors import ray_cluster
from olmocr.workspace.document import PageRecord
from tests.pipeline.cluster.nodes import nodes_here
from tests.pipeline.cluster.scripted import ScriptedDesk
from tests.pipeline.doubles import write_numbered_pdf

PAGES = 8  # of a document


def main() -> None:
    args = _arguments()
    print(f"{describe_machine()}; {args.seconds:g} s an answer, {args.room} pages at once for each reader\n")
    print("| readers | pages | counted | seconds | pages/s | times one reader | of linear | pages by reader |")
    print(f"|{' ---: |' * 7} --- |")
    one = 0.0
    for readers in args.readers:
        with tempfile.TemporaryDirectory() as name, nodes_here(readers) as nodes:
            pages, counted, seconds, by_reader = _measured(Path(name), nodes.address, readers, args)
        rate = counted / seconds
        one = one or rate
        shared = ", ".join(map(str, sorted(by_reader, reverse=True)))
        numbers = f"{seconds:.1f} | {rate:.2f} | {rate / one:.2f} | {rate / one / readers:.3f}"
        print(f"| {readers} | {pages} | {counted} | {numbers} | {shared} |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2, 4], help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of an answer (default: %(default)s)")
    parser.add_argument("--room", type=int, default=4, help="pages at once for each reader (default: %(default)s)")
    parser.add_argument("--answers", type=int, default=20, help="one after the other (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="pixels of a page's longest side (default: %(default)s)")
    return parser.parse_args()


def _measured(folder: Path, address: str, readers: int, args: argparse.Namespace) -> tuple[int, int, float, list[int]]:
    """Return the numbers of pages read and counted, the seconds for the latter, and the pages of each reader."""
    pages = args.answers * args.room * readers
    for at in range(pages // PAGES):
        write_numbered_pdf(folder / "in" / f"{at:04}.pdf", range(at * PAGES + 1, (at + 1) * PAGES + 1))
    config = PipelineConfig(
        workspace=folder / "ws",
        pdfs=str(folder / "in"),
        model="m",
        ray=address,
        max_concurrent_pages=args.room,
        target_longest_image_dim=args.side,
    )
    times: list[float] = []

    def on_page(source: Source, page: PageRecord) -> None:
        times.append(time.monotonic())

    # Readers start one after the other. This does not count: each waits until all have started.
    desk = functools.partial(WaitingDesk, folder / "started", readers, args.seconds)
    opening = functools.partial(ray_cluster, make_desk=desk)
    summary = asyncio.run(run_pipeline(config, open_cluster=opening, on_page=on_page))
    assert summary.done == pages // PAGES, summary
    counts = json.loads((folder / "ws/metrics.json").read_text())["servers"].values()
    counted = times[args.room * readers - 1 :]
    return len(times), len(counted) - 1, counted[-1] - counted[0], [each["answered"] for each in counts]


class WaitingDesk(ScriptedDesk):
    """A scripted reader that is ready when all *readers* are."""

    def __init__(self, folder: Path, readers: int, seconds: float, *more: object) -> None:
        super().__init__(seconds, *more)
        self._started, self._readers = folder, readers

    async def load(self):  # type: ignore[no-untyped-def]
        """Load it."""
        self._started.mkdir(exist_ok=True)
        (self._started / str(os.getpid())).mkdir(exist_ok=True)
        while len(list(self._started.iterdir())) < self._readers:
            await asyncio.sleep(0.1)
        return await super().load()


if __name__ == "__main__":
    main()
