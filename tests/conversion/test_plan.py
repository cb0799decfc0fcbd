import dataclasses
import math
from pathlib import Path

import mlx.core as mx
import pytest

from olmocr.conversion import plan as plan_module
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.plan import MAX_SHARD_BYTES, OutputTensor, Padding, make_plan, quantization_config, shard_header
from olmocr.conversion.recipe import QuantParams, changed, find_recipe, parse_recipe, recipe_names
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.conversion.write import write_models
from olmocr.errors import PlanError
from olmocr.model_folder import ModelFolder
from olmocr.tensors.header import TensorInfo
from tests.checkpoints import tiny_checkpoint
from tests.conftest import CHECKPOINT
from tests.conversion.sources import QWEN2_VL, QWEN3_VL, SEVEN_BILLION, headers_of, seven_billion, tiny


def written_plan(source, recipe, output, progress=lambda nbytes: None):
    """Convert *source*; return what was planned."""
    (target,) = plan_targets(ModelFolder(source), [find_recipe(recipe)], "fit", output)
    write_models([target], progress)
    return target.plan


@pytest.mark.parametrize(("recipe", "bits_per_weight"), [("none", 16.0), ("8bit", 11.520), ("4bit", 9.130)])
def test_the_planned_bits_per_weight_are_what_stock_mlx_vlm_counts(recipe, bits_per_weight):
    plan = make_plan(read_checkpoint(ModelFolder(CHECKPOINT)), find_recipe(recipe))
    assert plan.bits_per_weight == pytest.approx(bits_per_weight, abs=5e-4)


def test_every_tensor_that_is_kept_says_why():
    plan = make_plan(read_checkpoint(ModelFolder(CHECKPOINT)), find_recipe("4bit"))
    for tensor in plan.tensors:
        assert (tensor.params is None) == bool(tensor.kept_because)


def test_the_bytes_that_are_planned_are_the_bytes_that_are_written(tmp_path):
    plan = written_plan(tiny_checkpoint(tmp_path / "source"), "8bit", tmp_path / "out")
    arrays = mx.load(str(tmp_path / "out/model.safetensors"))
    assert {name: array.nbytes for name, array in arrays.items()} == {
        output.name: output.nbytes for tensor in plan.tensors for output in tensor.outputs
    }


STOCK_GIGABYTES = {"3bit": 4.69, "4bit": 5.64, "5bit": 6.59, "6bit": 7.54, "8bit": 9.45, "none": 16.58, "bf16": 16.58}


@pytest.mark.parametrize("recipe", STOCK_GIGABYTES)
def test_a_uniform_recipe_makes_the_7b_model_as_large_as_stock_mlx_vlm_does(recipe):
    plan = make_plan(seven_billion(), find_recipe(recipe))
    assert plan.parameters == 8_292_166_656
    assert round(plan.weight_bytes / 1e9, 2) == STOCK_GIGABYTES[recipe]


def test_the_mixed_recipes_lie_between_the_uniform_ones():
    sizes = {name: make_plan(seven_billion(), find_recipe(name)).weight_bytes for name in recipe_names()}
    ascending = ["mixed-tiny", "mixed-small", "3bit", "mixed", "4bit", "5bit", "mixed-large", "6bit", "8bit", "none"]
    assert sorted(ascending, key=sizes.__getitem__) == ascending
    assert 5.2e9 < sizes["mixed"] < 5.4e9


def test_the_smallest_recipe_has_about_3_9_bits_a_weight_of_the_demos_language_model():
    demo, large = (
        make_plan(each, find_recipe("mixed-tiny"))
        for each in (read_checkpoint(ModelFolder(CHECKPOINT)), seven_billion())
    )
    assert demo.file_bytes == 14_873_952
    assert round(large.weight_bytes / 1e9, 2) == 4.27
    for plan, bits in ((demo, 3.94), (large, 3.67)):
        parts = [each for each in plan.components if each.component in ("language", "head", "embeddings")]
        assert round(8 * sum(each.nbytes for each in parts) / sum(each.parameters for each in parts), 2) == bits


def test_the_smallest_recipe_spends_what_it_has_where_a_bit_counts_most():
    plan = make_plan(seven_billion(), find_recipe("mixed-tiny"))
    bits = {tensor.name.removesuffix(".weight"): tensor.params.bits for tensor in plan.tensors if tensor.params}
    language = "language_model.model.layers"
    assert bits["language_model.lm_head"] == 4
    assert bits["language_model.model.embed_tokens"] == 3
    assert bits[f"{language}.0.self_attn.k_proj"] == bits[f"{language}.27.self_attn.v_proj"] == 5
    assert bits[f"{language}.0.self_attn.o_proj"] == bits[f"{language}.27.mlp.up_proj"] == 4
    assert bits[f"{language}.0.self_attn.q_proj"] == bits[f"{language}.26.mlp.down_proj"] == 3
    assert {bits[module] for module in bits if module.startswith("vision_tower")} == {8}


def test_a_uniform_recipes_config_is_what_stock_mlx_vlm_writes():
    plan = make_plan(seven_billion(), find_recipe("4bit"))
    assert quantization_config(plan) == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert quantization_config(make_plan(seven_billion(), find_recipe("none"))) is None
    assert plan.config == plan.source.config


def test_a_mixed_recipes_config_names_the_modules_that_have_other_parameters():
    plan = make_plan(seven_billion(), changed(find_recipe("mixed"), keep=("*.layers.[3].mlp.up_proj",)))
    config = quantization_config(plan)
    assert {key: config.pop(key) for key in ("group_size", "bits", "mode")} == QuantParams(4).as_config()
    assert config.pop("language_model.model.layers.3.mlp.up_proj") is False
    assert config["language_model.lm_head"] == QuantParams(6).as_config()
    assert config["vision_tower.blocks.31.mlp.down_proj"] == QuantParams(8).as_config()
    assert set(config) == {
        tensor.name.removesuffix(".weight") for tensor in plan.tensors if tensor.params and tensor.params.bits != 4
    }


def test_a_matrix_that_stock_mlx_vlm_would_not_take_for_quantized_is_named_in_the_config():
    source = tiny()
    mine = changed(find_recipe("8bit"), group_size=32)
    odd = dataclasses.replace(source.tensors["language_model.lm_head.weight"], shape=(97, 32))
    plan = make_plan(dataclasses.replace(source, tensors=source.tensors | {"language_model.lm_head.weight": odd}), mine)
    params = QuantParams(8, 32).as_config()
    assert quantization_config(plan) == {**params, "language_model.lm_head": params}


def test_the_vision_mlp_is_padded_in_all_its_tensors_and_in_the_config():
    plan = make_plan(seven_billion(), find_recipe("mixed"))
    mlp = "vision_tower.blocks.7.mlp"
    padded = {tensor.name: tensor for tensor in plan.tensors if tensor.name.startswith(mlp)}
    assert {name.removeprefix(mlp): tensor.padding for name, tensor in padded.items()} == {
        ".gate_proj.weight": Padding(0, 36),
        ".gate_proj.bias": Padding(0, 36),
        ".up_proj.weight": Padding(0, 36),
        ".up_proj.bias": Padding(0, 36),
        ".down_proj.weight": Padding(1, 36),
        ".down_proj.bias": None,
    }
    assert [output.shape for output in padded[f"{mlp}.down_proj.weight"].outputs] == [
        (1280, 864),
        (1280, 54),
        (1280, 54),
    ]
    assert padded[f"{mlp}.up_proj.bias"].outputs[0].shape == (3456,)
    assert sum(tensor.padding is not None for tensor in plan.tensors) == 5 * 32
    assert plan.vision_intermediate_size == plan.config["vision_config"]["intermediate_size"] == 3456
    assert plan.source.config["vision_config"]["intermediate_size"] == 3420


@pytest.mark.parametrize(
    ("source", "keep"),
    [
        (seven_billion(), ("vision_tower.*",)),
        (seven_billion(vision={"intermediate_size": 3456}), ()),
    ],
)
def test_nothing_is_padded_where_no_group_needs_it(source, keep):
    plan = make_plan(source, changed(find_recipe("mixed"), keep=keep))
    assert plan.vision_intermediate_size is None
    assert not any(tensor.padding for tensor in plan.tensors)


def test_a_qwen2_vl_whose_vision_mlp_would_have_to_be_padded_is_refused():
    config = QWEN2_VL | {"vision_config": QWEN2_VL["vision_config"] | {"mlp_ratio": 3.97}}
    with pytest.raises(PlanError, match=r"5081 wide, which 64 does not divide, .* `keep='vision_tower"):
        make_plan(headers_of(config), find_recipe("mixed"))
    recipe = changed(find_recipe("mixed"), keep=("vision_tower.blocks.*.mlp.*",))
    assert make_plan(headers_of(config), recipe).vision_intermediate_size is None


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize(
    "source",
    [headers_of(QWEN2_VL), seven_billion(tie_word_embeddings=True), headers_of(QWEN3_VL), tiny(1), tiny(2)],
    ids=["qwen2_vl", "tied", "qwen3_vl", "one layer", "two layers"],
)
def test_every_packaged_recipe_fits_every_family_and_size(source, recipe):
    plan = make_plan(source, find_recipe(recipe))
    assert {tensor.name for tensor in plan.tensors} == set(source.tensors)
    for tensor in plan.tensors:
        assert (tensor.params is None) == bool(tensor.kept_because)


def test_a_tied_heads_embeddings_get_the_heads_bits():
    plan = make_plan(seven_billion(tie_word_embeddings=True), find_recipe("mixed"))
    (embeddings,) = plan.tensors_of("embeddings")
    assert embeddings.params == QuantParams(6)
    assert [size.component for size in plan.components] == ["language", "embeddings", "vision", "merger"]


def test_the_parts_of_the_model_add_up_to_it():
    plan = make_plan(seven_billion(), find_recipe("mixed"))
    assert [size.component for size in plan.components] == ["language", "head", "embeddings", "vision", "merger"]
    assert sum(size.parameters for size in plan.components) == plan.parameters
    assert sum(size.nbytes for size in plan.components) == plan.weight_bytes
    assert plan.components[1].bits_per_weight == 6.5
    assert plan.components[4].bits_per_weight == 16


def test_what_is_kept_says_why():
    reasons = {tensor.name: tensor.kept_because for tensor in make_plan(seven_billion(), find_recipe("4bit")).tensors}
    assert reasons["vision_tower.merger.mlp.0.weight"] == "the vision tower is kept, as stock mlx-vlm does"
    assert reasons["vision_tower.merger.mlp.0.bias"] == "a norm or a bias is not a matrix"
    assert reasons["vision_tower.patch_embed.proj.weight"].startswith("MLX does not quantize convolutions")
    assert reasons["language_model.lm_head.weight"] is None


def test_every_matrix_that_a_group_size_does_not_divide_is_named_at_once_with_the_way_out():
    recipe = dataclasses.replace(changed(find_recipe("mixed"), group_size=128), vision_mlp_multiple=None)
    with pytest.raises(PlanError) as caught:
        make_plan(tiny(2), recipe)
    assert str(caught.value) == (
        "24 matrices have a last dimension that the group size does not divide:\n"
        "  language_model.lm_head (96, 64), group size 128\n"
        "  language_model.model.embed_tokens (96, 64), group size 128\n"
        "  language_model.model.layers.*.mlp.gate_proj (128, 64), group size 128, 2 of them\n"
        "  language_model.model.layers.*.mlp.up_proj (128, 64), group size 128, 2 of them\n"
        "  language_model.model.layers.*.self_attn.k_proj (64, 64), group size 128, 2 of them\n"
        "  language_model.model.layers.*.self_attn.o_proj (64, 64), group size 128, 2 of them\n"
        "  language_model.model.layers.*.self_attn.q_proj (64, 64), group size 128, 2 of them\n"
        "  language_model.model.layers.*.self_attn.v_proj (64, 64), group size 128, 2 of them\n"
        "  vision_tower.blocks.*.attn.proj (64, 64), group size 128, 2 of them\n"
        "  vision_tower.blocks.*.attn.qkv (192, 64), group size 128, 2 of them\n"
        "  vision_tower.blocks.*.mlp.down_proj (64, 44), group size 128, 2 of them\n"
        "  vision_tower.blocks.*.mlp.gate_proj (44, 64), group size 128, 2 of them\n"
        "  vision_tower.blocks.*.mlp.up_proj (44, 64), group size 128, 2 of them\n"
        "keep them with `keep=PATTERN`, choose another `group_size`, or, for the vision MLP, "
        "a recipe with vision_mlp_multiple"
    )


def test_a_misfit_can_be_kept():
    recipe = dataclasses.replace(find_recipe("mixed"), vision_mlp_multiple=None)
    with pytest.raises(
        PlanError, match=r"^1 matrix has .*\n  vision_tower.blocks.0.mlp.down_proj \(64, 44\), group size 64\n"
    ):
        make_plan(tiny(), recipe)
    assert make_plan(tiny(), changed(recipe, keep=("vision_tower.blocks.*.mlp.down_proj",)))


def test_a_recipe_for_larger_models_can_be_made_to_fit_with_a_smaller_group_size(tmp_path):
    source = read_checkpoint(ModelFolder(tiny_checkpoint(tmp_path / "source")))
    with pytest.raises(PlanError, match="4 matrices have a last dimension that the group size does not divide"):
        make_plan(source, find_recipe("mixed"))
    assert make_plan(source, changed(find_recipe("mixed"), group_size=32)).vision_intermediate_size == 64


def test_a_rule_that_matches_nothing_is_refused():
    with pytest.raises(PlanError, match=r"1 rule of the recipe 4bit matches no matrix of this model:\n  lm_head\n"):
        make_plan(seven_billion(), changed(find_recipe("4bit"), keep=("lm_head",)))


@pytest.mark.parametrize(
    ("mode", "columns", "group_size"), [("mxfp4", 448, 32), ("mxfp8", 896, 32), ("nvfp4", 448, 16)]
)
def test_the_modes_without_biases_have_byte_scales(mode, columns, group_size):
    content = f"name: a\nsummary: A.\nrules: [{{match: '*', mode: {mode}}}]"
    plan = make_plan(seven_billion(vision={"intermediate_size": 3456}), parse_recipe(content.encode(), "a"))
    head = plan.tensors_of("head")[0]
    assert head.outputs == (
        OutputTensor("language_model.lm_head.weight", "U32", (152064, columns)),
        OutputTensor("language_model.lm_head.scales", "U8", (152064, 3584 // group_size)),
    )
    assert quantization_config(plan) == {"group_size": group_size, "bits": head.params.bits, "mode": mode}


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_any_bits_and_group_size_take_the_bytes_that_mlx_gives_them(bits, group_size):
    expected = [part.nbytes for part in mx.quantize(mx.zeros((2, 384), mx.bfloat16), group_size=group_size, bits=bits)]
    tensors = {"language_model.lm_head.weight": TensorInfo("lm_head.weight", "BF16", (2, 384), Path("a"), 0, 1536)}
    recipe = parse_recipe(
        b"name: a\nsummary: A.\nrules: [{match: '*', bits: %d, group_size: %d}]" % (bits, group_size), "a"
    )
    plan = make_plan(dataclasses.replace(seven_billion(), tensors=tensors), recipe)
    assert [output.nbytes for output in plan.tensors[0].outputs] == expected


@pytest.mark.parametrize(
    ("recipe", "config", "source", "expected"),
    [
        ("none", "bfloat16", "F32", "BF16"),
        ("none", None, "F16", "F16"),
        ("none", None, "F8_E4M3", "BF16"),
        ("fp16", "bfloat16", "BF16", "F16"),
        ("4bit", "float16", "BF16", "F16"),
    ],
)
def test_what_is_not_a_code_has_the_dtype_of_recipe_config_or_source(recipe, config, source, expected):
    checkpoint = headers_of(SEVEN_BILLION | {"torch_dtype": config}, dtype=source)
    plan = make_plan(checkpoint, find_recipe(recipe))
    assert {tensor.outputs[-1].dtype for tensor in plan.tensors} == {expected}


def test_the_config_names_the_recipes_dtype():
    assert make_plan(seven_billion(), find_recipe("fp16")).config["torch_dtype"] == "float16"


def test_tensors_are_planned_in_the_order_in_which_they_lie_in_the_source():
    source = seven_billion()
    backwards = dict(reversed(source.tensors.items()))
    plan = make_plan(dataclasses.replace(source, tensors=backwards), find_recipe("mixed"))
    assert [tensor.source.offset for tensor in plan.tensors] == sorted(info.offset for info in backwards.values())
    assert plan.shards == make_plan(source, find_recipe("mixed")).shards


def test_what_lies_in_an_earlier_file_is_planned_first_whatever_its_name():
    source = tiny()
    names = sorted(source.tensors)
    moved = {
        name: dataclasses.replace(source.tensors[name], shard="b" if number % 2 else "a", offset=1000 - number)
        for number, name in enumerate(names)
    }
    plan = make_plan(dataclasses.replace(source, tensors=moved), find_recipe("none"))
    assert [tensor.source.name for tensor in plan.tensors] == [*names[::2][::-1], *names[1::2][::-1]]


def test_no_shard_is_larger_than_allowed_and_their_names_count_them():
    plan = make_plan(seven_billion(), find_recipe("none"))
    data = [sum(tensor.nbytes for tensor in shard.tensors) for shard in plan.shards]
    assert 1 << 30 < max(data) <= MAX_SHARD_BYTES == 2 << 30
    assert [shard.file_name for shard in plan.shards] == [
        f"model-{number:05d}-of-{len(data):05d}.safetensors" for number in range(1, len(data) + 1)
    ]


def test_the_file_bytes_that_are_planned_are_those_that_are_written(tmp_path):
    plan = written_plan(tiny_checkpoint(tmp_path / "source"), "8bit", tmp_path / "out")
    assert plan.file_bytes == (tmp_path / "out/model.safetensors").stat().st_size
    assert plan.file_bytes > plan.weight_bytes


def test_a_model_larger_than_a_shard_is_split_and_every_tensor_is_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "MAX_SHARD_BYTES", 20_000)
    plan = written_plan(tiny_checkpoint(tmp_path / "source"), "4bit", tmp_path / "out")
    names = [set(mx.load(str(tmp_path / "out" / shard.file_name))) for shard in plan.shards]
    assert len(names) > 2
    assert sum(map(len, names)) == len(set().union(*names))


def test_the_tensors_of_a_file_begin_at_a_multiple_of_8_bytes():
    for recipe in ("none", "mixed", "8bit", "4bit"):
        for shard in make_plan(seven_billion(), find_recipe(recipe)).shards:
            header, _ = shard_header(shard)
            assert len(header) % 8 == 0
            assert len(header) == 8 + int.from_bytes(header[:8], "little")


@pytest.mark.parametrize(("room", "tensors"), [(0, 2), (-1, 1)])
def test_a_shard_is_filled_to_the_last_byte_and_not_past_it(room, tensors, monkeypatch):
    first, second, *_ = make_plan(tiny(), find_recipe("none")).tensors
    monkeypatch.setattr(plan_module, "MAX_SHARD_BYTES", first.nbytes + second.nbytes + room)
    assert len(make_plan(tiny(), find_recipe("none")).shards[0].tensors) == tensors


def test_progress_adds_up_to_the_bytes_of_the_source(tmp_path):
    seen = []
    plan = written_plan(tiny_checkpoint(tmp_path / "source"), "4bit", tmp_path / "out", seen.append)
    assert sum(seen) == sum(math.prod(tensor.source.shape) * 2 for tensor in plan.tensors)


def test_a_plan_is_plain_data_that_can_be_compared():
    source = read_checkpoint(ModelFolder(CHECKPOINT))
    assert make_plan(source, find_recipe("4bit")) == dataclasses.replace(make_plan(source, find_recipe("4bit")))
