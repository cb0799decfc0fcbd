"""Rows of one tensor -> the bytes stored for them, and how far what is read back is from the source.

The same source, recipe and method give the same bytes on every machine: ``stock`` has the rounding of ``mx.quantize``
on MLX's CPU backend (Metal rounds halves away from zero, which gives other codes there), ``fit`` that of
`search`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from olmocr.conversion.quantizing.search import MOST_BITS_AROUND_ZERO
from olmocr.conversion.recipe import Method, QuantParams
from olmocr.reports.conversion import Processor
from olmocr.runtime.device import GPU_LOCK, start_mlx
from olmocr.tensors.dtypes import FLOAT_DTYPES
from olmocr.tensors.floats import NUMPY_DTYPES, Elements, Floats, narrowed, not_finite, widened

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StoredRows:
    """What is stored for some rows: weight, scales and biases, or the rows themselves, as bytes.

    *squared_error* is the sum of (source - what is read back)**2, *energy* that of source**2; *is_finite* says whether
    every element of the source is finite, *fits* whether everything that is stored is.
    """

    parts: tuple[Bytes, ...]
    squared_error: float
    energy: float
    is_finite: bool
    fits: bool = True


def find_processor() -> Processor:
    """Return the fastest way to quantize on this machine: numba if it is installed, then a GPU."""
    if importlib.util.find_spec("numba"):
        return "numba"
    return "cpu" if start_mlx().kind == "cpu" else "gpu"


def kept_rows(rows: Elements, dtype: str, row_scale: Floats | None = None) -> StoredRows:
    """Return *rows* themselves, cast to *dtype* if that differs."""
    if rows.dtype == NUMPY_DTYPES[dtype]:
        return StoredRows((_to_bytes(rows),), 0.0, 1.0, is_finite=_all_finite(rows))
    values = _scaled(rows, row_scale)
    stored = narrowed(values, dtype)
    is_finite = _all_finite(values)
    rest = values.astype(np.float64) - widened(stored) if is_finite else np.zeros(1)
    return StoredRows((_to_bytes(stored),), _energy(rest), _energy(values), is_finite, fits=_all_finite(stored))


def quantized_rows(
    rows: Elements,
    params: QuantParams,
    method: Method,
    dtype: str,
    processor: Processor,
    row_scale: Floats | None = None,
    *,
    is_table: bool = False,
) -> StoredRows:
    """Return packed codes, scales and, in mode affine, biases of *rows* (rows, columns), multiplied by *row_scale*.

    *dtype* (safetensors' name) is that of scales and biases. ``stock`` casts the rows to it first, as stock mlx-vlm
    does, and is bit for bit ``mx.quantize`` on MLX's CPU backend; ``fit`` starts from the source's exact values.
    *is_table* says that the rows are tokens', in the embeddings or the head: `search` treats those differently.
    The other modes do not have free parameters to fit, so they use ``mx.quantize`` with any *method*.
    """
    is_stock = method == "stock" or params.mode != "affine"
    around_zero = params.bits <= MOST_BITS_AROUND_ZERO and not is_table
    if is_stock and rows.dtype != NUMPY_DTYPES[dtype]:
        values = _scaled(rows, row_scale)
        if not _all_finite(values):
            return StoredRows((), 0.0, 0.0, is_finite=False)
        rows, row_scale = narrowed(values, dtype), None
        if not _all_finite(rows):
            return StoredRows((), 0.0, 0.0, is_finite=True, fits=False)
    if params.mode == "affine" and processor == "numba" and dtype == "BF16":
        stored = _with_numba(rows, params, method, row_scale, around_zero)
        return _with_true_sums(stored, _scaled(rows, row_scale), params, dtype) if _overflow(stored) else stored
    values = _scaled(rows, row_scale)
    if not _all_finite(values):
        return StoredRows((), 0.0, 0.0, is_finite=False)
    if is_stock:
        return _with_mx_quantize(values, params, dtype)
    stored = _with_arrays(values, params, dtype, processor, around_zero)
    return _with_true_sums(stored, values, params, dtype) if _overflow(stored) else stored


def calibrated_rows(
    rows: Elements, arrays: Sequence[Bytes], params: QuantParams, dtype: str, row_scale: Floats | None = None
) -> StoredRows:
    """Return *arrays*, the calibrated form of *rows*, and how far what is read back is from them."""
    values = _scaled(rows, row_scale)
    if not _all_finite(values):
        return StoredRows((), 0.0, 0.0, is_finite=False)
    stored = StoredRows(tuple(_to_bytes(array) for array in arrays), 0.0, 0.0, is_finite=True)
    return _with_true_sums(stored, values, params, dtype)


def _scaled(rows: Elements, row_scale: Floats | None) -> Floats:
    """Return the values that *rows* represent."""
    return widened(rows) if row_scale is None else widened(rows) * row_scale


def _energy(values: npt.NDArray[Any]) -> float:
    """Return the sum of squares."""
    return float(np.square(values, dtype=np.float64).sum())


def _overflow(stored: StoredRows) -> bool:
    """Return whether float32 was too small for the sums of valid values: weights beyond 1e18."""
    return stored.is_finite and stored.fits and not math.isfinite(stored.squared_error + stored.energy)


def _with_true_sums(stored: StoredRows, values: Floats, params: QuantParams, dtype: str) -> StoredRows:
    start_mlx()
    import mlx.core as mx

    rows = values.shape[0]
    with mx.stream(mx.cpu):
        packed = mx.array(stored.parts[0].view(np.uint32).reshape(rows, -1))
        scales, biases = (
            mx.array(part).view(_mlx_dtype(dtype)).reshape(rows, -1).astype(mx.float32) for part in stored.parts[1:]
        )
        read_back = mx.dequantize(packed, scales, biases, group_size=params.group_size, bits=params.bits)
        rest = values.astype(np.float64) - np.array(read_back)
    return replace(
        stored,
        squared_error=_energy(rest),
        energy=_energy(values),
    )


def _with_numba(
    rows: Elements, params: QuantParams, method: Method, row_scale: Floats | None, around_zero: bool
) -> StoredRows:
    from olmocr.conversion.quantizing.compiled import quantize_groups

    packed = np.empty(rows.size * params.bits // 32, np.uint32)
    scales, biases = (np.empty(rows.size // params.group_size, np.uint16) for _ in range(2))
    elements: Elements = rows.view(np.uint16) if rows.dtype == NUMPY_DTYPES["BF16"] else _scaled(rows, row_scale)
    error, energy, is_finite = quantize_groups(
        np.ascontiguousarray(elements).reshape(-1),
        params.group_size,
        params.bits,
        fit=method != "stock",
        around_zero=around_zero,
        packed=packed,
        scales=scales,
        biases=biases,
    )
    parts = (_to_bytes(packed), _to_bytes(scales), _to_bytes(biases))
    fits = all(_all_finite(part.view(NUMPY_DTYPES["BF16"])) for part in (scales, biases))
    return StoredRows(parts, error, energy, is_finite, fits)


def _with_mx_quantize(values: Floats, params: QuantParams, dtype: str) -> StoredRows:
    start_mlx()
    import mlx.core as mx

    with mx.stream(mx.cpu):
        rows = mx.array(values).astype(_mlx_dtype(dtype))
        form: Any = params.as_config()
        stored = mx.quantize(rows, **form)
        scales: Any = [part.astype(mx.float32) if params.mode == "affine" else part for part in stored[1:]]
        read_back = mx.dequantize(stored[0], *scales, **form)
        parts = tuple(_mlx_bytes(part) for part in stored)
        error = _energy(values - np.array(read_back.astype(mx.float32)))
        fits = params.mode != "affine" or all(bool(mx.isfinite(part).all()) for part in scales)
    return StoredRows(parts, error, _energy(values), is_finite=True, fits=fits)


def _with_arrays(
    values: Floats, params: QuantParams, dtype: str, processor: Processor, around_zero: bool
) -> StoredRows:
    start_mlx()
    import mlx.core as mx

    from olmocr.conversion.quantizing.arrays import fitted, packed

    def quantize() -> StoredRows:
        best = fitted(
            mx.array(values.reshape(-1, params.group_size)), params.bits, _mlx_dtype(dtype), around_zero=around_zero
        )
        scales, biases = (part.astype(_mlx_dtype(dtype)) for part in (best.scale, best.bias))
        parts = tuple(_mlx_bytes(part) for part in (packed(best.codes, params.bits), scales, biases))
        error = float(np.array(best.error).sum(dtype=np.float64))
        fits = bool((mx.isfinite(scales) & mx.isfinite(biases)).all())
        return StoredRows(parts, error, _energy(values), is_finite=True, fits=fits)

    if processor == "gpu":
        with GPU_LOCK:
            return quantize()
    with mx.stream(mx.cpu):
        return quantize()


def _mlx_dtype(dtype: str) -> Any:
    import mlx.core as mx

    return getattr(mx, FLOAT_DTYPES[dtype])


def _mlx_bytes(array: Any) -> Bytes:
    import mlx.core as mx

    return np.ascontiguousarray(np.array(mx.contiguous(array).view(mx.uint8))).reshape(-1)


def _to_bytes(array: Elements) -> Bytes:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _all_finite(elements: Elements) -> bool:
    return not not_finite(elements).any()
