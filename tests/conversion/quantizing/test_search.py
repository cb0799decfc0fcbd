"""The search for a group's scale is never worse than stock rounding."""

import pytest
from hypothesis import given

from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.conversion.recipe import QuantParams
from tests.conversion.quantizing.rows import any_params, any_rows, random_rows, squared_error


@given(rows=any_rows, params=any_params)
def test_fit_is_never_further_from_the_source_than_stock(rows, params):
    *shape, seed, special = rows
    held, values = random_rows(shape, params.group_size, "BF16", seed, special)
    stock, fit = (quantized_rows(held, params, method, "BF16", "numba") for method in ("stock", "fit"))
    errors = [squared_error(each, params, "BF16", values) for each in (fit, stock)]
    assert errors[0] <= errors[1] * (1 + 1e-5) + 1e-12


@pytest.mark.parametrize(("bits", "at_most"), [(4, 0.9), (8, 0.6)])
def test_fit_takes_away_much_of_the_error_of_stock(bits, at_most):
    params = QuantParams(bits)
    held, values = random_rows((64, 16), 64)
    stock, fit = (quantized_rows(held, params, method, "BF16", "numba") for method in ("stock", "fit"))
    assert squared_error(fit, params, "BF16", values) < at_most * squared_error(stock, params, "BF16", values)
