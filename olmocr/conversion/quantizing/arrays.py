"""Affine quantization in MLX operations: the same bits on a Mac's GPU, a CUDA one and a CPU.

Only element-wise operations that IEEE 754 rounds correctly, each a kernel of its own so that none is fused, and sums in
the order that `search` prescribes.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from olmocr.conversion.quantizing.search import (
    EPSILON,
    LEAST_SQUARES,
    OUTLIER,
    REFINEMENTS,
    SHRINKS,
)


@dataclass(frozen=True)
class Candidate:
    """Scale and bias as stored, (groups, 1), their results, and the sums over each group that least squares needs."""

    scale: mx.array
    bias: mx.array
    codes: mx.array
    error: mx.array
    q: mx.array
    qq: mx.array
    xq: mx.array


def stock_start(x: mx.array, bits: int) -> tuple[mx.array, mx.array]:
    """Return scale and bias, not rounded yet, which ``mx.quantize`` takes from the extremes of *x* (groups, size)."""
    low, high = mx.min(x, axis=1, keepdims=True), mx.max(x, axis=1, keepdims=True)
    low_wins = mx.abs(low) > mx.abs(high)
    step = mx.maximum((high - low) / _levels(bits), mx.array(EPSILON, mx.float32))
    step = mx.where(low_wins, step, -step)
    edge = mx.where(low_wins, low, high)
    steps = mx.round(edge / step)
    return mx.where(steps != 0, edge / steps, step), mx.where(steps != 0, edge, mx.zeros_like(edge))


def fitted(x: mx.array, bits: int, dtype: mx.Dtype, *, around_zero: bool = False) -> Candidate:
    """Search for the best scale and bias of each group of *x*, float32 (groups, size), in the steps of `search`."""
    size = x.shape[1]
    low, high = mx.min(x, axis=1, keepdims=True), mx.max(x, axis=1, keepdims=True)
    can_move = (high - low) / _levels(bits) > mx.array(EPSILON, mx.float32)
    total = tree_sum(x)
    scale, bias = stock_start(x, bits)
    best = _try(x, stored(scale, dtype), stored(bias, dtype), bits)
    if around_zero:
        return _fitted_around_zero(x, bits, dtype, best, mx.logical_and(can_move, _no_outlier(x)))
    for shrink in SHRINKS:
        scale = mx.array(shrink, mx.float32) * (high - low) / _levels(bits)
        scale = stored(mx.maximum(scale, mx.array(EPSILON, mx.float32)), dtype)
        bias = (high + low) * 0.5 - scale * _levels(bits) * 0.5
        best = _better(can_move, _try(x, scale, stored(bias, dtype), bits), best)
    for factor in REFINEMENTS:
        scale = _least_squares(best, total, size) if factor == LEAST_SQUARES else best.scale * factor
        scale = stored(scale, dtype)
        bias = (total - scale * best.q) / size
        best = _better(can_move, _try(x, scale, stored(bias, dtype), bits), best)
    return best


def _fitted_around_zero(x: mx.array, bits: int, dtype: mx.Dtype, first: Candidate, can_move: mx.array) -> Candidate:
    """As `fitted` from *first*, with biases that are a whole number of scales."""
    total, zero, best = tree_sum(x), mx.round(first.bias / first.scale), first
    for shrink in SHRINKS:
        scale = stored(mx.array(shrink, mx.float32) * first.scale, dtype)
        best = _better(can_move, _try(x, scale, stored(zero * scale, dtype), bits), best)
    for factor in REFINEMENTS:
        scale = _scale_around_zero(best, total, zero, x.shape[1]) if factor == LEAST_SQUARES else best.scale * factor
        scale = stored(scale, dtype)
        best = _better(can_move, _try(x, scale, stored(zero * scale, dtype), bits), best)
    return best


def _no_outlier(x: mx.array) -> mx.array:
    """Return for each group whether its largest weight is not far larger than the rest."""
    largest = mx.max(mx.abs(x), axis=1, keepdims=True)
    return largest * largest <= mx.array(OUTLIER * OUTLIER, mx.float32) * (tree_sum(x * x) / x.shape[1])


def stored(values: mx.array, dtype: mx.Dtype) -> mx.array:
    """Return *values* rounded to *dtype*, in float32."""
    return values.astype(dtype).astype(mx.float32)


def tree_sum(terms: mx.array) -> mx.array:
    """Sum over the last axis of *terms* (groups, size), in halves: the same bits on any device."""
    half = terms.shape[1] // 2
    while half:
        terms = terms[:, :half] + terms[:, half:]
        half //= 2
    return terms


def squared_error(x: mx.array, scale: mx.array, bias: mx.array, codes: mx.array) -> mx.array:
    """Return the squared error of what is read back, (groups, 1)."""
    rest = x - (codes * scale + bias)
    return tree_sum(rest * rest)


def packed(codes: mx.array, bits: int) -> mx.array:
    """Pack *codes*, float32 (groups, size), into uint32 (groups, size * bits / 32), as one little-endian stream."""
    size = codes.shape[1]
    codes = codes.astype(mx.uint32)
    words = [mx.zeros(codes.shape[:1], mx.uint32) for _ in range(size * bits // 32)]
    for index in range(size):
        word, shift = divmod(index * bits, 32)
        words[word] = words[word] | (codes[:, index] << shift)
        if shift + bits > 32:
            words[word + 1] = words[word + 1] | (codes[:, index] >> (32 - shift))
    return mx.stack(words, axis=1)


def _levels(bits: int) -> mx.array:
    return mx.array((1 << bits) - 1, mx.float32)


def _clipped(codes: mx.array, bits: int) -> mx.array:
    return mx.minimum(mx.maximum(codes, mx.array(0.0, mx.float32)), _levels(bits))


def _try(x: mx.array, scale: mx.array, bias: mx.array, bits: int) -> Candidate:
    codes = mx.round(_clipped((x - bias) * (mx.array(1.0, mx.float32) / scale), bits))
    error = squared_error(x, scale, bias, codes)
    # Sums of integers below 2**24: exact in any order.
    q, qq = mx.sum(codes, axis=1, keepdims=True), mx.sum(codes * codes, axis=1, keepdims=True)
    candidate = Candidate(scale, bias, codes, error, q, qq, tree_sum(x * codes))
    mx.eval(*vars(candidate).values())  # otherwise the graph of the complete search would stay in memory
    return candidate


def _better(can_move: mx.array, candidate: Candidate, best: Candidate) -> Candidate:
    better = mx.logical_and(can_move, candidate.error < best.error)
    return Candidate(
        *(mx.where(better, new, old) for new, old in zip(vars(candidate).values(), vars(best).values(), strict=True))
    )


def _least_squares(best: Candidate, total: mx.array, size: int) -> mx.array:
    """Return the scale that least squares gives for the best codes; the best scale where that gives none."""
    spread = size * best.qq - best.q * best.q
    slope = (size * best.xq - best.q * total) / spread
    usable = mx.logical_and(spread > 0, mx.abs(slope) > mx.array(EPSILON, mx.float32))
    return mx.where(usable, slope, best.scale)


def _scale_around_zero(best: Candidate, total: mx.array, zero: mx.array, size: int) -> mx.array:
    """As `_least_squares`, for biases that are *zero* times the scale."""
    spread = (best.qq + 2 * zero * best.q) + zero * zero * size
    slope = (best.xq + zero * total) / spread
    usable = mx.logical_and(spread > 0, mx.abs(slope) > mx.array(EPSILON, mx.float32))
    return mx.where(usable, slope, best.scale)
