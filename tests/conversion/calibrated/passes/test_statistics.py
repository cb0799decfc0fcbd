"""H of an input: what each token counts, and sums that are those of plain numpy."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.conversion.calibrated.passes.statistics import (
    HessianSum,
    column_slices,
    held_out,
    predicts_answer,
    token_weights,
)
from tests.conversion.calibrated.pages import random_page, random_pages

CONFIG = {"vocab_size": 100, "image_token_id": 90, "vision_config": {"spatial_merge_size": 2}}


def inputs(tokens, columns, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(tokens, columns)).astype(np.float32), rng.random(tokens).astype(np.float32)


def test_tokens_that_predict_the_answer_count_one_the_images_a_tenth_and_the_prompts_nothing():
    page = random_page(CONFIG, rows=4, columns=4, prompt=3, answer=2)
    # Three of the prompt, four of the image, three of the prompt, two of the answer, and its end.
    expected = np.array([0, 0, 0, 0.1, 0.1, 0.1, 0.1, 0, 0, 1, 1, 1, 0], np.float32)
    np.testing.assert_array_equal(token_weights(page, 90), expected)
    assert predicts_answer(page).sum() == 3


@pytest.mark.parametrize(("columns", "panel"), [(10, 1024), (10, 4), (64, 16), (7, 7)])
def test_h_is_the_weighted_sum_of_products(columns, panel):
    total, expected = HessianSum(columns, panel=panel), np.zeros((columns, columns))
    for seed in range(3):
        values, weights = inputs(20, columns, seed)
        weights[:5] = 0
        total.add(mx.array(values), weights)
        expected += (values.astype(np.float64).T * weights) @ values
    (hessian,) = total.finish()
    np.testing.assert_allclose(hessian, expected, rtol=1e-5, atol=1e-5)
    assert (hessian == hessian.T).all()


def test_wide_sums_take_half_the_memory():
    values, weights = inputs(20, 9)
    kinds = set()
    for columns in (8, 9):
        total = HessianSum(columns, widest_in_float64=8)
        total.add(mx.array(values[:, :columns]), weights)
        (hessian,) = total.finish()
        kinds.add(hessian.dtype)
        np.testing.assert_allclose(hessian, (values.T * weights @ values)[:columns, :columns], rtol=1e-4, atol=1e-4)
    assert kinds == {np.dtype(np.float64), np.dtype(np.float32)}


def test_16_bit_inputs_are_multiplied_in_32_bits():
    values, weights = inputs(300, 16)
    half = mx.array(values).astype(mx.bfloat16)
    total = HessianSum(16)
    total.add(half, weights)
    exact = np.array(half.astype(mx.float32), np.float64)
    np.testing.assert_allclose(total.finish()[0], (exact.T * weights) @ exact, rtol=1e-5, atol=1e-4)


def test_slices_of_a_wide_input_are_as_short_as_its_whole_sum_would_be():
    (whole,), (half, other) = (HessianSum(16, count, widest_in_float64=8).finish() for count in (1, 2))
    assert (whole.dtype, half.dtype, other.shape) == (np.float32, np.float32, (8, 8))
    assert HessianSum(16, 2, widest_in_float64=16).finish()[0].dtype == np.float64


def test_slices_of_the_columns_each_have_the_h_of_their_own():
    values, weights = inputs(30, 1024)
    whole, cut = HessianSum(1024), HessianSum(1024, 4)
    for each in (whole, cut):
        each.add(mx.array(values), weights)
    (hessian,), parts = whole.finish(), cut.finish()
    for own, part in zip(column_slices(1024, 4), parts, strict=True):
        np.testing.assert_allclose(part, hessian[own, own], rtol=1e-5, atol=1e-5)


def test_a_page_without_anything_that_counts_adds_nothing():
    values, weights = inputs(4, 5)
    total = HessianSum(5)
    total.add(mx.array(values), 0 * weights)
    assert not total.finish()[0].any()


@given(st.integers(1, 20000), st.sampled_from([1, 2, 4]))
@settings(max_examples=50)
def test_slices_cover_the_columns_in_order_and_cut_no_group(columns, count):
    slices = column_slices(columns, count)
    assert len(slices) == count
    assert [each.start for each in slices] == [0, *(each.stop for each in slices[:-1])]
    assert slices[-1].stop == columns
    if columns >= 128 * count:
        assert all(each.start % 128 == 0 for each in slices)


def test_the_7b_models_down_proj_is_cut_into_equal_parts():
    assert [each.stop - each.start for each in column_slices(18944, 4)] == [4736] * 4
    assert [each.stop - each.start for each in column_slices(18944, 2)] == [9472] * 2


def test_a_quarter_of_the_pages_is_held_out_whatever_their_order():
    pages = random_pages(CONFIG, 12)
    apart = held_out(pages, 7)
    assert len(apart) == 3
    assert held_out(pages[::-1], 7) == apart
    assert any(held_out(pages, seed) != apart for seed in range(5))
    assert len(held_out(pages[:2], 7)) == 1
