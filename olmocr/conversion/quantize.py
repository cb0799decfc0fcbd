"""Rows of one tensor -> the bytes of weight, scales and biases, or of the rows themselves."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from olmocr.conversion.recipe import QuantParams

Bytes = npt.NDArray[np.uint8]

_MLX_DTYPE = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
_NUMPY_STORAGE = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}


def to_mlx(raw: bytes, dtype: str, shape: tuple[int, ...]) -> mx.array:
    """Return *raw*, little-endian elements of *dtype* (safetensors' name), as an MLX array of *shape*."""
    storage = np.frombuffer(raw, dtype=_NUMPY_STORAGE[dtype]).reshape(shape)
    return mx.array(storage).view(_MLX_DTYPE[dtype])


def quantized(rows: mx.array, params: QuantParams, dtype: str) -> list[Bytes]:
    """Return packed weights, scales and biases of *rows* (rows, columns), cast to *dtype* first.

    They are bit for bit those of ``mx.quantize`` on MLX's CPU backend, whatever the machine: Metal rounds
    halves differently, and the same source should give the same file everywhere.
    """
    with mx.stream(mx.cpu):
        parts = mx.quantize(
            rows.astype(_MLX_DTYPE[dtype]), group_size=params.group_size, bits=params.bits, mode=params.mode
        )
        return [_to_bytes(part) for part in parts]


def cast(rows: mx.array, dtype: str, axes: tuple[int, ...] | None) -> list[Bytes]:
    """Return *rows* as *dtype*, their axes reordered if *axes* says so."""
    with mx.stream(mx.cpu):
        return [_to_bytes((rows.transpose(axes) if axes else rows).astype(_MLX_DTYPE[dtype]))]


def _to_bytes(array: mx.array) -> Bytes:
    return np.ascontiguousarray(np.array(mx.contiguous(array).view(mx.uint8))).reshape(-1)
