"""A converted folder -> the time of passes over its weights, by number of tokens, and of its vision tower.

Each function runs in its own process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from olmocr.doctor.measure.pages import PagesToRead, make_requests
from olmocr.model_folder import ModelFolder
from olmocr.reports.machine import MeasuredPass, MeasuredPasses, MeasuredPrefill, MeasuredVision
from olmocr.runtime.device import start_mlx

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32)
PREFILL = 512
BEHIND = (0, 512, 1536)

Timed = Callable[[], float]


def measure_passes(model: Path, rounds: int) -> MeasuredPasses:
    """Run passes of 1 to 32 tokens, and steps of a prompt, in turn."""
    loaded = _load(model)
    from olmocr.inference.costs import CONTEXT, RowPasses

    passes = RowPasses(loaded)
    steps = {size: _pass_of(passes, size) for size in SIZES}
    prefills = {behind: _prefill(loaded, behind) for behind in BEHIND}
    seconds = in_turn([*steps.values(), *prefills.values()], rounds)
    return MeasuredPasses(
        context=CONTEXT,
        rounds=rounds,
        passes=tuple(MeasuredPass(*each) for each in zip(steps, seconds[: len(steps)], strict=True)),
        prefills=tuple(MeasuredPrefill(PREFILL, *each) for each in zip(prefills, seconds[len(steps) :], strict=True)),
    )


def in_turn(measurements: Sequence[Timed], rounds: int) -> list[float]:
    """Return the median seconds of each. Every round runs all of them, so that other load on the machine hits all.

    Each runs once before that, to compile kernels and allocate memory.
    """
    for each in measurements:
        each()
    taken: list[list[float]] = [[] for _ in measurements]
    for number in range(rounds):
        places = range(len(measurements))
        for place in reversed(places) if number % 2 else places:
            taken[place].append(measurements[place]())
    return list(map(statistics.median, taken))


def _pass_of(passes: Any, size: int) -> Timed:
    return lambda: float(passes.run(size))


def _prefill(loaded: Any, behind: int) -> Timed:
    cache = loaded.language.row_cache()
    if behind:
        _read(loaded.language, cache, behind)

    def run() -> float:
        started = time.perf_counter()
        _read(loaded.language, cache, PREFILL)
        seconds = time.perf_counter() - started
        cache.drop_last(PREFILL)
        return seconds

    return run


def _read(language: Any, cache: Any, count: int) -> None:
    """Add *count* meaningless tokens to *cache*, in steps of the engine's size."""
    import mlx.core as mx

    from olmocr.inference.passes.forward import embed, read

    while count > 0:
        step = min(count, PREFILL)
        places = mx.arange(cache.length, cache.length + step, dtype=mx.int32)
        positions = mx.broadcast_to(places, (3, 1, step))
        mx.eval(read(language, embed(language, mx.zeros(step, dtype=mx.int32)), positions, cache))
        count -= step


def measure_vision(model: Path, pages: PagesToRead, rounds: int) -> MeasuredVision:
    """Run a page through the vision tower that the engine uses, and through mlx-vlm's own, in turn."""
    loaded = _load(model)
    import mlx.core as mx
    import numpy as np

    from olmocr.inference.prompt import make_inputs
    from olmocr.inference.vision_mlx import StockVisionTower

    request = make_requests(replace(pages, first=1))[0]
    inputs = make_inputs(loaded.processor, request)
    pixels, grid = inputs.pixel_values, inputs.image_grid_thw
    towers = (loaded.vision, StockVisionTower(loaded.model))

    def features(tower: Any) -> Any:
        return np.array(tower(pixels, grid).astype(mx.float32))

    def timed(tower: Any) -> Timed:
        def run() -> float:
            started = time.perf_counter()
            features(tower)
            return time.perf_counter() - started

        return run

    ours, stock = map(features, towers)
    seconds, stock_seconds = in_turn([timed(tower) for tower in towers], rounds)
    return MeasuredVision(
        longest_side=pages.longest_side,
        patches=pixels.shape[0],
        rounds=rounds,
        seconds=seconds,
        stock_seconds=stock_seconds,
        difference=float(np.abs(ours - stock).max() / np.abs(stock).max()),
    )


def _load(model: Path) -> Any:
    """Load a model as the engine does, with the same memory limits."""
    device = start_mlx()
    from olmocr.inference.engine import set_limits
    from olmocr.inference.model import load_model

    set_limits(device)
    return load_model(ModelFolder(model), device)
