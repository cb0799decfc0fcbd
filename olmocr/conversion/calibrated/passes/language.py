"""The language model of Qwen2.5-VL, block by block, as pure functions of weights and one page's tokens.

All are differentiable with ``mx.vjp``. Shapes are (tokens, width) throughout; the math is that of the
Qwen2 decoder with multimodal rotary positions (Qwen2.5-VL, arXiv 2502.13923).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from olmocr.conversion.calibrated.passes.kernels import WITH_MLX, Kernels

BLOCK_INPUTS: tuple[tuple[str, ...], ...] = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""The matrices of a block by their name in it; those in one tuple get the same input."""

POSITIONS_AT_ONCE = 256
"""Answer tokens whose probabilities over the vocabulary are in memory at once."""


@dataclass(frozen=True)
class LanguageShape:
    """What a block's weights do not show. *sections* are how many frequencies go by frame, row and column."""

    heads: int
    key_value_heads: int
    head_dim: int
    norm_epsilon: float
    rope_theta: float
    sections: tuple[int, ...]


def language_shape(config: Mapping[str, Any]) -> LanguageShape:
    """Return the shape that a *config* (flat) of the family qwen2_5_vl describes."""
    heads = config["num_attention_heads"]
    return LanguageShape(
        heads,
        config["num_key_value_heads"],
        config["hidden_size"] // heads,
        config.get("rms_norm_eps", 1e-6),
        config.get("rope_theta", 1e6),
        tuple(config["rope_scaling"]["mrope_section"]),
    )


@dataclass(frozen=True)
class Angles:
    """Cosines and sines of the rotary positions of one page's tokens, float32 (tokens, head_dim / 2)."""

    cosines: mx.array
    sines: mx.array


def rotary_angles(position_ids: npt.NDArray[np.int32], shape: LanguageShape) -> Angles:
    """Return the angles for *position_ids* (3, tokens): frame, row and column of each token.

    Computed in float64 and rounded once, because a page's last positions times the highest frequency are large.
    """
    half = shape.head_dim // 2
    frequencies = 1.0 / shape.rope_theta ** (np.arange(half) / half)
    axis = np.repeat(np.arange(len(shape.sections)), shape.sections)
    angles = position_ids[axis].T * frequencies
    return Angles(mx.array(np.cos(angles).astype(np.float32)), mx.array(np.sin(angles).astype(np.float32)))


def decoder_block(
    weights: Mapping[str, mx.array],
    hidden: mx.array,
    angles: Angles,
    shape: LanguageShape,
    nudges: Mapping[str, mx.array] | None = None,
    kernels: Kernels = WITH_MLX,
) -> tuple[mx.array, tuple[mx.array, ...]]:
    """Return a block's output for *hidden* (tokens, width), and the inputs of its matrices in `BLOCK_INPUTS`' order.

    *weights* are the block's tensors by their name in it. *nudges* (tokens, rows) are added to the outputs of the
    matrices they are named for: the gradient by one is the gradient by that output. Only *kernels* with MLX have
    gradients.
    """
    *inputs, out = decoder_steps(weights, hidden, angles, shape, nudges, kernels)
    return out, tuple(inputs)


def decoder_steps(
    weights: Mapping[str, mx.array],
    hidden: mx.array,
    angles: Angles,
    shape: LanguageShape,
    nudges: Mapping[str, mx.array] | None = None,
    kernels: Kernels = WITH_MLX,
) -> Iterator[mx.array]:
    """Yield the inputs of a block's matrices in `BLOCK_INPUTS`' order, then its output; see `decoder_block`.

    Each is computed when it is asked for, so what comes after the last one needed costs nothing.
    """
    nudges = nudges or {}
    normed = mx.fast.rms_norm(hidden, weights["input_layernorm.weight"], shape.norm_epsilon)
    yield normed
    queries, keys, values = (_linear(weights, name, normed, nudges) for name in BLOCK_INPUTS[0])
    mixed = kernels.attend(
        _rotate(_heads(queries, shape.heads), angles),
        _rotate(_heads(keys, shape.key_value_heads), angles),
        _heads(values, shape.key_value_heads),
        True,
        kernels.scores,
    )
    found = mixed[0].transpose(1, 0, 2).reshape(hidden.shape[0], -1)
    yield found
    hidden = hidden + _linear(weights, "self_attn.o_proj", found, nudges)
    normed_again = mx.fast.rms_norm(hidden, weights["post_attention_layernorm.weight"], shape.norm_epsilon)
    yield normed_again
    inner = kernels.gated(*(_linear(weights, name, normed_again, nudges) for name in BLOCK_INPUTS[2]))
    yield inner
    yield hidden + _linear(weights, "mlp.down_proj", inner, nudges)


def embedded(embeddings: mx.array, is_image: Sequence[bool] | npt.NDArray[np.bool_], features: mx.array) -> mx.array:
    """Return *embeddings* (tokens, width) with an image's *features* (image tokens, width) where *is_image* says."""
    places = np.flatnonzero(is_image)
    hidden = mx.array(embeddings)
    hidden[mx.array(places)] = features.astype(embeddings.dtype)
    return hidden


def head_input(norm: mx.array, hidden: mx.array, shape: LanguageShape) -> mx.array:
    """Return the input of the head: *hidden* (tokens, width), normalized by the model's last *norm* (width,)."""
    return mx.fast.rms_norm(hidden, norm, shape.norm_epsilon)


def logits(head: mx.array, normed: mx.array) -> mx.array:
    """Return the logits, float32 (tokens, vocabulary), of *head* (vocabulary, width) for `head_input`."""
    return (normed @ head.T).astype(mx.float32)


def _linear(weights: Mapping[str, mx.array], name: str, values: mx.array, nudges: Mapping[str, mx.array]) -> mx.array:
    out = values @ weights[f"{name}.weight"].T
    bias, nudge = weights.get(f"{name}.bias"), nudges.get(name)
    if bias is not None:
        out = out + bias
    return out if nudge is None else out + nudge


def _heads(values: mx.array, count: int) -> mx.array:
    """Return *values* (tokens, width) as (1, heads, tokens, width of a head)."""
    return values.reshape(1, values.shape[0], count, -1).transpose(0, 2, 1, 3)


def _rotate(heads: mx.array, angles: Angles) -> mx.array:
    """Turn each pair of a head's halves by its angle; in float32, rounded once."""
    first, second = mx.split(heads.astype(mx.float32), 2, axis=-1)
    turned = [first * angles.cosines - second * angles.sines, second * angles.cosines + first * angles.sines]
    return mx.concatenate(turned, axis=-1).astype(heads.dtype)
