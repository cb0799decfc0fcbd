"""A loaded model -> how long a pass over its weights takes, by number of tokens."""

from __future__ import annotations

import time

import mlx.core as mx

from olmocr.inference.draft import Costs
from olmocr.inference.model import LoadedModel
from olmocr.inference.passes.cache import AnswersCache, PromptCache
from olmocr.inference.passes.forward import embed, forward, logits

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_LARGE_SIZES = (128, 256, 512)
"""What drafts of many pages may have together; a device on which a pass takes longer than ``_QUICK`` skips them."""

_QUICK = 0.05  # seconds
CONTEXT = 256
"""How many tokens precede those of a measured pass."""

_QUEUED = 4
_LEAST_ROUNDS = 3
_SECONDS = 1.0


def measure_costs(loaded: LoadedModel) -> Costs:
    """Run passes of several sizes for about a second, and return how long each size takes.

    Each pass has a new number of keys, as in a real answer, since some devices plan attention anew for each number.
    The second fastest pass of each size counts: the fastest may have found a plan by chance, and other programs only
    make passes slower. A larger pass never counts as faster than a smaller one. Passes of one token are queued one
    after the other, as they are without drafts, and their mean counts.
    """
    measured = RowPasses(loaded)
    sizes = list(_SIZES)
    for size in sizes:
        measured.run(size)  # compiles kernels and allocates memory
    for size in _LARGE_SIZES:
        if measured.run(sizes[-1]) > _QUICK:
            break
        measured.run(size)
        sizes.append(size)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    started, rounds = time.perf_counter(), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - started < _SECONDS:
        rounds += 1
        for size in sizes:
            seconds[size].append(measured.run(size, _QUEUED if size == 1 else 1))
    typical = {size: sorted(each)[1] for size, each in seconds.items()}
    return Costs({size: min(typical[other] for other in sizes if other >= size) for size in sizes})


class RowPasses:
    """Passes for one row, each after one more token than the pass before, starting after ``CONTEXT`` tokens."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Read the tokens that precede the passes: ``CONTEXT`` meaningless ones."""
        self._language = loaded.language
        prompt = loaded.language.row_cache()
        self._pass(prompt, 0, CONTEXT)
        self._cache: AnswersCache = loaded.language.batch_cache(loaded.device)
        self._row, self._length = object(), CONTEXT
        self._cache.arrange([self._row], [prompt], 4 * CONTEXT)

    def run(self, size: int, times: int = 1) -> float:
        """Queue *times* passes together, each with *size* tokens; return the seconds of one pass."""
        started = time.perf_counter()
        for _ in range(times):
            self._length = max(CONTEXT, (self._length + 1) % (self._cache.capacity - _LARGE_SIZES[-1]))
            self._cache.expect([self._length], [size])
            chosen = self._pass(self._cache, self._length, size)
        mx.eval(chosen)
        return (time.perf_counter() - started) / times

    def _pass(self, cache: AnswersCache | PromptCache, start: int, size: int) -> mx.array:
        ids, positions = mx.zeros(size, dtype=mx.int32), mx.arange(start, start + size, dtype=mx.int32)
        hidden = forward(self._language, embed(self._language, ids), positions, cache)
        chosen = mx.argmax(logits(self._language, hidden), axis=-1)
        mx.async_eval(chosen)  # type: ignore[no-untyped-call]
        return chosen
