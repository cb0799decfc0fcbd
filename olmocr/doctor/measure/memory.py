"""A converted folder that reads pages -> how much memory it takes, whether limits are kept, and whether it grows.

Each function runs in its own process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from olmocr.doctor.measure.pages import PagesToRead, make_requests
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest
from olmocr.reports.machine import MeasuredGrowth, MeasuredMemory, MemoryLimit
from olmocr.runtime.device import Device, gpu_limit, memory_limits, start_mlx
from olmocr.runtime.memory import peak_memory, resident_memory

_AT_ONCE = 8


def measure_memory(model: Path, pages: PagesToRead) -> MeasuredMemory:
    """Read *pages*, and return how much memory MLX used, and its limits."""
    device = start_mlx()
    import mlx.core as mx

    from olmocr.inference.engine import Engine

    cached: list[int] = []
    with Engine(ModelFolder(model), device, most_pages=_AT_ONCE) as engine:
        active = mx.get_active_memory()
        requests = make_requests(pages)
        asyncio.run(_ask_all(engine, requests, lambda: cached.append(mx.get_cache_memory())))
        peak = mx.get_peak_memory()
        limits = limits_in_force(device, mx, peak, max(cached))
    return MeasuredMemory(gpu_limit(), limits, active, peak, peak_memory())


def limits_in_force(device: Device, mlx: Any, peak: int, cached: int) -> tuple[MemoryLimit, ...]:
    """Return each limit that an engine sets, and the one in force in *mlx*, which returns it when a new one is set.

    *peak* is the peak of bytes in arrays, *cached* that of freed memory that was kept.
    """
    wanted = memory_limits(mlx.device_info()) if device.kind == "metal" else None
    if wanted is None:
        return ()
    return (
        MemoryLimit("wired", wanted.wired, mlx.set_wired_limit(wanted.wired), None),
        MemoryLimit("memory", wanted.memory, mlx.set_memory_limit(wanted.memory), peak),
        MemoryLimit("cache", wanted.cache, mlx.set_cache_limit(wanted.cache), cached),
    )


def measure_growth(model: Path, pages: PagesToRead) -> MeasuredGrowth:
    """Read *pages* with one engine, and record the memory after each."""
    device = start_mlx()
    import mlx.core as mx

    from olmocr.inference.engine import Engine

    active: list[int] = []
    resident: list[int] = []

    def look() -> None:
        active.append(mx.get_active_memory())
        resident.append(resident_memory(os.getpid()))

    requests = make_requests(pages)
    with Engine(ModelFolder(model), device, most_pages=_AT_ONCE) as engine:
        started = time.perf_counter()
        asyncio.run(_ask_all(engine, requests, look))
        seconds = time.perf_counter() - started
    return MeasuredGrowth(pages.count, seconds, *early_and_late(active), *early_and_late(resident))


def early_and_late(sizes: Sequence[int]) -> tuple[int, int]:
    """Return the minimum of the second quarter of *sizes*, and that of the last quarter."""
    quarter = max(1, len(sizes) // 4)
    return min(sizes[quarter : 2 * quarter] or sizes), min(sizes[-quarter:])


async def _ask_all(engine: Any, requests: Sequence[PageRequest], on_answer: Callable[[], None]) -> None:
    """Read all pages, with enough requests at a time that some always wait."""
    waiting = iter(requests)

    async def ask_in_turn(mine: Iterator[PageRequest]) -> None:
        for request in mine:
            await engine.ask(request)
            on_answer()

    await asyncio.gather(*(ask_in_turn(waiting) for _ in range(2 * _AT_ONCE)))
