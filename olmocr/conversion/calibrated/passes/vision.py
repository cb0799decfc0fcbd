"""The vision tower of Qwen2.5-VL, block by block, as pure functions of weights and one page's patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from olmocr.conversion.calibrated.passes.kernels import WITH_MLX, Kernels
from olmocr.inference.vision import Layout, make_layout

VISION_INPUTS: tuple[tuple[str, ...], ...] = (
    ("attn.qkv",),
    ("attn.proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""The matrices of a vision block by their name in it; those in one tuple get the same input."""

_NORM_EPSILON = 1e-6
"""Not in the config: https://github.com/huggingface/transformers, modeling_qwen2_5_vl.py, has it as a constant."""


@dataclass(frozen=True)
class VisionShape:
    """What a block's weights do not show. *window* is in image tokens; the blocks *full* attend to the entire page."""

    heads: int
    head_dim: int
    merge: int
    window: int
    full: frozenset[int]

    def layout(self, rows: int, columns: int) -> Layout:
        """Return the layout of the patches of an image of *rows* x *columns* patches."""
        return make_layout(rows, columns, merge=self.merge, window=self.window, head_dim=self.head_dim)


def vision_shape(vision_config: Mapping[str, Any]) -> VisionShape:
    """Return the shape that the ``vision_config`` of a flat config of the family qwen2_5_vl describes."""
    heads, merge = vision_config["num_heads"], vision_config["spatial_merge_size"]
    return VisionShape(
        heads,
        vision_config["hidden_size"] // heads,
        merge,
        vision_config["window_size"] // vision_config["patch_size"] // merge,
        frozenset(vision_config["fullatt_block_indexes"]),
    )


def patches(weight: mx.array, pixels: mx.array, layout: Layout, shape: VisionShape) -> mx.array:
    """Return the hidden states (patches, width) that the first block gets, window by window.

    *weight* is the patch embedding (width, channels, frames, rows, columns) as the source has it; *pixels* are
    (patches, values of one) as the processor lists them.
    """
    hidden = pixels.astype(weight.dtype) @ weight.reshape(weight.shape[0], -1).T
    by_token = hidden.reshape(-1, shape.merge**2, hidden.shape[1])
    return by_token[mx.array(layout.order)].reshape(hidden.shape)


def vision_block(
    weights: Mapping[str, mx.array],
    hidden: mx.array,
    layout: Layout,
    shape: VisionShape,
    *,
    is_full: bool,
    kernels: Kernels = WITH_MLX,
) -> tuple[mx.array, tuple[mx.array, ...]]:
    """Return a block's output for *hidden* (patches, width), and its matrices' inputs in `VISION_INPUTS`' order.

    *weights* are the block's tensors by their name in it. A patch attends to its window, or, with *is_full*, to all.
    """
    normed = mx.fast.rms_norm(hidden, weights["norm1.weight"], _NORM_EPSILON)
    found = _attention(_linear(weights, "attn.qkv", normed), layout, shape, kernels, is_full=is_full)
    hidden = hidden + _linear(weights, "attn.proj", found)
    normed_again = mx.fast.rms_norm(hidden, weights["norm2.weight"], _NORM_EPSILON)
    inner = kernels.gated(*(_linear(weights, name, normed_again) for name in VISION_INPUTS[2]))
    return hidden + _linear(weights, "mlp.down_proj", inner), (normed, found, normed_again, inner)


def merged(weights: Mapping[str, mx.array], hidden: mx.array, layout: Layout, shape: VisionShape) -> mx.array:
    """Return the merger's output for the last hidden states: the image's features (image tokens, language width)."""
    normed = mx.fast.rms_norm(hidden, weights["ln_q.weight"], _NORM_EPSILON)
    inner = _gelu(_linear(weights, "mlp.0", normed.reshape(-1, shape.merge**2 * hidden.shape[1])))
    return _linear(weights, "mlp.2", inner)[mx.array(np.argsort(layout.order))]


def _attention(qkv: mx.array, layout: Layout, shape: VisionShape, kernels: Kernels, *, is_full: bool) -> mx.array:
    """Return the attention output of each patch, (patches, width); *qkv* is (patches, 3 x width)."""
    count = qkv.shape[0]
    parts = qkv.reshape(count, 3, shape.heads, shape.head_dim)
    cosines, sines = (mx.array(each)[:, None, None] for each in (layout.cosines, layout.sines))
    turned = _rotate(parts[:, :2], cosines, sines)
    mixed, start = [], 0
    for windows, size in [(1, count)] if is_full else layout.shapes:
        own = slice(start, start + windows * size)
        start = own.stop
        queries, keys, values = (
            each[own].reshape(windows, size, shape.heads, shape.head_dim).transpose(0, 2, 1, 3)
            for each in (turned[:, 0], turned[:, 1], parts[:, 2])
        )
        found = kernels.attend(queries, keys, values, False, kernels.scores)
        mixed.append(found.transpose(0, 2, 1, 3).reshape(windows * size, -1))
    return mx.concatenate(mixed)


def _rotate(heads: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
    """Turn *heads* (patches, 2, heads, head_dim) by their angles (patches, 1, 1, head_dim); in float32, rounded once.

    The halves of *cosines* and *sines* are alike.
    """
    first, second = mx.split(heads.astype(mx.float32), 2, axis=-1)
    half = first.shape[-1]
    cosines, sines = cosines[..., :half], sines[..., :half]
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return mx.concatenate(turned, axis=-1).astype(heads.dtype)


def _gelu(values: mx.array) -> mx.array:
    return values * (1 + mx.erf(values / 2**0.5)) / 2


def _linear(weights: Mapping[str, mx.array], name: str, values: mx.array) -> mx.array:
    return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
