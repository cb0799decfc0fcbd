"""A language block as a pure function: its gradients are those of numerical differences."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.kernels import WITH_NUMPY
from olmocr.conversion.calibrated.passes.language import (
    BLOCK_INPUTS,
    LanguageShape,
    decoder_block,
    embedded,
    head_input,
    logits,
    rotary_angles,
)
from tests.conftest import DEVICE

SHAPE = LanguageShape(heads=4, key_value_heads=2, head_dim=8, norm_epsilon=1e-6, rope_theta=1e4, sections=(1, 1, 2))
WIDTH, INNER, TOKENS = 32, 48, 12
OUTPUTS = {
    **{f"self_attn.{name}_proj": (rows, WIDTH) for name, rows in (("q", 32), ("k", 16), ("v", 16), ("o", 32))},
    **{f"mlp.{name}_proj": (INNER, WIDTH) for name in ("gate", "up")},
    "mlp.down_proj": (WIDTH, INNER),
}


def drawn(seed, *shape, spread=1.0):
    return mx.array(np.random.default_rng(seed).normal(scale=spread, size=shape).astype(np.float32))


WEIGHTS = {
    **{f"{name}.weight": drawn(place, *shape, spread=0.2) for place, (name, shape) in enumerate(OUTPUTS.items())},
    **{
        f"self_attn.{each}_proj.bias": drawn(place, rows)
        for place, (each, rows) in enumerate(zip("qkv", (32, 16, 16), strict=True))
    },
    **{f"{each}_layernorm.weight": 1 + drawn(9, WIDTH, spread=0.1) for each in ("input", "post_attention")},
}
HIDDEN = drawn(20, TOKENS, WIDTH)
POSITIONS = np.stack([np.arange(TOKENS), np.arange(TOKENS) // 2, np.arange(TOKENS) % 3]).astype(np.int32)
ANGLES = rotary_angles(POSITIONS, SHAPE)
TOWARDS = drawn(21, TOKENS, WIDTH)


def loss(weights, hidden, nudges):
    """Return a number that all of a block's output counts in."""
    out, _ = decoder_block(weights, hidden, ANGLES, SHAPE, nudges)
    return (mx.tanh(out) * TOWARDS).sum()


def no_nudges():
    return {name: mx.zeros((TOKENS, rows)) for name, (rows, _) in OUTPUTS.items()}


def along(function, point, direction, step=1e-2):
    """Return how *function* changes from *point* in *direction*: by differences on four points."""
    far, near = ([float(function(point + side * k * step * direction)) for side in (1, -1)] for k in (2, 1))
    return (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * step)


needs_float32 = pytest.mark.skipif(DEVICE.kind == "cuda", reason="products are TF32 there, too coarse for differences")


@needs_float32
@pytest.mark.parametrize("name", list(WEIGHTS))
def test_the_gradient_by_a_weight_is_that_of_numerical_differences(name):
    gradient = mx.grad(lambda weights: loss(weights, HIDDEN, None))(WEIGHTS)[name]
    direction = drawn(30, *WEIGHTS[name].shape) / WEIGHTS[name].size ** 0.5
    expected = along(lambda each: loss({**WEIGHTS, name: each}, HIDDEN, None), WEIGHTS[name], direction)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=5e-3, abs=2e-3)


@needs_float32
def test_the_gradient_by_what_comes_in_is_that_of_numerical_differences():
    _, (gradient,) = mx.vjp(lambda hidden: decoder_block(WEIGHTS, hidden, ANGLES, SHAPE)[0], [HIDDEN], [TOWARDS])
    direction = drawn(31, *HIDDEN.shape) / HIDDEN.size**0.5
    expected = along(lambda each: (decoder_block(WEIGHTS, each, ANGLES, SHAPE)[0] * TOWARDS).sum(), HIDDEN, direction)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=5e-3, abs=2e-3)


@needs_float32
def test_the_gradient_by_a_nudge_times_the_input_is_the_gradient_by_the_weight():
    by_nudge = mx.grad(lambda nudges: loss(WEIGHTS, HIDDEN, nudges))(no_nudges())
    by_weight = mx.grad(lambda weights: loss(weights, HIDDEN, None))(WEIGHTS)
    _, inputs = decoder_block(WEIGHTS, HIDDEN, ANGLES, SHAPE)
    for names, values in zip(BLOCK_INPUTS, inputs, strict=True):
        for name in names:
            expected = np.array(by_weight[f"{name}.weight"])
            np.testing.assert_allclose(np.array(by_nudge[name].T @ values), expected, rtol=1e-3, atol=1e-4)


def test_a_token_sees_none_that_comes_after_it():
    changed = mx.concatenate([HIDDEN[:7], drawn(40, TOKENS - 7, WIDTH)])
    one, other = (np.array(decoder_block(WEIGHTS, each, ANGLES, SHAPE)[0]) for each in (HIDDEN, changed))
    np.testing.assert_allclose(one[:7], other[:7], atol=1e-5)
    assert np.abs(one[7:] - other[7:]).max() > 0.1


@pytest.mark.skipif(DEVICE.kind != "cpu", reason="a GPU's arithmetic is not that of numpy")
def test_what_numpy_makes_is_what_mlx_makes():
    ours, theirs = (decoder_block(WEIGHTS, HIDDEN, ANGLES, SHAPE, **each) for each in ({"kernels": WITH_NUMPY}, {}))
    np.testing.assert_allclose(np.array(ours[0]), np.array(theirs[0]), rtol=1e-5, atol=1e-5)


def test_16_bits_stay_16_bits_and_angles_are_applied_in_32():
    half = {name: each.astype(mx.bfloat16) for name, each in WEIGHTS.items()}
    out, inputs = decoder_block(half, HIDDEN.astype(mx.bfloat16), ANGLES, SHAPE)
    assert {each.dtype for each in (out, *inputs)} == {mx.bfloat16}
    exact, _ = decoder_block(WEIGHTS, HIDDEN, ANGLES, SHAPE)
    assert float(mx.abs(out.astype(mx.float32) - exact).max()) < 0.1


def test_an_images_features_take_the_places_of_its_tokens():
    features = drawn(50, 2, WIDTH)
    hidden = embedded(HIDDEN, np.arange(TOKENS) // 2 == 3, features)
    np.testing.assert_array_equal(np.array(hidden[6:8]), np.array(features))
    np.testing.assert_array_equal(np.array(hidden[:6]), np.array(HIDDEN[:6]))


def test_logits_are_float32_of_normalized_states():
    normed = head_input(mx.ones(WIDTH), HIDDEN, SHAPE)
    assert np.square(np.array(normed)).mean(1) == pytest.approx(1.0, rel=1e-4)
    values = logits(mx.eye(WIDTH).astype(mx.bfloat16)[:5], normed.astype(mx.bfloat16))
    assert (values.shape, values.dtype) == ((TOKENS, 5), mx.float32)
