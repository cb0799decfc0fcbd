"""The steps of `steps` in MLX operations: for a GPU, and for a CPU without numba.

Many rows at once, so that few kernels are launched: some two for each column, and a hundred for each group. On a GPU
the steps for one group are compiled (``mx.compile``), which fuses what is done to each element.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from olmocr.conversion.calibrated.factor import Factor
from olmocr.conversion.calibrated.steps import ALTERNATIONS, EPSILON, LEAST_SPREAD, SHRINKS, STRETCHES, SWEEPS
from olmocr.conversion.recipe import QuantParams
from olmocr.reports.conversion import Processor
from olmocr.tensors.dtypes import FLOAT_DTYPES
from olmocr.tensors.floats import Floats

_BLOCK = 512
"""Columns whose feedback from all columns before comes from products with blocks of as many."""

# One thread at a time: MLX does not promise that several may use one GPU.
_GPU = threading.Lock()

Group = tuple[mx.array, mx.array, mx.array, mx.array]
"""Codes (rows, size), scale and bias (rows, 1), error (rows, size), all float32."""

Found = tuple[mx.array, mx.array, mx.array]
"""Scale, bias and weighted error, (rows, 1)."""


def on(processor: Processor) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return `round_rows` and `losses` as *processor* computes them."""
    return partial(_run, processor, round_rows), partial(_run, processor, losses)


def _run(processor: Processor, function: Callable[..., Any], *arguments: Any) -> Any:
    if processor == "gpu":
        with _GPU:
            return function(*arguments)
    with mx.stream(mx.cpu):
        return function(*arguments)


def round_rows(
    weight: Floats, factor: Factor, params: QuantParams, dtype: str
) -> tuple[npt.NDArray[np.uint8], Floats, Floats]:
    """Return codes, scales and biases of *weight* (rows, columns), in the steps of `steps`."""
    groups = _feed_back(weight, factor, params, dtype)
    for _ in range(SWEEPS):
        groups = _descend(groups, factor, params, dtype)
    codes = [np.array(group[0].astype(mx.uint8)) for group in groups]
    scales, biases = ([np.array(group[place]) for group in groups] for place in (1, 2))
    return np.concatenate(codes, axis=1), np.concatenate(scales, axis=1), np.concatenate(biases, axis=1)


def losses(error: Floats, hessian: Floats) -> npt.NDArray[np.float64]:
    """Return e H e^T of each row e of *error* (rows, columns)."""
    total = np.zeros(len(error))
    whole = mx.array(error)
    for start in range(0, error.shape[1], _BLOCK):
        stop = min(start + _BLOCK, error.shape[1])
        here = whole[:, start:stop]
        product = here @ _array(hessian[start:stop, start:stop])
        if start:  # H is symmetric: what lies before the diagonal block counts twice
            product = mx.addmm(product, whole[:, :start], _array(hessian[:start, start:stop]), alpha=2.0)
        total += np.array(mx.sum(product * here, axis=1))
    return total


def _array(values: Floats) -> mx.array:
    return mx.array(np.ascontiguousarray(values))


def _feed_back(weight: Floats, factor: Factor, params: QuantParams, dtype: str) -> list[Group]:
    size, columns = params.group_size, weight.shape[1]
    step = _step(_round_group, params.bits, dtype)
    done: list[Group] = []
    blocks: list[mx.array] = []
    for first in range(0, columns, _BLOCK):
        last = min(first + _BLOCK, columns)
        original = _array(weight[:, first:last])
        feedback = _array(factor.feedback[:last, first:last])
        target = _plus_products(original, blocks, feedback)
        errors: list[mx.array] = []
        for start in range(first, last, size):
            group, here = slice(start, start + size), slice(start - first, start - first + size)
            value = target[:, here]
            if errors:
                value = mx.addmm(value, mx.concatenate(errors, axis=1), feedback[first:start, here])
            weights = mx.array(factor.relative_weights(group))
            done.append(step(value, original[:, here], feedback[group, here], weights))
            mx.eval(*done[-1])
            errors.append(done[-1][3])
        blocks.append(mx.concatenate(errors, axis=1))
    return done


def _plus_products(value: mx.array, blocks: list[mx.array], matrix: mx.array) -> mx.array:
    """Return *value* plus the product of *blocks*, side by side, with the upper rows of *matrix*."""
    first = 0
    for block in blocks:
        value = mx.addmm(value, block, matrix[first : first + block.shape[1]])
        first += block.shape[1]
    return value


def _descend(groups: list[Group], factor: Factor, params: QuantParams, dtype: str) -> list[Group]:
    size, columns = params.group_size, len(factor.pivots)
    step = _step(_descend_group, params.bits, dtype)
    done: list[Group] = []
    blocks = [
        mx.concatenate([group[3] for group in groups[first : first + _BLOCK // size]], axis=1)
        for first in range(0, len(groups), _BLOCK // size)
    ]
    for index, first in enumerate(range(0, columns, _BLOCK)):
        last = min(first + _BLOCK, columns)
        hessian = _array(factor.hessian[:, first:last])
        gradient = _plus_products(factor.added * blocks[index], blocks, hessian)
        changes: list[mx.array] = []
        for start in range(first, last, size):
            here = slice(start - first, start - first + size)
            slope = gradient[:, here]
            if changes:
                slope = mx.addmm(slope, mx.concatenate(changes, axis=1), hessian[first:start, here])
            old = groups[start // size]
            done.append(step(slope, *old, mx.array(factor.damped(slice(start, start + size)))))
            mx.eval(*done[-1])
            changes.append(done[-1][3] - old[3])
        blocks[index] = mx.concatenate([group[3] for group in done[first // size :]], axis=1)
    return done


@lru_cache
def _step(function: Callable[..., Any], bits: int, dtype: str) -> Callable[..., Any]:
    """Return *function* for *bits* and the stored *dtype*, compiled where that needs no compiler on this machine."""
    step = partial(function, (1 << bits) - 1, getattr(mx, FLOAT_DTYPES[dtype]))
    return step if mx.default_device().type == mx.DeviceType.cpu else mx.compile(step)


def _stored(values: mx.array, dtype: mx.Dtype) -> mx.array:
    return values.astype(dtype).astype(mx.float32)


def _clipped(codes: mx.array, n: int) -> mx.array:
    return mx.round(mx.minimum(mx.maximum(codes, 0.0), float(n)))


def _stock(x: mx.array, n: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Return scale and bias (rows, 1), as stored, that ``mx.quantize`` takes from the extremes of *x*."""
    low, high = mx.min(x, axis=1, keepdims=True), mx.max(x, axis=1, keepdims=True)
    low_wins = mx.abs(low) > mx.abs(high)
    step = mx.maximum((high - low) / n, EPSILON)
    step = mx.where(low_wins, step, -step)
    edge = mx.where(low_wins, low, high)
    steps = mx.round(edge / step)
    scale, bias = mx.where(steps != 0, edge / steps, step), mx.where(steps != 0, edge, 0.0)
    return _stored(scale, dtype), _stored(bias, dtype)


def _try(x: mx.array, h: mx.array, n: int, scale: mx.array, bias: mx.array) -> tuple[mx.array, mx.array]:
    """Return the codes for *scale* and *bias*, and their errors, summed with the weights *h* over the last axis."""
    codes = _clipped((x - bias) * (1.0 / scale), n)
    rest = x - (codes * scale + bias)
    return codes, mx.sum(h * rest * rest, axis=-1, keepdims=True)


def _least_squares(
    x: mx.array, h: mx.array, codes: mx.array, scale: mx.array, bias: mx.array
) -> tuple[mx.array, mx.array]:
    """Return the scale and bias that weighted least squares gives for *codes*; the old ones where there are none."""
    weights, total = mx.sum(h), mx.sum(h * x, axis=-1, keepdims=True)
    weighted = h * codes
    q = mx.sum(weighted, axis=-1, keepdims=True)
    qq = mx.sum(weighted * codes, axis=-1, keepdims=True)
    xq = mx.sum(weighted * x, axis=-1, keepdims=True)
    spread = weights * qq - q * q
    slope = (weights * xq - q * total) / spread
    usable = mx.logical_and(spread > LEAST_SPREAD * weights * qq, mx.abs(slope) > EPSILON)
    return mx.where(usable, slope, scale), mx.where(usable, (total - slope * q) / weights, bias)


def _search(x: mx.array, h: mx.array, n: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Return the best scale and bias, (rows, 1) and as stored, for *x* (rows, size), whose columns weigh *h*."""
    low, high = mx.min(x, axis=1, keepdims=True), mx.max(x, axis=1, keepdims=True)
    can_move = (high - low) / n > EPSILON
    scale, bias = _stock(x, n, dtype)
    best: Found = (scale, bias, _try(x, h, n, scale, bias)[1])
    # All candidates of one kind at once, along an axis in the middle.
    scales = mx.maximum(mx.array(SHRINKS)[None, :, None] * (high - low)[:, :, None] / n, EPSILON)
    biases = ((high + low) * 0.5)[:, :, None] - scales * (n * 0.5)
    best = _best_of(best, can_move, x, h, n, dtype, (scales, biases))
    scales = best[0][:, :, None] * mx.array(STRETCHES)[None, :, None]
    biases = best[1][:, :, None] + (best[0][:, :, None] - scales) * (n * 0.5)
    best = _best_of(best, can_move, x, h, n, dtype, (scales, biases))
    return best[0], best[1]


def _best_of(
    best: Found,
    can_move: mx.array,
    x: mx.array,
    h: mx.array,
    n: int,
    dtype: mx.Dtype,
    starts: tuple[mx.array, mx.array],
) -> Found:
    """Return the best of *best*, the candidates *starts* (rows, candidates, 1), and what alternation makes of these."""
    x = x[:, None, :]
    scales, biases = starts
    for alternation in range(ALTERNATIONS + 1):
        scales, biases = _stored(scales, dtype), _stored(biases, dtype)
        codes, errors = _try(x, h, n, scales, biases)
        place = mx.argmin(errors, axis=1, keepdims=True)
        scale, bias, error = (mx.take_along_axis(each, place, axis=1)[:, 0] for each in (scales, biases, errors))
        better = mx.logical_and(can_move, error < best[2])
        best = (mx.where(better, scale, best[0]), mx.where(better, bias, best[1]), mx.where(better, error, best[2]))
        if alternation < ALTERNATIONS:
            scales, biases = _least_squares(x, h, codes, scales, biases)
    return best


def _round_group(n: int, dtype: mx.Dtype, x: mx.array, weight: mx.array, feedback: mx.array, h: mx.array) -> Group:
    """Search scale and bias on *x* (rows, size), then choose the codes column by column."""
    scale, bias = _search(x, h, n, dtype)
    inverse = 1.0 / scale
    codes, errors = [], []
    for column in range(x.shape[1]):
        here = slice(column, column + 1)
        code = _clipped((x[:, here] - bias) * inverse, n)
        error = weight[:, here] - (code * scale + bias)
        x = x + error * feedback[here]
        codes.append(code)
        errors.append(error)
    return mx.concatenate(codes, axis=1), scale, bias, mx.concatenate(errors, axis=1)


def _descend_group(
    n: int,
    dtype: mx.Dtype,
    p: mx.array,
    codes: mx.array,
    scale: mx.array,
    bias: mx.array,
    error: mx.array,
    hessian: mx.array,
) -> Group:
    """Refit scale and bias, then move each code of the group; *p* (rows, size) is H times all errors."""
    old_scale, old_bias = scale, bias
    sums = mx.sum(hessian, axis=0)
    whole, hq = mx.sum(sums), codes @ hessian
    qhq, qh = mx.sum(codes * hq, axis=1, keepdims=True), mx.sum(codes * sums, axis=1, keepdims=True)
    pq, ps = mx.sum(p * codes, axis=1, keepdims=True), mx.sum(p, axis=1, keepdims=True)
    determinant = qhq * whole - qh * qh
    step = (pq * whole - qh * ps) / determinant
    usable = mx.logical_and(determinant > LEAST_SPREAD * qhq * whole, mx.abs(scale + step) > EPSILON)
    scale = _stored(scale + mx.where(usable, step, 0.0), dtype)
    step = scale - old_scale
    bias = _stored(bias + mx.where(whole > 0, (ps - step * qh) / whole, 0.0), dtype)
    bias_step = bias - old_bias
    change = step * step * qhq + bias_step * bias_step * whole
    change = change + 2 * (step * bias_step * qh) - 2 * (step * pq + bias_step * ps)
    falls = change < 0
    step, bias_step = mx.where(falls, step, 0.0), mx.where(falls, bias_step, 0.0)
    scale, bias = mx.where(falls, scale, old_scale), mx.where(falls, bias, old_bias)
    error = error - (step * codes + bias_step)
    p = p - (step * hq + bias_step * sums)
    return _moved(n, p, codes, scale, bias, error, hessian)


def _moved(
    n: int, p: mx.array, codes: mx.array, scale: mx.array, bias: mx.array, error: mx.array, hessian: mx.array
) -> Group:
    """Move each code to where the loss is least, column by column."""
    inverse = 1.0 / scale
    new_codes, steps = [], []
    for column in range(codes.shape[1]):
        here = slice(column, column + 1)
        curvature, slope, old = hessian[here, here], p[:, here], codes[:, here]
        code = _clipped(old + slope / curvature * inverse, n)
        moved = (old - code) * scale
        falls = moved * (moved * curvature + 2 * slope) < 0
        step = mx.where(falls, moved, 0.0)
        p = p + step * hessian[here]
        new_codes.append(mx.where(falls, code, old))
        steps.append(step)
    return mx.concatenate(new_codes, axis=1), scale, bias, error + mx.concatenate(steps, axis=1)
