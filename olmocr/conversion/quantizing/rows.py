"""Rows of one tensor -> the bytes that are stored of them, and how far what is read back is from the source.

The same source, recipe and method give the same bytes on every machine: ``stock`` has the rounding of ``mx.quantize``
on MLX's CPU backend (Metal rounds halves away from zero, which gives other codes there), ``fit`` that of
`search`.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from olmocr.conversion.recipe import Method, QuantParams
from olmocr.device import start_mlx
from olmocr.reports.conversion import Processor

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

# How numpy holds elements of a safetensors dtype; it has no bfloat16 and no float8, which are held as their bits.
STORAGE = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F8_E4M3": np.uint8}


@dataclass(frozen=True)
class StoredRows:
    """What is stored of some rows: weight, scales and biases, or the rows themselves, as bytes.

    *squared_error* is the sum of (source - what is read back)**2, *energy* that of source**2; *is_finite* says whether
    every element of the source is finite, *fits* whether everything that is stored is.
    """

    parts: tuple[Bytes, ...]
    squared_error: float
    energy: float
    is_finite: bool
    fits: bool = True


def find_processor() -> Processor:
    """Return the fastest way to quantize that this machine offers: numba where it is installed, then a GPU."""
    if importlib.util.find_spec("numba"):
        return "numba"
    return "cpu" if start_mlx().kind == "cpu" else "gpu"


def widened(rows: Array, dtype: str, row_scale: Array | None = None) -> npt.NDArray[np.float32]:
    """Return *rows*, held as `STORAGE` says, as float32: exactly, multiplied by *row_scale* if they are float8."""
    if dtype == "BF16":
        return (rows.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        values = _e4m3_values()[rows]
        return values if row_scale is None else values * row_scale
    return rows.astype(np.float32)


def narrowed(values: npt.NDArray[np.float32], dtype: str) -> Array:
    """Return float32 *values* rounded to *dtype*, halves to even, held as `STORAGE` says."""
    if dtype == "BF16":
        bits = values.view(np.uint32)
        return ((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(STORAGE[dtype])


def kept_rows(rows: Array, source_dtype: str, dtype: str, row_scale: Array | None = None) -> StoredRows:
    """Return *rows* themselves, cast to *dtype* if that is another one."""
    if source_dtype == dtype:
        is_finite = _all_finite(rows, dtype)
        return StoredRows((_to_bytes(rows),), 0.0, 1.0, is_finite)
    values = widened(rows, source_dtype, row_scale)
    stored = narrowed(values, dtype)
    is_finite = bool(np.isfinite(values).all())
    rest = values.astype(np.float64) - widened(stored, dtype) if is_finite else np.zeros(1)
    energy = float(np.square(values, dtype=np.float64).sum())
    return StoredRows(
        (_to_bytes(stored),), float(np.square(rest).sum()), energy, is_finite, fits=_all_finite(stored, dtype)
    )


def quantized_rows(
    rows: Array,
    source_dtype: str,
    params: QuantParams,
    method: Method,
    dtype: str,
    processor: Processor,
    row_scale: Array | None = None,
) -> StoredRows:
    """Return packed codes, scales and, in mode affine, biases of *rows* (rows, columns), held as `STORAGE` says.

    *dtype* (safetensors' name) is that of scales and biases. ``stock`` casts the rows to it first, as stock mlx-vlm
    does, and is bit for bit ``mx.quantize`` on MLX's CPU backend; ``fit`` starts from the source's exact values.
    The other modes have no free parameters to fit: whatever *method* is, they are ``mx.quantize``'s.
    """
    if source_dtype != dtype and (method == "stock" or params.mode != "affine"):
        values = widened(rows, source_dtype, row_scale)
        if not np.isfinite(values).all():
            return StoredRows((), 0.0, 0.0, is_finite=False)
        rows, source_dtype, row_scale = narrowed(values, dtype), dtype, None
        if not _all_finite(rows, dtype):
            return StoredRows((), 0.0, 0.0, is_finite=True, fits=False)
    if params.mode == "affine" and processor == "numba" and dtype == "BF16":
        stored = _with_numba(rows, source_dtype, params, method, row_scale)
        return (
            _with_true_sums(stored, widened(rows, source_dtype, row_scale), params, dtype)
            if _overflow(stored)
            else stored
        )
    values = widened(rows, source_dtype, row_scale)
    if not np.isfinite(values).all():
        return StoredRows((), 0.0, 0.0, is_finite=False)
    if method == "stock" or params.mode != "affine":
        return _with_mx_quantize(values, params, dtype)
    stored = _with_arrays(values, params, dtype, processor)
    return _with_true_sums(stored, values, params, dtype) if _overflow(stored) else stored


def _overflow(stored: StoredRows) -> bool:
    """Return whether float32 was too small for the sums of what is all right otherwise: weights beyond 1e18."""
    return stored.is_finite and stored.fits and not math.isfinite(stored.squared_error + stored.energy)


def _with_true_sums(stored: StoredRows, values: npt.NDArray[np.float32], params: QuantParams, dtype: str) -> StoredRows:
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
        squared_error=float(np.square(rest).sum()),
        energy=float(np.square(values, dtype=np.float64).sum()),
    )


def _with_numba(
    rows: Array, source_dtype: str, params: QuantParams, method: Method, row_scale: Array | None
) -> StoredRows:
    from olmocr.conversion.quantizing.compiled import quantize_groups

    packed = np.empty(rows.size * params.bits // 32, np.uint32)
    scales, biases = (np.empty(rows.size // params.group_size, np.uint16) for _ in range(2))
    elements = rows if source_dtype == "BF16" else widened(rows, source_dtype, row_scale)
    error, energy, is_finite = quantize_groups(
        np.ascontiguousarray(elements).reshape(-1),
        params.group_size,
        params.bits,
        fit=method == "fit",
        packed=packed,
        scales=scales,
        biases=biases,
    )
    parts = (_to_bytes(packed), _to_bytes(scales), _to_bytes(biases))
    return StoredRows(parts, error, energy, is_finite, fits=_all_finite(scales, "BF16") and _all_finite(biases, "BF16"))


def _with_mx_quantize(values: npt.NDArray[np.float32], params: QuantParams, dtype: str) -> StoredRows:
    start_mlx()
    import mlx.core as mx

    with mx.stream(mx.cpu):
        rows = mx.array(values).astype(_mlx_dtype(dtype))
        form: Any = params.as_config()
        stored = mx.quantize(rows, **form)
        scales: Any = [part.astype(mx.float32) if params.mode == "affine" else part for part in stored[1:]]
        read_back = mx.dequantize(stored[0], *scales, **form)
        parts = tuple(_mlx_bytes(part) for part in stored)
        error = float(np.square(values - np.array(read_back.astype(mx.float32)), dtype=np.float64).sum())
        fits = params.mode != "affine" or all(bool(mx.isfinite(part).all()) for part in scales)
    return StoredRows(parts, error, float(np.square(values, dtype=np.float64).sum()), is_finite=True, fits=fits)


# One thread at a time: MLX does not promise that several may use one GPU.
_GPU = threading.Lock()


def _with_arrays(values: npt.NDArray[np.float32], params: QuantParams, dtype: str, processor: Processor) -> StoredRows:
    start_mlx()
    import mlx.core as mx

    from olmocr.conversion.quantizing.arrays import fitted, packed

    def quantize() -> StoredRows:
        best = fitted(mx.array(values.reshape(-1, params.group_size)), params.bits, _mlx_dtype(dtype))
        scales, biases = (part.astype(_mlx_dtype(dtype)) for part in (best.scale, best.bias))
        parts = tuple(_mlx_bytes(part) for part in (packed(best.codes, params.bits), scales, biases))
        error = float(np.array(best.error).sum(dtype=np.float64))
        fits = bool((mx.isfinite(scales) & mx.isfinite(biases)).all())
        return StoredRows(parts, error, float(np.square(values, dtype=np.float64).sum()), is_finite=True, fits=fits)

    if processor == "gpu":
        with _GPU:
            return quantize()
    with mx.stream(mx.cpu):
        return quantize()


def _mlx_dtype(dtype: str) -> Any:
    import mlx.core as mx

    return {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}[dtype]


def _mlx_bytes(array: Any) -> Bytes:
    import mlx.core as mx

    return np.ascontiguousarray(np.array(mx.contiguous(array).view(mx.uint8))).reshape(-1)


def _to_bytes(array: Array) -> Bytes:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _all_finite(array: Array, dtype: str) -> bool:
    if dtype == "BF16":
        return not bool(((array & 0x7F80) == 0x7F80).any())
    if dtype == "F8_E4M3":
        return not bool(((array & 0x7F) == 0x7F).any())
    return bool(np.isfinite(array).all())


@functools.cache
def _e4m3_values() -> npt.NDArray[np.float32]:
    """Return the value of each float8 e4m3fn byte: 1 sign bit, 4 of exponent (bias 7), 3 of mantissa, no infinities."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 0xF, code & 0x7
    size = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
    values = np.where(code < 128, size, -size)
    values[[0x7F, 0xFF]] = np.nan
    return values.astype(np.float32)
