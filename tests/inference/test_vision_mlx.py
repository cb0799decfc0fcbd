"""The vision tower gives the features that mlx-vlm computes."""

import mlx.core as mx
import mlx.nn as nn
import mlx_vlm
import numpy as np
import pytest

from olmocr.inference.model import load_model
from olmocr.inference.vision import CpuVisionTower
from olmocr.inference.vision_mlx import MlxVisionTower, StockVisionTower, is_as_expected, pad_mlps
from olmocr.model_folder import ModelFolder
from tests.conftest import DEVICE
from tests.inference.random_models import random_model
from tests.inference.towers import SIZES

pytestmark = pytest.mark.skipif(DEVICE.kind != "cpu", reason="a GPU's arithmetic is not that of numpy")


@pytest.fixture(scope="module")
def quantized(converted):
    """The demo's model as its folder has it: some of the vision tower quantized, its MLP padded, bfloat16."""
    return mlx_vlm.load(str(converted("mixed")), lazy=True)[0]


@pytest.fixture(scope="module")
def stock(model):
    return StockVisionTower(model)


def image(rows, columns):
    values = np.random.default_rng(rows * columns).normal(0, 1, (rows * columns, 1176)).astype(np.float32)
    return values, np.array([[1, rows, columns]])


def features(tower, rows, columns):
    return np.array(tower(*image(rows, columns)).astype(mx.float32))


def assert_close(ours, theirs, part):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=part * np.abs(theirs).max())


def error(rounded, exact):
    """Return how far features are from *exact* ones, as a part of their size."""
    return np.linalg.norm(np.array(rounded.astype(mx.float32)) - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_an_image_of_any_size_gets_the_features_that_mlx_vlm_computes(rows, columns, model, stock):
    theirs = features(stock, rows, columns)
    assert theirs.shape == (rows * columns // 4, 384)
    assert_close(features(CpuVisionTower(model), rows, columns), theirs, 1e-4)
    assert_close(features(MlxVisionTower(model), rows, columns), theirs, 1e-5)


def test_an_mlp_of_any_width_is_padded_to_a_multiple_of_64_and_computes_the_same(converted):
    model = load_model(ModelFolder(converted("8bit")), DEVICE).model
    before = features(MlxVisionTower(model), 8, 12)
    pad_mlps(model.vision_tower)
    widths = {block.mlp.down_proj.weight.shape[1] for block in model.vision_tower.blocks}
    assert widths == {704}
    assert_close(features(MlxVisionTower(model), 8, 12), before, 1e-5)


@pytest.mark.slow
def test_a_quantized_and_padded_tower_gives_mlx_vlms_features_as_exactly_as_bfloat16_has_them(quantized):
    block = quantized.vision_tower.blocks[0]
    assert isinstance(block.attn.qkv, nn.QuantizedLinear)
    assert block.mlp.up_proj.bias.shape == (704,)  # 684 in the checkpoint
    ours, theirs = (kind(quantized)(*image(4, 10)) for kind in (MlxVisionTower, StockVisionTower))
    assert ours.dtype == theirs.dtype == mx.bfloat16
    quantized.vision_tower.set_dtype(mx.float32)
    exact, stock_exact = (features(kind(quantized), 4, 10) for kind in (MlxVisionTower, StockVisionTower))
    assert_close(exact, stock_exact, 1e-5)
    assert error(ours, exact) < 1.2 * error(theirs, exact) < 0.1


def test_long_attention_in_small_pieces_is_the_same(model, monkeypatch):
    for module, tower in (("arithmetic", CpuVisionTower(model)), ("vision_mlx", MlxVisionTower(model))):
        whole = features(tower, 16, 18)
        with monkeypatch.context() as patch:
            patch.setattr(f"olmocr.inference.{module}._SCORES", 5000)
            assert_close(features(tower, 16, 18), whole, 1e-4)


@pytest.mark.parametrize("kind", [CpuVisionTower, MlxVisionTower])
def test_an_image_is_computed_in_pieces_of_bounded_work_with_the_same_features(kind, model):
    pixels, grid = image(8, 10)
    for piece, count in [(1, 7), (80 * 3, 3), (80 * 7, 1)]:
        pieces = list(kind(model, piece).begin(pixels, grid))
        assert len(pieces) == count
        assert pieces[:-1] == [None] * (count - 1)
        assert np.array_equal(np.array(pieces[-1]), features(kind(model), 8, 10))


def test_the_weights_are_the_models_own_and_not_a_second_copy(model):
    own = np.asarray(model.vision_tower.blocks[0].mlp.gate_proj.weight)
    assert np.shares_memory(CpuVisionTower(model)._blocks[0]._gate._weight, own)


def test_a_tower_with_other_parts_than_ours_computes_is_left_to_mlx_vlm(converted):
    tower = load_model(ModelFolder(converted("8bit")), DEVICE).model.vision_tower
    assert is_as_expected(tower)
    tower.blocks[0].attn.q_norm = nn.RMSNorm(64)
    assert not is_as_expected(tower)
    del tower.blocks[0].attn.q_norm, tower.blocks[0].norm2
    assert not is_as_expected(tower)


def test_the_own_tower_is_off_by_an_option(tmp_path):
    folder = ModelFolder(random_model(tmp_path / "model"))
    assert isinstance(load_model(folder, DEVICE).vision, CpuVisionTower)
    assert isinstance(load_model(folder, DEVICE, stock_vision=True).vision, StockVisionTower)
