"""Calibrated rounding of one matrix: never worse than `fit`, and near to a plain implementation in float64."""

import itertools

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.conversion.calibrated.rounding import arrays, compiled
from olmocr.conversion.calibrated.rounding.matrix import pack_codes, prepare, round_matrix
from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.conversion.recipe import QuantParams
from olmocr.errors import CheckpointError, PlanError
from olmocr.tensors.floats import narrowed
from tests.conversion.calibrated.matrices import correlated_hessian, random_weight, read_back, true_loss
from tests.conversion.calibrated.oracle import rounded_row
from tests.conversion.edge_states import KINDS, any_params, rows_of

PROCESSORS = ("numba", "cpu")
any_dtype = st.sampled_from(["BF16", "F16", "F32"])


@pytest.mark.parametrize("processor", PROCESSORS)
@settings(deadline=None, max_examples=12)
@given(params=any_params, dtype=any_dtype, seed=st.integers(0, 99), rows=st.integers(1, 70))
def test_the_loss_is_true_and_never_above_that_of_fit(processor, params, dtype, seed, rows):
    hessian = correlated_hessian(2 * params.group_size, seed)
    weight = random_weight(rows, 2 * params.group_size, seed)
    rounded = round_matrix(weight, [prepare(hessian)], params, dtype, processor)
    assert rounded.loss == pytest.approx(true_loss(weight - read_back(rounded, params), hessian), rel=1e-3)
    assert rounded.loss < rounded.fit_loss
    for stored in (rounded.scales, rounded.biases):
        assert (narrowed(stored, dtype).astype(np.float32) == stored).all()
    assert rounded.scales.all()


@settings(deadline=None, max_examples=8)
@given(params=any_params, dtype=any_dtype, seed=st.integers(0, 99))
def test_both_implementations_lose_the_same_within_a_hundredth(params, dtype, seed):
    factor = prepare(correlated_hessian(2 * params.group_size, seed))
    weight = random_weight(512, 2 * params.group_size, seed)
    numba, arrays = (round_matrix(weight, [factor], params, dtype, each) for each in PROCESSORS)
    assert arrays.loss == pytest.approx(numba.loss, rel=0.01)
    assert arrays.fit_loss == pytest.approx(numba.fit_loss, rel=1e-4)


@pytest.mark.parametrize("processor", PROCESSORS)
@settings(deadline=None, max_examples=15)
@given(params=any_params, seed=st.integers(0, 99), kind=st.sampled_from(sorted(KINDS)))
def test_groups_of_every_kind_are_no_worse_than_fit(processor, params, seed, kind):
    weight = rows_of(kind, params, seed)
    hessian = correlated_hessian(weight.shape[1], seed)
    rounded = round_matrix(weight, [prepare(hessian)], params, "BF16", processor)
    assert not rounded.loss > rounded.fit_loss
    assert np.isfinite(rounded.scales).all()
    assert np.isfinite(rounded.biases).all()
    assert rounded.scales.all()


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("bits", [4, 8])  # with 3, `fit` keeps a level at zero
def test_inputs_that_are_independent_and_alike_leave_what_fit_finds(processor, bits):
    weight, params = random_weight(64, 256), QuantParams(bits)
    rounded = round_matrix(weight, [prepare(np.eye(256, dtype=np.float32))], params, "BF16", processor)
    assert rounded.fit_loss * 0.97 < rounded.loss <= rounded.fit_loss


@pytest.mark.parametrize("processor", PROCESSORS)
def test_slices_of_columns_are_rounded_as_if_nothing_joined_them(processor):
    weight, params = random_weight(40, 256), QuantParams(4)
    hessians = [correlated_hessian(128, seed) for seed in (1, 2)]
    joined = round_matrix(weight, [prepare(each) for each in hessians], params, "BF16", processor)
    apart = [
        round_matrix(part, [prepare(each)], params, "BF16", processor)
        for part, each in zip(np.split(weight, 2, axis=1), hessians, strict=True)
    ]
    assert joined.loss == pytest.approx(sum(each.loss for each in apart), rel=1e-5)
    assert (joined.codes == np.concatenate([each.codes for each in apart], axis=1)).all()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_part_of_the_rows_gives_that_part_of_the_codes(processor):
    weight, factor = random_weight(300, 128), prepare(correlated_hessian(128))
    whole = round_matrix(weight, [factor], QuantParams(4), "BF16", processor)
    part = round_matrix(weight[128:256], [factor], QuantParams(4), "BF16", processor)
    assert true_loss(read_back(part, QuantParams(4)) - weight[128:256], factor.hessian) == pytest.approx(
        true_loss((read_back(whole, QuantParams(4)) - weight)[128:256], factor.hessian), rel=0.01
    )


def test_several_threads_find_what_one_finds():
    weight, factor = random_weight(600, 128), prepare(correlated_hessian(128))
    one, three = (round_matrix(weight, [factor], QuantParams(4), "BF16", "numba", threads=each) for each in (1, 3))
    assert (one.codes == three.codes).all()
    assert one.loss == pytest.approx(three.loss, rel=1e-6)  # a BLAS may add up more rows in another order


@pytest.mark.parametrize("processor", PROCESSORS)
def test_padding_is_what_the_plain_path_makes_of_it(processor):
    weight, hessian, params = random_weight(8, 128), correlated_hessian(128), QuantParams(4)
    weight[-2:] = 0
    weight[:, 64:] = 0
    hessian[:, 64:] = hessian[64:] = 0
    rounded = round_matrix(weight, [prepare(hessian)], params, "BF16", processor)
    plain = quantized_rows(weight, params, "fit", "BF16", "numba")
    scales, biases = ((part.view(np.uint16).astype(np.uint32) << 16).view(np.float32) for part in plain.parts[1:])
    empty = np.zeros((8, 2), bool)
    empty[-2:] = empty[:, 1:] = True
    assert (rounded.scales[empty] == scales.reshape(8, 2)[empty]).all()
    assert (rounded.biases[empty] == biases.reshape(8, 2)[empty]).all()
    assert (rounded.codes.reshape(8, 2, 64)[empty] == 0).all()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_held_out_inputs_decide_row_by_row_whether_fit_is_kept(processor):
    weight, params = random_weight(40, 128), QuantParams(4)
    seen, held_out = correlated_hessian(128, 1, tokens=3), correlated_hessian(128, 2)
    factor = prepare(seen, damping=1e-4)
    rounded = round_matrix(weight, [factor], params, "BF16", processor, held_out=[held_out])
    fit = round_matrix(weight, [prepare(held_out)], params, "BF16", processor)
    assert 0 < rounded.rows_of_fit <= 40
    assert true_loss(weight - read_back(rounded, params), held_out) <= fit.fit_loss * 1.0001


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    weight = random_weight(4, 64)
    weight[2, 3] = value
    with pytest.raises(CheckpointError, match="infinite values or NaN"):
        round_matrix(weight, [prepare(correlated_hessian(64))], QuantParams(4), "BF16", "numba")


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_scale_that_float16_cannot_hold_is_refused(processor):
    weight = random_weight(4, 64) * np.float32(1e10)
    with pytest.raises(PlanError, match="F16 cannot hold"):
        round_matrix(weight, [prepare(correlated_hessian(64))], QuantParams(4), "F16", processor)


def test_factors_that_do_not_cover_the_columns_are_a_mistake():
    with pytest.raises(ValueError, match="do not cover 128"):
        round_matrix(random_weight(4, 128), [prepare(correlated_hessian(64))], QuantParams(4), "BF16", "numba")


def test_mlx_reads_back_the_weights_whose_loss_is_told():
    weight, hessian, params = random_weight(40, 256), correlated_hessian(256), QuantParams(5)
    rounded = round_matrix(weight, [prepare(hessian)], params, "BF16", "numba")
    with mx.stream(mx.cpu):
        parts = [mx.array(part) for part in (pack_codes(rounded.codes, 5), rounded.scales, rounded.biases)]
        read = np.array(mx.dequantize(*parts, group_size=64, bits=5))
    assert true_loss(weight - read, hessian) == pytest.approx(rounded.loss, rel=1e-3)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(("bits", "group_size", "dtype"), [(3, 64, "BF16"), (4, 32, "F16"), (8, 32, "F32")])
def test_the_loss_is_that_of_the_same_steps_in_float64(processor, bits, group_size, dtype):
    weight, hessian = random_weight(24, 128), correlated_hessian(128)
    factor = prepare(hessian)
    rounded = round_matrix(weight, [factor], QuantParams(bits, group_size), dtype, processor)
    rows = [rounded_row(row.astype(np.float64), hessian, factor.added, group_size, bits, dtype) for row in weight]
    assert rounded.loss == pytest.approx(true_loss(weight - np.stack(rows), hessian), rel=0.03)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(("correlation", "tolerance"), [(0.0, 1e-6), (0.5, 0.02)])
def test_two_columns_have_the_codes_that_trying_all_finds(processor, correlation, tolerance):
    weight, params = random_weight(64, 32), QuantParams(3, 32)
    hessian = np.zeros((32, 32), np.float32)
    hessian[4, 4] = hessian[20, 20] = 1
    hessian[4, 20] = hessian[20, 4] = correlation
    rounded = round_matrix(weight, [prepare(hessian, damping=1e-6)], params, "BF16", processor)
    choices = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2)
    values = choices[None] * rounded.scales[:, :, None] + rounded.biases[:, :, None]
    errors = weight[:, None, [4, 20]] - values
    best = np.einsum("rci,ij,rcj->rc", errors, hessian[np.ix_([4, 20], [4, 20])], errors).min(axis=1).sum()
    assert rounded.loss == pytest.approx(best, rel=tolerance, abs=1e-12)


def test_no_sweep_raises_the_damped_loss_of_a_row_in_machine_code():
    weight, factor = random_weight(100, 128), prepare(correlated_hessian(128))
    rounded = compiled._Rounded(np.ascontiguousarray(weight.T), QuantParams(3, 32), "BF16")
    rounded.feed_back(factor)
    losses = [damped_losses(rounded.error.T, factor)]
    for _ in range(3):
        rounded.descend(factor)
        losses.append(damped_losses(rounded.error.T, factor))
    assert_falling(losses)


def test_no_sweep_raises_the_damped_loss_of_a_row_in_mlx():
    weight, factor = random_weight(100, 128), prepare(correlated_hessian(128))
    with mx.stream(mx.cpu):
        steps = [arrays._step(each, 3, "BF16", False) for each in (arrays._round_group, arrays._descend_group)]
        found = [arrays._feed_back(weight, factor, QuantParams(3, 32), steps[0])]
        for _ in range(3):
            found.append(arrays._descend(found[-1], factor, QuantParams(3, 32), steps[1]))
    losses = [damped_losses(np.concatenate([np.array(group[3]) for group in each], axis=1), factor) for each in found]
    assert_falling(losses)


def damped_losses(error, factor):
    error = error.astype(np.float64)
    damped = factor.hessian + factor.added * np.eye(len(factor.hessian))
    return np.einsum("ij,jk,ik->i", error, damped, error)


def assert_falling(losses):
    for before, after in itertools.pairwise(losses):
        assert (after <= before * (1 + 1e-5)).all()
    assert losses[-1].sum() < 0.98 * losses[0].sum()
