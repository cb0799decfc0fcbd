"""The vision tower block by block: features as mlx-vlm's own tower has them."""

import mlx.core as mx
import mlx_vlm
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.kernels import WITH_MLX, WITH_NUMPY
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks
from olmocr.conversion.calibrated.passes.vision import VISION_INPUTS, merged, patches, vision_block, vision_shape
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.inference.vision_mlx import StockVisionTower
from olmocr.model_folder import ModelFolder
from tests.conftest import CHECKPOINT, DEVICE
from tests.conversion.calibrated.pages import random_page
from tests.inference.towers import SIZES

pytestmark = pytest.mark.skipif(DEVICE.kind != "cpu", reason="features in 16 bits are near each other, not equal")

SOURCE = read_checkpoint(ModelFolder(CHECKPOINT))
SHAPE = vision_shape(SOURCE.config["vision_config"])


@pytest.fixture(scope="module")
def stock(converted):
    """mlx-vlm's own tower with the source's weights, in float32."""
    model, _ = mlx_vlm.load(str(converted("none")), lazy=True)
    model.set_dtype(mx.float32)
    return StockVisionTower(model)


@pytest.fixture(scope="module")
def tower():
    """All of the tower's weights: (patch embedding, blocks, merger)."""
    blocks = SourceBlocks(SOURCE, mx.float32)
    depth = SOURCE.config["vision_config"]["depth"]
    every = [blocks.weights(f"vision_tower.blocks.{number}") for number in range(depth)]
    return blocks.weights("vision_tower.patch_embed.proj")["weight"], every, blocks.weights("vision_tower.merger")


@pytest.mark.parametrize("kernels", [WITH_MLX, WITH_NUMPY], ids=["mlx", "numpy"])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_features_are_those_of_mlx_vlm(stock, tower, kernels, rows, columns):
    page = random_page(SOURCE.config, rows=rows, columns=columns)
    embedding, blocks, merger = tower
    layout = SHAPE.layout(rows, columns)
    hidden = patches(embedding, mx.array(page.pixel_values), layout, SHAPE)
    for number, weights in enumerate(blocks):
        hidden, inputs = vision_block(weights, hidden, layout, SHAPE, is_full=number in SHAPE.full, kernels=kernels)
        for names, values in zip(VISION_INPUTS, inputs, strict=True):
            assert values.shape == (rows * columns, weights[f"{names[0]}.weight"].shape[1])
    ours = np.array(merged(merger, hidden, layout, SHAPE))
    theirs = np.array(stock(mx.array(page.pixel_values), mx.array(page.grid_thw)))
    assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()
