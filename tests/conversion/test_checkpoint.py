import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from olmocr.conversion.checkpoint import INDEX_FILE, read_checkpoint
from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder
from tests.checkpoints import TINY, tiny_checkpoint, tiny_tensors, write_tensors
from tests.conftest import CHECKPOINT


def refusal(folder, repo_id=None):
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(ModelFolder(folder, repo_id))
    return str(error.value)


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def test_every_tensor_of_the_demo_checkpoint_is_found_in_its_two_shards():
    source = read_checkpoint(ModelFolder(CHECKPOINT))
    assert len(source.tensors) == 165
    assert len({info.shard for info in source.tensors.values()}) == 2


def test_a_missing_tensor_is_named(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source", change=without("model.norm.weight"))
    assert "language_model.model.norm.weight is missing" in refusal(folder)


def test_a_tensor_that_does_not_belong_is_named(tmp_path):
    folder = tiny_checkpoint(
        tmp_path / "source", change=lambda tensors: {**tensors, "extra.weight": tensors["model.norm.weight"]}
    )
    assert "extra.weight (64,) is no tensor of this model" in refusal(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "config.json").write_text(json.dumps(TINY | {"vocab_size": 97}))
    assert "lm_head.weight has shape (96, 64), config.json asks for (97, 64)" in refusal(folder)


def test_a_tensor_that_is_no_float_is_named(tmp_path):
    def integers(tensors):
        _, shape, data = tensors["model.norm.weight"]
        return {**tensors, "model.norm.weight": ("I16", shape, data)}

    assert "model.norm.weight has dtype I16" in refusal(tiny_checkpoint(tmp_path / "source", change=integers))


def test_a_truncated_shard_is_named(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    assert re.search(r"model\.safetensors is truncated: \d+ bytes of \d+; download it again", refusal(folder))


def test_a_missing_shard_is_named(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    weight_map = {"model.norm.weight": "model.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    assert "lacks 1 of 2 shards: model-00002-of-00002.safetensors" in refusal(folder)


def test_an_index_that_points_outside_the_folder_is_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": {"model.norm.weight": "../secret.safetensors"}}))
    assert "outside the folder" in refusal(folder)


def test_a_folder_of_something_else_is_no_checkpoint(tmp_path):
    assert "is no checkpoint: it has no config.json" in refusal(tmp_path)


def test_a_folder_without_weights_is_no_checkpoint(tmp_path):
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
    assert "has model_type 'os', not 'qwen2_5_vl'" in refusal(
        tiny_checkpoint(tmp_path / "source", {"model_type": "os"})
    )


def test_more_layers_than_any_model_has_are_refused_at_once(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "config.json").write_text(json.dumps(TINY | {"num_hidden_layers": 10**7}))
    assert "num_hidden_layers is 10000000, more than any model has" in refusal(folder)


def test_a_converted_folder_is_not_converted_again(converted):
    assert "is a converted MLX model already" in refusal(converted("4bit"))


def test_an_fp8_checkpoint_is_refused_with_the_name_of_the_bf16_one(tmp_path):
    fp8 = {"quantization_config": {"quant_method": "compressed-tensors"}}
    folder = tiny_checkpoint(tmp_path / "source", fp8)
    assert "convert the bf16 weights, allenai/olmOCR-2-7B-1025, instead" in refusal(folder)
    assert "my/model, instead" in refusal(folder, repo_id="my/model-FP8")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_config_with_any_one_value_replaced_is_read_or_refused(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any") / "source"
    tiny_checkpoint(folder)
    config = json.loads(json.dumps(TINY))
    section = data.draw(st.sampled_from([config, config["vision_config"], config["rope_scaling"]]))
    key = data.draw(st.sampled_from([*section, "text_config", "quantization_config", "rope_parameters", "dtype"]))
    section[key] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=3,
        )
    )
    (folder / "config.json").write_text(json.dumps(config))
    try:
        read_checkpoint(ModelFolder(folder))
    except CheckpointError as error:
        assert str(error)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 400), value=st.integers(0, 255))
def test_a_shard_with_any_one_byte_of_its_header_changed_is_read_or_refused(place, value, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any") / "source"
    tiny_checkpoint(folder)
    shard = folder / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[place] = value
    shard.write_bytes(bytes(content))
    try:
        read_checkpoint(ModelFolder(folder))
    except CheckpointError as error:
        assert str(error)


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
