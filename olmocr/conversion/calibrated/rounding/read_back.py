"""A method's name -> what is read back for rows that it rounds, to measure the cost of rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from olmocr.conversion.calibrated.rounding.matrix import prepare, round_matrix
from olmocr.conversion.calibrated.rounding.packing import unpack_codes
from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.conversion.recipe import Method, QuantParams
from olmocr.reports.conversion import Processor
from olmocr.tensors.floats import NUMPY_DTYPES, Elements, Floats, widened

Hessians = Sequence[npt.NDArray[np.float32] | npt.NDArray[np.float64]]
"""H of a matrix's input: one, or one for each of several consecutive slices of its columns."""

RoundRows = Callable[[Floats, int], Floats]
"""Rows of a matrix, float32 (rows, columns), and bits -> the rounded values that are read back."""

Rounding = Callable[[Hessians | None], RoundRows]
"""H of a matrix's input, None for the embeddings, which have none -> `RoundRows`."""

CALIBRATED = "calibrated"
"""The method that rounds by H; ``stock`` and ``fit`` ignore it."""


def roundings(methods: Iterable[str], dtype: str, processor: Processor, group_size: int = 64) -> dict[str, Rounding]:
    """Return the rounding function of each of *methods*; *dtype* (safetensors' name) is that of scales and biases."""
    found: dict[str, Rounding] = {}
    for method in methods:
        if method == CALIBRATED:
            found[method] = _calibrated(dtype, processor, group_size)
        else:
            found[method] = _without_hessian("stock" if method == "stock" else "fit", dtype, processor, group_size)
    return found


def _without_hessian(method: Method, dtype: str, processor: Processor, group_size: int) -> Rounding:
    def round_rows(rows: Floats, bits: int) -> Floats:
        stored = quantized_rows(rows, QuantParams(bits, group_size), method, dtype, processor)
        return stored_values(stored.parts, len(rows), bits, dtype)

    return lambda hessians: round_rows


def _calibrated(dtype: str, processor: Processor, group_size: int) -> Rounding:
    without = _without_hessian("fit", dtype, processor, group_size)(None)

    def rounding(hessians: Hessians | None) -> RoundRows:
        if hessians is None:
            return without
        factors = [prepare(each) for each in hessians]

        def round_rows(rows: Floats, bits: int) -> Floats:
            rounded = round_matrix(rows, factors, QuantParams(bits, group_size), dtype, processor)
            return _values(rounded.codes, rounded.scales, rounded.biases)

        return round_rows

    return rounding


def stored_values(parts: Sequence[Elements], rows: int, bits: int, dtype: str) -> Floats:
    """Return the *rows* that MLX computes with, from packed codes, scales and biases as bytes."""
    words, scales, biases = (np.ascontiguousarray(part) for part in parts)
    codes = unpack_codes(words.view("<u4").reshape(rows, -1), bits)
    kind = NUMPY_DTYPES[dtype]
    return _values(codes, *(widened(part.view(kind)).reshape(rows, -1) for part in (scales, biases)))


def _values(codes: npt.NDArray[np.uint8], scales: Floats, biases: Floats) -> Floats:
    """Return what MLX computes from codes (rows, columns), with scales and biases (rows, groups)."""
    grouped = codes.reshape(*scales.shape, -1).astype(np.float32)
    values: Floats = (grouped * scales[..., None] + biases[..., None]).reshape(codes.shape)
    return values
