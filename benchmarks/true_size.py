"""Pages per minute at the true size: a crafted 7B model, by recipe, pages at once, and quality of the pages' own text.

It makes what it needs (crafted.py): a checkpoint, its variants, and PDFs. Their text layer is the answer, the answer
with some changed words, something else, or missing. The answer is the same for all pages, so drafts differ only by the
pages' own text.

    python benchmarks/true_size.py --shape 7b --folder BIG_DISK --runs 1:off 1:right 32:off 32:right

mlx-vlm's server and transformers, as published, can read the same pages beside the engine, as many in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

from crafted import SHAPES, make_checkpoint, make_pdf, pieces
from machine import describe_machine

from olmocr.backends.local_server import free_port
from olmocr.conversion.convert import convert
from olmocr.doctor.measure.reading import answered_by_server
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest, chat_prompt
from olmocr.rendering.render import open_document
from olmocr.runtime.device import start_mlx
from olmocr.version import __version__

KINDS = {"off": 0.0, "right": 0.0, "scan": 0.0, "2": 0.02, "10": 0.1, "30": 0.3, "wrong": 1.0}
"""What a page's own text is: the share of its words that is changed. *scan* has none, *off* has no drafts, either."""

SOURCE = "crafted"
"""The folder of the checkpoint, beside those of its variants."""

_HEADS = "at once | text | pages | pages/min | tokens/s | rows a step | passes/token | GB | computed, GB | answers"


@dataclass(frozen=True)
class Wanted:
    """One run: the number of *pages*, how many are read *at_once*, and the *kind* of their own text."""

    at_once: int
    kind: str
    pages: int

    @classmethod
    def of(cls, text: str) -> Wanted:
        """Return the meaning of ``AT_ONCE:KIND[:PAGES]``; the default is three pages for each one at once."""
        at_once, kind, *pages = text.split(":")
        if kind not in KINDS:
            raise ValueError(f"{kind} is none of {', '.join(KINDS)}")
        return cls(int(at_once), kind, int(pages[0]) if pages else 3 * int(at_once))


def main() -> None:
    args = _arguments()
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory(prefix="olmocr-true-size-") as name:
        folders = make_models(Path(name), args.shape, args.recipes, args.words)
        print(f"{describe_machine()}; olmocr {__version__}; {args.gpu}")
        print(f"the shape of {args.shape}, {args.side} px, answers of {len(pieces(args.words)) + 1} tokens\n")
        print(f"| | {_HEADS} |\n|{' --- |' * 3}{' ---: |' * 8}")
        for recipe, folder in folders.items():
            if args.runs:
                _apart(print_runs, recipe, folder, args)
            for each in args.server:
                _apart(print_server, recipe, folder, each, args)
        if args.transformers:
            _apart(print_transformers, Path(name) / SOURCE, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="demo", help="(default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="for the models, 16.6 GB and more for each recipe; those that are there are used"
    )
    parser.add_argument("--recipes", nargs="+", default=["4bit"], help="or none: bfloat16 as it is (default: 4bit)")
    for name, reader, given in (
        ("--runs", "the engine", ["1:off", "1:right"]),
        ("--server", "mlx-vlm's server", []),
        ("--transformers", "transformers, with the checkpoint in bfloat16", []),
    ):
        default = [Wanted.of(text) for text in given]
        shown = f"what {reader} reads: AT_ONCE:TEXT[:PAGES] (default: {' '.join(given) or 'nothing'})"
        parser.add_argument(name, type=Wanted.of, nargs="*", default=default, metavar="RUN", help=shown)
    parser.add_argument("--as-stored", action="store_true", help="keep quantized weights as they are, on any device")
    parser.add_argument("--words", type=int, default=350, help="in an answer (default: %(default)s)")
    parser.add_argument("--side", type=int, default=1288, help="pixels of a page (default: %(default)s)")
    parser.add_argument("--gpu", default="", help="the GPU's name, for the heading")
    return parser.parse_args()


def make_models(folder: Path, shape: str, recipes: Sequence[str], words: int = 350) -> dict[str, Path]:
    """Make the checkpoint and a variant of it for each of *recipes*, if missing; return their folders by recipe."""
    source = folder / SOURCE
    if not source.exists():
        make_checkpoint(source, shape, words)
    made = {recipe: folder / f"{SOURCE}-mlx-{recipe}" for recipe in recipes if recipe != "none"}
    missing = [recipe for recipe, path in made.items() if not path.exists()]
    if missing:
        convert(source, missing, made[missing[0]] if len(missing) == 1 else folder, method="stock")
    return {recipe: made.get(recipe, source) for recipe in recipes}


def _apart(work: Callable[..., None], *arguments: Any) -> None:
    """Do *work* in a separate process, which does not share memory, threads or plans with another."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(work, *arguments).result()


def make_requests(wanted: Wanted, side: int, words: int) -> list[PageRequest]:
    """Return as many questions, with the pages' own text."""
    pages = _rendered(KINDS[wanted.kind], side, words, wanted.pages)
    return [replace(page, draft_text="") for page in pages] if wanted.kind in ("off", "scan") else pages


@cache
def _rendered(changed: float, side: int, words: int, count: int) -> list[PageRequest]:
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        path = Path(file.name)
        make_pdf(path, count, words, changed)
        with open_document(path, path.name) as document:
            numbers = range(1, count + 1)
            return [PageRequest(document.render(number, side), draft_text=document.text(number)) for number in numbers]


def print_runs(recipe: str, folder: Path, args: argparse.Namespace) -> None:
    """Load *folder* once and print a line for each of the engine's runs."""
    device = start_mlx()
    from olmocr.inference.costs import measure_costs
    from olmocr.inference.engine import set_limits
    from olmocr.inference.model import load_model

    set_limits(device)
    started = perf_counter()
    loaded = load_model(ModelFolder(folder), device, is_dense=False if args.as_stored else None)
    print(f"{recipe}: loaded in {perf_counter() - started:.1f} s: {loaded}", file=sys.stderr)
    costs = measure_costs(loaded)
    shown = ", ".join(f"{size}: {1000 * seconds:.1f}" for size, seconds in costs.seconds.items())
    print(f"{recipe}: ms of a pass by its tokens: {shown}", file=sys.stderr)
    for each in args.runs:
        _print_run(loaded, costs, recipe, folder, each, args)


def _print_run(loaded: Any, costs: Any, recipe: str, folder: Path, wanted: Wanted, args: argparse.Namespace) -> None:
    import mlx.core as mx

    from olmocr.inference.decode import BatchLimits, Scheduler
    from olmocr.inference.engine import PROMPT_STEPS, spare_bytes, step_bytes

    requests = make_requests(wanted, args.side, args.words)
    drafted = 0 if wanted.kind == "off" else wanted.at_once
    step = PROMPT_STEPS[loaded.device.kind]
    limits = BatchLimits(wanted.at_once, spare_bytes(loaded.device), step, drafted, costs)
    mx.clear_cache()
    weights = mx.get_active_memory()
    scheduler = Scheduler(loaded, limits, None)
    _answered(scheduler, [_warm_up(request) for request in requests[: wanted.at_once]])
    mx.reset_peak_memory()
    before, started = replace(scheduler.counts), perf_counter()
    answers = _answered(scheduler, requests)
    seconds, after = perf_counter() - started, scheduler.counts
    tokens, steps = after.tokens - before.tokens, after.steps - before.steps
    rows = after.row_steps - before.row_steps
    kept = 0 if loaded.device.kind == "cuda" else min(wanted.pages, 2 * wanted.at_once)  # PromptReader keeps none there
    held = computed_bytes(folder, wanted.at_once, kept, answers[0].input_tokens, len(answers[0].tokens))
    computed = weights + held + step_bytes(loaded.device)
    _print_line(
        f"olmocr, {recipe}{', as stored' if args.as_stored else ''}",
        wanted,
        seconds,
        tokens,
        f"{rows / steps:.1f}",
        f"{rows / tokens:.3f}",
        f"{mx.get_peak_memory() / 1e9:.2f}",
        f"{computed / 1e9:.2f}",
        _answers([answer.text for answer in answers], args.words),
    )


def _answered(scheduler: Any, requests: Sequence[PageRequest]) -> list[Any]:
    """Return the answers to all *requests*, asked at the same time."""
    from olmocr.inference.row import Asked

    asked = [Asked(request, Future()) for request in requests]
    for each in asked:
        scheduler.add(each)
    while not scheduler.is_idle:
        scheduler.advance()
    return [each.answer.result() for each in asked]


def _warm_up(request: PageRequest) -> PageRequest:
    """Return a question that leaves nothing behind that would speed up another one."""
    return replace(request, max_tokens=24, prompt="Warm up.")


def computed_bytes(folder: Path, at_once: int, kept: int, prompt: int, answer: int) -> int:
    """Return the expected size of keys and values: of pages *at_once*, and of earlier pages' *kept* prompts."""
    from olmocr.inference.room import rounded
    from olmocr.model_folder import read_config

    config = read_config(ModelFolder(folder))
    width = config["hidden_size"] // config["num_attention_heads"]
    token = 2 * 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * width
    return token * (at_once * rounded(prompt + answer) + kept * prompt)


def print_server(recipe: str, folder: Path, wanted: Wanted, args: argparse.Namespace) -> None:
    """Print a line for mlx-vlm's own server, with as many pages in flight."""
    requests = tuple(replace(each, max_tokens=1000) for each in make_requests(wanted, args.side, args.words))
    run = asyncio.run(answered_by_server(folder, requests, free_port(), wanted.at_once, warm_up=wanted.at_once))
    answers = _answers(run.texts, args.words)
    _print_line(f"mlx_vlm.server, {recipe}", wanted, run.seconds, run.tokens, "", "", "", "", answers)


def print_transformers(folder: Path, args: argparse.Namespace) -> None:
    """Load *folder* once and print a line for each run of transformers, which reads as many pages together."""
    from transformers_reader import TransformersReader

    reader = TransformersReader(folder, "bfloat16")
    for wanted in args.transformers:
        requests = make_requests(wanted, args.side, args.words)
        prompt, images = chat_prompt(requests[0].prompt), [each.image.pixels for each in requests]
        reader.answers(prompt, images[: wanted.at_once], 4)
        started, texts, tokens = perf_counter(), list[str](), 0
        for first in range(0, len(images), wanted.at_once):
            done = reader.answers(prompt, images[first : first + wanted.at_once], 1000)
            texts, tokens = texts + done.texts, tokens + done.tokens
        seconds = perf_counter() - started
        _print_line(str(reader), wanted, seconds, tokens, "", "", reader.peak(), "", _answers(texts, args.words))


def _answers(texts: Sequence[str], words: int) -> str:
    """Return how many of *texts* are the scripted answer."""
    expected = "".join(pieces(words)).strip()
    return f"{sum(text.strip() == expected for text in texts)} of {len(texts)}"


def _print_line(name: str, wanted: Wanted, seconds: float, tokens: int, *cells: str) -> None:
    rates = f"{60 * wanted.pages / seconds:.1f} | {tokens / seconds:,.0f}"
    print(f"| {name} | {wanted.at_once} | {wanted.kind} | {wanted.pages} | {rates} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
