"""Folders that hold a model are loaded, and others are refused by name."""

import json
import re
import shutil

import mlx.core as mx
import mlx_vlm
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from olmocr.conversion.convert import convert
from olmocr.conversion.recipe import read_recipe
from olmocr.errors import CheckpointError
from olmocr.inference.engine import Engine
from olmocr.inference.model import load_model, load_processor
from olmocr.inference.passes.forward import Language
from olmocr.inference.prompt import make_inputs
from olmocr.inference.vision_mlx import MlxVisionTower
from olmocr.model_folder import ModelFolder
from olmocr.page import MOST_PAGE_PIXELS, PageImage, PageRequest
from olmocr.runtime.device import Device
from tests.checkpoints import tiny_checkpoint
from tests.conftest import CHECKPOINT, DEVICE
from tests.inference.asked import page_image


def as_float32(array):
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def logits(model, inputs):
    ids, pixels, grid = map(mx.array, (inputs.input_ids, inputs.pixel_values, inputs.image_grid_thw))
    return model(ids, pixels, image_grid_thw=grid).logits


@pytest.mark.skipif(DEVICE.kind != "cpu", reason="only a CPU dequantizes")
def test_dequantized_weights_give_the_quantized_models_numbers(loaded, converted):
    small = PageRequest(PageImage(page_image().pixels.resize((84, 56))), prompt="Read.")
    inputs = make_inputs(loaded.processor, small)
    stock, _ = mlx_vlm.load(str(converted("4bit")))
    stock.update(tree_map(as_float32, stock.parameters()))
    theirs = logits(stock, inputs)
    assert mx.max(mx.abs(theirs)).item() > 10
    assert mx.max(mx.abs(logits(loaded.model, inputs) - theirs)).item() < 2e-3


@pytest.mark.skipif(DEVICE.kind != "cpu", reason="only a CPU dequantizes")
def test_on_a_cpu_nothing_stays_quantized_or_in_16_bits(loaded, tmp_path):
    everything = tmp_path / "everything.yaml"  # the merger's matrices, too, which lie in a list
    everything.write_text(
        'name: all\nsummary: All.\nvision_mlp_multiple: 64\nrules:\n  - {match: "*", bits: 4}\n', encoding="utf-8"
    )
    convert(CHECKPOINT, read_recipe(everything), tmp_path / "model")
    for each in (loaded, load_model(ModelFolder(tmp_path / "model"), DEVICE)):
        dtypes = {array.dtype for _, array in tree_flatten(each.model.parameters())}
        assert dtypes == {mx.float32}
    assert "float32" in str(loaded)
    assert DEVICE.blas in str(loaded)


def test_on_a_gpu_weights_stay_as_they_are_and_the_vision_tower_is_mlxs(converted):
    on_metal = load_model(ModelFolder(converted("4bit")), Device("metal", None, "0"))
    dtypes = {array.dtype for _, array in tree_flatten(on_metal.model.parameters())}
    assert mx.uint32 in dtypes
    assert isinstance(on_metal.vision, MlxVisionTower)


def test_weights_can_be_dequantized_to_the_16_bits_that_are_computed_in(converted):
    """As on CUDA with memory to spare; the numbers are the quantized model's, rounded once."""
    folder = ModelFolder(converted("4bit"))
    loaded = load_model(folder, Device("metal", None, "0"), is_dense=True)
    assert {array.dtype for _, array in tree_flatten(loaded.model.parameters())} == {mx.bfloat16}
    exact = load_model(folder, DEVICE, is_dense=True).model
    theirs = Language(exact, has_kernels=False).blocks[0]._gate_up(mx.ones((1, 1, 384)))
    ours = loaded.language.blocks[0]._gate_up(mx.ones((1, 1, 384), dtype=mx.bfloat16)).astype(mx.float32)
    assert mx.max(mx.abs(ours - theirs)).item() < 0.02 * mx.max(mx.abs(theirs)).item()


def refusal(folder):
    with pytest.raises(CheckpointError) as error, Engine(ModelFolder(folder), DEVICE):
        pass
    return str(error.value)


def test_a_folder_that_is_not_a_model_is_refused(tmp_path):
    assert "is not a checkpoint: it has no config.json" in refusal(tmp_path)


def test_a_model_of_another_family_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen2VLForConditionalGeneration"]}))
    assert "is a Qwen2VLForConditionalGeneration, which is not supported" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"vision_config": {"window_size": 0}}),
        ("config.json", {"vision_config": {"num_heads": 7}}),
        ("preprocessor_config.json", {"patch_size": 16}),
    ],
)
def test_a_model_that_cannot_answer_is_noticed_when_it_is_loaded(file, change, tmp_path, converted):
    folder = shutil.copytree(converted("4bit"), tmp_path / "model")
    settings = json.loads((folder / file).read_text())
    for key, value in change.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    (folder / file).write_text(json.dumps(settings))
    assert re.search("cannot be loaded|can be loaded, but does not answer", refusal(folder))


def test_a_folder_whose_weights_are_gone_is_refused(tmp_path, converted):
    folder = shutil.copytree(converted("4bit"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert "cannot be loaded" in refusal(folder)


def test_an_unconverted_checkpoint_that_mlx_vlm_cannot_map_is_refused_with_what_to_do(tmp_path):
    folder = tiny_checkpoint(
        tmp_path / "source", change=lambda tensors: {**tensors, "extra": tensors["lm_head.weight"]}
    )
    assert "convert the checkpoint again" in refusal(folder)


def test_the_processor_alone_makes_the_inputs_that_the_loaded_models_does(loaded):
    request = PageRequest(page_image())
    theirs, ours = (make_inputs(each, request) for each in (loaded.processor, load_processor(ModelFolder(CHECKPOINT))))
    assert np.array_equal(ours.input_ids, theirs.input_ids)
    assert np.array_equal(ours.pixel_values, theirs.pixel_values)


def test_a_processor_without_bounds_is_bounded_without_its_weights_too(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    size = settings["size"] | {"longest_edge": 12_845_056}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"max_pixels": 12_845_056, "size": size}))
    large = PageRequest(PageImage(page_image().pixels.resize((3000, 3000))))
    assert len(make_inputs(load_processor(ModelFolder(folder)), large).pixel_values) <= MOST_PAGE_PIXELS / 14**2


def test_a_folder_whose_processor_cannot_be_loaded_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "preprocessor_config.json").write_text("[")
    with pytest.raises(CheckpointError, match="model"):
        load_processor(ModelFolder(folder))
