"""Keys and values in numpy, for a CPU: of one prompt that is being read, or of all answers of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from olmocr.inference.arithmetic import SMALL, attend, rows_at_once
from olmocr.inference.blas import Blas, Floats

CpuLayers = Sequence[tuple[Floats, Floats]]
"""Keys (heads, width, positions) and values (heads, positions, width) of each layer."""

_NOTHING = np.zeros((0, 0, 0), np.float32)

_ADDED = 256
"""For how many more positions memory is allocated when it is full."""


class CpuRow:
    """Keys and values of one row, in each layer, for each position that the model has read."""

    def __init__(self, layers: CpuLayers | int, blas: Blas) -> None:
        """Begin empty, with this number of *layers*, or with the keys and values of a prompt's beginning.

        Those are never changed: the first tokens that are added go into new arrays.
        """
        given = [(_NOTHING, _NOTHING)] * layers if isinstance(layers, int) else layers
        self.layers = [_Layer(keys, values, blas) for keys, values in given]

    @property
    def length(self) -> int:
        """How many positions it contains."""
        return self.layers[-1].length

    def set_length(self, length: int) -> None:
        """Forget all positions from *length* on."""
        for layer in self.layers:
            layer.length = length

    def drop_last(self, count: int) -> None:
        """Forget the last *count* positions."""
        self.set_length(self.length - count)

    def beginning(self, count: int) -> CpuLayers:
        """Return a copy of the first *count* positions of each layer."""
        return [layer.beginning(count) for layer in self.layers]

    def append(self, layer: int, keys: Floats, values: Floats) -> None:
        """Append *keys* and *values* (tokens, heads, width)."""
        self.layers[layer].append(keys, values)

    def attend(self, layer: int, queries: Floats, keys: Floats, values: Floats, scale: float) -> Floats:
        """Append *keys* and *values*, and return the attention output of *queries*; all are (tokens, heads, width).

        A token attends to the earlier tokens, and to itself.
        """
        self.append(layer, keys, values)
        return self.layers[layer].attend(queries, scale)


class CpuBatch:
    """The caches of several rows, each of which attends separately. A row is identified by any hashable object."""

    def __init__(self) -> None:
        self.capacity = 0
        self._rows: dict[object, CpuRow] = {}
        self._lines: list[slice] = []

    def allocated(self, rows: int, capacity: int) -> int:
        """Return how many positions *rows* have if each has *capacity*."""
        return rows * capacity

    def arrange(self, rows: Sequence[object], new: Sequence[CpuRow], capacity: int) -> list[int]:
        """Contain exactly *rows*. The last ones are *new*, and bring their own caches, which then belong to the batch.

        A cache grows as needed; *capacity*, the positions that the longest will have, is only noted. The next passes
        have the rows in the same order.
        """
        self.capacity = capacity
        staying = len(rows) - len(new)
        kept = {row: self._rows[row] for row in rows[:staying]}
        self._rows = kept | dict(zip(rows[staying:], new, strict=True))
        return list(range(len(rows)))

    def clear(self) -> None:
        """Drop all rows."""
        self._rows = {}

    def beginning(self, row: object, count: int) -> CpuLayers:
        """Return a copy of the first *count* positions of *row* in each layer."""
        return self._rows[row].beginning(count)

    def expect(self, lengths: Sequence[int], counts: Sequence[int]) -> None:
        """Prepare for a pass that appends *counts* tokens to the rows, which have *lengths* positions so far."""
        for row, length in zip(self._rows.values(), lengths, strict=True):
            row.set_length(length)
        ends = np.cumsum(counts).tolist()
        self._lines = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]

    def attend(self, layer: int, queries: Floats, keys: Floats, values: Floats, scale: float) -> Floats:
        """As :meth:`CpuRow.attend`, for all rows; their tokens follow one another."""
        found = [
            row.attend(layer, queries[line], keys[line], values[line], scale)
            for row, line in zip(self._rows.values(), self._lines, strict=True)
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)


class _Layer:
    """The keys (heads, width, positions) and values (heads, positions, width) of one layer.

    The first ``length`` positions count. In this order OpenBLAS multiplies a few queries fastest.
    """

    def __init__(self, keys: Floats, values: Floats, blas: Blas) -> None:
        self._blas = blas
        self._keys, self._values = keys, values
        self._is_own = False
        self.length = int(keys.shape[2])

    def beginning(self, count: int) -> tuple[Floats, Floats]:
        return self._keys[..., :count].copy(), self._values[:, :count].copy()

    def append(self, keys: Floats, values: Floats) -> None:
        """Append *keys* and *values* (tokens, heads, width)."""
        start, end = self.length, self.length + len(keys)
        if not self._is_own or end > self._keys.shape[2]:
            self._grow(keys.shape[1], keys.shape[2], end + _ADDED)
        self._keys[..., start:end] = keys.transpose(1, 2, 0)
        self._values[:, start:end] = values.transpose(1, 0, 2)
        self.length = end

    def _grow(self, heads: int, width: int, capacity: int) -> None:
        """Move to new arrays with room for *capacity* positions."""
        # Zeros, since a BLAS may look at positions that do not count yet, and numpy warns of what it finds there.
        keys, values = np.zeros((heads, width, capacity), np.float32), np.zeros((heads, capacity, width), np.float32)
        if self.length:
            keys[..., : self.length] = self._keys[..., : self.length]
            values[:, : self.length] = self._values[:, : self.length]
        self._keys, self._values, self._is_own = keys, values, True

    def attend(self, queries: Floats, scale: float) -> Floats:
        """Return the attention output of the last *queries* (tokens, heads, width), with the same shape."""
        tokens, heads, width = queries.shape
        groups = len(self._keys)
        # The heads that share keys are treated as several queries of one: (groups, heads of a group, tokens, width).
        grouped = (queries * np.float32(scale)).reshape(tokens, groups, -1, width).transpose(1, 2, 0, 3)
        pieces = []
        step = rows_at_once(heads, self.length)
        for first in range(0, tokens, step):
            rows = slice(first, min(first + step, tokens))
            part = grouped[:, :, rows]
            end = self.length - tokens + rows.stop
            is_small = part[0].size * end <= SMALL
            found = attend(
                np.matmul if is_small else self._blas.product,
                part.reshape(groups, -1, width),
                self._keys[..., :end],
                self._values[:, :end],
                _mask(rows.stop - rows.start, heads // groups),
            )
            pieces.append(found.reshape(part.shape).transpose(2, 0, 1, 3))
        out = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return out.reshape(tokens, heads, width)


def _mask(tokens: int, heads: int) -> Floats | None:
    """Return what excludes each token's later ones from its scores (heads * tokens, tokens); None for a single one."""
    if tokens == 1:
        return None
    later = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
    return np.tile(later, (heads, 1))
