"""What of the rounding in MLX operations the tests of rounding do not show."""

import shutil

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.rounding import arrays
from olmocr.conversion.calibrated.rounding.factor import prepare
from olmocr.conversion.recipe import QuantParams
from tests.conversion.calibrated.matrices import correlated_hessian, random_weight


def test_two_halves_of_a_number_are_the_number_and_the_first_is_one_of_tf32():
    x = mx.array(np.random.default_rng(0).normal(size=1000).astype(np.float32))
    with mx.stream(mx.cpu):
        leading, rest = arrays._halves(x)
        assert mx.all(leading + rest == x)
        assert not mx.any(mx.bitwise_and(leading.view(mx.uint32), mx.array(0x1FFF, mx.uint32)))


@pytest.mark.slow  # one kernel after the other is compiled
@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for a CPU with g++")
def test_compiled_steps_find_what_plain_ones_do():
    weight, factor = random_weight(8, 64), prepare(correlated_hessian(64))
    with mx.stream(mx.cpu):
        plain, compiled = (
            arrays.round_rows(weight, factor, QuantParams(4, 32), "BF16", is_compiled=each) for each in (False, True)
        )
        losses = [
            float(
                arrays.losses(
                    weight - (codes.reshape(8, 2, 32) * scales[:, :, None] + biases[:, :, None]).reshape(8, 64),
                    factor.hessian,
                ).sum()
            )
            for codes, scales, biases in (plain, compiled)
        ]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
