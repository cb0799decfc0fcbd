"""The steps of `steps` in MLX operations: for a GPU, and for a CPU without numba.

Works on many rows at once, so that few kernels are launched: about two for each column, and a hundred for each group.
On a GPU the steps for one group are compiled (``mx.compile``), which fuses the operations on each element.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from olmocr.conversion.calibrated.rounding.factor import Factor
from olmocr.conversion.calibrated.rounding.steps import (
    ALTERNATIONS,
    EPSILON,
    LEAST_SPREAD,
    ROUNDS,
    SHRINKS,
    STARTS,
    STRETCHES,
    SWEEPS,
)
from olmocr.conversion.recipe import QuantParams
from olmocr.reports.conversion import Processor
from olmocr.runtime.device import GPU_LOCK
from olmocr.tensors.dtypes import FLOAT_DTYPES
from olmocr.tensors.floats import Floats

_BLOCK = 512
"""Columns whose feedback from all earlier columns comes from products with blocks of this size."""

Group = tuple[mx.array, mx.array, mx.array, mx.array]
"""Codes (rows, size), scale and bias (rows, 1), error (rows, size), all float32."""

Step = Callable[..., Any]
"""The steps for one group of columns of all rows."""

Found = tuple[mx.array, mx.array, mx.array]
"""Scale, bias and weighted error, (rows, 1)."""


def on(processor: Processor) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return `round_rows` and `losses` as *processor* computes them."""
    rounded = partial(round_rows, is_compiled=processor == "gpu")
    return partial(_run, processor, rounded), partial(_run, processor, losses)


def _run(processor: Processor, function: Callable[..., Any], *arguments: Any) -> Any:
    if processor == "gpu":
        with GPU_LOCK:
            return function(*arguments)
    with mx.stream(mx.cpu):
        return function(*arguments)


def round_rows(
    weight: Floats, factor: Factor, params: QuantParams, dtype: str, *, is_compiled: bool = False
) -> tuple[npt.NDArray[np.uint8], Floats, Floats]:
    """Return codes, scales and biases of *weight* (rows, columns), in the steps of `steps`.

    With *is_compiled*, MLX compiles the steps for one group; on a CPU this needs a C++ compiler.
    """
    groups = _feed_back(weight, factor, params, _step(_round_group, params.bits, dtype, is_compiled))
    for _ in range(SWEEPS):
        groups = _descend(groups, factor, params, _step(_descend_group, params.bits, dtype, is_compiled))
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
        product = _product(here, _array(hessian[start:stop, start:stop]))
        if start:  # H is symmetric: what lies before the diagonal block counts twice
            product = product + 2 * _product(whole[:, :start], _array(hessian[:start, start:stop]))
        total += np.array(mx.sum(product * here, axis=1))
    return total


def _array(values: Floats) -> mx.array:
    return mx.array(np.ascontiguousarray(values))


def _feed_back(weight: Floats, factor: Factor, params: QuantParams, step: Step) -> list[Group]:
    size, columns = params.group_size, weight.shape[1]
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
                value = value + _product(mx.concatenate(errors, axis=1), feedback[first:start, here])
            done.append(step(value, original[:, here], *(mx.array(each) for each in factor.conditional(group))))
            mx.async_eval(*done[-1])  # type: ignore[no-untyped-call]
            errors.append(done[-1][3])
        blocks.append(mx.concatenate(errors, axis=1))
    return done


def _plus_products(value: mx.array, blocks: list[mx.array], matrix: mx.array) -> mx.array:
    """Return *value* plus the product of *blocks*, side by side, with the upper rows of *matrix*."""
    first = 0
    for block in blocks:
        value = value + _product(block, matrix[first : first + block.shape[1]])
        first += block.shape[1]
    return value


def _descend(groups: list[Group], factor: Factor, params: QuantParams, step: Step) -> list[Group]:
    size, columns = params.group_size, len(factor.pivots)
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
                slope = slope + _product(mx.concatenate(changes, axis=1), hessian[first:start, here])
            old = groups[start // size]
            done.append(step(slope, *old, mx.array(factor.damped(slice(start, start + size)))))
            mx.async_eval(*done[-1])  # type: ignore[no-untyped-call]
            changes.append(done[-1][3] - old[3])
        blocks[index] = mx.concatenate([group[3] for group in done[first // size :]], axis=1)
    return done


@lru_cache
def _step(function: Step, bits: int, dtype: str, is_compiled: bool) -> Step:
    """Return *function* for *bits* and the stored *dtype*."""
    step = partial(function, (1 << bits) - 1, getattr(mx, FLOAT_DTYPES[dtype]))
    return mx.compile(step) if is_compiled else step


def _product(a: mx.array, b: mx.array) -> mx.array:
    """Return a @ b with all bits of float32.

    Errors that cancel out are small differences of large terms: factors of TF32's 11 bits would hide them.
    """
    if not _cuts_factors():
        return a @ b
    (a, a_rest), (b, b_rest) = _halves(a), _halves(b)
    return a @ b + (a @ b_rest + a_rest @ b)


@lru_cache
def _cuts_factors() -> bool:
    """Return whether MLX drops bits of factors in products here, as on a GPU that multiplies in TF32."""
    fine = mx.full((_BLOCK, _BLOCK), 1 + 2.0**-13)
    return bool(mx.any(fine @ mx.eye(_BLOCK) != fine))


def _halves(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return *x* with the 11 leading bits of each number, and the rest."""
    leading = mx.bitwise_and(x.view(mx.uint32), mx.array(0xFFFFE000, mx.uint32)).view(mx.float32)
    return leading, x - leading


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
    """Return the scale and bias that weighted least squares gives for *codes*; the old ones where it gives none."""
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
    """Return the best of *best*, the candidates *starts* (rows, candidates, 1), and the results of alternation."""
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


def _round_group(
    n: int, dtype: mx.Dtype, x: mx.array, weight: mx.array, feedback: mx.array, pivots: mx.array, hessian: mx.array
) -> Group:
    """Search scale and bias on *x* (rows, size), choose the codes and improve them from each start; keep the best."""
    scale, bias = _search(x, pivots, n, dtype)
    # All starts side by side, as rows below one another.
    starts = len(STARTS)
    x, weight, old_scale = (mx.concatenate([each] * starts) for each in (x, weight, scale))
    scale = mx.concatenate([scale * start for start in STARTS])
    bias = _stored(mx.concatenate([bias] * starts) + (old_scale - scale) * (n * 0.5), dtype)
    scale = _stored(scale, dtype)
    inverse = 1.0 / scale
    chosen, errors = [], []
    for column in range(x.shape[1]):
        here = slice(column, column + 1)
        code = _clipped((x[:, here] - bias) * inverse, n)
        error = weight[:, here] - (code * scale + bias)
        x = x + error * feedback[here]
        chosen.append(code)
        errors.append(error)
    codes = mx.concatenate(chosen, axis=1)
    group = (codes, scale, bias, mx.concatenate(errors, axis=1))
    rest = x - (codes * scale + bias)
    loss = mx.sum(pivots * rest * rest, axis=1, keepdims=True)
    p = pivots * rest
    p = p + _product(p, feedback.T)
    for _ in range(ROUNDS):
        p, group, change = _improved(n, dtype, p, group, hessian)
        loss = loss + change
    place = mx.argmin(loss.reshape(starts, -1), axis=0)[None, :, None]
    best = (mx.take_along_axis(each.reshape(starts, -1, each.shape[1]), place, axis=0)[0] for each in group)
    return next(best), next(best), next(best), next(best)


def _descend_group(n: int, dtype: mx.Dtype, p: mx.array, *arguments: mx.array) -> Group:
    """Refit scale and bias, then move each code of the group; *p* (rows, size) is H times all errors."""
    codes, scale, bias, error, hessian = arguments
    return _improved(n, dtype, p, (codes, scale, bias, error), hessian)[1]


def _improved(
    n: int, dtype: mx.Dtype, p: mx.array, group: Group, hessian: mx.array
) -> tuple[mx.array, Group, mx.array]:
    """Return H times the errors, the group after one round, and how far the loss of each row fell, (rows, 1)."""
    p, group, refitted = _refitted(dtype, p, group, hessian)
    p, group, moved = _moved(n, p, group, hessian)
    return p, group, refitted + moved


def _refitted(dtype: mx.Dtype, p: mx.array, group: Group, hessian: mx.array) -> tuple[mx.array, Group, mx.array]:
    """Move scale and bias to where the loss is least for the codes."""
    codes, old_scale, old_bias, error = group
    sums = mx.sum(hessian, axis=0)
    whole, hq = mx.sum(sums), _product(codes, hessian)
    qhq, qh = mx.sum(codes * hq, axis=1, keepdims=True), mx.sum(codes * sums, axis=1, keepdims=True)
    pq, ps = mx.sum(p * codes, axis=1, keepdims=True), mx.sum(p, axis=1, keepdims=True)
    determinant = qhq * whole - qh * qh
    step = (pq * whole - qh * ps) / determinant
    usable = mx.logical_and(determinant > LEAST_SPREAD * qhq * whole, mx.abs(old_scale + step) > EPSILON)
    scale = _stored(old_scale + mx.where(usable, step, 0.0), dtype)
    step = scale - old_scale
    bias = _stored(old_bias + mx.where(whole > 0, (ps - step * qh) / whole, 0.0), dtype)
    bias_step = bias - old_bias
    change = step * step * qhq + bias_step * bias_step * whole
    change = change + 2 * (step * bias_step * qh) - 2 * (step * pq + bias_step * ps)
    falls = change < 0
    step, bias_step = mx.where(falls, step, 0.0), mx.where(falls, bias_step, 0.0)
    scale, bias = mx.where(falls, scale, old_scale), mx.where(falls, bias, old_bias)
    p = p - (step * hq + bias_step * sums)
    return p, (codes, scale, bias, error - (step * codes + bias_step)), mx.where(falls, change, 0.0)


def _moved(n: int, p: mx.array, group: Group, hessian: mx.array) -> tuple[mx.array, Group, mx.array]:
    """Move each code to where the loss is least, column by column; *p* stays H times the errors."""
    codes, scale, bias, error = group
    inverse = 1.0 / scale
    moved, steps, changes = [], [], []
    for column in range(codes.shape[1]):
        here = slice(column, column + 1)
        curvature, slope, old = hessian[here, here], p[:, here], codes[:, here]
        code = _clipped(old + slope / curvature * inverse, n)
        step = (old - code) * scale
        change = step * (step * curvature + 2 * slope)
        falls = change < 0
        step = mx.where(falls, step, 0.0)
        p = p + step * hessian[here]
        moved.append(mx.where(falls, code, old))
        steps.append(step)
        changes.append(mx.where(falls, change, 0.0))
    change = mx.sum(mx.concatenate(changes, axis=1), axis=1, keepdims=True)
    return p, (mx.concatenate(moved, axis=1), scale, bias, error + mx.concatenate(steps, axis=1)), change
