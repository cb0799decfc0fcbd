import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.conversion.calibrated.rounding.factor import prepare
from olmocr.errors import CheckpointError
from tests.conversion.calibrated.matrices import correlated_hessian


def product_of(factor):
    upper = factor.feedback.astype(np.float64) + np.eye(len(factor.pivots))
    return upper * factor.pivots @ upper.T


@settings(deadline=None, max_examples=15)
@given(columns=st.integers(1, 600), seed=st.integers(0, 99), dtype=st.sampled_from([np.float32, np.float64]))
def test_the_factors_multiply_to_the_damped_hessian(columns, seed, dtype):
    hessian = correlated_hessian(columns, seed).astype(dtype)
    factor = prepare(hessian)
    damped = hessian + factor.added * np.eye(columns)
    assert factor.added == pytest.approx(0.01 * np.diagonal(hessian).mean(), rel=1e-5)
    assert np.abs(product_of(factor) - damped).max() < 1e-6 * np.abs(damped).max()
    assert (np.tril(factor.feedback) == 0).all()
    assert factor.hessian.dtype == factor.feedback.dtype == factor.pivots.dtype == np.float32


def test_a_hessian_that_is_not_positive_definite_gets_more_damping_and_the_factor_says_how_much():
    hessian = correlated_hessian(96)
    hessian[0, 0] = -0.05 * np.diagonal(hessian).mean()
    factor = prepare(hessian)
    assert factor.damping == pytest.approx(0.1)
    assert factor.added == pytest.approx(0.1 * np.diagonal(hessian).mean(dtype=np.float64), rel=1e-5)


def test_columns_without_inputs_hand_nothing_on():
    hessian = correlated_hessian(64)
    hessian[:, 10:20] = hessian[10:20] = 0
    factor = prepare(hessian)
    assert (factor.feedback[:, 10:20] == 0).all()
    assert (factor.feedback[10:20] == 0).all()


def test_inputs_that_are_all_zero_weigh_every_column_alike():
    factor = prepare(np.zeros((64, 64), np.float32))
    assert (factor.pivots == 1).all()
    assert (factor.feedback == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_no_numbers_are_refused(value):
    hessian = correlated_hessian(64)
    hessian[3, 5] = hessian[5, 3] = value
    with pytest.raises(CheckpointError, match="infinite or NaN"):
        prepare(hessian)


@pytest.mark.parametrize("columns", [1, 64, 256, 300, 700])
def test_the_factor_solves_for_its_damped_hessian(columns):
    drawn = np.random.default_rng(columns)
    inputs = drawn.normal(size=(2 * columns, columns))
    hessian = inputs.T @ inputs
    factor = prepare(hessian, 0.1)
    right = drawn.normal(size=(5, columns)).astype(np.float32)
    damped = hessian + factor.added * np.eye(columns)
    np.testing.assert_allclose(factor.solved(right) @ damped, right, atol=2e-5)
