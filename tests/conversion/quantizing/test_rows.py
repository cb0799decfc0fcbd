"""One tensor's rows against the oracle, mx.quantize on MLX's CPU backend, and against arithmetic in float64."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.quantizing.rows import kept_rows, quantized_rows
from olmocr.conversion.recipe import QuantParams
from olmocr.tensors.floats import narrowed
from tests.conversion.quantizing.rows import any_params, any_rows, random_rows, read_back, squared_error

MLX_DTYPES = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}


@given(
    rows=any_rows,
    params=any_params,
    source=st.sampled_from(["BF16", "F16", "F32"]),
    processor=st.sampled_from(["numba", "cpu"]),
)
def test_stock_is_byte_for_byte_what_mlx_makes_on_the_cpu(rows, params, source, processor):
    *shape, seed, special = rows
    held, values = random_rows(shape, params.group_size, source, seed, special)
    stored = quantized_rows(held, params, "stock", "BF16", processor)
    with mx.stream(mx.cpu):
        expected = mx.quantize(mx.array(values).astype(mx.bfloat16), group_size=params.group_size, bits=params.bits)
    assert [part.tobytes() for part in stored.parts] == [np.array(part.view(mx.uint8)).tobytes() for part in expected]


@pytest.mark.parametrize("method", ["stock", "fit"])
@pytest.mark.parametrize(("dtype", "processor"), [("BF16", "numba"), ("BF16", "cpu"), ("F16", "cpu"), ("F32", "cpu")])
def test_the_reported_error_is_that_of_what_is_read_back(method, dtype, processor):
    params = QuantParams(5, 32)
    held, values = random_rows((7, 5), 32, dtype)
    stored = quantized_rows(held, params, method, dtype, processor)
    assert stored.squared_error == pytest.approx(squared_error(stored, params, dtype, values), rel=1e-3)
    assert stored.energy == pytest.approx(float(np.square(values, dtype=np.float64).sum()), rel=1e-4)


@pytest.mark.parametrize("processor", ["numba", "cpu"])
@pytest.mark.parametrize("method", ["stock", "fit"])
def test_rows_quantized_a_few_at_a_time_are_those_of_the_whole(method, processor):
    held, _ = random_rows((13, 3), 64)
    whole = quantized_rows(held, QuantParams(6), method, "BF16", processor)
    pieces = [quantized_rows(held[at : at + 4], QuantParams(6), method, "BF16", processor) for at in range(0, 13, 4)]
    for index, part in enumerate(whole.parts):
        assert part.tobytes() == b"".join(piece.parts[index].tobytes() for piece in pieces)


def test_rows_that_do_not_begin_at_a_words_border_are_read_all_the_same():
    held, _ = random_rows((4, 2), 64)
    shifted = np.concatenate([np.zeros(1, held.dtype), held.reshape(-1)])[1:].reshape(held.shape)
    assert shifted.ctypes.data % 8
    whole, same = (quantized_rows(rows, QuantParams(4), "fit", "BF16", "numba") for rows in (held, shifted))
    assert [part.tobytes() for part in whole.parts] == [part.tobytes() for part in same.parts]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("processor", ["numba", "cpu"])
@pytest.mark.parametrize("method", ["stock", "fit"])
def test_a_value_that_is_not_a_number_is_noticed_wherever_it_is(value, processor, method):
    for place in (0, 63, 64 * 5 + 7):
        held, _ = random_rows((3, 2), 64, special=[0.5])
        held.reshape(-1)[place] = narrowed(np.array([value], np.float32), "BF16")[0]
        assert not quantized_rows(held, QuantParams(4), method, "BF16", processor).is_finite
        assert not kept_rows(held, "BF16").is_finite


def test_large_values_are_numbers():
    held, _ = random_rows((1, 1), 64, special=[1e30, -1e30])
    assert quantized_rows(held, QuantParams(4), "stock", "BF16", "numba").is_finite


def test_a_value_that_the_stored_dtype_cannot_hold_does_not_fit():
    held, _ = random_rows((1, 1), 64, special=[1e30])
    for method in ("stock", "fit"):
        assert not quantized_rows(held, QuantParams(4), method, "F16", "cpu").fits
    assert not kept_rows(held, "F16").fits


@pytest.mark.parametrize("method", ["stock", "fit"])
@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_group_of_equal_values_is_read_back_exactly_and_has_a_scale(method, value):
    values = np.full((2, 64), value, np.float32)
    stored = quantized_rows(narrowed(values, "BF16"), QuantParams(4), method, "BF16", "numba")
    assert np.array_equal(read_back(stored, QuantParams(4), "BF16", values.shape), values)
    assert stored.parts[1].view(np.uint16).all()
