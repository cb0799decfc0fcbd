"""Dimensions of a model as its config tells them."""

import pytest
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig

from olmocr.conversion.source.config import _VISION_DEFAULTS, flat_config
from olmocr.conversion.source.names import expected_shapes
from olmocr.errors import CheckpointError
from tests.checkpoints import TINY_FAMILIES, TINY_QWEN3


@pytest.mark.parametrize("config", [Qwen2VLConfig, Qwen2_5_VLConfig, Qwen3VLConfig])
def test_what_a_vision_config_leaves_out_is_transformers_default(config):
    saved = config().vision_config.to_dict()
    assert _VISION_DEFAULTS[config.model_type].items() <= saved.items()


def test_a_short_vision_config_of_transformers_4_gets_every_dimension():
    short = {"hidden_size": 3584, "in_chans": 3, "model_type": "qwen2_vl", "spatial_patch_size": 14}
    shapes = expected_shapes(flat_config(TINY_FAMILIES["qwen2_vl"] | {"vision_config": short}))
    assert shapes["vision_tower.blocks.31.mlp.fc1.weight"] == (5120, 1280)
    assert shapes["vision_tower.merger.mlp.2.weight"] == (3584, 5120)


@pytest.mark.parametrize(
    ("section", "change", "sentence"),
    [
        ("text_config", {"attention_bias": True}, "attention_bias is true"),
        ("text_config", {"rope_theta": None}, "rope_theta of text_config is None, not a number"),
        ("text_config", {"rope_scaling": {"mrope_section": [1], "type": "yarn"}}, "rope_scaling is of type 'yarn'"),
        ("text_config", {"head_dim": None}, "head_dim is None, not a dimension"),
        ("vision_config", {"deepstack_visual_indexes": [2]}, r"is \[2\], not a list of some of the 2 layers"),
        ("vision_config", {"deepstack_visual_indexes": [1, 1]}, "which names a layer twice"),
        ("vision_config", {"num_position_embeddings": 0}, "num_position_embeddings is 0, not a dimension"),
    ],
)
def test_a_qwen3_config_that_mlx_vlm_could_not_load_is_refused(section, change, sentence):
    config = TINY_QWEN3 | {section: TINY_QWEN3[section] | change}
    with pytest.raises(CheckpointError, match=sentence):
        expected_shapes(flat_config(config))


@pytest.mark.parametrize("ratio", [0, -4, True, "4", None, float("nan"), float("inf"), 1e-9, 1 << 70, 1e7])
def test_a_ratio_that_gives_no_dimension_is_refused(ratio):
    tiny = TINY_FAMILIES["qwen2_vl"]
    config = tiny | {"vision_config": tiny["vision_config"] | {"mlp_ratio": ratio}}
    with pytest.raises(CheckpointError, match=r"config\.json says mlp_ratio is"):
        expected_shapes(flat_config(config))


def test_a_ratio_may_give_the_dimension_one():
    tiny = TINY_FAMILIES["qwen2_vl"]
    config = tiny | {"vision_config": tiny["vision_config"] | {"mlp_ratio": 1 / 32}}
    assert expected_shapes(flat_config(config))["vision_tower.blocks.0.mlp.fc1.weight"] == (1, 32)


def test_as_many_patches_as_a_square_of_the_merge_size_become_one():
    tiny = TINY_FAMILIES["qwen2_vl"]
    config = tiny | {"vision_config": tiny["vision_config"] | {"spatial_merge_size": 4}}
    assert expected_shapes(flat_config(config))["vision_tower.merger.mlp.0.weight"] == (16 * 32, 16 * 32)
