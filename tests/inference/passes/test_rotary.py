"""Queries and keys are turned as mlx-vlm turns them, on every device's way."""

import mlx.core as mx
import pytest
from mlx_vlm.models.qwen2_5_vl.language import Qwen2RotaryEmbedding, apply_multimodal_rotary_pos_emb

from olmocr.inference.passes.rotary import Rotary

WIDTH, QUERIES, KEYS, VALUES = 16, 4, 2, 2


@pytest.fixture(scope="module")
def stock():
    return Qwen2RotaryEmbedding(WIDTH, base=1e6, rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]})


def heads(tokens, dtype=mx.float32):
    return mx.random.normal((tokens, QUERIES + KEYS + VALUES, WIDTH), key=mx.random.key(tokens)).astype(dtype)


def turned_by_stock(stock, given, positions):
    """Return queries and keys (tokens, heads, width); positions are (3, 1, tokens)."""
    line = given.transpose(1, 0, 2)[None]
    angles = stock(line, positions)
    parts = apply_multimodal_rotary_pos_emb(line[:, :QUERIES], line[:, QUERIES : QUERIES + KEYS], *angles)
    return [part[0].transpose(1, 0, 2) for part in parts]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_prompts_positions_turn_each_section_by_its_own_number(stock, dtype):
    positions = mx.array([[[0, 1, 2, 2, 3]], [[0, 1, 5, 6, 3]], [[0, 1, 9, 4, 3]]], dtype=mx.int32)
    found = Rotary(stock, QUERIES, KEYS, is_fused=True).at(positions, dtype)(heads(5, dtype))
    for part, expected in zip(found, turned_by_stock(stock, heads(5, dtype), positions), strict=True):
        assert part.dtype == dtype
        assert mx.array_equal(part, expected)


@pytest.mark.parametrize("is_fused", [False, True])
def test_text_is_turned_by_its_one_number_whatever_rows_it_is_of(stock, is_fused):
    positions = mx.array([4000, 17, 0, 1, 2, 7999], dtype=mx.int32)
    found = Rotary(stock, QUERIES, KEYS, is_fused).at(positions, mx.float32)(heads(6))
    expected = turned_by_stock(stock, heads(6), mx.broadcast_to(positions, (3, 1, 6)))
    for part, same in zip(found, expected, strict=True):
        assert mx.allclose(part, same, rtol=1e-5, atol=1e-5) if is_fused else mx.array_equal(part, same)
