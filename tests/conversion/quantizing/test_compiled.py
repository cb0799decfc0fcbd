"""The compiled kernels make the bytes that MLX makes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.tensors.floats import narrowed
from tests.conversion.edge_states import KINDS, any_params, rows_of


@given(
    params=any_params,
    seed=st.integers(0, 99),
    kind=st.sampled_from(sorted(KINDS)),
    source=st.sampled_from(["BF16", "F32"]),
)
def test_groups_of_every_kind_are_fitted_to_the_same_bytes_by_numba_and_by_mlx(params, seed, kind, source):
    held = narrowed(rows_of(kind, params, seed), source)
    compiled, arrays = (quantized_rows(held, params, "fit", "BF16", each) for each in ("numba", "cpu"))
    assert [part.tobytes() for part in compiled.parts] == [part.tobytes() for part in arrays.parts]
    assert compiled.parts[1].view(np.uint16).all()
