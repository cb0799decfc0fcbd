"""What takes most time in the walk besides matrix products: attention and gates, with MLX or with numpy.

MLX's CPU kernels for exponentials are scalar: numpy's take a tenth of the time. A GPU, and any use of gradients, needs
MLX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from olmocr.tensors.floats import Floats

# Attention scores of all heads in one call, in elements: with MLX on a CPU, 64 MB of float32. A GPU mostly has kernels
# that keep them small, and prefers more work per call. With numpy it is 4 MB, which stay in a processor's cache.
SCORES = 1 << 24
SCORES_ON_GPU = 1 << 28
SCORES_IN_CACHE = 1 << 20

# Fewer would make the matrix products inefficient.
_LEAST_ROWS = 64

Attend = Callable[[mx.array, mx.array, mx.array, bool, int], mx.array]


@dataclass(frozen=True)
class Kernels:
    """Two functions of arrays.

    *attend* takes queries, keys and values (batch, heads, tokens, head_dim), whether a token sees only earlier ones and
    itself, and how many scores to compute at once (or a few more). It returns softmax(queries keys^T / sqrt(head_dim))
    values. Keys and values may have fewer heads, each for several of the queries'. *gated* returns silu(gate) * up.
    """

    attend: Attend
    gated: Callable[[mx.array, mx.array], mx.array]
    scores: int


def _attend_with_mlx(queries: mx.array, keys: mx.array, values: mx.array, is_causal: bool, scores: int) -> mx.array:
    mixed = [
        mx.fast.scaled_dot_product_attention(
            queries[:, :, rows],
            keys[:, :, :seen],
            values[:, :, :seen],
            scale=queries.shape[3] ** -0.5,
            # The last query is at the last key: each row above sees one key fewer.
            mask="causal" if is_causal else None,
        )
        for rows, seen in _pieces(queries, is_causal, scores)
    ]
    return mixed[0] if len(mixed) == 1 else mx.concatenate(mixed, axis=2)


def _gated_with_mlx(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


def _attend_with_numpy(queries: mx.array, keys: mx.array, values: mx.array, is_causal: bool, scores: int) -> mx.array:
    # Products stay with MLX: the idle threads of two libraries would slow each other down.
    batch, heads, tokens, width = queries.shape
    groups = batch * keys.shape[1]
    grouped = (queries * width**-0.5).reshape(groups, -1, tokens, width)
    all_keys, all_values = (each.reshape(groups, tokens, width) for each in (keys, values))
    mixed = []
    for rows, seen in _pieces(queries, is_causal, scores):
        some = grouped[:, :, rows]
        made = np.array(some.reshape(groups, -1, width) @ all_keys[:, :seen].swapaxes(1, 2))
        if is_causal:
            count = rows.stop - rows.start
            made.reshape(*some.shape[:3], seen)[..., rows][..., np.triu(np.ones((count, count), np.bool_), 1)] = -np.inf
        mixed.append((mx.array(_shares(made)) @ all_values[:, :seen]).reshape(some.shape))
        mx.eval(mixed[-1])  # otherwise all scores stay in memory until the last piece
    return mx.concatenate(mixed, axis=2).reshape(batch, heads, tokens, width)


def _shares(scores: Floats) -> Floats:
    """Return the softmax of *scores* over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _pieces(queries: mx.array, is_causal: bool, scores: int) -> list[tuple[slice, int]]:
    """Return which rows are computed together, and how many tokens they see."""
    batch, heads, tokens, _ = queries.shape
    step = max(_LEAST_ROWS, scores // (batch * heads * tokens))
    rows = [slice(first, min(first + step, tokens)) for first in range(0, tokens, step)]
    return [(each, each.stop if is_causal else tokens) for each in rows]


def _gated_with_numpy(gate: mx.array, up: mx.array) -> mx.array:
    gates = np.asarray(gate)
    inner = np.negative(gates)
    with np.errstate(over="ignore"):  # an infinite exponential is a closed gate
        np.exp(inner, out=inner)
    inner += 1
    np.divide(gates, inner, out=inner)
    inner *= np.asarray(up)
    return mx.array(inner)


WITH_MLX = Kernels(_attend_with_mlx, _gated_with_mlx, SCORES)
"""Differentiable, on every device, in every dtype."""

WITH_MLX_ON_GPU = Kernels(_attend_with_mlx, _gated_with_mlx, SCORES_ON_GPU)
"""The same in larger pieces."""

WITH_NUMPY = Kernels(_attend_with_numpy, _gated_with_numpy, SCORES_IN_CACHE)
"""For float32 on a CPU; no gradients."""


def fastest_kernels() -> Kernels:
    """Return the fastest for the device that MLX uses."""
    return WITH_MLX_ON_GPU if mx.default_device().type == mx.DeviceType.gpu else WITH_NUMPY
