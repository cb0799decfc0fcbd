"""The steps of `steps` for one group of columns of many rows, in machine code; products with large matrices by BLAS.

Imports numba, which is the extra ``[fast]``. All arrays have rows innermost, (columns, rows): rows are processed
side by side, one in each lane of the innermost loops, which the compiler turns into vector instructions.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from olmocr.conversion.quantizing.compiled import in_machine_code
from olmocr.conversion.recipe import QuantParams
from olmocr.tensors.floats import Floats

_LANES = 64
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_EPSILON = np.float32(EPSILON)
_LEAST_SPREAD = np.float32(LEAST_SPREAD)

# Added to a float32 in [0, 2**22], this rounds it to an integer, halves to even.
_ROUNDER = np.float32(1 << 23)

_SHRINKS = np.array(SHRINKS, np.float32)
_STRETCHES = np.array(STRETCHES, np.float32)
_ALTERNATIONS = ALTERNATIONS
_ROUNDS = ROUNDS
_STARTS = np.array(STARTS, np.float32)

_DROPPED_BITS = {"BF16": 16, "F16": 13, "F32": 0}
"""Bits of a float32's mantissa that the stored dtype lacks."""

_LEAST_NORMAL_F16 = np.float32(2.0**-14)
_LARGEST_F16 = np.float32(65504)

_BLOCK = 512
"""Columns whose feedback from all earlier columns comes from one product."""


# All data of each lane is in one array, one slot of lanes after the other: the compiler then knows that slots do not
# overlap. With as many arrays it would have to check that at each call, and would not make vector instructions.
_SCALE, _BIAS, _INVERSE, _ERROR, _Q, _QQ, _XQ = (slot * _LANES for slot in range(7))
_LOW, _HIGH, _TOTAL, _BEST_SCALE, _BEST_BIAS, _BEST_ERROR = (slot * _LANES for slot in range(7, 13))
_PQ, _P, _QH, _STEP, _BIAS_STEP, _LOSS, _LEAST_LOSS = (slot * _LANES for slot in range(13, 20))
_FOUND_SCALE, _FOUND_BIAS = (slot * _LANES for slot in range(20, 22))
_SLOTS = 22


@in_machine_code
def _store(state, slot, dropped):  # type: ignore[no-untyped-def]
    """Round what *slot* of *state* holds to the stored dtype, without its last *dropped* bits, halves to even."""
    bits = state.view(np.uint32)
    if dropped == 16:
        for lane in range(slot, slot + _LANES):
            bits[lane] += ((bits[lane] >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
            bits[lane] &= np.uint32(0xFFFF0000)
    elif dropped == 13:
        for lane in range(slot, slot + _LANES):
            # Below its least normal number float16 has a fixed step, which is that of float32 at 1/2.
            magnitude = abs(state[lane])
            if magnitude < _LEAST_NORMAL_F16:
                state[lane] = np.copysign((magnitude + _HALF) - _HALF, state[lane])
            else:
                bits[lane] += ((bits[lane] >> np.uint32(13)) & np.uint32(1)) + np.uint32(0xFFF)
                bits[lane] &= np.uint32(0xFFFFE000)
                if abs(state[lane]) > _LARGEST_F16:
                    state[lane] = np.copysign(np.float32(np.inf), state[lane])


@in_machine_code
def _copy(state, slot, other):  # type: ignore[no-untyped-def]
    for lane in range(_LANES):
        state[other + lane] = state[slot + lane]


@in_machine_code
def _start(x, size, n, dropped, state):  # type: ignore[no-untyped-def]
    """Take the extremes, and scale and bias from them, as ``mx.quantize`` does."""
    for lane in range(_LANES):
        state[_LOW + lane] = x[0, lane]
        state[_HIGH + lane] = x[0, lane]
    for index in range(1, size):
        # Adding 0 makes the compiler store all lanes (see `olmocr.conversion.quantizing.compiled`).
        for lane in range(_LANES):
            state[_LOW + lane] = min(state[_LOW + lane], x[index, lane]) + _ZERO
            state[_HIGH + lane] = max(state[_HIGH + lane], x[index, lane]) + _ZERO
    for lane in range(_LANES):
        low, high = state[_LOW + lane], state[_HIGH + lane]
        low_wins = abs(low) > abs(high)
        step = max((high - low) / n, _EPSILON)
        step = step if low_wins else -step
        edge = low if low_wins else high
        steps = np.rint(edge / step)
        state[_SCALE + lane] = edge / steps if steps != _ZERO else step
        state[_BIAS + lane] = edge if steps != _ZERO else _ZERO
    _store(state, _SCALE, dropped)
    _store(state, _BIAS, dropped)


@in_machine_code
def _try(x, h, size, n, state):  # type: ignore[no-untyped-def]
    """Choose codes for stored scale and bias; sum the error, q, q * q and x * q over the group, weighted by *h*."""
    for lane in range(_LANES):
        state[_INVERSE + lane] = _ONE / state[_SCALE + lane]
        state[_ERROR + lane] = _ZERO
        state[_Q + lane] = _ZERO
        state[_QQ + lane] = _ZERO
        state[_XQ + lane] = _ZERO
    for index in range(size):
        weight = h[index]
        for lane in range(_LANES):
            value = x[index, lane]
            code = (value - state[_BIAS + lane]) * state[_INVERSE + lane]
            code = (min(max(code, _ZERO), n) + _ROUNDER) - _ROUNDER
            rest = value - (code * state[_SCALE + lane] + state[_BIAS + lane])
            weighted = weight * code
            state[_ERROR + lane] += weight * rest * rest
            state[_Q + lane] += weighted
            state[_QQ + lane] += weighted * code
            state[_XQ + lane] += weighted * value


@in_machine_code
def _keep_better(n, state):  # type: ignore[no-untyped-def]
    for lane in range(_LANES):
        can_move = (state[_HIGH + lane] - state[_LOW + lane]) / n > _EPSILON
        better = can_move and state[_ERROR + lane] < state[_BEST_ERROR + lane]
        state[_BEST_ERROR + lane] = state[_ERROR + lane] if better else state[_BEST_ERROR + lane]
        state[_BEST_SCALE + lane] = state[_SCALE + lane] if better else state[_BEST_SCALE + lane]
        state[_BEST_BIAS + lane] = state[_BIAS + lane] if better else state[_BEST_BIAS + lane]


@in_machine_code
def _least_squares(weights, state):  # type: ignore[no-untyped-def]
    """Take the scale and bias that least squares gives for codes with these sums; keep both where it gives none."""
    for lane in range(_LANES):
        q, qq, total = state[_Q + lane], state[_QQ + lane], state[_TOTAL + lane]
        spread = weights * qq - q * q
        slope = (weights * state[_XQ + lane] - q * total) / spread
        usable = spread > _LEAST_SPREAD * weights * qq and abs(slope) > _EPSILON
        state[_BIAS + lane] = (total - slope * q) / weights if usable else state[_BIAS + lane]
        state[_SCALE + lane] = slope if usable else state[_SCALE + lane]


@in_machine_code
def _shrunk(shrink, n, state):  # type: ignore[no-untyped-def]
    for lane in range(_LANES):
        low, high = state[_LOW + lane], state[_HIGH + lane]
        scale = max(shrink * (high - low) / n, _EPSILON)
        state[_SCALE + lane] = scale
        state[_BIAS + lane] = (high + low) * _HALF - scale * n * _HALF


@in_machine_code
def _stretched(stretch, n, state):  # type: ignore[no-untyped-def]
    for lane in range(_LANES):
        scale = state[_FOUND_SCALE + lane]
        state[_SCALE + lane] = scale * stretch
        state[_BIAS + lane] = state[_FOUND_BIAS + lane] + scale * (_ONE - stretch) * n * _HALF


@in_machine_code
def _search(x, h, size, n, dropped, state):  # type: ignore[no-untyped-def]
    """Find the best scale and bias, as stored, of each lane's group in *x*, by their errors alone."""
    weights = _ZERO
    state[_TOTAL : _TOTAL + _LANES] = _ZERO
    for index in range(size):
        weights += h[index]
        for lane in range(_LANES):
            state[_TOTAL + lane] += h[index] * x[index, lane]
    _start(x, size, n, dropped, state)
    _try(x, h, size, n, state)
    _copy(state, _SCALE, _BEST_SCALE)
    _copy(state, _BIAS, _BEST_BIAS)
    _copy(state, _ERROR, _BEST_ERROR)
    for step in range(_SHRINKS.size + _STRETCHES.size):
        if step < _SHRINKS.size:
            _shrunk(_SHRINKS[step], n, state)
        else:
            if step == _SHRINKS.size:
                _copy(state, _BEST_SCALE, _FOUND_SCALE)
                _copy(state, _BEST_BIAS, _FOUND_BIAS)
            _stretched(_STRETCHES[step - _SHRINKS.size], n, state)
        for alternation in range(_ALTERNATIONS + 1):
            if alternation > 0:
                _least_squares(weights, state)
            _store(state, _SCALE, dropped)
            _store(state, _BIAS, dropped)
            _try(x, h, size, n, state)
            _keep_better(n, state)
    _copy(state, _BEST_SCALE, _FOUND_SCALE)
    _copy(state, _BEST_BIAS, _FOUND_BIAS)


@in_machine_code
def _load(values, first, lanes, size, x):  # type: ignore[no-untyped-def]
    """Copy lanes *first* and on of *values* (size, rows) into *x*; repeat the last one in the remaining lanes."""
    for index in range(size):
        for lane in range(lanes):
            x[index, lane] = values[index, first + lane]
        for lane in range(lanes, _LANES):
            x[index, lane] = values[index, first + lanes - 1]


@in_machine_code
def _choose(x, w, size, n, feedback, state, codes):  # type: ignore[no-untyped-def]
    """Choose *codes* column by column for *x*, and pass on the remainder; leave the errors w - w' in *w*."""
    for lane in range(_LANES):
        state[_INVERSE + lane] = _ONE / state[_SCALE + lane]
    for column in range(size):
        for lane in range(_LANES):
            code = (x[column, lane] - state[_BIAS + lane]) * state[_INVERSE + lane]
            code = (min(max(code, _ZERO), n) + _ROUNDER) - _ROUNDER
            codes[column, lane] = code
        for lane in range(_LANES):
            w[column, lane] -= codes[column, lane] * state[_SCALE + lane] + state[_BIAS + lane]
        for later in range(column + 1, size):
            factor = feedback[column, later]
            for lane in range(_LANES):
                x[later, lane] += factor * w[column, lane]


@in_machine_code
def _keep(first, lanes, size, new_codes, new_error, state, codes, scales, biases, error):  # type: ignore[no-untyped-def]
    """Pass on what was found in each lane, unless an earlier result has as little loss; NaN means nothing yet."""
    for lane in range(lanes):
        if not state[_LOSS + lane] >= state[_LEAST_LOSS + lane]:
            state[_LEAST_LOSS + lane] = state[_LOSS + lane]
            scales[first + lane] = state[_SCALE + lane]
            biases[first + lane] = state[_BIAS + lane]
            for index in range(size):
                codes[index, first + lane] = np.uint8(new_codes[index, lane])
                error[index, first + lane] = new_error[index, lane]


@in_machine_code
def _refit(p, q, hq, e, row_sums, size, dropped, state):  # type: ignore[no-untyped-def]
    """Move scale and bias of each lane to where the loss is least for its codes *q*; *hq* is H times these."""
    for lane in range(_LANES):
        state[_PQ + lane] = _ZERO
        state[_P + lane] = _ZERO
        state[_QQ + lane] = _ZERO
        state[_QH + lane] = _ZERO
    whole = _ZERO
    for index in range(size):
        row_sum = row_sums[index]
        whole += row_sum
        for lane in range(_LANES):
            state[_PQ + lane] += p[index, lane] * q[index, lane]
            state[_P + lane] += p[index, lane]
            state[_QQ + lane] += q[index, lane] * hq[index, lane]
            state[_QH + lane] += q[index, lane] * row_sum
    for lane in range(_LANES):
        state[_BEST_SCALE + lane], state[_BEST_BIAS + lane] = state[_SCALE + lane], state[_BIAS + lane]
        determinant = state[_QQ + lane] * whole - state[_QH + lane] * state[_QH + lane]
        step = (state[_PQ + lane] * whole - state[_QH + lane] * state[_P + lane]) / determinant
        usable = determinant > _LEAST_SPREAD * state[_QQ + lane] * whole and abs(state[_SCALE + lane] + step) > _EPSILON
        state[_SCALE + lane] += step if usable else _ZERO
    _store(state, _SCALE, dropped)
    for lane in range(_LANES):
        # The best bias for the scale as stored.
        step = state[_SCALE + lane] - state[_BEST_SCALE + lane]
        bias_step = (state[_P + lane] - step * state[_QH + lane]) / whole
        state[_BIAS + lane] += bias_step if whole > _ZERO else _ZERO
    _store(state, _BIAS, dropped)
    for lane in range(_LANES):
        step = state[_SCALE + lane] - state[_BEST_SCALE + lane]
        bias_step = state[_BIAS + lane] - state[_BEST_BIAS + lane]
        change = step * step * state[_QQ + lane] + bias_step * bias_step * whole
        change += _TWO * (step * bias_step * state[_QH + lane])
        change -= _TWO * (step * state[_PQ + lane] + bias_step * state[_P + lane])
        falls = change < _ZERO
        state[_LOSS + lane] += change if falls else _ZERO
        state[_STEP + lane] = step if falls else _ZERO
        state[_BIAS_STEP + lane] = bias_step if falls else _ZERO
        state[_SCALE + lane] = state[_SCALE + lane] if falls else state[_BEST_SCALE + lane]
        state[_BIAS + lane] = state[_BIAS + lane] if falls else state[_BEST_BIAS + lane]
    for index in range(size):
        row_sum = row_sums[index]
        for lane in range(_LANES):
            e[index, lane] -= state[_STEP + lane] * q[index, lane] + state[_BIAS_STEP + lane]
        for lane in range(_LANES):
            p[index, lane] -= state[_STEP + lane] * hq[index, lane] + state[_BIAS_STEP + lane] * row_sum


@in_machine_code
def _move_codes(p, q, e, hessian, size, n, state):  # type: ignore[no-untyped-def]
    """Move each code to where the loss is least, column by column; *p* stays H times the errors."""
    for lane in range(_LANES):
        state[_INVERSE + lane] = _ONE / state[_SCALE + lane]
    for column in range(size):
        curvature = hessian[column, column]
        for lane in range(_LANES):
            slope = p[column, lane]
            old = q[column, lane]
            code = old + slope / curvature * state[_INVERSE + lane]
            code = (min(max(code, _ZERO), n) + _ROUNDER) - _ROUNDER
            moved = (old - code) * state[_SCALE + lane]
            change = moved * (moved * curvature + _TWO * slope)
            falls = change < _ZERO
            state[_LOSS + lane] += change if falls else _ZERO
            state[_STEP + lane] = moved if falls else _ZERO
            q[column, lane] = code if falls else old
        for lane in range(_LANES):
            e[column, lane] += state[_STEP + lane]
        for other in range(size):
            factor = hessian[column, other]
            for lane in range(_LANES):
                p[other, lane] += factor * state[_STEP + lane]


@in_machine_code
def _multiply(hessian, q, size, hq):  # type: ignore[no-untyped-def]
    for column in range(size):
        for lane in range(_LANES):
            hq[column, lane] = _ZERO
        for other in range(size):
            factor = hessian[column, other]
            for lane in range(_LANES):
                hq[column, lane] += factor * q[other, lane]


@in_machine_code
def _gradient(x, q, size, feedback, pivots, state, p):  # type: ignore[no-untyped-def]
    """Put into *p* (A + I) D times the remainder of *x*: half the slope of the loss that later columns leave."""
    for lane in range(_LANES):
        state[_LOSS + lane] = _ZERO
    for column in range(size):
        pivot = pivots[column]
        for lane in range(_LANES):
            p[column, lane] = q[column, lane] * state[_SCALE + lane] + state[_BIAS + lane]
        for lane in range(_LANES):
            rest = x[column, lane] - p[column, lane]
            state[_LOSS + lane] += pivot * rest * rest
            p[column, lane] = pivot * rest
        for before in range(column):
            factor = feedback[before, column]
            for lane in range(_LANES):
                p[before, lane] += factor * p[column, lane]


@in_machine_code
def _round_group(target, weight, feedback, pivots, hessian, row_sums, n, dropped, codes, scales, biases, error):  # type: ignore[no-untyped-def]
    """Search scale and bias on *target* (size, rows), choose codes and improve them; *error* is weight - w'."""
    size, rows = target.shape
    x, w = np.empty((size, _LANES), np.float32), np.empty((size, _LANES), np.float32)
    p, hq = np.empty((size, _LANES), np.float32), np.empty((size, _LANES), np.float32)
    q, state = np.empty((size, _LANES), np.float32), np.empty(_SLOTS * _LANES, np.float32)
    for first in range(0, rows, _LANES):
        lanes = min(_LANES, rows - first)
        _load(target, first, lanes, size, x)
        _search(x, pivots, size, n, dropped, state)
        state[_LEAST_LOSS : _LEAST_LOSS + _LANES] = np.nan
        for start in range(_STARTS.size):
            _load(target, first, lanes, size, x)
            _load(weight, first, lanes, size, w)
            _stretched(_STARTS[start], n, state)
            _store(state, _SCALE, dropped)
            _store(state, _BIAS, dropped)
            _choose(x, w, size, n, feedback, state, q)
            _gradient(x, q, size, feedback, pivots, state, p)
            for _ in range(_ROUNDS):
                _multiply(hessian, q, size, hq)
                _refit(p, q, hq, w, row_sums, size, dropped, state)
                _move_codes(p, q, w, hessian, size, n, state)
            _keep(first, lanes, size, q, w, state, codes, scales, biases, error)


@in_machine_code
def _descend_group(gradient, hessian, row_sums, n, dropped, codes, scales, biases, error):  # type: ignore[no-untyped-def]
    """Refit scale and bias, then move each code of the group; *gradient* (size, rows) is H times all errors."""
    size, rows = gradient.shape
    p, e = np.empty((size, _LANES), np.float32), np.empty((size, _LANES), np.float32)
    q, hq = np.empty((size, _LANES), np.float32), np.empty((size, _LANES), np.float32)
    state = np.empty(_SLOTS * _LANES, np.float32)
    for first in range(0, rows, _LANES):
        lanes = min(_LANES, rows - first)
        _load(gradient, first, lanes, size, p)
        _load(error, first, lanes, size, e)
        _load(codes, first, lanes, size, q)
        for lane in range(_LANES):
            state[_SCALE + lane] = scales[first + min(lane, lanes - 1)]
            state[_BIAS + lane] = biases[first + min(lane, lanes - 1)]
        _multiply(hessian, q, size, hq)
        _refit(p, q, hq, e, row_sums, size, dropped, state)
        _move_codes(p, q, e, hessian, size, n, state)
        state[_LOSS : _LOSS + _LANES] = _ZERO
        state[_LEAST_LOSS : _LEAST_LOSS + _LANES] = np.nan
        _keep(first, lanes, size, q, e, state, codes, scales, biases, error)


def round_rows(
    weight: Floats, factor: Factor, params: QuantParams, dtype: str
) -> tuple[npt.NDArray[np.uint8], Floats, Floats]:
    """Return codes, scales and biases of *weight* (rows, columns), in the steps of `steps`."""
    rounded = _Rounded(np.ascontiguousarray(weight.T), params, dtype)
    rounded.feed_back(factor)
    for _ in range(SWEEPS):
        rounded.descend(factor)
    codes, scales, biases = (np.ascontiguousarray(p.T) for p in (rounded.codes, rounded.scales, rounded.biases))
    return codes, scales, biases


@np.errstate(over="ignore", invalid="ignore")  # the losses of weights beyond 1e18 are NaN
def losses(error: Floats, hessian: Floats) -> npt.NDArray[np.float64]:
    """Return e H e^T of each row e of *error* (rows, columns)."""
    total = np.zeros(len(error))
    for start in range(0, error.shape[1], _BLOCK):
        here = slice(start, start + _BLOCK)
        # H is symmetric: what lies before the diagonal block counts twice.
        product = error[:, :start] @ hessian[:start, here]
        product *= 2
        product += error[:, here] @ hessian[here, here]
        product *= error[:, here]
        total += product.sum(axis=1, dtype=np.float64)
    return total


class _Rounded:
    """Rows in progress: all arrays are (columns, rows), scales and biases (groups, rows)."""

    def __init__(self, weight: Floats, params: QuantParams, dtype: str) -> None:
        columns, rows = weight.shape
        self.weight = weight
        self.size = params.group_size
        self.n = np.float32((1 << params.bits) - 1)
        self.dropped = _DROPPED_BITS[dtype]
        self.codes = np.empty((columns, rows), np.uint8)
        self.error = np.empty((columns, rows), np.float32)
        self.scales, self.biases = (np.empty((columns // self.size, rows), np.float32) for _ in range(2))

    def blocks(self) -> Iterator[slice]:
        for start in range(0, len(self.weight), _BLOCK):
            yield slice(start, min(start + _BLOCK, len(self.weight)))

    def groups(self, block: slice) -> Iterator[slice]:
        for start in range(block.start, block.stop, self.size):
            yield slice(start, start + self.size)

    def feed_back(self, factor: Factor) -> None:
        for block in self.blocks():
            target = self.weight[block].copy()
            if block.start:
                target += factor.feedback[: block.start, block].T @ self.error[: block.start]
            for group in self.groups(block):
                here = target[group.start - block.start : group.stop - block.start]
                if group.start > block.start:
                    before = slice(block.start, group.start)
                    here += factor.feedback[before, group].T @ self.error[before]
                feedback, pivots, hessian = factor.conditional(group)
                _round_group(
                    here,
                    self.weight[group],
                    feedback,
                    pivots,
                    hessian,
                    hessian.sum(axis=1, dtype=np.float32),
                    self.n,
                    self.dropped,
                    self.codes[group],
                    self.scales[group.start // self.size],
                    self.biases[group.start // self.size],
                    self.error[group],
                )

    def descend(self, factor: Factor) -> None:
        for block in self.blocks():
            gradient = factor.hessian[block] @ self.error
            gradient += np.float32(factor.added) * self.error[block]
            before = self.error[block].copy()
            for group in self.groups(block):
                first = group.start - block.start
                here = gradient[first : first + self.size]
                if first:
                    done = slice(block.start, group.start)
                    here += factor.hessian[group, done] @ (self.error[done] - before[:first])
                hessian = factor.damped(group)
                _descend_group(
                    here,
                    hessian,
                    hessian.sum(axis=1, dtype=np.float32),
                    self.n,
                    self.dropped,
                    self.codes[group],
                    self.scales[group.start // self.size],
                    self.biases[group.start // self.size],
                    self.error[group],
                )
