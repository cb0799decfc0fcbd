"""Attention some rows at a time: the same as all at once."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.attention import attend


def drawn(*shape):
    return mx.array(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("is_causal", [True, False])
def test_attention_in_pieces_is_that_of_all_tokens_at_once(is_causal):
    queries, keys, values = drawn(1, 6, 150, 8), drawn(1, 2, 150, 8), drawn(1, 2, 150, 8)
    found = np.array(attend(queries, keys, values, is_causal=is_causal, scores=1))  # 64 rows at once, of 150
    scores = np.array(queries) @ np.array(keys).repeat(3, 1).swapaxes(2, 3) / 8**0.5
    if is_causal:
        scores[..., np.triu(np.ones((150, 150), bool), 1)] = -np.inf
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, shares @ np.array(values).repeat(3, 1), rtol=1e-4, atol=1e-5)
