"""Rows of any lengths -> hidden states and logits, in one pass over the weights.

The rows' new tokens lie one behind the other, so that nothing is padded: everything but attention takes them as
one sequence, and attention goes row by row, each over its own cache. A row leaves by being left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_vlm.models.cache import KVCache
from mlx_vlm.models.qwen2_5_vl.language import apply_multimodal_rotary_pos_emb


class RowCache:
    """Keys and values of one row: of each layer, for each position that the model has been given."""

    def __init__(self, layers: Sequence[tuple[mx.array, mx.array]] | int) -> None:
        """Begin with nothing, for so many *layers*, or with the keys and values of a prompt's beginning.

        These are never written to: they fill their arrays, and a cache that grows makes new ones.
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
        """How many positions it holds."""
        offset: int = self.layers[0].offset
        return offset

    @property
    def capacity(self) -> int:
        """For how many positions there is memory."""
        keys = self.layers[0].keys
        return 0 if keys is None else int(keys.shape[2])

    def drop_last(self, count: int) -> None:
        """Forget the last *count* positions."""
        for layer in self.layers:
            layer.trim(count)

    def arrays(self) -> list[mx.array]:
        """Return all that a step writes to, for ``mx.eval``."""
        return [array for layer in self.layers for array in (layer.keys, layer.values)]

    def beginning(self, count: int) -> list[tuple[mx.array, mx.array]]:
        """Return a copy of the first *count* positions of each layer, evaluated."""
        copies = [
            (mx.contiguous(layer.keys[..., :count, :]), mx.contiguous(layer.values[..., :count, :]))
            for layer in self.layers
        ]
        mx.eval(copies)
        return copies


@dataclass(frozen=True)
class Piece:
    """So many new tokens of one row, which its cache has room for behind what it holds."""

    cache: RowCache
    count: int


def embed(model: Any, ids: mx.array) -> mx.array:
    """Return the embeddings (1, tokens, width) of *ids* (tokens,)."""
    embeddings: mx.array = model.language_model.model.embed_tokens(ids)[None]
    return embeddings


def forward(model: Any, embeddings: mx.array, position_ids: mx.array, pieces: Sequence[Piece]) -> mx.array:
    """Append the pieces' tokens to their caches and return their hidden states (1, tokens, width).

    *embeddings* is (1, tokens, width), *position_ids* (3, 1, tokens): of all pieces, one behind the other.
    """
    layers = model.language_model.model.layers
    rotary = layers[0].self_attn.rotary_emb
    # Where positions are applied by a kernel of its own, it makes the angles itself.
    angles = None if rotary.fused_apply else rotary(embeddings, position_ids)
    hidden = embeddings
    for number, layer in enumerate(layers):
        normed = layer.input_layernorm(hidden)
        hidden = hidden + _attention(layer.self_attn, normed, position_ids, angles, pieces, number)
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    normed_hidden: mx.array = model.language_model.model.norm(hidden)
    return normed_hidden


def logits(model: Any, hidden: mx.array) -> mx.array:
    """Return the logits (tokens, vocabulary) of hidden states (1, tokens, width)."""
    language = model.language_model
    head = language.model.embed_tokens.as_linear if language.args.tie_word_embeddings else language.lm_head
    values: mx.array = head(hidden)[0]
    return values


def _attention(
    attention: Any,
    normed: mx.array,
    position_ids: mx.array,
    angles: tuple[mx.array, mx.array] | None,
    pieces: Sequence[Piece],
    number: int,
) -> mx.array:
    queries = _heads(attention.q_proj(normed), attention.n_heads)
    keys = _heads(attention.k_proj(normed), attention.n_kv_heads)
    values = _heads(attention.v_proj(normed), attention.n_kv_heads)
    if angles is None:
        queries, keys = attention.rotary_emb.apply_rotary(queries, keys, position_ids, unsqueeze_dim=1)
    else:
        queries, keys = apply_multimodal_rotary_pos_emb(queries, keys, *angles)
    mixed, start = [], 0
    for piece in pieces:
        own = slice(start, start + piece.count)
        start += piece.count
        all_keys, all_values = piece.cache.layers[number].update_and_fetch(keys[:, :, own], values[:, :, own])
        mixed.append(
            mx.fast.scaled_dot_product_attention(
                queries[:, :, own],
                all_keys,
                all_values,
                scale=attention.scale,
                mask="causal" if piece.count > 1 else None,
            )
        )
    together = mixed[0] if len(mixed) == 1 else mx.concatenate(mixed, axis=2)
    out: mx.array = attention.o_proj(together.transpose(0, 2, 1, 3).reshape(1, start, -1))
    return out


def _heads(values: mx.array, count: int) -> mx.array:
    """Return *values* (1, tokens, width) as (1, heads, tokens, width of a head)."""
    return values.reshape(1, values.shape[1], count, -1).transpose(0, 2, 1, 3)
