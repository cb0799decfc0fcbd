"""Rows of any lengths -> hidden states and logits, in one pass over the weights.

The rows' new tokens lie one behind the other, so that nothing is padded: everything but attention takes them as
one sequence, and the cache knows which belong together.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_vlm.models.qwen2_5_vl.language import apply_multimodal_rotary_pos_emb

from olmocr.inference.cache import Cache


def embed(model: Any, ids: mx.array) -> mx.array:
    """Return the embeddings (1, tokens, width) of *ids* (tokens,)."""
    embeddings: mx.array = model.language_model.model.embed_tokens(ids)[None]
    return embeddings


def forward(model: Any, embeddings: mx.array, position_ids: mx.array, cache: Cache) -> mx.array:
    """Append tokens to *cache* and return their hidden states (1, tokens, width).

    *embeddings* is (1, tokens, width), *position_ids* (3, 1, tokens): of all rows, one behind the other.
    """
    layers = model.language_model.model.layers
    rotary = layers[0].self_attn.rotary_emb
    # Where positions are applied by a kernel of its own, it makes the angles itself.
    angles = None if rotary.fused_apply else rotary(embeddings, position_ids)
    hidden = embeddings
    for number, layer in enumerate(layers):
        normed = layer.input_layernorm(hidden)
        hidden = hidden + _attention(layer.self_attn, normed, position_ids, angles, cache, number)
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
    cache: Cache,
    number: int,
) -> mx.array:
    queries = _heads(attention.q_proj(normed), attention.n_heads)
    keys = _heads(attention.k_proj(normed), attention.n_kv_heads)
    values = _heads(attention.v_proj(normed), attention.n_kv_heads)
    if angles is None:
        queries, keys = attention.rotary_emb.apply_rotary(queries, keys, position_ids, unsqueeze_dim=1)
    else:
        queries, keys = apply_multimodal_rotary_pos_emb(queries, keys, *angles)
    found = cache.attend(number, queries, keys, values, attention.scale)
    out: mx.array = attention.o_proj(found.transpose(0, 2, 1, 3).reshape(1, normed.shape[1], -1))
    return out


def _heads(values: mx.array, count: int) -> mx.array:
    """Return *values* (1, tokens, width) as (1, heads, tokens, width of a head)."""
    return values.reshape(1, values.shape[1], count, -1).transpose(0, 2, 1, 3)
