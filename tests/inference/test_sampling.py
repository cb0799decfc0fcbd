"""Tokens are drawn as their logits say."""

import mlx.core as mx
import numpy as np

from olmocr.inference.sampling import NOT_FINITE, Draw, choose

"""Keys and values of one token of the random model: 1 layer, 1 head of 32 numbers, float32."""


def test_a_token_is_drawn_as_often_as_softmax_says():
    logits = mx.broadcast_to(mx.array([[1.0, 0.0, 2.0, -1.0]]), (20000, 4))
    drawn = np.array(choose(logits, [Draw(2.0, seed, index) for seed in range(200) for index in range(100)]))
    expected = np.exp(np.array([1.0, 0.0, 2.0, -1.0]) / 2)
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), expected / expected.sum(), atol=0.012)


def test_a_broken_row_of_logits_is_told_from_the_others_and_what_is_not_allowed_is_not_chosen():
    logits = mx.array([[0.0, 3.0, 1.0], [float("nan"), 1.0, 2.0], [0.0, 3.0, 1.0]])
    allowed = mx.array([[True] * 3, [True] * 3, [True, False, True]])
    draws = [Draw(0.0, 0, 0)] * 3
    assert choose(logits, draws, allowed).tolist() == [1, NOT_FINITE, 2]
