"""The same pages with this package's engine, ``mlx_vlm.generate`` and mlx-vlm's server -> times and texts.

Each function runs in its own process. mlx-vlm is used as published, with the BLAS of MLX's wheel.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from olmocr.backends.local_server import mlx_vlm_command, serving
from olmocr.doctor.measure.pages import PagesToRead, make_requests
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest, PageResponseError, chat_prompt, parse_page_response
from olmocr.reports.machine import MeasuredGuidance
from olmocr.runtime.device import start_mlx
from olmocr.runtime.memory import peak_memory


@dataclass(frozen=True)
class EngineSetting:
    """How many pages are read at once, and whether drafts are tried."""

    at_once: int
    has_drafts: bool


@dataclass(frozen=True)
class Round:
    """All pages, read once. *passes_a_token* is None if it is not counted; *peak_memory* is in bytes."""

    seconds: float
    tokens: int
    passes_a_token: float | None
    peak_memory: int
    texts: tuple[str, ...]


def read_with_engine(model: Path, pages: PagesToRead, settings: Sequence[EngineSetting]) -> list[Round]:
    """Read all *pages* once with each of *settings*, each with its own engine, and all pages requested at once."""
    requests = make_requests(pages)
    return [_in_a_round(model, requests, setting) for setting in settings]


def _in_a_round(model: Path, requests: Sequence[PageRequest], setting: EngineSetting) -> Round:
    device = start_mlx()
    import mlx.core as mx

    from olmocr.inference.engine import Engine

    async def read(engine: Engine) -> Round:
        await engine.ask(_warm_up(requests))
        mx.reset_peak_memory()
        before, started = engine.counts, time.perf_counter()
        answers = await asyncio.gather(*map(engine.ask, requests))
        seconds, after = time.perf_counter() - started, engine.counts
        tokens = after.tokens - before.tokens
        passes = (after.row_steps - before.row_steps) / max(1, tokens)
        return Round(seconds, tokens, passes, engine.peak_memory, tuple(answer.text for answer in answers))

    drafted = setting.at_once if setting.has_drafts else 0
    with Engine(ModelFolder(model), device, most_pages=setting.at_once, drafted_pages=drafted) as engine:
        return asyncio.run(read(engine))


def _warm_up(requests: Sequence[PageRequest]) -> PageRequest:
    """Return a request that leaves nothing in caches that would speed up another request."""
    return replace(requests[-1], max_tokens=2, prompt="Warm up.")


def read_with_generate(model: Path, pages: PagesToRead) -> Round:
    """Read page by page with ``mlx_vlm.generate``."""
    import mlx.core as mx
    import mlx_vlm

    requests = make_requests(pages)
    loaded, processor = mlx_vlm.load(str(model))

    def answer(request: PageRequest) -> tuple[str, int]:
        done = mlx_vlm.generate(
            loaded,
            processor,
            chat_prompt(request.prompt),
            image=[request.image.pixels],
            temperature=0.0,
            max_tokens=request.max_tokens,
        )
        return str(done.text), int(done.generation_tokens)

    answer(_warm_up(requests))
    mx.reset_peak_memory()
    started = time.perf_counter()
    answers = list(map(answer, requests))
    seconds = time.perf_counter() - started
    texts = tuple(text for text, _ in answers)
    return Round(seconds, sum(count for _, count in answers), None, mx.get_peak_memory(), texts)


def read_with_server(model: Path, pages: PagesToRead, port: int) -> Round:
    """Read all *pages* with ``mlx_vlm.server``, all requests in flight at once."""
    requests = make_requests(pages)
    done = asyncio.run(answered_by_server(model, requests, port, len(requests)))
    return replace(done, peak_memory=children_peak())


def children_peak() -> int:
    """Return the peak memory, in bytes, of the largest ended process that this one started."""
    return peak_memory(resource.RUSAGE_CHILDREN)


async def answered_by_server(
    model: Path, requests: Sequence[PageRequest], port: int, at_once: int, *, warm_up: int = 1
) -> Round:
    """Start ``mlx_vlm.server`` as published, and send it all *requests*; it answers *at_once* together.

    Before the clock starts, it answers *warm_up* requests together that leave nothing behind.
    """
    command = mlx_vlm_command(str(model), port=port, max_num_seqs=at_once)
    published = ("mlx_vlm.server" if part == "olmocr.backends.mlx_vlm_launcher" else part for part in command.arguments)
    async with serving(replace(command, arguments=tuple(published))) as ask:
        await asyncio.gather(*(ask(_warm_up(requests)) for _ in range(warm_up)))
        started = time.perf_counter()
        answers = await asyncio.gather(*map(ask, requests))
        seconds = time.perf_counter() - started
    tokens = sum(answer.output_tokens for answer in answers)
    return Round(seconds, tokens, None, 0, tuple(answer.text for answer in answers))


def read_guided(model: Path, pages: PagesToRead, rounds: int) -> MeasuredGuidance:
    """Read all *pages* with the front matter's form forced, and without, in turn."""
    setting = EngineSetting(pages.count, has_drafts=False)
    ways = {way: make_requests(pages, guided=way) for way in (True, False)}
    done: dict[bool, list[Round]] = {True: [], False: []}
    for number in range(rounds):
        for way in sorted(ways, reverse=bool(number % 2)):
            done[way].append(_in_a_round(model, ways[way], setting))
    texts, plain = done[True][0].texts, done[False][0].texts
    return MeasuredGuidance(
        pages=pages.count,
        seconds=tuple(each.seconds for each in done[True]),
        plain_seconds=tuple(each.seconds for each in done[False]),
        valid=sum(map(_is_valid, texts)),
        plain_valid=sum(map(_is_valid, plain)),
        same_texts=sum(map(str.__eq__, texts, plain)),
    )


def _is_valid(text: str) -> bool:
    try:
        parse_page_response(text)
    except PageResponseError:
        return False
    return True
