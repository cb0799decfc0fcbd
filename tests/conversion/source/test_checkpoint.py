"""Checkpoints that are whole, and every way in which one is not: each refused in one sentence, whatever it holds."""

import copy
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.errors import CheckpointError
from olmocr.model_folder import INDEX_FILE, ModelFolder
from olmocr.tensors.header import read_header
from tests.checkpoints import (
    E4M3,
    FP8_CONFIG,
    TINY,
    TINY_FAMILIES,
    TINY_QWEN3,
    fp8_checkpoint,
    fp8_tensors,
    tiny_checkpoint,
    tiny_tensors,
    write_tensors,
)
from tests.conftest import CHECKPOINT
from tests.conversion.damaged import ANYTHING, SOURCES, read_or_refused, read_with
from tests.hub_server import Commit, HubServer, Repository


def refusal(folder, repo_id=None):
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(ModelFolder(folder, repo_id))
    return str(error.value)


def write_index(folder, weight_map):
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def test_every_tensor_of_the_demo_checkpoint_is_found_in_its_two_shards():
    source = read_checkpoint(ModelFolder(CHECKPOINT))
    assert len(source.tensors) == 165
    assert len({info.shard for info in source.tensors.values()}) == 2


def test_a_config_that_does_not_name_the_image_token_cannot_be_calibrated():
    source = read_checkpoint(ModelFolder(CHECKPOINT))
    assert source.image_token == source.config["image_token_id"]
    unnamed = replace(source, config={**source.config, "image_token_id": None})
    with pytest.raises(CheckpointError, match="cannot be calibrated: its config"):
        unnamed.image_token  # noqa: B018 - raises


def test_a_missing_tensor_is_named(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source", change=without("model.norm.weight"))
    assert "language_model.model.norm.weight is missing" in refusal(folder)


def test_a_tensor_that_does_not_belong_is_named(tmp_path):
    folder = tiny_checkpoint(
        tmp_path / "source", change=lambda tensors: {**tensors, "extra.weight": tensors["model.norm.weight"]}
    )
    assert "extra.weight (64,) is not a tensor of this model" in refusal(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "config.json").write_text(json.dumps(TINY | {"vocab_size": 97}))
    assert "lm_head.weight has shape (96, 64), config.json requires (97, 64)" in refusal(folder)


def test_a_tensor_that_is_not_a_float_is_named(tmp_path):
    def integers(tensors):
        _, shape, data = tensors["model.norm.weight"]
        return {**tensors, "model.norm.weight": ("I16", shape, data)}

    assert "model.norm.weight has dtype I16" in refusal(tiny_checkpoint(tmp_path / "source", change=integers))


def test_a_truncated_shard_is_named_with_the_bytes_that_it_has_and_should_have(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    shard = folder / "model.safetensors"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1000])
    assert refusal(folder) == f"{shard} is truncated: {size - 1000} bytes of {size}; download it again"


def test_a_missing_shard_is_named(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    weight_map = {"model.norm.weight": "model.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    assert "lacks 1 of 2 shards that model.safetensors.index.json names: model-00002-of-00002.safetensors" in refusal(
        folder
    )


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "..", "", 7, None, "a" * 999, "a\0.safetensors", "weights.bin"]
)
def test_an_index_that_points_outside_the_folder_is_refused(name, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    write_index(folder, {"model.norm.weight": name})
    assert "not a safetensors file in the folder" in refusal(folder)


def test_a_folder_of_something_else_is_not_a_checkpoint(tmp_path):
    assert "is not a checkpoint: it has no config.json" in refusal(tmp_path)


def test_a_folder_without_weights_is_not_a_checkpoint(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "model.safetensors").unlink()
    assert "it has no *.safetensors files" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("setting", ["auto_map", "model_file"])
def test_a_folder_that_would_run_its_own_code_is_refused(name, setting, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(settings | {setting: {"AutoConfig": "evil.X"}}))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    assert f"{name} has {setting}, which would run Python code from the folder" in refusal(folder)


def test_a_model_type_that_is_another_one_is_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "config.json").write_text(json.dumps(TINY | {"model_type": "os"}))
    assert "has model_type 'os', not 'qwen2_5_vl'" in refusal(folder)


def test_more_layers_than_any_model_has_are_refused_at_once(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "config.json").write_text(json.dumps(TINY | {"num_hidden_layers": 10**7}))
    assert "num_hidden_layers is 10000000, more than any model has" in refusal(folder)


def test_a_converted_folder_is_not_converted_again(converted):
    assert "is already a converted MLX model" in refusal(converted("4bit"))


def test_a_shard_that_cannot_be_opened_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_header(tmp_path)


def test_every_damaged_shard_is_named_at_once(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    for name in ("model-a.safetensors", "model-b.safetensors"):
        (folder / name).write_bytes(b"abc")
    text = refusal(folder)
    assert "2 shards of" in text
    assert "model-a.safetensors is truncated" in text
    assert "model-b.safetensors is truncated" in text


def two_shards(folder, moved=("lm_head.weight",), copied=()):
    """Split the tiny checkpoint into two files; return the index that would be right without the *copied* tensors."""
    tiny_checkpoint(folder)
    tensors = tiny_tensors(TINY)
    first = {name: tensor for name, tensor in tensors.items() if name not in moved}
    write_tensors(folder / "model.safetensors", first)
    write_tensors(folder / "model-2.safetensors", {name: tensors[name] for name in (*moved, *copied)})
    return {name: "model-2.safetensors" if name in moved else "model.safetensors" for name in tensors}


def test_an_index_that_agrees_with_its_shards_is_read(tmp_path):
    write_index(tmp_path / "source", two_shards(tmp_path / "source"))
    tensors = read_checkpoint(ModelFolder(tmp_path / "source")).tensors
    assert tensors["language_model.lm_head.weight"].shard == "model-2.safetensors"


def test_an_index_that_names_a_tensor_twice_is_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    pairs = '"lm_head.weight": "model.safetensors", "lm_head.weight": "model-2.safetensors"'
    (folder / INDEX_FILE).write_text(f'{{"weight_map": {{{pairs}}}}}')
    assert f"{INDEX_FILE} names lm_head.weight twice" in refusal(folder)


def test_an_index_without_a_weight_map_is_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    write_index(folder, [])
    assert "lacks a weight_map" in refusal(folder)


def test_an_index_that_is_not_a_file_is_one_sentence(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / INDEX_FILE).mkdir()
    assert f"{INDEX_FILE} cannot be read: Is a directory" in refusal(folder)


def test_an_index_that_names_the_wrong_shard_is_refused(tmp_path):
    index = two_shards(tmp_path / "source") | {
        "lm_head.weight": "model.safetensors",
        "model.norm.weight": "model-2.safetensors",
    }
    write_index(tmp_path / "source", index)
    text = refusal(tmp_path / "source")
    assert f"{INDEX_FILE} says that lm_head.weight is in model.safetensors, which does not have it" in text
    assert f"{INDEX_FILE} says that model.norm.weight is in model-2.safetensors, which does not have it" in text


def test_a_tensor_that_is_in_no_index_is_refused(tmp_path):
    index = two_shards(tmp_path / "source", moved=("lm_head.weight", "model.norm.weight"))
    del index["lm_head.weight"]
    write_index(tmp_path / "source", index)
    assert f"lm_head.weight is in model-2.safetensors, but not in {INDEX_FILE}" in refusal(tmp_path / "source")


@pytest.mark.parametrize("indexed", [False, True])
def test_a_tensor_that_is_in_two_shards_is_refused(indexed, tmp_path):
    index = two_shards(tmp_path / "source", copied=["model.norm.weight"])
    if indexed:
        write_index(tmp_path / "source", index)
    assert "model.norm.weight is in two shards, " in refusal(tmp_path / "source")


def test_a_tensor_that_is_there_in_both_layouts_is_refused(tmp_path):
    def both(tensors):
        return tensors | {"model.language_model.norm.weight": tensors["model.norm.weight"]}

    text = refusal(tiny_checkpoint(tmp_path / "source", change=both))
    assert "model.language_model.norm.weight and model.norm.weight are the same tensor of the model" in text


def test_of_many_problems_ten_are_shown_and_the_others_counted(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source", change=lambda tensors: {"lm_head.weight": tensors["lm_head.weight"]})
    lines = refusal(folder).splitlines()
    assert len(lines) == 12
    assert lines[-1] == f"  and {len(tiny_tensors(TINY)) - 11} more"


def test_a_single_file_of_another_name_is_the_model(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "model.safetensors").rename(folder / "olmocr.safetensors")
    assert read_checkpoint(ModelFolder(folder)).tensors
    (folder / "other.safetensors").write_bytes((folder / "olmocr.safetensors").read_bytes())
    assert "make up the model: olmocr.safetensors, other.safetensors" in refusal(folder)


def test_pickles_are_not_loaded_and_the_sentence_says_why(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    text = refusal(folder)
    assert "has its weights only as pickles (pytorch_model.bin), which are not loaded because they can run code" in text


def test_an_unquantized_mlx_folder_is_not_converted_again(converted):
    assert "is already a converted MLX model" in refusal(converted("none"))


@pytest.mark.parametrize("name", ["Qwen3VLMoeForConditionalGeneration", "LlamaForCausalLM", 7, ["x"]])
def test_an_architecture_that_cannot_be_converted_is_refused_with_those_that_can(name, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "config.json").write_text(json.dumps(TINY | {"architectures": [name]}))
    text = refusal(folder)
    known = "Qwen2VLForConditionalGeneration or Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration"
    assert f"is a {name}, which is not supported; supported is {known}" in text


@pytest.mark.parametrize(
    ("name", "base", "warned"),
    [("olmOCR-2-7B-1025", TINY, False), ("olmOCR-7B-0825", TINY, True), ("Qwen3-VL-4B", TINY_QWEN3, True)],
)
def test_a_model_of_another_prompt_is_read_with_a_warning(name, base, warned, tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / name, base=base)
    with caplog.at_level(logging.WARNING):
        source = read_checkpoint(ModelFolder(folder))
    assert ("the pipeline here uses that prompt and refuses to run it" in caplog.text) == warned
    assert source.config.get("_name_or_path") == ("olmOCR-7B-0825" if "0825" in name else None)


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_an_fp8_checkpoint_is_read_with_its_scales(family, per_row, tmp_path):
    source = read_checkpoint(ModelFolder(fp8_checkpoint(tmp_path / "source", TINY_FAMILIES[family], per_row)))
    weight = source.tensors["language_model.model.layers.0.mlp.down_proj.weight"]
    assert (weight.dtype, weight.shape) == ("F8_E4M3", (64, 128))
    assert (weight.scale.dtype, weight.scale.shape) == ("BF16", (64, 1) if per_row else (1,))
    assert source.tensors["language_model.lm_head.weight"].scale is None
    assert source.config["torch_dtype"] == "bfloat16"
    assert "quantization_config" not in source.config


def test_the_fp8_checkpoint_made_here_is_close_to_the_one_it_was_made_from():
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = tiny_tensors(TINY)
    changed = fp8_tensors(tensors)
    original, scale = (
        (np.frombuffer(entry[2], np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(entry[1])
        for entry in (tensors[name], changed[f"{name}_scale"])
    )
    product = E4M3[np.frombuffer(changed[name][2], np.uint8)].reshape(original.shape) * scale
    assert np.abs(product - original).max() < np.abs(original).max() / 16
    assert [E4M3[code] for code in (0x00, 0x01, 0x38, 0x7E, 0xB8)] == [0.0, 2.0**-9, 1.0, 448.0, -1.0]


def test_input_scales_are_left_out(tmp_path):
    def static(tensors):
        scale = ("BF16", (1,), b"\0\0")
        return fp8_tensors(tensors) | {"model.layers.0.mlp.up_proj.input_scale": scale}

    folder = tiny_checkpoint(tmp_path / "source", {"quantization_config": FP8_CONFIG}, static)
    assert len(read_checkpoint(ModelFolder(folder)).tensors) == len(tiny_tensors(TINY))


def changed_config(path, value):
    config = copy.deepcopy(FP8_CONFIG)
    section = config
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    return config


WEIGHTS = ("config_groups", "group_0", "weights")


OTHER_QUANTIZATION = {
    "quant_method is 'fp8'": FP8_CONFIG | {"quant_method": "fp8"},
    "quantization_config is 'fp8'": "fp8",
    "format is 'pack-quantized'": FP8_CONFIG | {"format": "pack-quantized"},
    "format is 'nvfp4-pack-quantized'": changed_config(("config_groups", "group_0", "format"), "nvfp4-pack-quantized"),
    "it has a kv_cache_scheme": FP8_CONFIG | {"kv_cache_scheme": {"num_bits": 8}},
    "it has a transform_config": FP8_CONFIG | {"transform_config": {"config_groups": {"u": {}}}},
    "it has a sparsity_config": FP8_CONFIG | {"sparsity_config": {"format": "sparse-24-bitmask"}},
    "it does not have config_groups": FP8_CONFIG | {"config_groups": {}},
    "a config group does not describe weights": changed_config(WEIGHTS, None),
    "strategy of its weights is 'block'": changed_config((*WEIGHTS, "strategy"), "block"),
    "num_bits of its weights is 4": changed_config((*WEIGHTS, "num_bits"), 4),
    "type of its weights is 'int'": changed_config((*WEIGHTS, "type"), "int"),
    "symmetric of its weights is False": changed_config((*WEIGHTS, "symmetric"), False),
}


@pytest.mark.parametrize("reason", OTHER_QUANTIZATION)
def test_another_quantization_is_refused_with_advice_that_names_no_other_model(reason, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source", {"quantization_config": OTHER_QUANTIZATION[reason]}, fp8_tensors)
    assert refusal(folder).endswith(f"({reason}); convert the weights that it was made from")
    assert refusal(folder, repo_id="my/model-FP8").endswith("was made from, according to its name my/model")
    assert "allenai" not in refusal(folder, repo_id="my/other")


UP = "model.layers.0.mlp.up_proj.weight"


WRONG_SCALES = {
    f"{UP} has dtype F8_E4M3, not one of F32": {f"{UP}_scale": None},
    f"{UP} has a weight_scale of shape (64, 1), which is not one": {f"{UP}_scale": ("BF16", (64, 1), b"\0" * 128)},
    f"{UP} has a weight_scale of dtype I16": {f"{UP}_scale": ("I16", (128, 1), b"\0" * 256)},
    f"{UP} has a weight_scale, but is not a matrix of F8_E4M3: BF16": {UP: ("BF16", (128, 64), b"\0" * 16384)},
    "model.norm.weight has a weight_scale, but is not a matrix of F8_E4M3: F8_E4M3 (64,)": {
        "model.norm.weight": ("F8_E4M3", (64,), b"\0" * 64),
        "model.norm.weight_scale": ("BF16", (1,), b"\0\0"),
    },
    "model.nothing.weight_scale (1,) is not a tensor of this model": {
        "model.nothing.weight_scale": ("F32", (1,), b"\0" * 4)
    },
}


@pytest.mark.parametrize("sentence", WRONG_SCALES)
def test_a_scale_that_does_not_fit_its_weight_is_named(sentence, tmp_path):
    def wrong(tensors):
        changed = fp8_tensors(tensors) | WRONG_SCALES[sentence]
        return {name: entry for name, entry in changed.items() if entry is not None}

    folder = tiny_checkpoint(tmp_path / "source", {"quantization_config": FP8_CONFIG}, wrong)
    assert sentence in refusal(folder)


READ_ON_THE_HUB = (
    "from olmocr.hub.find import find_settings; from olmocr.conversion.source.checkpoint import read_checkpoint; "
    "folder = find_settings('tiny/olmocr'); print(folder.remote_weights); print(read_checkpoint(folder).tensors)"
)


def test_headers_that_are_still_on_the_hub_say_the_same(tmp_path):
    folder = fp8_checkpoint(tmp_path / "source")
    with HubServer({"tiny/olmocr": Repository({"main": Commit(folder)})}) as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", READ_ON_THE_HUB]
        process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert process.stdout.splitlines() == ["True", repr(read_checkpoint(ModelFolder(folder)).tensors)]
    assert not list((tmp_path / "home").rglob("*.safetensors"))


@given(data=st.data(), which=SOURCES)
def test_a_config_with_any_values_replaced_or_removed_is_read_or_refused(data, which, sources):
    path = sources[which] / "config.json"
    before = path.read_text()
    config = json.loads(before)
    for _ in range(data.draw(st.integers(1, 3))):
        section = data.draw(st.sampled_from(list(sections(config))))
        extra = ["text_config", "quantization_config", "rope_parameters", "dtype", "quantization", "_name_or_path"]
        key = data.draw(st.sampled_from([*section, *extra]))
        if data.draw(st.booleans()):
            section[key] = data.draw(ANYTHING)
        else:
            section.pop(key, None)
    path.write_text(json.dumps(config))
    try:
        read_or_refused(sources[which])
    finally:
        path.write_text(before)


def sections(config):
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from sections(value)


@given(data=st.data(), which=SOURCES)
def test_a_shard_with_any_bytes_changed_or_lost_is_read_or_refused(data, which, sources):
    content = bytearray((sources[which] / "model.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 600) | st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 4))
        content[place : place + length] = data.draw(st.binary(max_size=4))
    read_with(sources[which], bytes(content))


@given(data=st.data())
def test_any_index_is_read_or_refused(data, sources):
    names = st.sampled_from([*tiny_tensors(TINY), "x"])
    shards = st.sampled_from(["model.safetensors", "model-2.safetensors", "config.json", "../x"]) | ANYTHING
    weight_map = data.draw(st.dictionaries(names, shards, max_size=4) | ANYTHING)
    if isinstance(weight_map, dict) and data.draw(st.booleans()):
        weight_map = dict.fromkeys(tiny_tensors(TINY), "model.safetensors") | weight_map
    write_index(sources["qwen2_5_vl"], weight_map)
    try:
        read_or_refused(sources["qwen2_5_vl"])
    finally:
        (sources["qwen2_5_vl"] / INDEX_FILE).unlink()


def test_weights_in_float16_are_read_as_they_are(tmp_path):
    def halves(tensors):
        return {name: ("F16", shape, data) for name, (_, shape, data) in tensors.items()}

    source = read_checkpoint(ModelFolder(tiny_checkpoint(tmp_path / "source", {"torch_dtype": "float16"}, halves)))
    assert {info.dtype for info in source.tensors.values()} == {"F16"}


def test_shards_without_an_index_are_all_read(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    tensors = tiny_tensors(TINY)
    head = tensors.pop("lm_head.weight")
    write_tensors(folder / "model.safetensors", tensors)
    write_tensors(folder / "model-00002-of-00002.safetensors", {"lm_head.weight": head})
    assert "language_model.lm_head.weight" in read_checkpoint(ModelFolder(folder)).tensors
