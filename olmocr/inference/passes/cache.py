"""The keys and values of a model's input: of one prompt that is being read, or of all answers of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from mlx_vlm.models.cache import KVCache

from olmocr.runtime.device import Device

Layers = Sequence[tuple[Any, Any]]
"""Keys and values of each layer, with all heads and positions, in the arrays and the order of one kind of cache."""


class PromptCache(Protocol):
    """The keys and values of one row. A language model makes the kind that its passes use."""

    @property
    def length(self) -> int:
        """How many positions it contains."""

    def drop_last(self, count: int) -> None:
        """Forget the last *count* positions."""

    def beginning(self, count: int) -> Layers:
        """Return a copy of the first *count* positions of each layer, evaluated."""


class AnswersCache(Protocol):
    """The keys and values of several rows, each of which is identified by any hashable object."""

    @property
    def capacity(self) -> int:
        """How many positions are allocated for each row, or expected at the most."""

    def allocated(self, rows: int, capacity: int) -> int:
        """Return how many positions are allocated once it is arranged for this number of *rows* with *capacity*."""

    def arrange(self, rows: Sequence[object], new: Sequence[Any], capacity: int) -> list[int]:
        """Contain exactly *rows*, with room for at least *capacity* positions each.

        The last rows are *new*, and bring their own caches. Return the order, as indices of *rows*, in which the
        next passes have their tokens.
        """

    def clear(self) -> None:
        """Drop all rows."""

    def beginning(self, row: object, count: int) -> Layers:
        """Return a copy of the first *count* positions of *row* in each layer, evaluated."""

    def expect(self, lengths: Sequence[int], counts: Sequence[int]) -> None:
        """Prepare for a pass that appends *counts* tokens to the rows, which have *lengths* positions so far.

        Both are in the order that :meth:`arrange` has returned.
        """


_COPIED_TOGETHER = 256 << 20
"""How many bytes of a batch to copy before the arrays that they replace are freed."""

_SPARE = 1.25
"""A batch whose shape lasts is copied when it has more than this many times the positions that it needs."""

_EMPTY = 3
"""It is also copied when it has this many times as many places as rows."""


class Cache(Protocol):
    """The cache that a pass over the weights reads, and to which it writes its tokens' keys and values."""

    def attend(self, layer: int, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Append *keys* and *values*, and return the attention output of *queries*; all are (tokens, heads, width).

        A token attends to the earlier tokens of its own row, and to itself.
        """


class RowCache:
    """Keys and values of one row, (1, heads, positions, width) in each layer."""

    def __init__(self, layers: Layers | int) -> None:
        """Begin empty, with this number of *layers*, or with the keys and values of a prompt's beginning.

        Those are never changed: they fill their arrays, so a cache that grows makes new ones.
        """
        if isinstance(layers, int):
            self.layers = [KVCache() for _ in range(layers)]
            return
        self.layers = []
        for keys, values in layers:
            cache = KVCache()
            cache.state = (keys, values)
            self.layers.append(cache)

    @property
    def length(self) -> int:
        """How many positions it contains."""
        offset: int = self.layers[0].offset
        return offset

    def drop_last(self, count: int) -> None:
        """Forget the last *count* positions."""
        for layer in self.layers:
            layer.trim(count)

    def arrays(self) -> list[mx.array]:
        """Return all arrays that a pass writes to, for ``mx.eval``."""
        return [array for layer in self.layers for array in (layer.keys, layer.values)]

    def beginning(self, count: int) -> Layers:
        """Return a copy of the first *count* positions of each layer, evaluated."""
        return _copies([(layer.keys[..., :count, :], layer.values[..., :count, :]) for layer in self.layers])

    def attend(self, layer: int, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """As in :class:`Cache`."""
        all_keys, all_values = self.layers[layer].update_and_fetch(_row(keys), _row(values))
        return _attend_to_all_before(queries, all_keys, all_values, scale)


class BatchCache:
    """Keys and values of several rows, in one array per layer, so that attention of all rows is one operation.

    Each row has as many positions as the longest one needs. A row is identified by any object.

    With *has_plans*, as on CUDA, attention makes a new plan for each new shape, which takes longer than the pass
    itself. So shapes stay the same: tokens are padded to a power of two, and attention covers all allocated positions,
    with a mask. Each row keeps its place: another may take it later, and until then it is empty.

    With *is_slow_behind_masks*, as on a CPU, MLX takes several times as long for several tokens with a mask. So each
    row attends separately as soon as one of them has more than one token.
    """

    def __init__(
        self,
        layers: int,
        *,
        has_plans: bool = False,
        is_slow_behind_masks: bool = False,
        copied_together: int = _COPIED_TOGETHER,
    ) -> None:
        self._copied_together = copied_together
        self._has_plans = has_plans
        self._is_slow_behind_masks = is_slow_behind_masks
        self._arrays: list[list[mx.array]] = [[] for _ in range(layers)]  # for each layer: keys and values
        self._places: dict[object, int] = {}  # each row's index in the arrays, from the first place on

    @property
    def capacity(self) -> int:
        """How many positions are allocated for each row."""
        return self._shape[1]

    @property
    def _shape(self) -> tuple[int, int]:
        """The number of places for rows, and of positions of each."""
        first = self._arrays[0]
        return (int(first[0].shape[0]), int(first[0].shape[2])) if first else (0, 0)

    def allocated(self, rows: int, capacity: int) -> int:
        """As in :class:`AnswersCache`."""
        return math.prod(self._shape_for(rows, capacity))

    def _shape_for(self, rows: int, capacity: int) -> tuple[int, int]:
        """Return the number of places, and of positions of each, for *rows* that need *capacity* positions."""
        if not self._has_plans:
            return rows, capacity
        places, held = self._shape
        return (
            places if 1 < rows <= places < _EMPTY * rows else _places_for(rows),
            held if capacity <= held <= _SPARE * capacity else capacity,
        )

    def arrange(self, rows: Sequence[object], new: Sequence[RowCache], capacity: int) -> list[int]:
        """As in :class:`AnswersCache`; the arrays stay if they have the right shape, or else are copied.

        About *copied_together* bytes are copied at a time, so that memory need not hold the old batch and the new one.
        """
        staying, joining = rows[: len(rows) - len(new)], rows[len(rows) - len(new) :]
        shape = self._shape_for(len(rows), capacity)
        if self._has_plans and shape == self._shape:
            kept = {row: self._places[row] for row in staying}
            free = sorted(set(range(shape[0])) - set(kept.values()))
            self._places = kept | dict(zip(joining, free, strict=False))
            self._fill([self._places[row] for row in joining], new)
        elif new or list(self._places) != list(rows) or self.capacity < capacity:
            self._copy([self._places[row] for row in staying], new, shape)
            self._places = {row: place for place, row in enumerate(rows)}
        return sorted(range(len(rows)), key=lambda number: self._places[rows[number]])

    def _fill(self, places: Sequence[int], new: Sequence[RowCache]) -> None:
        """Write *new* rows to *places*: all positions, since masked values must still be numbers.

        MLX reuses the memory of the arrays, since nothing else refers to them when this is computed.
        """
        for place, row in zip(places, new, strict=True):
            for arrays, layer in zip(self._arrays, row.layers, strict=True):
                for array, own in zip(arrays, (layer.keys, layer.values), strict=True):
                    array[place : place + 1] = _fitting(own, array.shape[2])

    def _copy(self, staying: Sequence[int], new: Sequence[RowCache], shape: tuple[int, int]) -> None:
        """Make arrays of *shape* with the rows at the places *staying*, then the *new* ones, then empty ones."""
        copied = list[mx.array]()
        for number, arrays in enumerate(self._arrays):
            own = [[cache.layers[number].keys, cache.layers[number].values] for cache in new]
            before = [[_rows_of(array, staying)] for array in arrays] if staying else [[], []]
            parts = zip(before, zip(*own, strict=True) if own else ([], []), strict=True)
            self._arrays[number] = [_stacked([*old, *added], shape) for old, added in parts]
            copied += self._arrays[number]
            if sum(array.nbytes for array in copied) >= self._copied_together:
                mx.eval(copied)
                copied.clear()

    def clear(self) -> None:
        """Drop all rows."""
        self._arrays = [[] for _ in self._arrays]
        self._places = {}

    def beginning(self, row: object, count: int) -> Layers:
        """Return a copy of the first *count* positions of *row* in each layer, evaluated."""
        at = self._places[row]
        return _copies(
            [(keys[at : at + 1, :, :count], values[at : at + 1, :, :count]) for keys, values in self._arrays]
        )

    def expect(self, lengths: Sequence[int], counts: Sequence[int]) -> None:
        """Prepare for a pass that appends *counts* tokens to the rows, which have *lengths* positions so far."""
        # MLX has other kernels for a single query, which do not need a plan.
        is_alone = len(lengths) == 1 and (counts[0] == 1 or not self._has_plans)
        self._is_by_row = is_alone or (self._is_slow_behind_masks and max(counts) > 1)
        if self._is_by_row:
            ends = np.cumsum(counts).tolist()
            self._lines = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
            self._spans = [slice(start, start + count) for start, count in zip(lengths, counts, strict=True)]
            return
        most = 1 << (max(counts) - 1).bit_length() if self._has_plans else max(counts)
        starts, tokens, firsts = (np.zeros((self._shape[0], 1), np.int64) for _ in range(3))
        places = sorted(self._places.values())
        starts[places, 0], tokens[places, 0] = lengths, counts
        firsts[places, 0] = np.cumsum([0, *counts[:-1]])
        # A row with fewer tokens than another is padded with its last token, and an empty place with any.
        ahead = np.minimum(np.arange(most)[None], np.maximum(tokens, 1) - 1)  # (places, most)
        last = mx.array((starts + ahead).astype(np.int32))
        self._positions = last[:, None, :, None]
        self._mask = mx.arange(self.capacity, dtype=mx.int32) <= self._positions
        if self._has_plans:
            # CUDA's kernel adds its mask: MLX would convert a boolean one anew in each layer.
            dtype = self._arrays[0][0].dtype
            self._mask = mx.where(self._mask, mx.array(0, dtype), mx.array(-mx.inf, dtype))
        self._padding: mx.array | None = None
        if tokens.min() < most:
            self._padding = mx.array((firsts + ahead).reshape(-1))
            self._real = mx.array(np.flatnonzero(np.arange(most)[None] < tokens))

    def attend(self, layer: int, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """As in :class:`Cache`; the rows' tokens follow one another."""
        if self._is_by_row:
            return self._row_by_row(layer, queries, keys, values, scale)
        pairs = zip(self._arrays[layer], (keys, values), strict=True)
        self._arrays[layer] = [self._with(array, self._by_row(new)) for array, new in pairs]
        all_keys, all_values = self._arrays[layer]
        return self._in_line(self._found(self._by_row(queries), all_keys, all_values, scale))

    def _row_by_row(self, layer: int, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        all_keys, all_values = self._arrays[layer]
        if len(self._spans) == 1:
            (span,) = self._spans
            all_keys[:, :, span], all_values[:, :, span] = _row(keys), _row(values)
            return _attend_to_all_before(queries, all_keys[:, :, : span.stop], all_values[:, :, : span.stop], scale)
        # All rows are written before the first is read, since MLX would copy an array that is still being read.
        for row, (line, span) in enumerate(zip(self._lines, self._spans, strict=True)):
            all_keys[row : row + 1, :, span] = _row(keys[line])
            all_values[row : row + 1, :, span] = _row(values[line])
        found = []
        for row, (line, span) in enumerate(zip(self._lines, self._spans, strict=True)):
            own = slice(row, row + 1), slice(None), slice(span.stop)
            found.append(_attend_to_all_before(queries[line], all_keys[own], all_values[own], scale))
        return mx.concatenate(found)

    def _found(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Return the attention output of *queries*, with the same shape (places, heads, tokens, width)."""
        if not self._has_plans:
            return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=self._mask)
        # With a mask, CUDA's kernels read the keys anew for each head. So the heads that share keys are treated as
        # further tokens at the same places: (places, heads with their own keys, heads that share them * tokens, width).
        groups = keys.shape[1]
        folded = queries.reshape(queries.shape[0], groups, -1, queries.shape[3])
        if self._mask.shape[2] != folded.shape[2]:
            self._mask = mx.tile(self._mask, (1, 1, queries.shape[1] // groups, 1))
        found = mx.fast.scaled_dot_product_attention(folded, keys, values, scale=scale, mask=self._mask)
        return found.reshape(queries.shape)

    def _with(self, array: mx.array, new: mx.array) -> mx.array:
        """Return *array* with *new* (places, heads, tokens, width) at its positions.

        MLX reuses the memory of *array*, since nothing else refers to it when this is computed.
        """
        return mx.put_along_axis(array, mx.broadcast_to(self._positions, new.shape), new, axis=2)

    def _by_row(self, line: mx.array) -> mx.array:
        """Return (tokens, heads, width) as (places, heads, most tokens of a row, width)."""
        if self._padding is not None:
            line = line[self._padding]
        return line.reshape(len(self._positions), -1, *line.shape[1:]).transpose(0, 2, 1, 3)

    def _in_line(self, by_row: mx.array) -> mx.array:
        """Return (places, heads, most tokens of a row, width) as (tokens, heads, width)."""
        line = by_row.transpose(0, 2, 1, 3).reshape(-1, by_row.shape[1], by_row.shape[3])
        return line if self._padding is None else line[self._real]


def cache_for(device: Device, layers: int) -> BatchCache:
    """Return an empty cache with this number of *layers* that suits MLX's behavior on *device*."""
    return BatchCache(layers, has_plans=device.kind == "cuda", is_slow_behind_masks=device.kind == "cpu")


def _row(line: mx.array) -> mx.array:
    """Return the tokens of one row, (tokens, heads, width), as (1, heads, tokens, width)."""
    return line.transpose(1, 0, 2)[None]


def _attend_to_all_before(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """Return the attention output of one row's last *queries* (tokens, heads, width), with the same shape."""
    mask = "causal" if len(queries) > 1 else None
    found = mx.fast.scaled_dot_product_attention(_row(queries), keys, values, scale=scale, mask=mask)
    return found.squeeze(0).transpose(1, 0, 2)


def _places_for(rows: int) -> int:
    """Return how many places to allocate for *rows*: a power of two, or a multiple of 8 from there on."""
    return 1 << (rows - 1).bit_length() if rows <= 8 else -(-rows // 8) * 8


def _rows_of(array: mx.array, rows: Sequence[int]) -> mx.array:
    return array if list(rows) == list(range(len(array))) else array[mx.array(list(rows))]


def _stacked(parts: Sequence[mx.array], shape: tuple[int, int]) -> mx.array:
    """Return *parts* (rows, heads, positions, width) as one array with *shape* rows and positions; added ones are 0."""
    places, capacity = shape
    fitting = [_fitting(part, capacity) for part in parts]
    missing = places - sum(map(len, parts))
    if missing:
        fitting.append(mx.zeros((missing, *fitting[0].shape[1:]), fitting[0].dtype))
    return fitting[0] if len(fitting) == 1 else mx.concatenate(fitting)


def _fitting(array: mx.array, capacity: int) -> mx.array:
    """Return *array* with *capacity* positions. Added ones are zero, since masked values must still be numbers."""
    missing = capacity - array.shape[2]
    return mx.pad(array, [(0, 0), (0, 0), (0, missing), (0, 0)]) if missing > 0 else array[:, :, :capacity]


def _copies(layers: Sequence[tuple[mx.array, mx.array]]) -> Layers:
    copies = [(mx.contiguous(keys), mx.contiguous(values)) for keys, values in layers]
    mx.eval(copies)
    return copies
