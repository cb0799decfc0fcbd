"""Edges of a conversion: huge and tiny weights, FP8 in small chunks, damaged states, one source shard at a time."""

import mlx.core as mx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.tensors.floats import narrowed, widened
from tests.conversion.edge_states import KINDS, any_params, rows_of


@given(
    params=any_params,
    seed=st.integers(0, 99),
    kind=st.sampled_from(sorted(set(KINDS) - {"large"})),
    source=st.sampled_from(["BF16", "F16", "F32"]),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
)
def test_stock_is_what_mlx_makes_of_the_rows_cast_to_any_stored_dtype(params, seed, kind, source, dtype):
    held = narrowed(rows_of(kind, params, seed), source)
    kinds = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
    with mx.stream(mx.cpu):
        cast = mx.array(widened(held)).astype(kinds[dtype])
        expected = mx.quantize(cast, group_size=params.group_size, bits=params.bits)
    stored = quantized_rows(held, params, "stock", dtype, "numba")
    assert [part.tobytes() for part in stored.parts] == [np.array(part.view(mx.uint8)).tobytes() for part in expected]
