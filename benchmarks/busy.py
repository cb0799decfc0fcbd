"""Seconds per page with and without another busy process, for different thread settings of the BLAS.

Each contender reads the same pages in its own process, first alone and then beside the burner: a process with one
thread per processor that hashes endlessly. Contenders run in turn, every other round backwards. A contender is this
package as it is, another copy of it (``--package``), or this one with environment variables (``--settings``).

With ``--real-time``, no other process gets a processor while a contender reads alone; this needs root on Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from machine import describe_machine

from olmocr.conversion.convert import convert
from olmocr.doctor.measure.pages import PagesToRead, make_requests
from olmocr.doctor.measure.terms import find_demo
from olmocr.model_folder import ModelFolder
from olmocr.version import __version__

HERE = Path(__file__).resolve()
LONGEST_SIDE = 644


@dataclass
class Contender:
    """A copy of the package with environment variables; its runs alone and beside the burner."""

    name: str
    package: Path
    settings: dict[str, str]
    runs: dict[bool, list[dict[str, Any]]] = field(default_factory=lambda: {False: [], True: []})

    def median(self, key: str, is_beside: bool) -> float:
        """Return the median over the rounds."""
        return statistics.median(float(run[key]) for run in self.runs[is_beside])


def main() -> None:
    args = _arguments()
    if args.burn:
        burn(args.burn)
    elif args.model:
        if args.real_time:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # of its threads, too: they begin later
        print(json.dumps(asyncio.run(read(args.model, args.pages, args.at_once, args.drafted_pages))))
    else:
        compare(args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=6, help="demo pages (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=1, help="pages in flight (default: %(default)s)")
    parser.add_argument("--drafted-pages", type=int, default=0, help="as the engine has it (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contender runs (default: %(default)s)")
    parser.add_argument("--package", type=Path, action="append", default=[], help="another clone, to compare with")
    parser.add_argument(
        "--settings", action="append", default=[], metavar="NAME=VALUE,...", help="a contender with these variables"
    )
    parser.add_argument("--real-time", action="store_true", help="let nothing else run while a contender reads alone")
    parser.add_argument("--burn", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(args: argparse.Namespace) -> None:
    """Run all contenders, and print the table."""
    own = HERE.parent.parent
    contenders = [Contender(f"{path}", path.resolve(), {}) for path in args.package]
    contenders.append(Contender("as it comes", own, {}))
    for text in args.settings:
        contenders.append(Contender(text, own, dict(part.split("=", 1) for part in text.split(","))))
    with tempfile.TemporaryDirectory(prefix="olmocr-busy-") as name:
        model = Path(name) / "model"
        convert(find_demo().checkpoint, "8bit", model)
        for number in range(args.rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                for is_beside in (False, True):
                    with burning() if is_beside else contextlib.nullcontext():
                        contender.runs[is_beside].append(run_alone(contender, model, args, is_beside))
                print(f"round {number + 1}: {contender.name}", file=sys.stderr)
    print_table(contenders, args)


def run_alone(contender: Contender, model: Path, args: argparse.Namespace, is_beside: bool) -> dict[str, Any]:
    """Read all pages in a fresh process: a BLAS reads its settings only once."""
    command = [sys.executable, str(HERE), "--model", str(model), "--pages", str(args.pages)]
    command += ["--at-once", str(args.at_once), "--drafted-pages", str(args.drafted_pages)]
    command += ["--real-time"] if args.real_time and not is_beside else []
    env = os.environ | {"PYTHONPATH": str(contender.package), "HF_HUB_OFFLINE": "1"} | contender.settings
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    run: dict[str, Any] = json.loads(done.stdout)
    return run


async def read(model: Path, pages: int, at_once: int, drafted_pages: int) -> dict[str, Any]:
    """Read the demo's first *pages*; return seconds and processor seconds for each, and the hash of all texts."""
    from olmocr.runtime.device import start_mlx

    requests = make_requests(PagesToRead(find_demo(), pages, LONGEST_SIDE))
    device = start_mlx()
    from olmocr.inference.engine import Engine

    with Engine(ModelFolder(model), device, most_pages=at_once, drafted_pages=drafted_pages) as engine:
        await engine.ask(replace(requests[-1], max_tokens=2, prompt="Warm up."))
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        answers = await asyncio.gather(*map(engine.ask, requests))
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    texts = hashlib.sha256("\0".join(answer.text for answer in answers).encode()).hexdigest()
    return {"seconds": seconds / pages, "used": used / pages, "texts": texts, "device": str(device)}


@contextlib.contextmanager
def burning() -> Iterator[None]:
    """Keep as many threads busy as there are processors, in another process."""
    with subprocess.Popen([sys.executable, str(HERE), "--burn", str(os.cpu_count() or 1)]) as burner:
        time.sleep(1.0)
        try:
            yield
        finally:
            burner.kill()


def burn(threads: int) -> None:
    """Hash endlessly in this many threads: hashing a megabyte releases Python's lock."""
    block = bytes(1 << 20)

    def run() -> None:
        while True:
            hashlib.sha256(block).digest()

    for _ in range(threads):
        threading.Thread(target=run).start()


def print_table(contenders: list[Contender], args: argparse.Namespace) -> None:
    texts = {run["texts"] for each in contenders for runs in each.runs.values() for run in runs}
    first = contenders[0].runs[False][0]
    print(f"{describe_machine()}; olmocr {__version__}, {first['device']}")
    print(f"{args.pages} demo pages, {args.at_once} at once, {args.rounds} rounds; medians")
    print("All texts are the same.\n" if len(texts) == 1 else f"THERE ARE {len(texts)} DIFFERENT TEXTS.\n")
    print("| | s/page | beside a busy process | times as long | CPU s/page | beside |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for each in contenders:
        alone, beside = each.median("seconds", False), each.median("seconds", True)
        used = f"{each.median('used', False):.2f} | {each.median('used', True):.2f}"
        print(f"| {each.name} | {alone:.2f} | {beside:.2f} | {beside / alone:.1f} | {used} |")


if __name__ == "__main__":
    main()
