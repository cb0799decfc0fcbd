"""Pixel values -> image features with MLX: mlx-vlm's modules of the Qwen2.5-VL tower, all windows of a layer together.

mlx-vlm's own tower cuts each layer into its windows, a hundred for a page, and computes their attention one by one.
Here, one call handles all windows of the same size. There are at most four sizes, and most images have one or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from olmocr.inference.blas import Floats
from olmocr.inference.byte_cache import Kept
from olmocr.inference.vision import PIECE, VisionTower, ends_piece, layout_of

# The most attention scores, of all heads, in one call. Where MLX has no kernel that keeps them small, the 16-bit scores
# of the 7B model's full attention would take 1.4 GB together.
_SCORES = 1 << 28

_LAYOUT_BYTES = 32 << 20

_MLP_STEP = 64

# The modules of a tower, its blocks and their parts. A tower with more or fewer computes something else.
_PARTS = {
    "": {"patch_embed", "rotary_pos_emb", "fullatt_block_indexes", "blocks", "merger"},
    "patch_embed": {"proj"},
    "blocks.0": {"norm1", "norm2", "attn", "mlp"},
    "blocks.0.attn": {"qkv", "proj"},
}
_NUMBERS = (
    *("spatial_merge_size", "window_size", "patch_size", "hidden_size", "num_heads"),
    *("temporal_patch_size", "fullatt_block_indexes"),
)


@dataclass(frozen=True)
class _DeviceLayout:
    """A ``Layout`` on the device: ``order`` and its ``inverse`` (tokens,); ``windows`` are its ``shapes``.

    ``cosines`` and ``sines`` are (patches, 1, 1, head_dim / 2); both halves of a head use the same values.
    """

    order: mx.array
    inverse: mx.array
    windows: list[tuple[int, int]]
    cosines: mx.array
    sines: mx.array


class MlxVisionTower(VisionTower):
    """The vision tower of *model*, whose weights may be quantized. *piece* is how much to compute at once."""

    def __init__(self, model: Any, piece: int = PIECE) -> None:
        self._tower = model.vision_tower
        self._config = model.config.vision_config
        self._piece = piece
        self._layouts: Kept[_DeviceLayout] = Kept(_LAYOUT_BYTES)
        weight = self._tower.patch_embed.proj.weight  # (width, frames, rows, columns, channels)
        self._patch_weight = mx.contiguous(weight.transpose(0, 4, 1, 2, 3).reshape(weight.shape[0], -1).T)
        mx.eval(self._patch_weight)

    def pieces(self, pixel_values: Floats, rows: int, columns: int) -> Iterator[mx.array | None]:  # noqa: D102
        config, layout = self._config, self._layout_of(rows, columns)
        hidden = mx.array(pixel_values).astype(self._patch_weight.dtype) @ self._patch_weight
        patches, width = hidden.shape
        hidden = hidden.reshape(-1, config.spatial_merge_size**2, width)[layout.order].reshape(patches, width)
        for number, block in enumerate(self._tower.blocks):
            if ends_piece(number, patches, self._piece):
                mx.eval(hidden)
                yield None
            windows = [(1, patches)] if number in config.fullatt_block_indexes else layout.windows
            hidden = hidden + _attention(block.attn, block.norm1(hidden), layout, windows)
            hidden = hidden + block.mlp(block.norm2(hidden))
        features: mx.array = self._tower.merger(hidden)[layout.inverse]
        yield features

    def _layout_of(self, rows: int, columns: int) -> _DeviceLayout:
        layout = self._layouts.get((rows, columns))
        if layout is None:
            layout = _make_layout(self._config, rows, columns)
            nbytes = layout.order.nbytes + layout.inverse.nbytes + layout.cosines.nbytes + layout.sines.nbytes
            self._layouts.put((rows, columns), layout, nbytes)
        return layout


class StockVisionTower(VisionTower):
    """mlx-vlm's own vision tower of *model*, in one piece."""

    def __init__(self, model: Any) -> None:
        self._tower = model.vision_tower
        _without_empty_windows(self._tower)

    def pieces(self, pixel_values: Floats, rows: int, columns: int) -> Iterator[mx.array | None]:  # noqa: D102
        pixels = mx.array(pixel_values).astype(self._tower.patch_embed.proj.weight.dtype)
        features: mx.array = self._tower(pixels, mx.array([[1, rows, columns]]), output_hidden_states=False)
        yield features


def is_as_expected(tower: Any) -> bool:
    """Return whether mlx-vlm's *tower* has exactly the parts that this module computes; a later version may differ."""
    try:
        parts = {place: set(_part(tower, place).children()) for place in _PARTS}
        attrgetter(*_NUMBERS)(tower.config)
        attrgetter("attn.scale", "mlp", "norm1.weight")(tower.blocks[0])
        dimensions = tower.patch_embed.proj.weight.ndim
    except (AttributeError, IndexError):
        return False
    return parts == _PARTS and dimensions == 5 and "bias" not in tower.patch_embed.proj


def pad_mlps(tower: Any) -> None:
    """Pad the width of each of *tower*'s MLPs to a multiple of 64, with rows and columns of zeros.

    The zeros do not change the result. NVIDIA's faster kernels do not take a matrix of 3420 columns, as the published
    model has. A quantized MLP was padded when it was quantized.
    """
    for block in tower.blocks:
        into = [getattr(block.mlp, name) for name in ("gate_proj", "up_proj")]
        out = block.mlp.down_proj
        missing = -out.weight.shape[1] % _MLP_STEP
        if not missing or not all(type(each) is nn.Linear for each in (*into, out)):
            continue
        for each in into:
            each.weight = mx.pad(each.weight, [(0, missing), (0, 0)])
            if "bias" in each:
                each.bias = mx.pad(each.bias, [(0, missing)])
        out.weight = mx.pad(out.weight, [(0, 0), (0, missing)])
        mx.eval(block.mlp.parameters())


def _part(tower: Any, place: str) -> Any:
    for name in place.split(".") if place else ():
        tower = tower[int(name)] if name.isdigit() else getattr(tower, name)
    return tower


def _make_layout(config: Any, rows: int, columns: int) -> _DeviceLayout:
    layout = layout_of(config, rows, columns)
    half = layout.cosines.shape[1] // 2
    made = _DeviceLayout(
        mx.array(layout.order),
        mx.array(np.argsort(layout.order)),
        layout.shapes,
        mx.array(layout.cosines[:, None, None, :half]),
        mx.array(layout.sines[:, None, None, :half]),
    )
    mx.eval(made.order, made.inverse, made.cosines, made.sines)
    return made


def _attention(attention: Any, normed: mx.array, layout: _DeviceLayout, windows: Sequence[tuple[int, int]]) -> mx.array:
    """Return the attention output (patches, width); each patch attends to the patches of its window."""
    patches, width = normed.shape
    heads = int(attention.num_heads)
    qkv = attention.qkv(normed).reshape(patches, 3, heads, width // heads)
    turned = _rotate(qkv[:, :2], layout)
    mixed, start = [], 0
    for count, size in windows:
        own = slice(start, start + count * size)
        start = own.stop
        queries, keys, values = (
            each[own].reshape(count, size, heads, -1).transpose(0, 2, 1, 3)
            for each in (turned[:, 0], turned[:, 1], qkv[:, 2])
        )
        mixed += [part.reshape(-1, width) for part in _attend(queries, keys, values, attention.scale)]
    out: mx.array = attention.proj(mixed[0] if len(mixed) == 1 else mx.concatenate(mixed))
    return out


def _attend(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> Iterator[mx.array]:
    """Yield softmax(queries keys^T) values (windows, patches, heads, head_dim), a few windows or rows at a time."""
    windows, heads, size, _ = queries.shape
    step = max(1, _SCORES // (heads * size * size))
    rows = size if windows > 1 else max(1, _SCORES // (heads * size))
    for first in range(0, windows, step):
        some = slice(first, first + step)
        for row in range(0, size, rows):
            part = queries[some, :, row : row + rows]
            mixed = mx.fast.scaled_dot_product_attention(part, keys[some], values[some], scale=scale)
            yield mixed.transpose(0, 2, 1, 3)


def _rotate(heads: mx.array, layout: _DeviceLayout) -> mx.array:
    """Return *heads* (patches, 2, heads, head_dim), queries and keys, with the rotary embedding applied."""
    first, second = mx.split(heads, 2, axis=-1)
    return mx.concatenate([*_turn(first, second, layout.cosines, layout.sines)], axis=-1)


@partial(mx.compile, shapeless=True)
def _turn(first: mx.array, second: mx.array, cosines: mx.array, sines: mx.array) -> tuple[mx.array, mx.array]:
    """Rotate the points (first, second) in float32, and round once."""
    turned = first * cosines - second * sines, second * cosines + first * sines
    return turned[0].astype(first.dtype), turned[1].astype(first.dtype)


def _without_empty_windows(tower: Any) -> None:
    """Make mlx-vlm's vision tower leave out windows without patches.

    It makes such windows if an image's side is a multiple of a window's. They contribute nothing to the features, and
    on CUDA attention over nothing ends the process (a division by zero, MLX 0.32.4).
    """
    with_empty = tower.get_window_index

    def without_empty(grid_thw: mx.array) -> tuple[mx.array, mx.array]:
        order, ends = with_empty(grid_thw)
        return order, mx.array(np.unique(np.array(ends)))

    tower.get_window_index = without_empty
