"""What training, quantizers and other programs leave in a folder: read by its bytes, or refused by name."""

import json
import logging

import pytest

from olmocr.conversion.convert import leaving_out
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.conversion.source.names import LM_HEAD
from olmocr.errors import CheckpointError, UsageError
from olmocr.model_folder import INDEX_FILE, ModelFolder
from tests.checkpoints import TINY, TINY_FAMILIES, new_keys, tiny_checkpoint, tiny_tensors, write_tensors


def refusal(folder, leave_out=()):
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(ModelFolder(folder, left_out=leave_out))
    return str(error.value)


def renamed(rename):
    return lambda tensors: {rename(name): entry for name, entry in tensors.items()}


def with_more(name, like="model.norm.weight"):
    return lambda tensors: {**tensors, name: tensors[like]}


def whole(folder):
    return len(read_checkpoint(ModelFolder(folder)).tensors) == len(tiny_tensors(TINY))


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_head_of_its_own_is_kept_though_the_config_ties_it(family, tmp_path, caplog):
    base = TINY_FAMILIES[family] | {"tie_word_embeddings": True}
    own = tiny_tensors(TINY_FAMILIES[family])["lm_head.weight"]
    folder = tiny_checkpoint(tmp_path / "source", base=base, change=lambda tensors: tensors | {"lm_head.weight": own})
    source = read_checkpoint(ModelFolder(folder))
    assert LM_HEAD in source.tensors
    assert source.config["tie_word_embeddings"] is False
    assert "has a separate head, lm_head.weight; it is kept" in caplog.text


def test_a_head_that_is_the_embeddings_to_the_byte_stays_tied(tmp_path, caplog):
    folder = tiny_checkpoint(
        tmp_path / "source",
        {"tie_word_embeddings": True},
        lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]},
    )
    source = read_checkpoint(ModelFolder(folder))
    assert LM_HEAD not in source.tensors
    assert source.config["tie_word_embeddings"] is True
    assert not caplog.text


@pytest.mark.parametrize("section", ["top", "text_config"])
def test_a_tie_is_read_wherever_it_is_said(section, tmp_path):
    said = {"tie_word_embeddings": True}
    changes = said if section == "top" else {"tie_word_embeddings": False, "text_config": said}
    folder = tiny_checkpoint(
        tmp_path / "source", changes, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}
    )
    assert read_checkpoint(ModelFolder(folder)).config["tie_word_embeddings"] is True


def test_a_head_that_is_missing_where_nothing_ties_it_is_named(tmp_path):
    folder = tiny_checkpoint(
        tmp_path / "source", change=lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}
    )
    assert f"{LM_HEAD} is missing" in refusal(folder)


WRAPPED = {
    "peft, merged": lambda name: f"base_model.model.{name}",
    "DistributedDataParallel": lambda name: f"module.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "torch.compile of layers": lambda name: name.replace("mlp.", "mlp._orig_mod."),
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name.replace('mlp.', '_fsdp_wrapped_module.mlp.')}",
    "checkpointing": lambda name: name.replace("self_attn.", "self_attn._checkpoint_wrapped_module."),
    "several": lambda name: f"module._orig_mod.base_model.model.{new_keys(name)}",
    "language_model and visual": lambda name: name if name.startswith("visual.") else f"language_model.{name}",
    "MLX's names in torch's layout": lambda name: (
        name.replace("visual.", "vision_tower.") if name.startswith("visual.") else f"language_model.{name}"
    ),
    "newer names": new_keys,
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_names_that_training_has_wrapped_are_the_models_own(kind, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source", change=renamed(WRAPPED[kind]))
    plain = tiny_checkpoint(tmp_path / "plain")
    assert list(read_checkpoint(ModelFolder(folder)).tensors) == list(read_checkpoint(ModelFolder(plain)).tensors)


def test_a_prefix_of_nothing_known_is_shown_with_what_would_help(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source", change=renamed(lambda name: f"student.net.{name}"))
    text = refusal(folder)
    assert "holds 29 tensors, such as student.net.visual" in text or "such as student.net." in text
    assert "all of them begin with student.net., which is not part of this model's names: save the model itself" in text
    assert "download" not in text


ADAPTER_PARTS = [
    "model.layers.0.self_attn.q_proj.lora_A.default.weight",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
    "model.layers.0.mlp.up_proj.base_layer.weight",
    "lm_head.modules_to_save.default.weight",
    "lm_head.original_module.weight",
    "model.layers.0.self_attn.q_proj.lora_magnitude_vector.default.weight",
]


@pytest.mark.parametrize("name", ADAPTER_PARTS)
def test_weights_with_an_adapter_in_them_are_refused_by_its_names(name, tmp_path):
    text = refusal(tiny_checkpoint(tmp_path / "source", change=with_more(name)))
    assert "has 1 tensor of an adapter that is not merged" in text
    assert name.removeprefix("base_model.model.") in text
    assert "merge_and_unload" in text


def adapter_config(folder, base="me/my-base"):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))


def test_a_folder_of_an_adapter_alone_is_refused_by_the_name_of_its_own_base(tmp_path):
    adapter_config(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    text = refusal(tmp_path)
    assert "holds an adapter (adapter_config.json, adapter_model.safetensors) for me/my-base, not a model" in text
    assert "allenai" not in text


def test_an_adapter_beside_weights_is_asked_about(tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "source")
    adapter_config(folder)
    text = refusal(folder)
    assert "holds weights and also an adapter (adapter_config.json) for me/my-base: transformers would" in text
    assert text.endswith("`leave_out='adapter_config.json'`")
    assert read_checkpoint(ModelFolder(folder, left_out=("adapter_config.json",))).tensors


QUANTIZED = {
    "bitsandbytes with 8 bits": "model.layers.0.mlp.up_proj.SCB",
    "bitsandbytes with 4 bits": "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4",
    "GPTQ or AWQ": "model.layers.0.mlp.up_proj.qweight",
    "FP8 with scales for blocks": "model.layers.0.mlp.up_proj.weight_scale_inv",
    "compressed-tensors": "model.layers.0.mlp.up_proj.weight_packed",
}


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("method", [None, "bitsandbytes"])
def test_quantized_weights_are_refused_by_their_names_whatever_the_config_says(kind, method, tmp_path):
    settings = {"quantization_config": {"quant_method": method}} if method else {}
    text = refusal(tiny_checkpoint(tmp_path / "source", settings, with_more(QUANTIZED[kind])))
    assert f"is already quantized in a way that cannot be undone exactly ({kind}: it has {QUANTIZED[kind]})" in text
    assert "allenai" not in text


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors"])
def test_settings_of_a_quantizer_beside_whole_weights_are_left_out_and_said(method, tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "source", {"quantization_config": {"quant_method": method}})
    source = read_checkpoint(ModelFolder(folder))
    assert "quantization_config" not in source.config
    assert f"quantized by {method}, but the files hold them unquantized, in BF16" in caplog.text


def stale_index(folder, shards):
    names = list(tiny_tensors(TINY))
    weight_map = {name: shards[number % len(shards)] for number, name in enumerate(names)}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


TWO = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_a_whole_file_beside_a_stale_index_is_read_and_said(tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "source")
    stale_index(folder, TWO)
    assert whole(folder)
    assert f"{INDEX_FILE} names missing files, and is ignored" in caplog.text


def test_a_whole_file_beside_shards_is_asked_about_and_either_answer_is_read(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    stale_index(folder, TWO)
    tensors = tiny_tensors(TINY, seed=1)
    for number, shard in enumerate(TWO):
        write_tensors(folder / shard, dict(list(tensors.items())[number::2]))
    text = refusal(folder)
    assert "holds two models: model.safetensors, which transformers would read, and the 2 files" in text
    assert "`leave_out='model.safetensors'` or `leave_out='model.safetensors.index.json'` " in text
    assert "`leave_out='model-0000" in text
    by_shards = read_checkpoint(ModelFolder(folder, left_out=("model.safetensors",)))
    by_file = read_checkpoint(ModelFolder(folder, left_out=(INDEX_FILE, "model-0*")))
    assert {info.shard for info in by_shards.tensors.values()} == set(TWO)
    assert {info.shard for info in by_file.tensors.values()} == {"model.safetensors"}


@pytest.mark.parametrize("copy", ["model (1).safetensors", "model copy.safetensors", "model_ema.safetensors"])
def test_a_copy_beside_the_model_is_asked_about(copy, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / copy).write_bytes((folder / "model.safetensors").read_bytes())
    text = refusal(folder)
    assert copy in text
    assert "transformers reads model.safetensors alone, mlx-vlm reads all" in text
    assert read_checkpoint(ModelFolder(folder, left_out=(copy,))).tensors


@pytest.mark.parametrize("name", ["ema.safetensors", "consolidated.safetensors", "pytorch_model.bin", "my.gguf"])
def test_weights_that_are_not_read_are_said(name, tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / name).write_bytes((folder / "model.safetensors").read_bytes())
    assert whole(folder)
    assert f"these files are not read: {name}" in caplog.text


STRANGERS = ["._model.safetensors", "._config.json", ".DS_Store", "Thumbs.db", "desktop.ini", "._tokenizer.json"]


@pytest.mark.parametrize("name", ["model.safetensors", "olmocr.safetensors"])
def test_what_file_systems_leave_is_not_a_weight(name, tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "model.safetensors").rename(folder / name)
    for stranger in (*STRANGERS, f"._{name}"):
        (folder / stranger).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    for place in ("@eaDir", ".fseventsd", "__MACOSX"):
        (folder / place).mkdir()
        (folder / place / "model.safetensors").write_bytes(b"")
    with caplog.at_level(logging.INFO):
        assert whole(folder)
    assert not caplog.text


@pytest.mark.parametrize("end", [".aria2", ".part", ".crdownload"])
def test_a_shard_that_is_still_being_fetched_is_not_read(end, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / f"model.safetensors{end}").write_bytes(b"x")
    assert f"is incomplete, as model.safetensors{end} shows" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert f"no *.safetensors files that are complete (model.safetensors{end})" in refusal(folder)


def test_a_shard_that_icloud_holds_is_told_from_one_that_is_lost(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "model.safetensors").rename(folder / ".model.safetensors.icloud")
    assert "that are complete (.model.safetensors.icloud); finish" in refusal(folder)


def test_a_trainings_own_folder_is_refused_with_the_checkpoints_in_it(tmp_path):
    for name in ("checkpoint-1000", "checkpoint-500"):
        (tmp_path / name).mkdir()
    assert refusal(tmp_path).endswith("give one of these: checkpoint-500, checkpoint-1000")
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "checkpoint-500").mkdir()
    assert whole(folder)
    (folder / "model.safetensors").unlink()
    assert refusal(folder).endswith("give one of these: checkpoint-500")


@pytest.mark.parametrize("name", ["pytorch_model_fsdp_0", "global_step500", "zero_to_fp32.py"])
def test_parts_of_weights_as_a_training_keeps_them_are_named_with_what_joins_them(name, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "model.safetensors").unlink()
    (folder / "optimizer.pt").write_bytes(b"")
    (folder / name).mkdir()
    assert f"{name} holds weights that training saved in parts" in refusal(folder)


@pytest.mark.parametrize(("files", "config"), [(2, 1), (1, 2)])
def test_another_number_of_layers_is_told_as_a_number(files, config, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source", {"num_hidden_layers": files})
    (folder / "config.json").write_text(json.dumps(TINY | {"num_hidden_layers": config}))
    assert f"(num_hidden_layers is {config}, and the files have {files})" in refusal(folder)


@pytest.mark.parametrize("architectures", [None, [], ["FSDPQwen2_5_VLForConditionalGeneration"]])
def test_an_architecture_that_is_not_said_is_known_by_its_type(architectures, tmp_path):
    assert whole(tiny_checkpoint(tmp_path / "source", {"architectures": architectures}))


def test_a_name_that_is_to_be_left_out_and_is_not_there_is_a_mistake(tmp_path):
    folder = ModelFolder(tiny_checkpoint(tmp_path / "source"))
    with pytest.raises(UsageError, match=r"`leave_out='model-1'` matches no file of"):
        leaving_out(folder, ["model-1"])
    assert leaving_out(folder, ["tokenizer_config.json:chat_template"]).left_out


CONTRADICTIONS = {
    "rms_norm_eps is 1e-06 in the top, where mlx-vlm reads it, and 1e-05": {"text_config": {"rms_norm_eps": 1e-5}},
    "num_attention_heads is 2 in the top": {"text_config": {"num_attention_heads": 4}},
    "mrope_section is [4, 6, 6] in the top": {"text_config": {"rope_scaling": {"mrope_section": [6, 5, 5]}}},
    "mrope_section is [6, 5, 5] in rope_parameters": {"rope_parameters": {"mrope_section": [6, 5, 5]}},
    "the weights' dtype is 'bfloat16' in torch_dtype, and 'float16' in dtype": {"dtype": "float16"},
}


@pytest.mark.parametrize("sentence", CONTRADICTIONS)
def test_a_config_that_says_two_things_of_one_is_refused_with_both(sentence, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "config.json").write_text(json.dumps(TINY | CONTRADICTIONS[sentence]))
    assert sentence in refusal(folder)


def test_a_config_that_says_the_same_twice_is_read(tmp_path):
    twice = {"dtype": "torch.bfloat16", "text_config": {key: TINY[key] for key in ("rms_norm_eps", "rope_scaling")}}
    assert whole(tiny_checkpoint(tmp_path / "source", twice))
