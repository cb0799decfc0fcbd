"""Tensors in safetensors files -> their values, some rows at a time, and the values that no model can use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from olmocr.errors import CheckpointError
from olmocr.tensors.dtypes import FLOAT_DTYPES, FP8_DTYPE
from olmocr.tensors.floats import NUMPY_DTYPES, Elements, Floats, narrowed, not_finite, widened
from olmocr.tensors.header import TensorInfo

BytesRead = Callable[[int], None]
"""Called with the number of bytes just read."""

# Elements in memory at once: results stay in the processor's cache.
_CHUNK = 1 << 19


@dataclass(frozen=True)
class StoredTensor:
    """A tensor, and the file it is in."""

    file: Path
    info: TensorInfo

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as stored: of a packed weight, not the model's."""
        return self.info.shape


def row_steps(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield (first row, number of rows): *shape* cut along its first axis, small enough pieces for any tensor."""
    rows, row_size = shape[0] if shape else 1, max(1, math.prod(shape[1:]))
    step = max(1, _CHUNK // row_size)
    for first in range(0, rows, step):
        yield first, min(step, rows - first)


def read_rows(tensor: StoredTensor, first: int, count: int, read: BytesRead) -> Elements:
    """Return *count* rows from *first* on.

    Raises:
        CheckpointError: the file cannot be read, or its dtype is unknown.
    """
    info = tensor.info
    shape = info.shape or (1,)
    row_size = math.prod(shape[1:])
    return _read(tensor, first * row_size, count * row_size, read).reshape(count, *shape[1:])


def _read(tensor: StoredTensor, first: int, count: int, read: BytesRead) -> Elements:
    """Return *count* elements from *first* on, wherever the rows end."""
    kind = NUMPY_DTYPES.get(tensor.info.dtype)
    if kind is None:
        raise CheckpointError(f"dtype {tensor.info.dtype} is not read here")
    size = kind.itemsize
    try:
        with tensor.file.open("rb", buffering=0) as file:
            file.seek(tensor.info.offset + first * size)
            raw = file.read(count * size)
    except OSError as error:
        raise CheckpointError(f"{tensor.file} cannot be read: {error.strerror}") from error
    if len(raw) != count * size:
        raise CheckpointError(f"{tensor.file} became shorter while it was being read; download it again")
    read(len(raw))
    return np.frombuffer(raw, kind)


def as_float32(elements: Elements, dtype: str) -> Floats:
    """Return stored floats of *dtype* (safetensors' name) as numbers.

    Raises:
        CheckpointError: *dtype* is not a float that our checkpoints have.
    """
    if dtype not in (*FLOAT_DTYPES, FP8_DTYPE):
        raise CheckpointError(f"dtype {dtype} is not a float that can be compared")
    return widened(elements)


def rounded(values: Floats, dtype: str) -> Floats:
    """Return *values* after a cast to *dtype*, as in MLX, if a model's weights may have that."""
    return widened(narrowed(values, dtype)) if dtype in FLOAT_DTYPES else values


def find_bad_values(tensor: StoredTensor, dtype: str, read: BytesRead, *, may_be_zero: bool) -> list[str]:
    """Return what is wrong with the values of *tensor*, which are floats of *dtype*: NaN, infinity, a zero scale.

    Raises:
        CheckpointError: the file cannot be read.
    """
    shape = tensor.shape
    size = math.prod(shape)
    unusable, zero = _FoundPlaces(shape), _FoundPlaces(shape)
    for first in range(0, size, _CHUNK):
        elements = _read(tensor, first, min(_CHUNK, size - first), read).view(NUMPY_DTYPES[dtype])
        unusable.add(first, not_finite(elements))
        if not may_be_zero:
            zero.add(first, elements == 0)
    found = ((unusable, "NaN or infinite"), (zero, "zero"))
    return [f"{tensor.info.name} has {places} {what}" for places, what in found if places.number]


class _FoundPlaces:
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
