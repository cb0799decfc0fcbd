"""The parts of a transformer give what their formulas give."""

import mlx.nn as nn
import numpy as np
import pytest

from olmocr.inference.arithmetic import Linear, attend, rms_norm, silu
from olmocr.inference.blas import NumpyBlas


def numbers(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_the_mean_square_of_a_normed_token_is_that_of_its_weights():
    values, weight = 50 * numbers(3, 16), numbers(16)
    expected = values / np.sqrt((values.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + 1e-6) * weight
    np.testing.assert_allclose(rms_norm(values, weight, np.float32(1e-6)), expected, rtol=1e-5)


def test_silu_closes_for_large_negative_numbers_without_a_warning(recwarn):
    found = silu(np.array([[-1e4, -1.0, 0.0, 1.0, 1e4]], np.float32))
    np.testing.assert_allclose(found, [[0.0, -0.26894143, 0.0, 0.7310586, 1e4]], rtol=1e-6, atol=1e-7)
    assert not recwarn.list


@pytest.mark.parametrize("bias", [False, True])
def test_a_matrix_gives_what_mlx_gives(bias):
    layer, values = nn.Linear(16, 5, bias=bias), numbers(3, 16)
    import mlx.core as mx

    np.testing.assert_allclose(
        Linear(layer, NumpyBlas())(values), np.array(layer(mx.array(values))), rtol=1e-4, atol=1e-6
    )


def test_a_query_sees_no_key_that_its_mask_excludes():
    queries, keys, values = numbers(2, 3, 4), numbers(2, 4, 6), numbers(2, 6, 4)
    mask = np.triu(np.full((3, 3), -np.inf, np.float32), 1)
    found = attend(np.matmul, queries, keys, values, mask)
    for row in range(3):
        seen = slice(3 + row + 1)
        alone = attend(np.matmul, queries[:, row : row + 1], keys[..., seen], values[:, seen])
        np.testing.assert_allclose(found[:, row : row + 1], alone, rtol=1e-5, atol=1e-6)
