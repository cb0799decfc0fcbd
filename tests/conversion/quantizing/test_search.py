"""The search for a group's scale is never worse than stock rounding."""

import numpy as np
import pytest
from hypothesis import given

from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.conversion.recipe import QuantParams
from olmocr.tensors.floats import narrowed
from tests.conversion.quantizing.rows import any_params, any_rows, random_rows, read_back, squared_error


@given(rows=any_rows, params=any_params)
def test_fit_is_never_further_from_the_source_than_stock(rows, params):
    *shape, seed, special = rows
    held, values = random_rows(shape, params.group_size, "BF16", seed, special)
    stock, fit = (quantized_rows(held, params, method, "BF16", "numba") for method in ("stock", "fit"))
    errors = [squared_error(each, params, "BF16", values) for each in (fit, stock)]
    assert errors[0] <= errors[1] * (1 + 1e-5) + 1e-12


def fitted(values, bits, *, is_table=False):
    """Return what is read back of *values* rounded by ``fit`` to *bits*."""
    params = QuantParams(bits)
    stored = quantized_rows(narrowed(values, "BF16"), params, "fit", "BF16", "numba", is_table=is_table)
    return read_back(stored, params, "BF16", values.shape)


def test_with_3_bits_a_weight_far_larger_than_its_neighbours_stays_what_it_is():
    _, values = random_rows((8, 1), 64)
    values[:, 7] = 0.3
    assert fitted(values, 3)[:, 7] == pytest.approx(values[:, 7], rel=2**-7)


def test_with_3_bits_zero_stays_zero():
    _, values = random_rows((8, 1), 64)
    values[:, ::8] = 0
    assert np.abs(fitted(values, 3)[:, ::8]).max() < 2**-7 * np.abs(values).max()
    assert np.abs(fitted(values, 3, is_table=True)[:, ::8]).max() > 2**-7 * np.abs(values).max()
    assert np.abs(fitted(values, 4)[:, ::8]).max() > 2**-7 * np.abs(values).max()


@pytest.mark.parametrize(("bits", "at_most"), [(3, 0.95), (4, 0.9), (8, 0.6)])
def test_fit_takes_away_much_of_the_error_of_stock(bits, at_most):
    params = QuantParams(bits)
    held, values = random_rows((64, 16), 64)
    stock, fit = (quantized_rows(held, params, method, "BF16", "numba") for method in ("stock", "fit"))
    assert squared_error(fit, params, "BF16", values) < at_most * squared_error(stock, params, "BF16", values)
