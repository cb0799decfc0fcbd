"""Rows of weights that tests of quantizing share."""

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st

from olmocr.conversion.recipe import QuantParams
from olmocr.tensors.floats import narrowed, widened

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
