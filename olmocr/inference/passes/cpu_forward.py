"""Rows of any lengths -> hidden states, in one pass over the weights: with numpy, in float32, for a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from olmocr.inference.arithmetic import Linear, rms_norm, silu
from olmocr.inference.blas import Blas, Floats, find_blas, let_be_nan
from olmocr.inference.passes.cache import AnswersCache, Layers
from olmocr.inference.passes.cpu_cache import CpuBatch, CpuRow
from olmocr.inference.passes.joined import Joined
from olmocr.runtime.device import Device

Angles = tuple[Floats, Floats]
"""Cosines and sines (tokens, 1, width of a head); the first half of the sines is negated."""


class CpuLanguage:
    """The language model of mlx-vlm's *model*, whose weights must be float32.

    *model* still works by itself, with views of the matrices that are joined here. *blas* computes the products; None:
    the fastest one.
    """

    is_eager = True
    """Whether what a pass returns is already computed."""

    def __init__(self, model: Any, blas: Blas | None = None) -> None:
        self._blas = blas or find_blas()
        language = model.language_model
        attention = language.model.layers[0].self_attn
        self._embeddings = np.asarray(language.model.embed_tokens.weight)
        is_tied = language.args.tie_word_embeddings
        self._head = Linear(language.model.embed_tokens if is_tied else language.lm_head, self._blas)
        self.blocks = [_CpuBlock(layer, self._blas) for layer in language.model.layers]
        self._norm = _Norm(language.model.norm)
        self._frequencies = np.asarray(attention.rotary_emb.inv_freq)
        self._axes = np.asarray(attention.rotary_emb.position_selector)

    def row_cache(self, layers: Layers | None = None) -> CpuRow:
        """Return a cache for one row, empty or with the *layers* of a prompt's beginning."""
        return CpuRow(layers if layers is not None else len(self.blocks), self._blas)

    def batch_cache(self, _: Device) -> AnswersCache:
        """Return an empty cache for several rows."""
        return CpuBatch()

    def embed(self, ids: mx.array) -> mx.array:
        """As :func:`~olmocr.inference.passes.forward.embed`."""
        return mx.array(self._embeddings[np.asarray(ids)][None])

    @let_be_nan
    def hidden(self, embeddings: mx.array, positions: mx.array, cache: CpuRow | CpuBatch) -> mx.array:
        """As :func:`~olmocr.inference.passes.forward.forward`; the hidden states are computed at once."""
        hidden, angles = np.array(embeddings)[0], self._angles(positions)
        for number, block in enumerate(self.blocks):
            block(hidden, angles, cache, number)
        return mx.array(self._norm(hidden)[None])

    @let_be_nan
    def read(self, embeddings: mx.array, positions: mx.array, cache: CpuRow) -> list[mx.array]:
        """As :func:`~olmocr.inference.passes.forward.read`; nothing is left to evaluate."""
        hidden, angles = np.array(embeddings)[0], self._angles(positions)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks[:last]):
            block(hidden, angles, cache, number)
        self.blocks[last].read(hidden, angles, cache, last)
        return []

    @let_be_nan
    def logits(self, hidden: mx.array) -> mx.array:
        """As :func:`~olmocr.inference.passes.forward.logits`."""
        return mx.array(self._head(np.asarray(hidden)[0]))

    def _angles(self, positions: mx.array) -> Angles:
        """Return the angles of *positions*, (tokens,) of text, or (3, 1, tokens), of which each frequency has its own.

        For text the three are the same (https://arxiv.org/abs/2409.12191, section 2.1).
        """
        places: npt.NDArray[np.int32] = np.asarray(positions)
        places = places[:, None] if places.ndim == 1 else places[self._axes, 0].T
        angles = places.astype(np.float32) * self._frequencies
        cosines, sines = np.cos(angles), np.sin(angles)
        return np.concatenate([cosines, cosines], axis=1)[:, None], np.concatenate([-sines, sines], axis=1)[:, None]


class _CpuBlock:
    """One transformer block: attention and a gated MLP, each after a norm and added to its input."""

    def __init__(self, layer: Any, blas: Blas) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before_attention, self._before_mlp = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._in = _joined([attention.q_proj, attention.k_proj, attention.v_proj], blas)
        self._out, self._scale = Linear(attention.o_proj, blas), attention.scale
        self._queries, self._keys = attention.n_heads, attention.n_kv_heads
        self._gate_up, self._down = _joined([mlp.gate_proj, mlp.up_proj], blas), Linear(mlp.down_proj, blas)

    def __call__(self, hidden: Floats, angles: Angles, cache: CpuRow | CpuBatch, number: int) -> None:
        """Change *hidden* (tokens, width) in place; this block is the *number*-th of the model."""
        queries, keys, values = self._heads(hidden, angles)
        found = cache.attend(number, queries, keys, values, self._scale)
        hidden += self._out(found.reshape(len(hidden), -1))
        both = self._gate_up(self._before_mlp(hidden))
        middle = both.shape[1] // 2
        gate = silu(both[:, :middle])
        gate *= both[:, middle:]
        hidden += self._down(gate)

    def read(self, hidden: Floats, angles: Angles, cache: CpuRow, number: int) -> None:
        """Append the keys and values of *hidden* to *cache*, and compute nothing else."""
        _, keys, values = self._heads(hidden, angles)
        cache.append(number, keys, values)

    def _heads(self, hidden: Floats, angles: Angles) -> tuple[Floats, Floats, Floats]:
        """Return queries, keys and values (tokens, heads, width), the first two rotated."""
        heads = self._in(self._before_attention(hidden)).reshape(len(hidden), self._queries + 2 * self._keys, -1)
        both = self._queries + self._keys
        turned = _rotated(heads[:, :both], angles)
        return turned[:, : self._queries], turned[:, self._queries :], heads[:, both:]


class _Norm:
    def __init__(self, norm: Any) -> None:
        self._weight, self._epsilon = np.asarray(norm.weight), np.float32(norm.eps)

    def __call__(self, values: Floats) -> Floats:
        return rms_norm(values, self._weight, self._epsilon)


def _joined(modules: Sequence[Any], blas: Blas) -> Linear:
    (matrix,) = Joined(modules).matrices  # all are float32, and have biases or none
    return Linear(matrix, blas)


def _rotated(heads: Floats, angles: Angles) -> Floats:
    cosines, sines = angles
    half = heads.shape[2] // 2
    turned = np.concatenate([heads[..., half:], heads[..., :half]], axis=2)
    turned *= sines
    turned += heads * cosines
    return turned
