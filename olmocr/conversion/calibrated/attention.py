"""Queries, keys and values -> what attention takes, some rows at a time so that no page is too long."""

from __future__ import annotations

import mlx.core as mx

# Attention scores of all heads that one call may make, in elements: 256 MB of float32 where MLX has no kernel that
# keeps them small.
_SCORES = 1 << 26
_LEAST_ROWS = 64


def attend(queries: mx.array, keys: mx.array, values: mx.array, *, is_causal: bool) -> mx.array:
    """Return softmax(queries keys^T / sqrt(head_dim)) values, (batch, heads, tokens, head_dim).

    *queries* are (batch, heads, tokens, head_dim); *keys* and *values* may have fewer heads, each for several of the
    queries'. With *is_causal* a token sees itself and those before it.
    """
    batch, heads, tokens, width = queries.shape
    step = max(_LEAST_ROWS, _SCORES // (batch * heads * tokens))
    mixed = []
    for first in range(0, tokens, step):
        seen = min(first + step, tokens) if is_causal else tokens
        mixed.append(
            mx.fast.scaled_dot_product_attention(
                queries[:, :, first : first + step],
                keys[:, :, :seen],
                values[:, :, :seen],
                scale=width**-0.5,
                # The last query stands at the last key: rows further up see as many fewer.
                mask="causal" if is_causal else None,
            )
        )
    return mixed[0] if len(mixed) == 1 else mx.concatenate(mixed, axis=2)
