"""Kills parts of a run on a three-node Ray, again and again, and checks whether a page is lost or there twice.

The nodes are on this machine: one for the driver, two for readers. Rendering, readers' processes, Ray and the driver
are real; answers are scripted, and contain the number drawn on the page. After each kill, the results must equal those
of a single process byte for byte.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import describe_machine

sys.path.append(str(Path(__file__).parents[1]))
from olmocr import PipelineConfig, run_pipeline
from olmocr.pipeline.cluster.actors import ray_cluster
from tests.pipeline.cluster.nodes import nodes_here
from tests.pipeline.cluster.scripted import ScriptedDesk
from tests.pipeline.doubles import Reader, write_numbered_pdf
from tests.rendered_here import PoolHere

DOCUMENTS, PAGES, LONG = 12, 4, 24
SIDE = 64
_PAGE = re.compile(r"[0-9a-f]{40} \d+\n")  # a driver's line for a saved page


def main() -> None:
    args = _arguments()
    if args.drive:
        _drive(*args.drive, args.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_documents(folder / "in")
        wanted = _alone(folder)
        documents = f"{DOCUMENTS} documents of {PAGES} pages and one of {LONG}"
        print(f"{describe_machine()}; {documents}, {args.seconds:g} s an answer\n")
        print(
            "| killed | times | runs that ended well | results as of one process | read twice, pages | seconds a run |"
        )
        print(f"| --- |{' ---: |' * 5}")
        with nodes_here(2) as nodes:
            for what, kill in ((kind, _kills(nodes)[kind]) for kind in args.kinds):
                print(
                    _row(what, [_tried(nodes, folder / f"{what}-{at}", kill, wanted, args) for at in range(args.times)])
                )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="each kill (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", default=["node", "reader", "driver"], help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="of an answer (default: %(default)s)")
    parser.add_argument("--drive", nargs=2, metavar=("ADDRESS", "WORKSPACE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _make_documents(folder: Path) -> None:
    for at in range(DOCUMENTS):
        write_numbered_pdf(folder / f"{at:02}.pdf", range(10 * at + 1, 10 * at + 1 + PAGES))
    write_numbered_pdf(folder / "long.pdf", range(1000, 1000 + LONG))


def _config(workspace: Path, **more: Any) -> PipelineConfig:
    pdfs = str(workspace.parent / "in")
    return PipelineConfig(
        workspace=workspace, pdfs=pdfs, model="m", markdown=True, target_longest_image_dim=SIDE, **more
    )


def _alone(folder: Path) -> dict[str, bytes]:
    asyncio.run(run_pipeline(_config(folder / "alone"), ask=Reader().ask, open_pool=PoolHere))
    return _files(folder / "alone")


def _files(workspace: Path) -> dict[str, bytes]:
    paths = [path for kind in ("results", "markdown") for path in (workspace / kind).rglob("*") if path.is_file()]
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in paths}


def _drive(address: str, workspace: str, seconds: float) -> None:
    """Run the driver, which prints a line for each saved page."""
    opening = functools.partial(ray_cluster, make_desk=functools.partial(ScriptedDesk, seconds))
    config = _config(Path(workspace), ray=address, max_concurrent_pages=4, workers=2)
    summary = asyncio.run(
        run_pipeline(
            config, open_cluster=opening, on_page=lambda source, page: print(source.key, page.page_number, flush=True)
        )
    )
    sys.exit(summary.exit_code)


def _kills(nodes: Any) -> dict[str, Callable[[subprocess.Popen[str]], bool]]:
    """Return functions that kill something, by its name; each returns whether the driver still runs."""

    def node(driver: subprocess.Popen[str]) -> bool:
        nodes.kill_a_node()
        return True

    def reader(driver: subprocess.Popen[str]) -> bool:
        os.kill(random.choice(nodes.readers()), signal.SIGKILL)
        return True

    def the_driver(driver: subprocess.Popen[str]) -> bool:
        driver.kill()
        return False

    return {"node": node, "reader": reader, "driver": the_driver}


def _tried(
    nodes: Any, workspace: Path, kill: Any, wanted: dict[str, bytes], args: argparse.Namespace
) -> dict[str, Any]:
    """Read all documents, and kill something after a few pages; if that was the driver, run it again."""
    while len(nodes.nodes) < 2:
        nodes.add_a_node()
    started, kept = time.monotonic(), []
    driver = _driver(nodes.address, workspace, args)
    after = random.randrange(3, 40)
    assert driver.stdout is not None
    for line in filter(_PAGE.fullmatch, driver.stdout):
        kept.append(line)
        if len(kept) == after and not kill(driver):
            break
    code = driver.wait()
    if code == -signal.SIGKILL:
        kept += filter(_PAGE.fullmatch, driver.stdout)
        driver = _driver(nodes.address, workspace, args)
        assert driver.stdout is not None
        kept += filter(_PAGE.fullmatch, driver.stdout)
        code = driver.wait()
    return {
        "ended_well": code == 0,
        "same": _files(workspace) == wanted,
        "twice": len(kept) - len(set(kept)),
        "seconds": time.monotonic() - started,
    }


def _driver(address: str, workspace: Path, args: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--drive", address, str(workspace), "--seconds", str(args.seconds)]
    log = workspace.with_suffix(".log").open("a")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)


def _row(what: str, tried: list[dict[str, Any]]) -> str:
    times = sorted(each["seconds"] for each in tried)
    cells = [
        what,
        len(tried),
        sum(each["ended_well"] for each in tried),
        sum(each["same"] for each in tried),
        sum(each["twice"] for each in tried),
        f"{times[0]:.0f} to {times[-1]:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
