"""Names, shapes and configs of each family against mlx-vlm's own model classes."""

import importlib
import json
import shutil

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_vlm.utils import load_model

from olmocr.conversion.convert import convert
from olmocr.conversion.source.config import flat_config
from olmocr.conversion.source.names import (
    FAMILIES,
    PATCH_EMBED,
    PATCH_EMBED_AXES,
    component_of,
    expected_shapes,
    number_of_blocks,
    text_settings,
    vision_mlp_axis,
)
from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder, read_config
from tests.checkpoints import TINY, TINY_FAMILIES, TINY_QWEN3, nested_config, new_keys, tiny_checkpoint

# The layout of tensor names that stock mlx-vlm knows.
STOCK_KEYS = {"qwen2_vl": lambda name: name, "qwen2_5_vl": lambda name: name, "qwen3_vl": new_keys}


def renamed(rename):
    return lambda tensors: {rename(name): entry for name, entry in tensors.items()}


def parameters(model):
    return dict(tree_flatten(model.parameters()))


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_names_and_shapes_are_those_of_mlx_vlms_model_class(family, tied):
    flat = flat_config(TINY_FAMILIES[family] | {"tie_word_embeddings": tied})
    expected = expected_shapes(flat)
    expected[PATCH_EMBED] = tuple(expected[PATCH_EMBED][axis] for axis in PATCH_EMBED_AXES)
    module = importlib.import_module(f"mlx_vlm.models.{family}")
    config = module.ModelConfig.from_dict(json.loads(json.dumps(flat)))
    config.text_config = module.TextConfig.from_dict(text_settings(flat))
    config.vision_config = module.VisionConfig.from_dict(flat["vision_config"])
    assert expected == {name: array.shape for name, array in parameters(module.Model(config)).items()}


@pytest.fixture(scope="module", params=[(family, tied) for family in TINY_FAMILIES for tied in (False, True)])
def stock(request, tmp_path_factory):
    """A family, whether its head is tied, and its tiny checkpoint as stock mlx-vlm loads it, sanitized by itself."""
    family, tied = request.param
    folder = tmp_path_factory.mktemp("stock") / family
    config = {"tie_word_embeddings": tied}
    if family == "qwen3_vl":  # mlx-vlm looks for it there only, transformers 5 writes it at the root only
        config["text_config"] = TINY_QWEN3["text_config"] | config
    tiny_checkpoint(folder, config, renamed(STOCK_KEYS[family]), base=TINY_FAMILIES[family])
    return family, tied, load_model(folder)


@pytest.mark.parametrize("keys", [lambda name: name, new_keys], ids=["original", "new"])
@pytest.mark.parametrize("reconfigure", [lambda config: config, nested_config], ids=["transformers 4", "5"])
def test_stock_mlx_vlm_loads_every_family_with_every_weight_as_it_reads_the_source(stock, keys, reconfigure, tmp_path):
    family, tied, theirs = stock
    base = TINY_FAMILIES[family] | {"tie_word_embeddings": tied}
    source = tiny_checkpoint(tmp_path / "source", change=renamed(keys), base=base)
    (source / "config.json").write_text(json.dumps(reconfigure(base)))
    convert(source, "none", tmp_path / "out")
    ours = load_model(tmp_path / "out")
    weights, expected = parameters(ours), parameters(theirs)
    assert set(weights) == set(expected)
    for name, array in weights.items():
        assert array.dtype == expected[name].dtype, name
        assert mx.array_equal(array, expected[name]), name
    for key in ("rope_theta", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "hidden_size"):
        assert getattr(ours.config.text_config, key) == getattr(theirs.config.text_config, key), key
    assert vars(ours.config.vision_config) == vars(theirs.config.vision_config)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_stock_mlx_vlm_loads_every_family_when_it_is_quantized(family, tmp_path):
    source = tiny_checkpoint(tmp_path / "source", base=TINY_FAMILIES[family])
    convert(source, "4bit", tmp_path / "out")
    logits = load_model(tmp_path / "out").language_model(mx.array([[1, 2, 3]])).logits
    assert logits.shape == (1, 3, 96)
    assert mx.all(mx.isfinite(logits))


def test_every_family_has_a_tiny_checkpoint_here():
    assert set(FAMILIES.values()) == set(TINY_FAMILIES)


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "language"),
        ("language_model.model.norm.weight", "language"),
        ("language_model.lm_head", "language"),
        ("language_model.lm_head.weight", "head"),
        ("language_model.model.embed_tokens.weight", "embeddings"),
        ("vision_tower.blocks.3.attn.qkv.bias", "vision"),
        ("vision_tower.pos_embed.weight", "vision"),
        ("vision_tower.patch_embed.proj.weight", "vision"),
        ("vision_tower.merger.mlp.0.weight", "merger"),
        ("vision_tower.deepstack_merger_list.2.norm.bias", "merger"),
    ],
)
def test_a_tensor_belongs_to_a_component(name, component):
    assert component_of(name) == component


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_the_vision_mlps_axis_is_where_its_width_stands(family):
    flat = flat_config(TINY_FAMILIES[family])
    width = 80 if family == "qwen2_vl" else 44
    for name, shape in expected_shapes(flat).items():
        axis = vision_mlp_axis(name)
        assert (axis is not None) == (width in shape), name
        assert axis is None or shape[axis] == width


def test_blocks_are_counted_in_both_halves():
    assert number_of_blocks(flat_config(TINY)) == {"layers": 1, "blocks": 1}
    assert number_of_blocks(flat_config(TINY_QWEN3)) == {"layers": 1, "blocks": 2}


def test_a_folder_of_another_vintage_still_says_so_when_it_is_converted_under_another_name(tmp_path):
    source = tiny_checkpoint(tmp_path / "olmOCR-7B-0825")
    convert(source, "none", tmp_path / "out")
    shutil.rmtree(source)
    with pytest.raises(CheckpointError, match="looks like olmOCR-7B-0825, which was trained on another prompt"):
        read_config(ModelFolder(tmp_path / "out"))
