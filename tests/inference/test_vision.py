"""The CPU's vision tower against mlx-vlm's, with the demo checkpoint's weights."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.inference.model import load_model
from olmocr.inference.vision import make_layout
from olmocr.model_folder import ModelFolder
from tests.conftest import DEVICE

pytestmark = pytest.mark.skipif(DEVICE.kind != "cpu", reason="a GPU uses mlx-vlm's tower")


@pytest.fixture(scope="module")
def loaded(converted):
    return load_model(ModelFolder(converted("8bit")), DEVICE)


# Rows and columns of patches: one token, less than a window, whole windows, windows cut at one or both edges.
SIZES = [(2, 2), (2, 6), (8, 8), (16, 24), (10, 8), (8, 18), (46, 36), (6, 60)]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_an_image_of_any_size_gets_the_features_that_mlx_vlm_computes(rows, columns, loaded):
    pixels = mx.array(np.random.default_rng(rows * columns).normal(0, 1, (rows * columns, 1176)).astype(np.float32))
    grid = mx.array([[1, rows, columns]])
    theirs = np.array(loaded.model.vision_tower(pixels, grid))
    ours = np.array(loaded.vision(pixels, grid))
    assert ours.shape == theirs.shape == (rows * columns // 4, 384)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_long_attention_in_small_pieces_is_the_same(loaded, monkeypatch):
    pixels = mx.array(np.random.default_rng(0).normal(0, 1, (46 * 36, 1176)).astype(np.float32))
    whole = np.array(loaded.vision(pixels, mx.array([[1, 46, 36]])))
    monkeypatch.setattr("olmocr.inference.vision._SCORES", 1)
    pieces = np.array(loaded.vision(pixels, mx.array([[1, 46, 36]])))
    np.testing.assert_allclose(pieces, whole, rtol=1e-3, atol=1e-4 * np.abs(whole).max())


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_every_patch_is_in_just_one_window(rows, columns):
    layout = make_layout(rows, columns, merge=2, window=4, head_dim=64)
    assert sorted(layout.order.tolist()) == list(range(rows * columns // 4))
    assert [start for start, _ in layout.windows[1:]] == [end for _, end in layout.windows[:-1]]
    assert layout.windows[0][0] == 0
    assert layout.windows[-1][1] == rows * columns


def test_the_weights_are_the_models_own_and_not_a_second_copy(loaded):
    own = np.asarray(loaded.model.vision_tower.blocks[0].mlp.gate_proj.weight)
    assert np.shares_memory(loaded.vision._blocks[0]._gate._weight, own)
