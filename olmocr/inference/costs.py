"""A loaded model -> how long a pass over its weights takes, by how many tokens it is given."""

from __future__ import annotations

import time

import mlx.core as mx

from olmocr.inference.cache import RowCache
from olmocr.inference.draft import Costs
from olmocr.inference.forward import embed, forward, logits
from olmocr.inference.model import LoadedModel

_SIZES = (1, 2, 4, 8, 16, 32, 64)
_CONTEXT = 256
_LEAST_ROUNDS = 3
_SECONDS = 1.0


def measure_costs(loaded: LoadedModel) -> Costs:
    """Run passes of several sizes, about a second long, and return the fastest of each.

    What else runs on this machine only adds to them, and a larger pass is never taken for a faster one.
    """
    cache = RowCache(len(loaded.language.blocks))
    _pass(loaded, cache, _CONTEXT)
    seconds = dict.fromkeys(_SIZES, float("inf"))
    started, rounds = time.perf_counter(), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - started < _SECONDS:
        rounds += 1
        for size in _SIZES:
            seconds[size] = min(seconds[size], _pass(loaded, cache, size))
            cache.drop_last(size)
    return Costs({size: min(seconds[other] for other in _SIZES if other >= size) for size in _SIZES})


def _pass(loaded: LoadedModel, cache: RowCache, size: int) -> float:
    started = time.perf_counter()
    positions = mx.arange(cache.length, cache.length + size, dtype=mx.int32)
    hidden = forward(loaded.language, embed(loaded.language, mx.zeros(size, dtype=mx.int32)), positions, cache)
    mx.eval(mx.argmax(logits(loaded.language, hidden), axis=-1))
    return time.perf_counter() - started
