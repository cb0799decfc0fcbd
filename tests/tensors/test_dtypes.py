"""The number formats of safetensors files, and how many bytes each takes."""

import ml_dtypes
import numpy as np
import pytest

from olmocr.tensors.dtypes import DTYPE_BYTES, FLOAT_DTYPES, FP8_DTYPE

WHOLE = {"U": "uint", "I": "int"}

NUMPY = {
    "BOOL": np.bool_,
    **{f"{sign}{bits}": f"{WHOLE[sign]}{bits}" for sign in WHOLE for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "C64": np.complex64,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


@pytest.mark.parametrize("name", DTYPE_BYTES)
def test_a_format_takes_the_bytes_that_numpy_gives_it(name):
    assert DTYPE_BYTES[name] == np.dtype(NUMPY[name]).itemsize


@pytest.mark.parametrize("name", FLOAT_DTYPES)
def test_a_float_is_called_what_numpy_calls_it(name):
    assert np.dtype(NUMPY[name]).name == FLOAT_DTYPES[name]


def test_weights_with_a_scale_take_a_byte():
    assert DTYPE_BYTES[FP8_DTYPE] == 1
    assert FP8_DTYPE not in FLOAT_DTYPES
