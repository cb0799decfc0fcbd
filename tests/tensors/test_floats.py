"""Bytes of bfloat16 and float8 become the numbers that MLX reads."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.quantizing.rows import kept_rows
from olmocr.tensors.floats import NUMPY_DTYPES, narrowed
from tests.checkpoints import E4M3


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
