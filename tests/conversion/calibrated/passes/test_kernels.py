"""Attention and gates, with MLX and with numpy: what the formulas say, in however many pieces."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.kernels import WITH_MLX, WITH_MLX_ON_GPU, WITH_NUMPY, fastest_kernels
from tests.conftest import DEVICE

EVERY = pytest.mark.parametrize("kernels", [WITH_MLX, WITH_NUMPY], ids=["mlx", "numpy"])


def drawn(seed, *shape, spread=1.0):
    return mx.array(np.random.default_rng(seed).normal(scale=spread, size=shape).astype(np.float32))


@EVERY
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("scores", [1, 1 << 20])  # 64 rows at once, or all 150
def test_attention_is_what_its_formula_says_in_however_many_pieces(kernels, is_causal, scores):
    queries, keys, values = drawn(1, 2, 6, 150, 8), drawn(2, 2, 3, 150, 8), drawn(3, 2, 3, 150, 8)
    found = np.array(kernels.attend(queries, keys, values, is_causal, scores))
    made = np.array(queries) @ np.array(keys).repeat(2, 1).swapaxes(2, 3) / 8**0.5
    if is_causal:
        made[..., np.triu(np.ones((150, 150), bool), 1)] = -np.inf
    shares = np.exp(made) / np.exp(made).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, shares @ np.array(values).repeat(2, 1), rtol=1e-4, atol=1e-5)


@EVERY
def test_a_gate_may_be_shut_or_open_as_far_as_numbers_go(kernels):
    gate = mx.array([-1e30, -200.0, -1.0, 0.0, 1.0, 200.0])
    found = np.array(kernels.gated(gate, 2 * mx.ones(6)))
    np.testing.assert_allclose(found, [0, 0, -0.53788, 0, 1.46212, 400], rtol=1e-4, atol=1e-30)


def test_a_cpu_uses_numpy_and_a_gpu_mlx():
    assert fastest_kernels() is (WITH_NUMPY if DEVICE.kind == "cpu" else WITH_MLX_ON_GPU)
