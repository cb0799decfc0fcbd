"""A loaded model -> how long a pass over its weights takes, by how many tokens it is given."""

from __future__ import annotations

import time

import mlx.core as mx

from olmocr.inference.draft import Costs
from olmocr.inference.model import LoadedModel
from olmocr.inference.passes.cache import BatchCache, RowCache, cache_for
from olmocr.inference.passes.forward import embed, forward, logits

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
CONTEXT = 256
"""Tokens that stand before those of a pass that is measured."""

_QUEUED = 4
_LEAST_ROUNDS = 3
_SECONDS = 1.0


def measure_costs(loaded: LoadedModel) -> Costs:
    """Run passes of several sizes, about a second long, and return what each takes.

    Each pass finds a length of keys that none had before, as a pass of an answer does: some devices plan attention
    anew for a new one. Of each size the second fastest counts, since a plan may be there by chance; what else runs on
    this machine only adds to them, and a larger pass is never taken for a faster one. Passes of one token are queued
    one behind the other, as they are where there are no drafts, and of those the mean counts.
    """
    measured = RowPasses(loaded)
    seconds: dict[int, list[float]] = {size: [] for size in _SIZES}
    for size in _SIZES:
        measured.run(size)  # kernels are compiled, and memory is taken
    started, rounds = time.perf_counter(), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - started < _SECONDS:
        rounds += 1
        for size in _SIZES:
            seconds[size].append(measured.run(size, _QUEUED if size == 1 else 1))
    typical = {size: sorted(each)[1] for size, each in seconds.items()}
    return Costs({size: min(typical[other] for other in _SIZES if other >= size) for size in _SIZES})


class RowPasses:
    """Passes for one row, each behind a token more than the last one, from ``CONTEXT`` tokens on."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Read what the passes find before them: so many tokens that say nothing."""
        self._language = loaded.language
        layers = len(loaded.language.blocks)
        prompt = RowCache(layers)
        self._pass(prompt, 0, CONTEXT)
        self._cache = cache_for(loaded.device, layers)
        self._row, self._length = object(), CONTEXT
        self._cache.arrange([self._row], [prompt], 4 * CONTEXT)

    def run(self, size: int, times: int = 1) -> float:
        """Return the seconds of one of so many passes that are queued together, each with *size* tokens."""
        started = time.perf_counter()
        for _ in range(times):
            self._length = max(CONTEXT, (self._length + 1) % (self._cache.capacity - _SIZES[-1]))
            self._cache.expect([self._length], [size])
            chosen = self._pass(self._cache, self._length, size)
        mx.eval(chosen)
        return (time.perf_counter() - started) / times

    def _pass(self, cache: BatchCache | RowCache, start: int, size: int) -> mx.array:
        ids, positions = mx.zeros(size, dtype=mx.int32), mx.arange(start, start + size, dtype=mx.int32)
        hidden = forward(self._language, embed(self._language, ids), positions, cache)
        chosen = mx.argmax(logits(self._language, hidden), axis=-1)
        mx.async_eval(chosen)  # type: ignore[no-untyped-call]
        return chosen
