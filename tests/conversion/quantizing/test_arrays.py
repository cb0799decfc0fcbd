"""The rounding that MLX computes makes the bytes that numba makes."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.conversion.recipe import QuantParams
from tests.conversion.quantizing.rows import any_params, any_rows, random_rows


@given(rows=any_rows, params=any_params, source=st.sampled_from(["BF16", "F32"]))
def test_fit_gives_the_same_bytes_whether_numba_or_mlx_computes_it(rows, params, source):
    *shape, seed, special = rows
    held, _ = random_rows(shape, params.group_size, source, seed, special)
    compiled, arrays = (quantized_rows(held, params, "fit", "BF16", processor) for processor in ("numba", "cpu"))
    assert [part.tobytes() for part in compiled.parts] == [part.tobytes() for part in arrays.parts]
    assert compiled.squared_error == pytest.approx(arrays.squared_error, rel=1e-4)


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)])
def test_the_modes_without_biases_are_what_mlx_makes_of_them(mode, bits, group_size):
    held, values = random_rows((8, 4), 64)
    stored = quantized_rows(held, QuantParams(bits, group_size, mode), "fit", "BF16", "numba")
    with mx.stream(mx.cpu):
        expected = mx.quantize(mx.array(values).astype(mx.bfloat16), group_size=group_size, bits=bits, mode=mode)
    assert [part.tobytes() for part in stored.parts] == [np.array(part.view(mx.uint8)).tobytes() for part in expected]
