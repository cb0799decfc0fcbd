"""Pages a minute: the engine, by pages at once and with drafts; mlx_vlm.generate and mlx-vlm's server beside it."""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from contenders import peak_rss
from machine import describe_machine

from olmocr.conversion.convert import convert
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest, chat_prompt
from olmocr.rendering.render import open_document
from olmocr.runtime.device import start_mlx
from olmocr.version import __version__

DEMO = Path(__file__).resolve().parent.parent / "demo"
LONGEST_SIDE = 644
MAX_TOKENS = 1000


@dataclass(frozen=True)
class Job:
    """What a contender is to read, with so many pages in flight. The first request warms up and is not counted."""

    model: Path
    requests: tuple[PageRequest, ...]
    at_once: int
    has_drafts: bool

    @property
    def warm_up(self) -> PageRequest:
        """A question that leaves nothing behind which would help with another one."""
        return replace(self.requests[-1], max_tokens=2, prompt="Warm up.")


@dataclass(frozen=True)
class Run:
    """All pages, once. *passes* are over the weights, for each token of one answer; None where nobody counts them."""

    seconds: float
    tokens: int
    passes_a_token: float | None
    peak_bytes: int
    texts: tuple[str, ...]


@dataclass
class Contender:
    """Who reads, and how."""

    name: str
    read: Callable[[Job], Run]
    job: Job
    runs: list[Run] = field(default_factory=list)

    def median(self, of: Callable[[Run], float]) -> float:
        """Return the median over the rounds."""
        return statistics.median(map(of, self.runs))


def main() -> None:
    args = _arguments()
    requests = make_requests(args.pages)
    with tempfile.TemporaryDirectory(prefix="olmocr-inference-") as name:
        contenders = make_contenders(Path(name), requests, args)
        for number in range(1, args.rounds + 1):
            for contender in contenders if number % 2 else reversed(contenders):
                print(f"round {number}: {_label(contender)}", file=sys.stderr)
                contender.runs.append(in_a_process_of_its_own(contender))
    print_table(contenders, requests, args.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=24, help="demo pages (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contender runs (default: %(default)s)")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8], help="(default: 1 2 4 8)")
    parser.add_argument("--stock-pages", type=int, default=4, help="pages for mlx-vlm (default: %(default)s)")
    parser.add_argument("--stock-recipe", default="none", help="what mlx-vlm is given (default: %(default)s)")
    return parser.parse_args()


def make_requests(count: int) -> tuple[PageRequest, ...]:
    """Return the demo's first pages, with the text that their PDF has."""
    requests = []
    for entry in json.loads((DEMO / "pages/pages.json").read_text(encoding="utf-8"))[:count]:
        with open_document(DEMO / "pages" / entry["pdf"], entry["pdf"]) as pages:
            image, text = pages.render(entry["page"], LONGEST_SIDE), pages.text(entry["page"])
        requests.append(PageRequest(image, max_tokens=MAX_TOKENS, draft_text=text))
    return tuple(requests)


def make_contenders(folder: Path, requests: tuple[PageRequest, ...], args: argparse.Namespace) -> list[Contender]:
    """Return ours in every setting, and stock mlx-vlm on fewer pages, with the weights that it reads fastest."""
    ours, stock = folder / "ours", folder / "stock"
    convert(DEMO / "checkpoint", "8bit", ours)
    contenders = [
        Contender("olmocr, 8-bit", read_with_olmocr, Job(ours, requests, at_once, has_drafts))
        for at_once in args.at_once
        for has_drafts in (False, True)
    ]
    if few := requests[: args.stock_pages]:
        convert(DEMO / "checkpoint", args.stock_recipe, stock)
        weights = {"none": "bf16"}.get(args.stock_recipe, args.stock_recipe)
        alone, together = Job(stock, few, 1, has_drafts=False), Job(stock, few, len(few), has_drafts=False)
        contenders.append(Contender(f"mlx_vlm.generate, {weights}", read_with_generate, alone))
        contenders.append(Contender(f"mlx_vlm.server, {weights}", read_with_server, together))
    return contenders


def in_a_process_of_its_own(contender: Contender) -> Run:
    """Run *contender* where it shares no threads, no BLAS and no memory with another."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(contender.read, contender.job).result()


def read_with_olmocr(job: Job) -> Run:
    """Read all pages with one engine, asked for all of them at the same time."""
    return asyncio.run(_read_with_olmocr(job))


async def _read_with_olmocr(job: Job) -> Run:
    device = start_mlx()
    from olmocr.inference.engine import Engine

    drafted = job.at_once if job.has_drafts else 0
    with Engine(ModelFolder(job.model), device, most_pages=job.at_once, drafted_pages=drafted) as engine:
        await engine.ask(job.warm_up)
        before, started = engine.counts, time.perf_counter()
        answers = await asyncio.gather(*map(engine.ask, job.requests))
        seconds, after = time.perf_counter() - started, engine.counts
    tokens = after.tokens - before.tokens
    passes = (after.row_steps - before.row_steps) / tokens
    return Run(seconds, tokens, passes, peak_rss(), tuple(answer.text for answer in answers))


def read_with_generate(job: Job) -> Run:
    """Read page by page with ``mlx_vlm.generate`` as published, and the BLAS that MLX's wheel brings."""
    import mlx_vlm

    model, processor = mlx_vlm.load(str(job.model))

    def answer(request: PageRequest) -> tuple[str, int]:
        done = mlx_vlm.generate(
            model,
            processor,
            chat_prompt(request.prompt),
            image=[request.image.pixels],
            temperature=0.0,
            max_tokens=request.max_tokens,
        )
        return str(done.text), int(done.generation_tokens)

    answer(job.warm_up)
    started = time.perf_counter()
    answers = list(map(answer, job.requests))
    seconds = time.perf_counter() - started
    return Run(seconds, sum(count for _, count in answers), None, peak_rss(), tuple(text for text, _ in answers))


def read_with_server(job: Job) -> Run:
    """Read all pages with ``mlx_vlm.server`` as published, all requests in flight at once."""
    run = asyncio.run(_read_with_server(job))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return replace(run, peak_bytes=peak if sys.platform == "darwin" else peak * 1024)


async def _read_with_server(job: Job) -> Run:
    from olmocr.backends.local_server import mlx_vlm_command, serving

    command = mlx_vlm_command(str(job.model), max_num_seqs=job.at_once)
    published = ("mlx_vlm.server" if part == "olmocr.backends.mlx_vlm_launcher" else part for part in command.arguments)
    async with serving(replace(command, arguments=tuple(published))) as ask:
        await ask(job.warm_up)
        started = time.perf_counter()
        answers = await asyncio.gather(*map(ask, job.requests))
        seconds = time.perf_counter() - started
    tokens = sum(answer.output_tokens for answer in answers)
    return Run(seconds, tokens, None, 0, tuple(answer.text for answer in answers))


def print_table(contenders: list[Contender], requests: tuple[PageRequest, ...], rounds: int) -> None:
    print(f"{describe_machine()}; olmocr {__version__}")
    print(f"{len(requests)} demo pages at {LONGEST_SIDE} px, greedy, text first, {rounds} rounds; medians\n")
    heads = "at once | drafts | pages | pages/min | tokens/s | passes/token | peak RSS, MiB | same text |"
    print(f"| | {heads}\n| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for contender in contenders:
        print(_line(contender, contenders[0].runs[0].texts))


def _line(contender: Contender, expected: tuple[str, ...]) -> str:
    job = contender.job
    pages = len(job.requests)
    same = min(sum(map(str.__eq__, run.texts, expected)) for run in contender.runs)
    passes = contender.runs[0].passes_a_token
    cells = [
        contender.name,
        f"{job.at_once}",
        "yes" if job.has_drafts else "no",
        f"{pages}",
        f"{contender.median(lambda run: 60 * pages / run.seconds):.1f}",
        f"{contender.median(lambda run: run.tokens / run.seconds):.0f}",
        "" if passes is None else f"{passes:.2f}",
        f"{contender.median(lambda run: run.peak_bytes) / 2**20:.0f}",
        f"{same} of {pages}",
    ]
    return f"| {' | '.join(cells)} |"


def _label(contender: Contender) -> str:
    drafts = ", drafts" if contender.job.has_drafts else ""
    return f"{contender.name}, {contender.job.at_once} at once{drafts}, {len(contender.job.requests)} pages"


if __name__ == "__main__":
    main()
