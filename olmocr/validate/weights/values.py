"""Tensors in safetensors files -> their values, some rows at a time, and which of these no model can use."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from olmocr.conversion.checkpoint import TensorInfo
from olmocr.errors import CheckpointError

Elements = npt.NDArray[Any]
"""Elements as they are stored: floats of 8 and 16 bits are unsigned integers here."""

Floats = npt.NDArray[np.float32]

BytesRead = Callable[[int], None]
"""Called with the number of bytes that were just read."""

# Elements in memory at once: what is computed of them stays in the processor's cache.
_CHUNK = 1 << 19

_STORAGE = {
    "F64": np.uint64,
    "F32": np.uint32,
    "F16": np.uint16,
    "BF16": np.uint16,
    "F8_E4M3": np.uint8,
    "F8_E8M0": np.uint8,
    "U32": np.uint32,
    "U8": np.uint8,
}

# A float whose exponent bits are all set is infinite or NaN. Those of 8 bits have no infinity: all ones are NaN.
_NOT_FINITE = {
    "F64": 0x7FF0000000000000,
    "F32": 0x7F800000,
    "F16": 0x7C00,
    "BF16": 0x7F80,
    "F8_E4M3": 0x7F,
    "F8_E8M0": 0xFF,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor, and the file that it lies in."""

    file: Path
    info: TensorInfo

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as stored: of a packed weight, not the model's."""
        return self.info.shape


def row_steps(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield (first row, number of rows): *shape* cut along its first axis, little enough at once for any tensor."""
    rows, row_size = shape[0] if shape else 1, max(1, math.prod(shape[1:]))
    step = max(1, _CHUNK // row_size)
    for first in range(0, rows, step):
        yield first, min(step, rows - first)


def read_rows(tensor: StoredTensor, first: int, count: int, read: BytesRead) -> Elements:
    """Return *count* rows from *first* on.

    Raises:
        CheckpointError: the file cannot be read, or its dtype is none of those that we know.
    """
    info = tensor.info
    shape = info.shape or (1,)
    row_size = math.prod(shape[1:])
    return _read(tensor, first * row_size, count * row_size, read).reshape(count, *shape[1:])


def _read(tensor: StoredTensor, first: int, count: int, read: BytesRead) -> Elements:
    """Return *count* elements from *first* on, wherever the rows end."""
    storage = _STORAGE.get(tensor.info.dtype)
    if storage is None:
        raise CheckpointError(f"dtype {tensor.info.dtype} is not read here")
    size = np.dtype(storage).itemsize
    try:
        with tensor.file.open("rb", buffering=0) as file:
            file.seek(tensor.info.offset + first * size)
            raw = file.read(count * size)
    except OSError as error:
        raise CheckpointError(f"{tensor.file} cannot be read: {error.strerror}") from error
    if len(raw) != count * size:
        raise CheckpointError(f"{tensor.file} became shorter while it was read; download it again")
    read(len(raw))
    return np.frombuffer(raw, np.dtype(storage).newbyteorder("<"))


def as_float32(elements: Elements, dtype: str) -> Floats:
    """Return stored floats of *dtype* (safetensors' name) as numbers.

    Raises:
        CheckpointError: *dtype* is no float that a checkpoint of ours has.
    """
    if dtype == "F32":
        return elements.view(np.float32)
    if dtype == "F16":
        return elements.view(np.float16).astype(np.float32)
    if dtype == "BF16":
        return (elements.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        return _e4m3_values()[elements]
    raise CheckpointError(f"dtype {dtype} is no float that can be compared")


@functools.cache
def _e4m3_values() -> Floats:
    """Return the number that each byte is as a float of four exponent and three mantissa bits."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 0xF, codes & 0x7
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    size[codes & 0x7F == 0x7F] = np.nan
    return np.where(codes & 0x80, -size, size).astype(np.float32)


def rounded(values: Floats, dtype: str) -> Floats:
    """Return *values* as they are after a cast to *dtype*: to the nearest, halves to even, as MLX does."""
    if dtype == "BF16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    if dtype == "F16":
        with np.errstate(over="ignore"):  # what becomes infinite is found among the values
            return values.astype(np.float16).astype(np.float32)
    return values


def is_float(dtype: str) -> bool:
    """Tell whether values of *dtype* can be ones that no model can use."""
    return dtype in _NOT_FINITE


def find_bad_values(tensor: StoredTensor, dtype: str, read: BytesRead, *, may_be_zero: bool) -> list[str]:
    """Return what is wrong with the values of *tensor*, which are floats of *dtype*: NaN, infinity, a zero scale.

    Raises:
        CheckpointError: the file cannot be read.
    """
    exponent = np.array(_NOT_FINITE[dtype], _STORAGE[dtype])
    sign = np.array(1 << (8 * exponent.itemsize - 1), exponent.dtype)
    shape = tensor.shape
    size = math.prod(shape)
    not_finite, zero = _Places(shape), _Places(shape)
    for first in range(0, size, _CHUNK):
        elements = _read(tensor, first, min(_CHUNK, size - first), read)
        not_finite.add(first, (elements & exponent) == exponent)
        if not may_be_zero:
            zero.add(first, (elements & ~sign) == 0)
    found = ((not_finite, "NaN or infinite"), (zero, "zero"))
    return [f"{tensor.info.name} has {places} {what}" for places, what in found if places.number]


class _Places:
    """Counts places in a tensor, and remembers the first."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape or (1,)
        self._first = 0
        self.number = 0

    def add(self, offset: int, found: npt.NDArray[np.bool_]) -> None:
        if found.any():
            if not self.number:
                self._first = offset + int(found.argmax())
            self.number += int(found.sum())

    def __str__(self) -> str:
        place = [int(each) for each in np.unravel_index(self._first, self._shape)]
        if self.number == 1:
            return f"1 value of {math.prod(self._shape)}, at {place}, that is"
        return f"{self.number} values of {math.prod(self._shape)}, the first at {place}, that are"
