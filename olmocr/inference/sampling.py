"""Logits -> one token for each position, greedy or sampled, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

NOT_FINITE = -1
"""Stands for a token whose logits contain a NaN."""


@dataclass(frozen=True)
class Draw:
    """How to choose the token at one place of an answer; *index* is that place, from 0."""

    temperature: float
    seed: int
    index: int


def choose(logits: mx.array, draws: Sequence[Draw], allowed: mx.array | None = None) -> mx.array:
    """Return a token (positions,) for each row of *logits* (positions, vocabulary), or :data:`NOT_FINITE`.

    The maximum of logits / temperature + Gumbel noise is a sample from exactly the distribution of softmax. The noise
    depends only on the seed and the place in the answer, so a page gets the same answer in a batch as alone, and with
    drafts as without. *allowed* (positions, vocabulary) excludes tokens for which it is False.
    """
    is_broken = mx.any(mx.isnan(logits), axis=-1)
    scores = logits
    if any(draw.temperature > 0 for draw in draws):
        scores = mx.stack([_noisy(row, draw) for row, draw in zip(logits.astype(mx.float32), draws, strict=True)])
    if allowed is not None:
        scores = mx.where(allowed, scores, mx.array(-mx.inf, dtype=scores.dtype))
    return mx.where(is_broken, NOT_FINITE, mx.argmax(scores, axis=-1).astype(mx.int32))


def choose_now(logits: mx.array, draws: Sequence[Draw], allowed: mx.array | None = None) -> mx.array:
    """As :func:`choose`, for *logits* that are already computed, on a CPU: the most probable token costs numpy less."""
    if any(draw.temperature > 0 for draw in draws):
        return choose(logits, draws, allowed)
    scores = np.asarray(logits)
    is_broken = np.isnan(scores).any(axis=-1)
    if allowed is not None:
        scores = np.where(np.asarray(allowed), scores, -np.inf)
    return mx.array(np.where(is_broken, NOT_FINITE, scores.argmax(axis=-1)).astype(np.int32))


def _noisy(logits: mx.array, draw: Draw) -> mx.array:
    if draw.temperature == 0:
        return logits
    key = mx.random.key(((draw.seed << 24) + draw.index) % 2**64)
    return logits / draw.temperature + mx.random.gumbel(logits.shape, key=key)
