"""Pixel values -> image features, piece by piece. For a CPU: Qwen2.5-VL's tower, computed with numpy in float32.

``vision_mlx`` has the towers of a GPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from olmocr.inference.arithmetic import Linear, attend, rms_norm, rows_at_once, silu, windows_at_once
from olmocr.inference.blas import Blas, Floats, find_blas

Indices = npt.NDArray[np.intp]

_ROTARY_THETA = 10000.0
_NORM_EPSILON = np.float32(1e-6)

PIECE = 1 << 15
"""How many patches times blocks to compute at once: 4 of the 7B model's 32 blocks at 1288 pixels, less work than a step
of its prompt."""

WHOLE = 1 << 40
"""More patches times blocks than any image has."""


@dataclass(frozen=True)
class Layout:
    """Where the patches of an image of one size are.

    The processor lists patches merge block by merge block (2 x 2 patches, one image token). ``order`` (tokens,)
    sorts the tokens window by window, the largest windows first; ``windows`` are (start, end) in patches in that
    order; ``cosines`` and ``sines`` (patches, head_dim) are the rotary embedding's, also in that order.
    """

    order: Indices
    windows: tuple[tuple[int, int], ...]
    cosines: Floats
    sines: Floats

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The number of windows of each size, and that size in patches, from the first patch on: at most four pairs."""
        sizes = groupby(end - start for start, end in self.windows)
        return [(len(list(windows)), size) for size, windows in sizes]


class VisionTower(ABC):
    """Computes the features of an image. ``pixel_values`` are (patches, values of one patch), float32."""

    @abstractmethod
    def pieces(self, pixel_values: Floats, rows: int, columns: int) -> Iterator[mx.array | None]:
        """Compute one image of *rows* x *columns* patches piece by piece.

        Yield None after each piece except the last, and the features (tokens, language width) after the last, which
        may not be evaluated yet.
        """

    def __call__(self, pixel_values: Floats, image_grid_thw: npt.NDArray[np.int32]) -> mx.array:
        """Return the features (tokens, language width) of one image.

        ``image_grid_thw`` is (1, 3): 1, rows and columns of patches.
        """
        for features in self.begin(pixel_values, image_grid_thw):
            if features is not None:
                return features
        raise AssertionError("a tower's last piece has the features")

    def begin(self, pixel_values: Floats, image_grid_thw: npt.NDArray[np.int32]) -> Iterator[mx.array | None]:
        """Return the pieces of the image whose features ``__call__`` returns."""
        _, rows, columns = image_grid_thw[0].tolist()
        return self.pieces(pixel_values, rows, columns)


class CpuVisionTower(VisionTower):
    """The vision tower of *model*, whose weights must be float32. *piece*, as PIECE, is how much to compute at once.

    *blas* computes the products; None: the fastest one.
    """

    def __init__(self, model: Any, piece: int = PIECE, blas: Blas | None = None) -> None:
        self._blas = blas or find_blas()
        self._tower = model.vision_tower
        self._piece = piece
        self._config = model.config.vision_config
        self._blocks = [_Block(block, self._config.num_heads, self._blas) for block in self._tower.blocks]
        weight = np.asarray(self._tower.patch_embed.proj.weight)  # (width, frames, rows, columns, channels)
        self._patch_weight = weight.transpose(0, 4, 1, 2, 3).reshape(weight.shape[0], -1).T

    def pieces(self, pixel_values: Floats, rows: int, columns: int) -> Iterator[mx.array | None]:  # noqa: D102
        config = self._config
        layout = layout_of(config, rows, columns)
        unit = config.spatial_merge_size**2
        hidden = self._blas.product(pixel_values, self._patch_weight)
        hidden = hidden.reshape(-1, unit, hidden.shape[-1])[layout.order].reshape(hidden.shape)
        everything = [(1, len(hidden))]
        for number, block in enumerate(self._blocks):
            if ends_piece(number, len(hidden), self._piece):
                yield None
            is_full = number in config.fullatt_block_indexes
            block(hidden, layout, everything if is_full else layout.shapes)
        features: mx.array = self._tower.merger(mx.array(hidden))
        yield features[mx.array(np.argsort(layout.order))]


def ends_piece(number: int, patches: int, piece: int) -> bool:
    """Return whether a piece ends before block *number*, if *piece* patches times blocks are computed at once."""
    return number > 0 and number % max(1, piece // patches) == 0


def layout_of(config: Any, rows: int, columns: int) -> Layout:
    """Return the layout of an image of *rows* x *columns* patches for a tower with mlx-vlm's *config*."""
    return make_layout(
        rows,
        columns,
        merge=config.spatial_merge_size,
        window=config.window_size // config.patch_size // config.spatial_merge_size,
        head_dim=config.hidden_size // config.num_heads,
    )


@lru_cache(maxsize=16)
def make_layout(rows: int, columns: int, *, merge: int, window: int, head_dim: int) -> Layout:
    """Return the layout of an image of *rows* x *columns* patches; *window* is in tokens."""
    order, sizes = _window_order(rows // merge, columns // merge, window)
    ends = np.cumsum(sizes) * merge**2
    windows = tuple(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    angles = _rotary_angles(rows, columns, merge, head_dim)
    angles = angles.reshape(len(order), merge**2, -1)[order].reshape(rows * columns, -1)
    return Layout(order, windows, np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))


def _window_order(rows: int, columns: int, window: int) -> tuple[Indices, Indices]:
    """Return the tokens of a *rows* x *columns* grid window by window, and the size of each window, largest first."""
    high, wide = -(-rows // window), -(-columns // window)
    grid = np.full((high * window, wide * window), -1)
    grid[:rows, :columns] = np.arange(rows * columns).reshape(rows, columns)
    by_window = grid.reshape(high, window, wide, window).transpose(0, 2, 1, 3).reshape(high * wide, -1)
    by_window = by_window[np.argsort(-(by_window >= 0).sum(axis=1), kind="stable")]
    is_token = by_window >= 0
    return by_window[is_token], is_token.sum(axis=1)


def _rotary_angles(rows: int, columns: int, merge: int, head_dim: int) -> npt.NDArray[np.float64]:
    """Return the angles of each patch (patches, head_dim): its row's, its column's, and both once more."""
    y, x = np.indices((rows, columns))
    blocks = (rows // merge, merge, columns // merge, merge)
    places = [axis.reshape(blocks).transpose(0, 2, 1, 3).reshape(-1, 1) for axis in (y, x)]
    frequencies = 1.0 / _ROTARY_THETA ** (np.arange(0, head_dim // 2, 2) / (head_dim // 2))
    return np.tile(np.concatenate([place * frequencies for place in places], axis=1), 2)


class _Block:
    """One transformer block: attention and a gated MLP, each after a norm and added to its input."""

    def __init__(self, block: Any, heads: int, blas: Blas) -> None:
        self._heads, self._blas = heads, blas
        self._norm1, self._norm2 = (np.asarray(norm.weight) for norm in (block.norm1, block.norm2))
        self._qkv, self._proj = Linear(block.attn.qkv, blas), Linear(block.attn.proj, blas)
        self._gate, self._up = Linear(block.mlp.gate_proj, blas), Linear(block.mlp.up_proj, blas)
        self._down = Linear(block.mlp.down_proj, blas)

    def __call__(self, hidden: Floats, layout: Layout, windows: Sequence[tuple[int, int]]) -> None:
        """Change *hidden* (patches, width) in place; a patch attends to its own window.

        *windows* are the number of windows of each size, and that size, from the first patch on.
        """
        patches, width = hidden.shape
        qkv = np.empty((3, self._heads, patches, width // self._heads), np.float32)

        def make_heads(rows: slice) -> None:
            qkv[:, :, rows] = self._make_heads(hidden[rows], layout.cosines[rows], layout.sines[rows])

        self._blas.share(patches, make_heads)
        mixed = self._attention(qkv, windows)

        def add(rows: slice) -> None:
            own = hidden[rows]
            own += self._proj(mixed[rows])
            normed = rms_norm(own, self._norm2, _NORM_EPSILON)
            gate = silu(self._gate(normed))
            gate *= self._up(normed)
            own += self._down(gate)

        self._blas.share(patches, add)

    def _make_heads(self, hidden: Floats, cosines: Floats, sines: Floats) -> Floats:
        """Return queries, scaled, keys and values (3, heads, patches, width of a head); the first two are rotated."""
        patches, width = hidden.shape
        qkv = self._qkv(rms_norm(hidden, self._norm1, _NORM_EPSILON))
        heads = qkv.reshape(patches, 3, self._heads, -1).transpose(1, 2, 0, 3)
        heads[:2] = _rotate(heads[:2], cosines, sines)
        heads[0] *= np.float32((width // self._heads) ** -0.5)
        return heads

    def _attention(self, qkv: Floats, windows: Sequence[tuple[int, int]]) -> Floats:
        """Return the attention output (patches, width)."""
        _, heads, patches, width = qkv.shape
        out = np.empty((patches, heads, width), np.float32)
        start = 0
        for count, size in windows:
            own = slice(start, start + count * size)
            start = own.stop
            parts = (*qkv, out.transpose(1, 0, 2))
            self._attend(*(each[:, own].reshape(heads, count, size, width) for each in parts))
        return out.reshape(patches, -1)

    def _attend(self, queries: Floats, keys: Floats, values: Floats, out: Floats) -> None:
        """Write the attention output of windows of one size into *out*; all are (heads, windows, patches, width)."""
        heads, windows, size, _ = queries.shape
        keys = keys.swapaxes(2, 3)

        def several(some: slice) -> None:
            for part in _parts(some, windows_at_once(heads, size)):
                out[:, part] = attend(self._blas.product, queries[:, part], keys[:, part], values[:, part])

        def one(rows: slice) -> None:
            for part in _parts(rows, rows_at_once(heads, size)):
                out[:, :, part] = attend(self._blas.product, queries[:, :, part], keys, values)

        if windows > 1:
            self._blas.share(windows, several, size)
        else:
            self._blas.share(size, one)


def _parts(whole: slice, most: int) -> Iterator[slice]:
    """Yield slices of *whole* with at most *most* places."""
    for first in range(whole.start, whole.stop, most):
        yield slice(first, min(first + most, whole.stop))


def _rotate(heads: Floats, cosines: Floats, sines: Floats) -> Floats:
    """Return *heads* (…, heads, patches, head_dim) with the rotary embedding applied."""
    half = heads.shape[-1] // 2
    turned = np.concatenate([-heads[..., half:], heads[..., :half]], axis=-1)
    turned *= sines
    turned += heads * cosines
    return turned
