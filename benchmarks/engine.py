"""The engine by how many pages are written at once, with and without drafts; stock mlx-vlm beside it."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from machine import describe_machine

from olmocr import __version__
from olmocr.conversion.convert import convert
from olmocr.device import Device, start_mlx
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest, chat_prompt
from olmocr.pipeline.render import open_document

DEMO = Path(__file__).resolve().parent.parent / "demo"
LONGEST_SIDE = 644
MAX_TOKENS = 1000


@dataclass(frozen=True)
class Run:
    """All pages, once."""

    seconds: float
    tokens: int
    steps: int
    row_steps: int
    peak_bytes: int
    texts: tuple[str, ...]


@dataclass
class Setting:
    """So many pages at once, with drafts or without."""

    pages: int
    has_drafts: bool
    runs: list[Run] = field(default_factory=list)

    def median(self, of: Callable[[Run], float]) -> float:
        """Return the median over the rounds."""
        return statistics.median(map(of, self.runs))


def main() -> None:
    args = _arguments()
    device = start_mlx()
    requests = make_requests(args.pages)
    settings = [Setting(pages, has_drafts) for pages in args.at_once for has_drafts in (False, True)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        convert(DEMO / "checkpoint", "8bit", folder)
        for number in range(1, args.rounds + 1):
            for setting in settings if number % 2 else reversed(settings):
                print(f"round {number}: {setting.pages} at once, drafts: {setting.has_drafts}", file=sys.stderr)
                setting.runs.append(asyncio.run(read(folder, device, setting, requests)))
        stock = stock_seconds(folder, requests[: args.stock_pages])
    print_table(settings, requests, stock, args.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=24, help="demo pages (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each setting runs (default: %(default)s)")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8], help="(default: 1 2 4 8)")
    parser.add_argument("--stock-pages", type=int, default=1, help="pages for mlx-vlm (default: %(default)s)")
    return parser.parse_args()


def make_requests(count: int) -> list[PageRequest]:
    """Return the demo's first pages, with the text that their PDF has."""
    requests = []
    for entry in json.loads((DEMO / "pages/pages.json").read_text(encoding="utf-8"))[:count]:
        with open_document(DEMO / "pages" / entry["pdf"], entry["pdf"]) as pages:
            image, text = pages.render(entry["page"], LONGEST_SIDE), pages.text(entry["page"])
        requests.append(PageRequest(image, max_tokens=MAX_TOKENS, draft_text=text))
    return requests


async def read(folder: Path, device: Device, setting: Setting, requests: list[PageRequest]) -> Run:
    """Read all pages with an engine that has seen only the last one, a little of it."""
    import mlx.core as mx

    from olmocr.inference.engine import Engine

    drafted = setting.pages if setting.has_drafts else 0
    with Engine(ModelFolder(folder), device, most_pages=setting.pages, drafted_pages=drafted) as engine:
        await engine.ask(replace(requests[-1], max_tokens=2, prompt="Warm up."))
        mx.reset_peak_memory()
        before, started = engine.counts, time.perf_counter()
        answers = await asyncio.gather(*map(engine.ask, requests))
        seconds, after = time.perf_counter() - started, engine.counts
    return Run(
        seconds,
        after.tokens - before.tokens,
        after.steps - before.steps,
        after.row_steps - before.row_steps,
        mx.get_peak_memory(),
        tuple(answer.text for answer in answers),
    )


def stock_seconds(folder: Path, requests: list[PageRequest]) -> list[float]:
    """Return what ``mlx_vlm.generate`` takes for each page; it computes with the same BLAS here."""
    import mlx_vlm

    model, processor = mlx_vlm.load(str(folder))
    seconds = []
    for request in requests:
        started = time.perf_counter()
        mlx_vlm.generate(
            model,
            processor,
            chat_prompt(request.prompt),
            image=[request.image.pixels],
            temperature=0.0,
            max_tokens=MAX_TOKENS,
        )
        seconds.append(time.perf_counter() - started)
    return seconds


def print_table(settings: list[Setting], requests: list[PageRequest], stock: list[float], rounds: int) -> None:
    print(f"{describe_machine()}; olmocr {__version__}")
    print(f"{len(requests)} demo pages at {LONGEST_SIDE} px, 8-bit, greedy, {rounds} rounds; medians")
    if stock:
        print(f"stock mlx-vlm, {len(stock)} pages: {statistics.mean(stock):.1f} s/page")
    print()
    print("| at once | drafts | s/page | tokens/s | passes | passes/token | peak MLX memory, MiB | same text |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    expected = settings[0].runs[0].texts
    for setting in settings:
        same = min(sum(map(str.__eq__, run.texts, expected)) for run in setting.runs)
        seconds = setting.median(lambda run: run.seconds)
        print(
            f"| {setting.pages} | {'yes' if setting.has_drafts else 'no'} | {seconds / len(requests):.2f} "
            f"| {setting.median(lambda run: run.tokens / run.seconds):.0f} "
            f"| {setting.median(lambda run: run.steps):.0f} "
            f"| {setting.median(lambda run: run.row_steps / run.tokens):.2f} "
            f"| {setting.median(lambda run: run.peak_bytes) / 2**20:.0f} | {same} of {len(requests)} |"
        )


if __name__ == "__main__":
    main()
