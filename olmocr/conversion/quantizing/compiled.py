"""Affine quantization compiled with numba: several times as fast as MLX's kernel for CPUs.

Imports numba, which is the extra ``[fast]``. Groups are processed side by side, one in each lane of the innermost
loops, which the compiler turns into vector instructions; sums keep the order that `search` prescribes. Fewer lanes are
slower because they are too short for a vector loop. More are slower, too, because they leave the processor's nearest
cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from olmocr.conversion.quantizing.search import EPSILON, OUTLIER, REFINEMENTS, SHRINKS

_LANES = 64
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_EPSILON = np.float32(EPSILON)
_OUTLIER = np.float32(OUTLIER)

# Added to a float32 in [0, 2**22], this rounds it to an integer, halves to even, in the lowest bits.
_ROUNDER = np.float32(1 << 23)

_SHRINKS = np.array(SHRINKS, np.float32)
_REFINEMENTS = np.array(REFINEMENTS, np.float32)


def in_machine_code(function: Callable[..., Any]) -> Any:
    """Compile *function*, caching the machine code for the next run where a folder is writable."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # the package's folder and the user's cache are both read-only
        return njit(nogil=True, error_model="numpy")(function)


@in_machine_code
def _load_bf16(rows, lanes, size, x_bits):  # type: ignore[no-untyped-def]
    """Put each group of *rows* (groups, size / 4), four bfloat16 in each uint64, into a lane of *x_bits*."""
    upper_half = np.uint64(0xFFFF0000)
    for quarter in range(size // 4):
        for lane in range(lanes):
            four = rows[lane, quarter]
            x_bits[4 * quarter, lane] = (four << np.uint64(16)) & upper_half
            x_bits[4 * quarter + 1, lane] = four & upper_half
            x_bits[4 * quarter + 2, lane] = (four >> np.uint64(16)) & upper_half
            x_bits[4 * quarter + 3, lane] = (four >> np.uint64(32)) & upper_half


@in_machine_code
def _load_float32(rows, lanes, size, x):  # type: ignore[no-untyped-def]
    """As `_load_bf16`, of float32, one in each element of *rows* (groups, size)."""
    for index in range(size):
        for lane in range(lanes):
            x[index, lane] = rows[lane, index]


@in_machine_code
def _fill_lanes(x_bits, lanes, size):  # type: ignore[no-untyped-def]
    """Fill the remaining lanes with the last group."""
    for index in range(size):
        for lane in range(lanes, _LANES):
            x_bits[index, lane] = x_bits[index, lanes - 1]


@in_machine_code
def _to_bf16(bits: npt.NDArray[np.uint32]) -> None:
    """Round float32 (by their bits) to the nearest bfloat16, halves to even."""
    for lane in range(_LANES):
        bits[lane] += ((bits[lane] >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
        bits[lane] &= np.uint32(0xFFFF0000)


@in_machine_code
def _tree_sum(terms: npt.NDArray[np.float32], size: int) -> None:
    """Sum over the group, in halves, into the first element of each lane."""
    half = size // 2
    while half > 0:
        upper = terms[half : 2 * half]
        for index in range(half):
            for lane in range(_LANES):
                terms[index, lane] += upper[index, lane]
        half //= 2


@in_machine_code
def _extremes(x, size, low, high):  # type: ignore[no-untyped-def]
    # Adding 0 does not change a value. Without it the compiler stores only the lanes that changed, which AMD's
    # processors do in microcode: the complete loop took five times as long.
    for lane in range(_LANES):
        low[lane] = x[0, lane]
        high[lane] = x[0, lane]
    for index in range(1, size):
        for lane in range(_LANES):
            low[lane] = min(low[lane], x[index, lane]) + _ZERO
            high[lane] = max(high[lane], x[index, lane]) + _ZERO


@in_machine_code
def _sum_squares(x, size, energy):  # type: ignore[no-untyped-def]
    for lane in range(_LANES):
        energy[lane] = _ZERO
    for index in range(size):
        for lane in range(_LANES):
            energy[lane] += x[index, lane] * x[index, lane]


@in_machine_code
def _all_finite(x, size, energy):  # type: ignore[no-untyped-def]
    """Return whether every element is finite; a finite sum of squares already proves it."""
    for lane in range(_LANES):
        if not np.isfinite(energy[lane]):
            for index in range(size):
                if not np.isfinite(x[index, lane]):
                    return False
    return True


@in_machine_code
def _start(low, high, n, scale, bias):  # type: ignore[no-untyped-def]
    """Take scale and bias from the extremes, as ``mx.quantize`` does."""
    for lane in range(_LANES):
        low_wins = abs(low[lane]) > abs(high[lane])
        step = max((high[lane] - low[lane]) / n, _EPSILON)
        step = step if low_wins else -step
        edge = low[lane] if low_wins else high[lane]
        steps = np.rint(edge / step)
        scale[lane] = edge / steps if steps != _ZERO else step
        bias[lane] = edge if steps != _ZERO else _ZERO


@in_machine_code
def _try(x, size, n, scale, bias, inverse, codes, terms, error, q, qq, xq):  # type: ignore[no-untyped-def]
    """Choose the codes for stored *scale* and *bias*; sum the squared error, q, q * q and x * q over each group."""
    for lane in range(_LANES):
        inverse[lane] = _ONE / scale[lane]
        q[lane] = _ZERO
        qq[lane] = _ZERO
    for index in range(size):
        for lane in range(_LANES):
            code = (x[index, lane] - bias[lane]) * inverse[lane]
            code = min(max(code, _ZERO), n)
            codes[index, lane] = (code + _ROUNDER) - _ROUNDER
        for lane in range(_LANES):
            q[lane] += codes[index, lane]
            qq[lane] += codes[index, lane] * codes[index, lane]
        for lane in range(_LANES):
            rest = x[index, lane] - (codes[index, lane] * scale[lane] + bias[lane])
            terms[index, lane] = rest * rest
    _tree_sum(terms, size)
    for lane in range(_LANES):
        error[lane] = terms[0, lane]
    for index in range(size):
        for lane in range(_LANES):
            terms[index, lane] = x[index, lane] * codes[index, lane]
    _tree_sum(terms, size)
    for lane in range(_LANES):
        xq[lane] = terms[0, lane]


@in_machine_code
def _keep_better(can_move, error, scale, bias, q, qq, xq, best_error, best_scale, best_bias, best_q, best_qq, best_xq):  # type: ignore[no-untyped-def]
    for lane in range(_LANES):
        better = can_move[lane] and error[lane] < best_error[lane]
        best_error[lane] = error[lane] if better else best_error[lane]
        best_scale[lane] = scale[lane] if better else best_scale[lane]
        best_bias[lane] = bias[lane] if better else best_bias[lane]
        best_q[lane] = q[lane] if better else best_q[lane]
        best_qq[lane] = qq[lane] if better else best_qq[lane]
        best_xq[lane] = xq[lane] if better else best_xq[lane]


@in_machine_code
def _shrunk(shrink, around_zero, low, high, n, zero, first_scale, scale_bits, bias_bits):  # type: ignore[no-untyped-def]
    """Take the scale and bias of a smaller range, as they will be stored."""
    scale, bias = scale_bits.view(np.float32), bias_bits.view(np.float32)
    for lane in range(_LANES):
        step = shrink * (high[lane] - low[lane]) / n
        step = step if step > _EPSILON else _EPSILON
        scale[lane] = shrink * first_scale[lane] if around_zero else step
    _to_bf16(scale_bits)
    for lane in range(_LANES):
        middle = (high[lane] + low[lane]) * _HALF - scale[lane] * n * _HALF
        bias[lane] = zero[lane] * scale[lane] if around_zero else middle
    _to_bf16(bias_bits)


@in_machine_code
def _refined_scale(factor, size, total, best_scale, best_q, best_qq, best_xq, scale):  # type: ignore[no-untyped-def]
    count = np.float32(size)
    for lane in range(_LANES):
        spread = count * best_qq[lane] - best_q[lane] * best_q[lane]
        slope = (count * best_xq[lane] - best_q[lane] * total[lane]) / spread
        usable = spread > _ZERO and abs(slope) > _EPSILON
        fitted = slope if usable else best_scale[lane]
        scale[lane] = fitted if factor == _ZERO else best_scale[lane] * factor


@in_machine_code
def _no_outlier(x, size, low, high, terms, can_move):  # type: ignore[no-untyped-def]
    """Keep the first scale of groups whose largest weight is far larger than the rest."""
    for index in range(size):
        for lane in range(_LANES):
            terms[index, lane] = x[index, lane] * x[index, lane]
    _tree_sum(terms, size)
    count = np.float32(size)
    for lane in range(_LANES):
        largest = max(abs(low[lane]), abs(high[lane]))
        can_move[lane] &= largest * largest <= _OUTLIER * _OUTLIER * (terms[0, lane] / count)


@in_machine_code
def _scale_around_zero(factor, size, zero, total, best_scale, best_q, best_qq, best_xq, scale):  # type: ignore[no-untyped-def]
    """As `_refined_scale`, for biases that are *zero* times the scale."""
    count = np.float32(size)
    two = np.float32(2)
    for lane in range(_LANES):
        spread = (best_qq[lane] + two * zero[lane] * best_q[lane]) + zero[lane] * zero[lane] * count
        slope = (best_xq[lane] + zero[lane] * total[lane]) / spread
        usable = spread > _ZERO and abs(slope) > _EPSILON
        fitted = slope if usable else best_scale[lane]
        scale[lane] = fitted if factor == _ZERO else best_scale[lane] * factor


@in_machine_code
def _refined_bias(around_zero, size, zero, total, best_q, scale, bias):  # type: ignore[no-untyped-def]
    count = np.float32(size)
    for lane in range(_LANES):
        centred = (total[lane] - scale[lane] * best_q[lane]) / count
        bias[lane] = zero[lane] * scale[lane] if around_zero else centred


@in_machine_code
def _search(x, size, n, around_zero, low, high, scale_bits, bias_bits, codes, terms, best_scale, best_bias, best_error):  # type: ignore[no-untyped-def]
    """Carry out the steps of `search` from ``mx.quantize``'s scale and bias, in *scale_bits* and *bias_bits*."""
    scale, bias = scale_bits.view(np.float32), bias_bits.view(np.float32)
    inverse = np.empty(_LANES, np.float32)
    error = np.empty(_LANES, np.float32)
    total = np.empty(_LANES, np.float32)
    can_move = np.empty(_LANES, np.bool_)
    q, qq, xq = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    best_q, best_qq, best_xq = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    for index in range(size):
        for lane in range(_LANES):
            terms[index, lane] = x[index, lane]
    _tree_sum(terms, size)
    for lane in range(_LANES):
        total[lane] = terms[0, lane]
    _to_bf16(scale_bits)
    _to_bf16(bias_bits)
    _try(x, size, n, scale, bias, inverse, codes, terms, error, q, qq, xq)
    for lane in range(_LANES):
        best_error[lane], best_scale[lane], best_bias[lane] = error[lane], scale[lane], bias[lane]
        can_move[lane] = (high[lane] - low[lane]) / n > _EPSILON
        best_q[lane], best_qq[lane], best_xq[lane] = q[lane], qq[lane], xq[lane]
    zero, first_scale = np.rint(best_bias / best_scale), best_scale.copy()
    if around_zero:
        _no_outlier(x, size, low, high, terms, can_move)
    for step in range(_SHRINKS.size):
        _shrunk(_SHRINKS[step], around_zero, low, high, n, zero, first_scale, scale_bits, bias_bits)
        _try(x, size, n, scale, bias, inverse, codes, terms, error, q, qq, xq)
        _keep_better(
            can_move, error, scale, bias, q, qq, xq, best_error, best_scale, best_bias, best_q, best_qq, best_xq
        )
    for step in range(_REFINEMENTS.size):
        if around_zero:
            _scale_around_zero(_REFINEMENTS[step], size, zero, total, best_scale, best_q, best_qq, best_xq, scale)
        else:
            _refined_scale(_REFINEMENTS[step], size, total, best_scale, best_q, best_qq, best_xq, scale)
        _to_bf16(scale_bits)
        _refined_bias(around_zero, size, zero, total, best_q, scale, bias)
        _to_bf16(bias_bits)
        _try(x, size, n, scale, bias, inverse, codes, terms, error, q, qq, xq)
        _keep_better(
            can_move, error, scale, bias, q, qq, xq, best_error, best_scale, best_bias, best_q, best_qq, best_xq
        )


@in_machine_code
def _code_stock(x, size, n, scale, bias, stored_scale, stored_bias, codes, error):  # type: ignore[no-untyped-def]
    """Choose *codes* by division, for a scale that is not rounded yet, as ``mx.quantize`` does."""
    for lane in range(_LANES):
        error[lane] = _ZERO
    for index in range(size):
        for lane in range(_LANES):
            code = (x[index, lane] - bias[lane]) / scale[lane]
            code = min(max(code, _ZERO), n)
            codes[index, lane] = code + _ROUNDER
        for lane in range(_LANES):
            rest = x[index, lane] - ((codes[index, lane] - _ROUNDER) * stored_scale[lane] + stored_bias[lane])
            error[lane] += rest * rest


@in_machine_code
def _code_stored(x, size, n, scale, bias, inverse, codes):  # type: ignore[no-untyped-def]
    """Choose *codes* for a scale and bias as they are stored, the same codes that `_try` chose."""
    for lane in range(_LANES):
        inverse[lane] = _ONE / scale[lane]
    for index in range(size):
        for lane in range(_LANES):
            code = (x[index, lane] - bias[lane]) * inverse[lane]
            code = min(max(code, _ZERO), n)
            codes[index, lane] = code + _ROUNDER


@in_machine_code
def _pack(codes, size, bits, words):  # type: ignore[no-untyped-def]
    """Write the codes, the lowest *bits* of each element, into *words* as one little-endian stream a lane."""
    mask = np.uint32((1 << bits) - 1)
    words[:] = 0
    for index in range(size):
        shift = np.uint32(index * bits % 32)
        word = words[index * bits // 32]
        for lane in range(_LANES):
            word[lane] |= (codes[index, lane] & mask) << shift
        if shift + bits > 32:
            word = words[index * bits // 32 + 1]
            for lane in range(_LANES):
                word[lane] |= (codes[index, lane] & mask) >> (np.uint32(32) - shift)


@in_machine_code
def _quantize(rows_bf16, rows_float32, size, bits, fit, around_zero, packed, scales, biases):  # type: ignore[no-untyped-def]
    groups, words_per_group = max(4 * rows_bf16.size, rows_float32.size) // size, size * bits // 32
    n = np.float32((1 << bits) - 1)
    x_bits, words = np.empty((size, _LANES), np.uint32), np.empty((words_per_group, _LANES), np.uint32)
    x = x_bits.view(np.float32)
    code_bits, terms = np.empty((size, _LANES), np.uint32), np.empty((size, _LANES), np.float32)
    codes = code_bits.view(np.float32)
    low, high = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    error, energy, inverse = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    scale_bits, bias_bits = np.empty(_LANES, np.uint32), np.empty(_LANES, np.uint32)
    scale, bias = scale_bits.view(np.float32), bias_bits.view(np.float32)
    stored_scale_bits, stored_bias_bits = np.empty(_LANES, np.uint32), np.empty(_LANES, np.uint32)
    stored_scale, stored_bias = stored_scale_bits.view(np.float32), stored_bias_bits.view(np.float32)
    total_error, total_energy, is_finite = 0.0, 0.0, True
    for first in range(0, groups, _LANES):
        lanes = min(_LANES, groups - first)
        start, stop = first * size, (first + lanes) * size
        if rows_bf16.size:
            _load_bf16(rows_bf16[start // 4 : stop // 4].reshape(lanes, size // 4), lanes, size, x_bits)
        else:
            _load_float32(rows_float32[start:stop].reshape(lanes, size), lanes, size, x)
        if lanes < _LANES:
            _fill_lanes(x_bits, lanes, size)
        _extremes(x, size, low, high)
        _sum_squares(x, size, energy)
        is_finite &= _all_finite(x, size, energy)
        _start(low, high, n, scale, bias)
        for lane in range(_LANES):
            stored_scale[lane], stored_bias[lane] = scale[lane], bias[lane]
        if fit:
            _search(
                x,
                size,
                n,
                around_zero,
                low,
                high,
                scale_bits,
                bias_bits,
                codes,
                terms,
                stored_scale,
                stored_bias,
                error,
            )
            _code_stored(x, size, n, stored_scale, stored_bias, inverse, codes)
        else:
            _to_bf16(stored_scale_bits)
            _to_bf16(stored_bias_bits)
            _code_stock(x, size, n, scale, bias, stored_scale, stored_bias, codes, error)
        _pack(code_bits, size, bits, words)
        for lane in range(lanes):
            group = first + lane
            total_error += error[lane]
            total_energy += energy[lane]
            scales[group] = stored_scale_bits[lane] >> np.uint32(16)
            biases[group] = stored_bias_bits[lane] >> np.uint32(16)
            for word in range(words_per_group):
                packed[group * words_per_group + word] = words[word, lane]
    return total_error, total_energy, is_finite


_NO_BF16 = np.empty(0, np.uint64)
_NO_FLOAT32 = np.empty(0, np.float32)


def quantize_groups(
    rows: npt.NDArray[np.uint16] | npt.NDArray[np.float32],
    group_size: int,
    bits: int,
    *,
    fit: bool,
    around_zero: bool,
    packed: npt.NDArray[np.uint32],
    scales: npt.NDArray[np.uint16],
    biases: npt.NDArray[np.uint16],
) -> tuple[float, float, bool]:
    """Quantize *rows*, all groups in one row: bfloat16 bits as uint16, or float32.

    Writes *packed* (elements * bits / 32), and *scales* and *biases* as bfloat16 bits (groups). Returns the squared
    error of what will be read back, the sum of squares of the elements, and whether every one of them is finite.
    """
    bf16, float32 = _NO_BF16, _NO_FLOAT32
    if rows.dtype == np.uint16:
        bf16 = (rows.copy() if rows.ctypes.data % 8 else rows).view(np.uint64)
    else:
        float32 = rows.astype(np.float32, copy=False)
    squared_error, energy, is_finite = _quantize(
        bf16, float32, group_size, bits, fit, around_zero, packed, scales, biases
    )
    return float(squared_error), float(energy), bool(is_finite)
