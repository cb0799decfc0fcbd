"""What a matrix makes up for: a share of the damped least squares answer to its changed inputs."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.drift import DAMPING, STRENGTH, ChangedInputs, InputDrift, OutputDrift
from olmocr.conversion.calibrated.passes.statistics import InputSum, column_slices

ROWS, COLUMNS = 24, 384


def pages(seed=0, count=3, tokens=500):
    """Return pages whose inputs changed, some tokens of no weight, and what the sum of all blocks lost."""
    drawn = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        theirs = drawn.normal(size=(tokens, COLUMNS)).astype(np.float32)
        own = theirs + 0.3 * drawn.normal(size=theirs.shape).astype(np.float32)
        weights = drawn.choice([0, 0.1, 1], tokens).astype(np.float32)
        found.append((theirs, own, weights, drawn.normal(size=(tokens, ROWS)).astype(np.float32)))
    return found


def summed(drift, seen, slices=1, *, with_lost):
    """Return the move that *drift* finds in pages."""
    total = InputSum(slices)
    for theirs, own, weights, lost in seen:
        total.add(mx.array(own), weights, is_held_out=False)
        drift.add(ChangedInputs(mx.array(theirs), mx.array(own), weights, mx.array(lost) if with_lost else None))
    return drift.moves(total.finish().hessians)


def expected(weight, seen, own=slice(None), *, with_lost):
    """Return the move by the formula, in float64."""
    theirs, inputs, weights, lost = (np.concatenate(each).astype(np.float64) for each in zip(*seen, strict=True))
    away = (theirs - inputs) @ weight.T.astype(np.float64) + (lost if with_lost else 0)
    inputs = inputs[:, own]
    hessian = (inputs * weights[:, None]).T @ inputs
    damped = hessian + DAMPING * np.diagonal(hessian).mean() * np.eye(len(hessian))
    return STRENGTH * (away * weights[:, None]).T @ inputs @ np.linalg.inv(damped)


@pytest.fixture
def weight():
    return np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).astype(np.float32)


def test_matrices_of_one_input_make_up_for_what_changed_in_it(weight):
    move = summed(InputDrift(), pages(), with_lost=False)
    np.testing.assert_allclose(move(weight, 0), expected(weight, pages(), with_lost=False), atol=2e-5)


@pytest.mark.parametrize("with_lost", [False, True])
def test_a_matrix_that_adds_to_the_sum_makes_up_for_what_that_lost_too(weight, with_lost):
    move = summed(OutputDrift(mx.array(weight)), pages(), with_lost=with_lost)
    np.testing.assert_allclose(move(weight, 0), expected(weight, pages(), with_lost=with_lost), atol=2e-5)
    np.testing.assert_array_equal(move(weight[5:9], 5), move(weight, 0)[5:9])


def test_each_slice_of_the_columns_makes_up_for_its_part(weight):
    move = summed(OutputDrift(mx.array(weight)), pages(), slices=2, with_lost=True)
    for own in column_slices(COLUMNS, 2):
        np.testing.assert_allclose(move(weight, 0)[:, own], expected(weight, pages(), own, with_lost=True), atol=2e-5)


def test_a_matrix_whose_input_did_not_change_stays_as_it_is(weight):
    same = [(theirs, theirs, weights, 0 * lost) for theirs, _, weights, lost in pages()]
    assert not summed(InputDrift(), same, with_lost=False)(weight, 0).any()
    assert not summed(OutputDrift(mx.array(weight)), same, with_lost=True)(weight, 0).any()


def test_without_a_page_to_learn_from_nothing_changes(weight):
    hessians = [np.eye(COLUMNS)]
    assert not InputDrift().moves(hessians)(weight, 0).any()
    assert not OutputDrift(mx.array(weight)).moves(hessians)(weight, 0).any()
