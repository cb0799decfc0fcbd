"""Queries, keys and values -> what attention takes, some rows at a time so that no page is too long."""

from __future__ import annotations

import mlx.core as mx

# Attention scores of all heads that one call may make, in elements: on a CPU 64 MB of float32; a GPU mostly has
# kernels that keep them small, and wants more to do at once.
_SCORES = 1 << 24
_SCORES_OF_GPU = 1 << 28
_LEAST_ROWS = 64


def attend(
    queries: mx.array, keys: mx.array, values: mx.array, *, is_causal: bool, scores: int | None = None
) -> mx.array:
    """Return softmax(queries keys^T / sqrt(head_dim)) values, (batch, heads, tokens, head_dim).

    *queries* are (batch, heads, tokens, head_dim); *keys* and *values* may have fewer heads, each for several of the
    queries'. With *is_causal* a token sees itself and those before it. A call
    makes *scores* at once, or a few more; without it, what suits the device.
    """
    batch, heads, tokens, width = queries.shape
    if scores is None:
        scores = _SCORES_OF_GPU if mx.default_device().type == mx.DeviceType.gpu else _SCORES
    step = max(_LEAST_ROWS, scores // (batch * heads * tokens))
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
