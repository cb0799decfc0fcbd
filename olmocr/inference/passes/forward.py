"""Rows of any lengths -> hidden states and logits, in one pass over the weights.

The rows' new tokens follow one another, so that nothing is padded. Everything except attention treats them as one
sequence, and the cache knows which tokens belong together.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_vlm.models.activations import swiglu

from olmocr.inference.passes.cache import AnswersCache, Cache, Layers, RowCache, cache_for
from olmocr.inference.passes.cpu_forward import CpuLanguage
from olmocr.inference.passes.joined import Joined
from olmocr.inference.passes.rotary import Rotary, Rotate
from olmocr.runtime.device import Device


class Language:
    """The language model of mlx-vlm's *model*, prepared for passes: matrices with the same input are joined.

    *model* still works by itself, with views of them. On a GPU (*has_kernels*), MLX's own kernel rotates text.
    """

    is_eager = False
    """Whether what a pass returns is already computed."""

    def __init__(self, model: Any, has_kernels: bool) -> None:
        language = model.language_model
        attention = language.model.layers[0].self_attn
        self._embed_tokens, self._norm = language.model.embed_tokens, language.model.norm
        self._head = self._embed_tokens.as_linear if language.args.tie_word_embeddings else language.lm_head
        self.rotary = Rotary(attention.rotary_emb, attention.n_heads, attention.n_kv_heads, has_kernels)
        self.blocks = [_LanguageBlock(layer) for layer in language.model.layers]

    def row_cache(self, layers: Layers | None = None) -> RowCache:
        """Return a cache for one row, empty or with the *layers* of a prompt's beginning."""
        return RowCache(layers if layers is not None else len(self.blocks))

    def batch_cache(self, device: Device) -> AnswersCache:
        """Return an empty cache for several rows that suits *device*."""
        return cache_for(device, len(self.blocks))

    def embed(self, ids: mx.array) -> mx.array:
        """As :func:`embed`."""
        embeddings: mx.array = self._embed_tokens(ids)[None]
        return embeddings

    def hidden(self, embeddings: mx.array, positions: mx.array, cache: Cache) -> mx.array:
        """As :func:`forward`."""
        rotate = self.rotary.at(positions, embeddings.dtype)
        hidden = embeddings
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, rotate, cache, number)
        normed: mx.array = self._norm(hidden)
        return normed

    def read(self, embeddings: mx.array, positions: mx.array, cache: RowCache) -> list[mx.array]:
        """As :func:`read`."""
        self.hidden(embeddings, positions, cache)
        return cache.arrays()

    def logits(self, hidden: mx.array) -> mx.array:
        """As :func:`logits`."""
        values: mx.array = self._head(hidden).squeeze(0)
        return values


def embed(language: Language | CpuLanguage, ids: mx.array) -> mx.array:
    """Return the embeddings (1, tokens, width) of *ids* (tokens,)."""
    return language.embed(ids)


def forward(language: Language | CpuLanguage, embeddings: mx.array, positions: mx.array, cache: Any) -> mx.array:
    """Append tokens to *cache* and return their hidden states (1, tokens, width).

    *embeddings* (1, tokens, width) has the tokens of all rows, one row after the other. So does *positions*, int32:
    (tokens,) for text, or (3, 1, tokens) for a prompt with an image. *cache* must be one that *language* has made.
    """
    return language.hidden(embeddings, positions, cache)


def read(language: Language | CpuLanguage, embeddings: mx.array, positions: mx.array, cache: Any) -> list[mx.array]:
    """Append tokens of one row to *cache*, and return its arrays, which the caller must evaluate.

    What is only needed for the tokens' hidden states is not computed.
    """
    return language.read(embeddings, positions, cache)


def logits(language: Language | CpuLanguage, hidden: mx.array) -> mx.array:
    """Return the logits (tokens, vocabulary) of hidden states (1, tokens, width)."""
    return language.logits(hidden)


class _LanguageBlock:
    """One transformer block: attention and a gated MLP, each after a norm and added to its input."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before_attention, self._before_mlp = layer.input_layernorm, layer.post_attention_layernorm
        self._in = Joined([attention.q_proj, attention.k_proj, attention.v_proj])
        self._out, self._scale = attention.o_proj, attention.scale
        self._heads = attention.n_heads + 2 * attention.n_kv_heads
        self._values = attention.n_heads + attention.n_kv_heads  # the index of their first head
        self._gate_up, self._down = Joined([mlp.gate_proj, mlp.up_proj]), mlp.down_proj

    def __call__(self, hidden: mx.array, rotate: Rotate, cache: Cache, number: int) -> mx.array:
        """Return the output of this block, the *number*-th of the model, for *hidden* (1, tokens, width)."""
        hidden = hidden + self._attention(self._before_attention(hidden), rotate, cache, number)
        gate, up = mx.split(self._gate_up(self._before_mlp(hidden)), 2, axis=-1)
        out: mx.array = hidden + self._down(swiglu(gate, up))
        return out

    def _attention(self, normed: mx.array, rotate: Rotate, cache: Cache, number: int) -> mx.array:
        heads = self._in(normed).reshape(normed.shape[1], self._heads, -1)
        queries, keys = rotate(heads)
        found = cache.attend(number, queries, keys, heads[:, self._values :], self._scale)
        out: mx.array = self._out(found.reshape(1, len(found), -1))
        return out
