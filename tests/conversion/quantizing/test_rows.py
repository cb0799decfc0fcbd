"""One tensor's rows against the oracle, mx.quantize on MLX's CPU backend, and against arithmetic in float64."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.conversion.quantizing.rows import kept_rows, quantized_rows
from olmocr.conversion.recipe import QuantParams
from olmocr.tensors.floats import NUMPY_DTYPES, narrowed, widened
from tests.checkpoints import E4M3

MLX_DTYPES = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
SPECIAL = [0.0, -0.0, 1e-40, -1e-40, 3e-8, -3e-8, 1.0, -1.0, 0.5, 1.5, 2.5, 6e4, -6e4]

any_rows = st.tuples(
    st.integers(1, 70), st.integers(1, 2), st.integers(0, 2**32 - 1), st.lists(st.sampled_from(SPECIAL), max_size=80)
)
any_params = st.builds(QuantParams, st.sampled_from([3, 4, 5, 6, 8]), st.sampled_from([32, 64, 128]))


def random_rows(shape, group_size, source_dtype="BF16", seed=0, special=()):
    """Return rows as *source_dtype* holds them, and their values."""
    rows, groups = shape
    values = np.random.default_rng(seed).normal(0, 0.02, (rows, groups * group_size)).astype(np.float32)
    values.reshape(-1)[: len(special)] = special[: values.size]
    held = narrowed(values, source_dtype)
    return held, widened(held)


def read_back(stored, params, dtype, shape):
    """Return what MLX computes with, in float32."""
    rows, columns = shape
    kinds = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
    packed = mx.array(stored.parts[0].view(np.uint32).reshape(rows, -1))
    scales, biases = (
        mx.array(part).view(kinds[dtype]).reshape(rows, columns // params.group_size) for part in stored.parts[1:]
    )
    with mx.stream(mx.cpu):
        wide = [part.astype(mx.float32) for part in (scales, biases)]
        return np.array(mx.dequantize(packed, *wide, group_size=params.group_size, bits=params.bits))


def squared_error(stored, params, dtype, values):
    rest = read_back(stored, params, dtype, values.shape).astype(np.float64) - values
    return float(np.square(rest).sum())


@settings(deadline=None, max_examples=60)
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


@settings(deadline=None, max_examples=40)
@given(rows=any_rows, params=any_params, source=st.sampled_from(["BF16", "F32"]))
def test_fit_gives_the_same_bytes_whether_numba_or_mlx_computes_it(rows, params, source):
    *shape, seed, special = rows
    held, _ = random_rows(shape, params.group_size, source, seed, special)
    compiled, arrays = (quantized_rows(held, params, "fit", "BF16", processor) for processor in ("numba", "cpu"))
    assert [part.tobytes() for part in compiled.parts] == [part.tobytes() for part in arrays.parts]
    assert compiled.squared_error == pytest.approx(arrays.squared_error, rel=1e-4)


@settings(deadline=None, max_examples=40)
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
def test_a_value_that_is_no_number_is_noticed_wherever_it_is(value, processor, method):
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


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)])
def test_the_modes_without_biases_are_what_mlx_makes_of_them(mode, bits, group_size):
    held, values = random_rows((8, 4), 64)
    stored = quantized_rows(held, QuantParams(bits, group_size, mode), "fit", "BF16", "numba")
    with mx.stream(mx.cpu):
        expected = mx.quantize(mx.array(values).astype(mx.bfloat16), group_size=group_size, bits=bits, mode=mode)
    assert [part.tobytes() for part in stored.parts] == [np.array(part.view(mx.uint8)).tobytes() for part in expected]


@pytest.mark.parametrize("per_row", [True, False])
def test_float8_rows_are_their_values_times_their_scale_rounded_once(per_row):
    codes = (np.arange(4 * 64) % 0x7F).astype(np.uint8).reshape(4, 64)
    scale = np.linspace(0.01, 0.3, 4 if per_row else 1, dtype=np.float32).reshape(-1, 1)
    stored = kept_rows(codes.view(NUMPY_DTYPES["F8_E4M3"]), "BF16", scale)
    assert stored.parts[0].tobytes() == narrowed(E4M3[codes] * scale, "BF16").tobytes()


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_float32_is_rounded_to_bfloat16_as_mlx_does(bits):
    values = np.array(bits, np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    expected = mx.array(values).astype(mx.bfloat16).view(mx.uint16)
    assert narrowed(values, "BF16").view(np.uint16).tolist() == expected.tolist()
