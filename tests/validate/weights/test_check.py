"""Folders that are whole, and every way in which one can be broken: made on the spot, and named by the check."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_vlm.convert import convert as stock_convert

from olmocr.conversion.checkpoint import SourceCheckpoint
from olmocr.conversion.convert import convert
from olmocr.errors import CheckpointError
from olmocr.model_folder import HASHES_FILE, INDEX_FILE, ModelFolder
from olmocr.tensors.floats import NUMPY_DTYPES
from olmocr.tensors.header import TensorInfo
from olmocr.validate.weights.check import check_weights
from olmocr.validate.weights.difference import compare
from olmocr.validate.weights.values import StoredTensor, as_float32, rounded
from tests.checkpoints import (
    TINY,
    TINY_FAMILIES,
    demo_checkpoint,
    nested_config,
    new_keys,
    read_tensors,
    tiny_checkpoint,
    tiny_tensors,
    write_tensors,
)
from tests.conftest import CHECKPOINT

VALIDATE = [sys.executable, "-m", "olmocr.validate", "weights"]
SHARD = "model.safetensors"

HEAD = "language_model.lm_head"
QUERY = "language_model.model.layers.0.self_attn.q_proj"
NORM = "language_model.model.norm.weight"
UP = "vision_tower.blocks.0.mlp.up_proj"
DOWN = "vision_tower.blocks.0.mlp.down_proj"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "source")


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """Return the tiny checkpoint's folder in 4 bits; not to be written to."""
    folder = tmp_path_factory.mktemp("tiny") / "4bit"
    convert(source, "4bit", folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """Return a copy of the tiny folder, to be broken; without hashes, so that a look at it has to find what is."""
    return without_hashes(shutil.copytree(whole, tmp_path / "model"))


def without_hashes(folder):
    (folder / HASHES_FILE).unlink()
    return folder


def problems(folder, check, source=None):
    """Return what the check called *check* found, after seeing that it failed."""
    report = check_weights(folder, source)
    assert not report.holds
    (found,) = [each for each in report.checks if each.name == check]
    assert found.holds is False
    return list(found.problems)


def states(report):
    return {check.name: check.holds for check in report.checks}


def rewrite(folder, change):
    """Write the folder's shard and index again, after *change* had its way with the tensors."""
    tensors = read_tensors(folder)
    changed = change(tensors) or tensors
    write_tensors(folder / SHARD, changed)
    size = sum(len(data) for _, _, data in changed.values())
    edit_index(
        folder, lambda index: index.update(weight_map=dict.fromkeys(changed, SHARD), metadata={"total_size": size})
    )


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_index(folder, change):
    edit_json(folder / INDEX_FILE, change)


def edit_config(folder, change):
    edit_json(folder / "config.json", change)


def edit_quantization(folder, change):
    """Change both places in which config.json has it."""
    edit_config(folder, lambda config: [change(config[key]) for key in ("quantization", "quantization_config")])


def put(folder, name, index, value):
    """Write *value* (two bytes) over one element of a tensor."""

    def change(tensors):
        dtype, shape, data = tensors[name]
        values = np.frombuffer(data, np.uint16).reshape(shape).copy()
        values[index] = value
        tensors[name] = (dtype, shape, values.tobytes())

    rewrite(folder, change)


def write_hashes(folder):
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())]
    (folder / HASHES_FILE).write_text("\n".join(lines) + "\n")


# What is whole


def test_a_converted_folder_is_whole_in_every_respect(whole):
    report = check_weights(whole)
    assert report.holds
    assert set(states(report).values()) == {True}
    assert report.bytes == sum(len(data) for _, _, data in read_tensors(whole).values())
    assert report.errors == ()


@pytest.mark.parametrize("recipe", ["none", "4bit", "8bit", "mixed"])
def test_every_recipe_of_the_demo_checkpoint_is_whole_beside_its_source(recipe, converted):
    report = check_weights(converted(recipe), CHECKPOINT)
    assert report.holds
    assert set(states(report).values()) == {True}
    kept = [error for error in report.errors if error.group_size is None]
    assert {error.relative_error for error in kept} == {0.0}
    assert len(report.errors) == 165
    written = json.loads((converted(recipe) / "conversion_report.json").read_text())
    assert report.bytes == written["weight_bytes"]
    assert report.bits_per_weight == written["bits_per_weight"]


def test_the_relative_error_is_that_of_the_weights_that_mlx_computes_with(whole, source):
    report = check_weights(whole, source)
    arrays = mx.load(str(whole / SHARD))
    _, shape, data = tiny_tensors(TINY)["lm_head.weight"]
    truth = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    parts = [arrays[f"{HEAD}.{part}"] for part in ("weight", "scales", "biases")]
    with mx.stream(mx.cpu):
        got = np.array(mx.dequantize(*parts, group_size=64, bits=4, dtype=mx.float32))
    (error,) = [each for each in report.errors if each.tensor == f"{HEAD}.weight"]
    assert error.relative_error == pytest.approx(np.linalg.norm(got - truth) / np.linalg.norm(truth), rel=0.01)
    assert (error.bits, error.group_size) == (4, 64)
    relative = [each.relative_error for each in report.errors]
    assert relative == sorted(relative, reverse=True)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_every_family_is_whole_beside_its_source_and_a_tensor_that_is_missing_is_named(family, tmp_path):
    source = tiny_checkpoint(tmp_path / "source", base=TINY_FAMILIES[family])
    convert(source, "4bit", tmp_path / "out")
    report = check_weights(tmp_path / "out", source)
    assert set(states(report).values()) == {True}
    last = "vision_tower.blocks.0.norm2.weight"
    rewrite(tmp_path / "out", lambda tensors: {name: each for name, each in tensors.items() if name != last})
    assert problems(tmp_path / "out", "tensors") == [f"{last} is missing"]


def test_a_source_with_the_names_of_newer_transformers_is_compared_too(tmp_path, converted):
    source = demo_checkpoint(tmp_path / "source", rename=new_keys, reconfigure=nested_config)
    assert check_weights(converted("8bit"), source).holds


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_a_folder_that_stock_mlx_vlm_made_is_whole(mode, tmp_path):
    bits, group_size = {"affine": (6, 32), "mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}[mode]
    stock_convert(
        str(CHECKPOINT), str(tmp_path / "out"), quantize=True, q_bits=bits, q_group_size=group_size, q_mode=mode
    )
    report = check_weights(tmp_path / "out", CHECKPOINT)
    assert [check for check in report.checks if check.problems] == []
    assert report.holds
    assert {error.bits for error in report.errors} == {16, bits}
    assert 0 < report.errors[0].relative_error < 0.25


def test_modules_with_bits_of_their_own_are_whole(tmp_path):
    stock_convert(str(CHECKPOINT), str(tmp_path / "out"), quantize=True, quant_predicate="mixed_4_6")
    report = check_weights(tmp_path / "out", CHECKPOINT)
    assert report.holds
    assert {error.bits for error in report.errors} == {16, 4, 6}


def test_a_settings_path_without_the_wrappers_prefix_means_the_module_all_the_same(folder):
    edit_quantization(folder, lambda each: each.update({"lm_head": {"bits": 4, "group_size": 64}}))
    assert check_weights(folder).holds


def test_a_folder_of_another_family_is_checked_as_far_as_its_names_are_not_needed(folder):
    edit_config(folder, lambda config: config.update(model_type="llava"))
    report = check_weights(folder)
    assert (states(report)["tensors"], states(report)["packing"], states(report)["values"]) == (None, True, True)
    assert "not known here" in next(check.detail for check in report.checks if check.name == "tensors")


def test_a_mac_s_hidden_file_beside_a_shard_is_no_shard(folder):
    (folder / f"._{SHARD}").write_bytes(b"resource fork")
    assert check_weights(folder).holds


def test_progress_ends_where_it_was_announced_to_end(folder, source):
    write_hashes(folder)
    calls = []
    check_weights(folder, source, lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1]
    assert calls == sorted(calls)


# Files and index


def test_a_truncated_shard_is_named(folder):
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[:-1])
    (problem,) = problems(folder, "shards")
    assert f"{SHARD} is truncated" in problem


def test_a_header_of_absurd_length_is_named(folder):
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(struct.pack("<Q", 1 << 60) + content[8:])
    assert "no header is 1152921504606846976 bytes long" in problems(folder, "shards")[0]


def test_a_folder_without_shards_is_broken(folder):
    (folder / SHARD).unlink()
    assert "has no *.safetensors files" in problems(folder, "shards")[0]
    assert f"{SHARD} is missing, and {INDEX_FILE} names it" in problems(folder, "index")


def test_a_config_that_is_no_json_is_broken_and_the_rest_is_checked(folder):
    (folder / "config.json").write_text("{")
    put(folder, NORM, 3, 0x7FC0)
    report = check_weights(folder)
    assert states(report)["config"] is False
    assert [states(report)[name] for name in ("tensors", "packing")] == [None, None]
    assert NORM in problems(folder, "values")[0]


def test_without_a_config_nothing_is_compared(folder, source):
    (folder / "config.json").unlink()
    report = check_weights(folder, source)
    assert (states(report)["config"], states(report)["source"], report.errors) == (False, None, ())


def split(folder, second):
    """Put the tensors called *second* into a second shard, as the index says."""
    tensors = read_tensors(folder)
    write_tensors(folder / "b.safetensors", {name: tensors.pop(name) for name in second})
    write_tensors(folder / SHARD, tensors)
    edit_index(folder, lambda index: index["weight_map"].update(dict.fromkeys(second, "b.safetensors")))


def test_an_index_of_two_shards_holds(folder):
    split(folder, [NORM])
    assert check_weights(folder).holds


def test_an_index_that_names_the_wrong_shard_is_told_the_right_one(folder):
    split(folder, [NORM])
    edit_index(folder, lambda index: index["weight_map"].update({NORM: SHARD}))
    found = problems(folder, "index")
    assert f"{NORM} is not in {SHARD}, where {INDEX_FILE} has it; it is in b.safetensors" in found
    assert f"b.safetensors is there, and {INDEX_FILE} does not name it" in found


def test_an_index_that_names_a_tensor_twice_is_broken(folder):
    text = (folder / INDEX_FILE).read_text()
    (folder / INDEX_FILE).write_text(text.replace('"weight_map": {', f'"weight_map": {{"{NORM}": "{SHARD}", '))
    assert problems(folder, "index") == [f"{INDEX_FILE} names {NORM} twice; download it again"]


def test_an_index_that_leaves_a_tensor_out_is_broken(folder):
    edit_index(folder, lambda index: index["weight_map"].pop(NORM))
    assert problems(folder, "index") == [f"{NORM} ({SHARD}) is not in {INDEX_FILE}"]


def test_an_index_that_names_a_tensor_that_is_nowhere_is_broken(folder):
    edit_index(folder, lambda index: index["weight_map"].update(ghost=SHARD))
    assert problems(folder, "index") == [f"ghost is not in {SHARD}, where {INDEX_FILE} has it"]


def test_a_shard_outside_the_folder_is_not_looked_for(folder):
    edit_index(folder, lambda index: index["weight_map"].update(ghost="../model.safetensors"))
    assert problems(folder, "index") == [f"{INDEX_FILE} names a file outside the folder: ../model.safetensors"]


def test_a_tensor_in_two_shards_is_broken(folder):
    shutil.copyfile(folder / SHARD, folder / "copy.safetensors")
    assert f"{NORM} is in copy.safetensors and in {SHARD}" in problems(folder, "index")


def test_a_wrong_total_size_is_broken(folder):
    edit_index(folder, lambda index: index["metadata"].update(total_size=7))
    assert "says that total_size is 7, and the tensors have" in problems(folder, "index")[0]


@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100_000])
def test_an_index_of_another_form_is_broken(text, folder):
    (folder / INDEX_FILE).write_text(text)
    assert INDEX_FILE in problems(folder, "index")[0]


def test_a_numbered_shard_that_no_index_names_is_missed(folder):
    (folder / INDEX_FILE).unlink()
    assert check_weights(folder).holds
    (folder / SHARD).rename(folder / "model-00001-of-00002.safetensors")
    assert "only 1 of the 2 files" in problems(folder, "index")[0]


# Tensors and packing


def test_a_tensor_that_is_missing_or_too_many_is_named(folder):
    rewrite(folder, lambda tensors: {**{k: v for k, v in tensors.items() if k != NORM}, "ghost": ("BF16", [1], b"aa")})
    assert problems(folder, "tensors") == [f"{NORM} is missing", "ghost (1,) is no tensor of this model"]


def test_a_kept_tensor_of_another_shape_or_dtype_is_named(folder):
    bias = f"{QUERY}.bias"

    def change(tensors):
        tensors[NORM] = ("BF16", [32], tensors[NORM][2][:64])
        tensors[bias] = ("U32", [32], tensors[bias][2])

    rewrite(folder, change)
    found = problems(folder, "tensors")
    assert f"{NORM} has shape (32,), config.json asks for (64,)" in found
    assert any(each.startswith(f"{bias} has dtype U32") for each in found)


def test_a_packed_tensor_of_another_shape_is_named(folder):
    edit_config(folder, lambda config: config.update(vocab_size=97))
    assert f"{HEAD}.weight has shape (96, 64), config.json asks for (97, 64)" in problems(folder, "tensors")


def test_a_hugging_face_checkpoint_is_told_apart(source):
    (problem,) = problems(source, "tensors")
    assert "is a Hugging Face name: convert this checkpoint to MLX first" in problem


def test_a_config_without_a_dimension_is_broken(folder):
    edit_config(folder, lambda config: config.pop("hidden_size"))
    assert problems(folder, "tensors") == ["config.json says hidden_size is None, which is no dimension"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda each: each.update(bits=8), "which is not affine with 8 bits in groups of 64"),
        (lambda each: each.update(group_size=32), "which is not affine with 4 bits in groups of 32"),
        (lambda each: each.update(mode="mxfp4", group_size=32), "has biases, and mxfp4 has none"),
        (lambda each: each.update(mode="magic"), "has mode 'magic' in config.json, not one of"),
        (lambda each: each.update(mode=["affine"]), "has mode ['affine'] in config.json, not one of"),
        (lambda each: each.update(bits="4"), "has '4' bits in groups of 64 in config.json, which affine does not know"),
        (
            lambda each: each.update(group_size=8),
            "has 4 bits in groups of 8 in config.json, which affine does not know",
        ),
        (lambda each: each.update(bits=7), "has 7 bits in groups of 64 in config.json, which affine does not know"),
        (lambda each: each.update({HEAD: {"bits": 8, "group_size": 64}}), f"{HEAD} has a weight of shape (96, 8) and"),
        (lambda each: each.update({HEAD: False}), f"{HEAD} has scales, but config.json says that it is not quantized"),
        (lambda each: each.update({"a.ghost": {"bits": 4}}), "config.json names a.ghost in its quantization, and"),
        (
            lambda each: each.update({"vision_tower.merger.mlp.0": {"bits": 4, "group_size": 64}}),
            "config.json says that vision_tower.merger.mlp.0 is quantized, and it has no scales",
        ),
        (lambda each: each.clear(), "has scales, but config.json names no quantization"),
    ],
)
def test_a_config_that_does_not_fit_the_packing_is_broken(change, problem, folder):
    edit_quantization(folder, change)
    assert any(problem in each for each in problems(folder, "packing"))


def test_a_quantization_that_is_said_twice_must_be_the_same(folder):
    edit_config(folder, lambda config: config["quantization"].update({HEAD: {"bits": 4, "group_size": 64}}))
    assert problems(folder, "packing") == [f"config.json's quantization and quantization_config differ in {HEAD}"]


def test_a_quantization_that_is_no_group_of_settings_is_broken(folder):
    edit_config(folder, lambda config: config.update(quantization=4))
    assert problems(folder, "packing") == ["config.json has a quantization that is no group of settings"]


def test_a_config_that_quantizes_nothing_is_broken(converted, tmp_path):
    folder = shutil.copytree(converted("none"), tmp_path / "model")
    edit_config(folder, lambda config: config.update(quantization={"bits": 4, "group_size": 64}))
    assert problems(folder, "packing") == ["config.json says that the model is quantized, but no module has scales"]


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ("biases", f"{HEAD} has scales but no biases"),
        ("weight", f"{HEAD} has scales but no weight"),
        ("scales", f"{HEAD}.weight is packed (U32) and has no scales"),
    ],
)
def test_a_part_of_a_packed_module_that_is_missing_is_named(part, problem, folder):
    rewrite(folder, lambda tensors: {name: each for name, each in tensors.items() if name != f"{HEAD}.{part}"})
    assert problem in problems(folder, "packing")


@pytest.mark.parametrize(
    ("part", "entry", "problem"),
    [
        ("weight", ("F32", [96, 8], bytes(3072)), "has scales, but dtype F32: packed weights are U32"),
        ("weight", ("U32", [], bytes(4)), "has a weight of shape ()"),
        ("scales", ("U8", [96, 1], bytes(96)), "has dtype U8; affine has"),
        ("biases", ("BF16", [48, 1], bytes(96)), "has shape (48, 1), its scales (96, 1)"),
        ("biases", ("U8", [96, 1], bytes(96)), "has dtype U8; affine has"),
    ],
)
def test_a_part_of_a_packed_module_of_another_form_is_named(part, entry, problem, folder):
    rewrite(folder, lambda tensors: tensors.update({f"{HEAD}.{part}": entry}))
    (found,) = problems(folder, "packing")
    assert found.startswith(HEAD)
    assert problem in found


# Values and hashes


@pytest.mark.parametrize("value", [0x7FC0, 0x7F80, 0xFF80])
def test_a_value_that_is_not_finite_is_named_with_its_place(value, folder):
    put(folder, NORM, 5, value)
    assert problems(folder, "values") == [f"{NORM} has 1 value of 64, at [5], that is NaN or infinite"]


@pytest.mark.parametrize("zero", [0x0000, 0x8000])
def test_zero_scales_are_counted_and_the_first_is_named(zero, folder):
    put(folder, f"{HEAD}.scales", slice(7, 9), zero)
    expected = f"{HEAD}.scales has 2 values of 96, the first at [7, 0], that are zero"
    assert problems(folder, "values") == [expected]


def test_a_scale_of_8_bits_that_is_nan_is_named(tmp_path):
    stock_convert(str(CHECKPOINT), str(tmp_path / "out"), quantize=True, q_bits=4, q_group_size=32, q_mode="mxfp4")

    def change(tensors):
        dtype, shape, data = tensors[f"{HEAD}.scales"]
        tensors[f"{HEAD}.scales"] = (dtype, shape, b"\xff" + data[1:])

    rewrite(tmp_path / "out", change)
    (problem,) = problems(tmp_path / "out", "values")
    assert problem.startswith(f"{HEAD}.scales has 1 value of ")


def test_a_place_beyond_the_first_chunk_is_found(converted, tmp_path):
    folder = shutil.copytree(converted("none"), tmp_path / "model")
    put(folder, f"{HEAD}.weight", (4000, 380), 0x7FC0)
    assert f"{HEAD}.weight has 1 value of 1572864, at [4000, 380], that is NaN or infinite" in problems(
        folder, "values"
    )


def test_hashes_that_differ_are_named(folder):
    write_hashes(folder)
    put(folder, NORM, 0, 0x3F00)
    assert f"{SHARD} has another SHA-256 than {HASHES_FILE} says" in problems(folder, "hashes")


def test_hashes_of_what_is_not_there_or_not_listed_are_named(folder):
    (folder / HASHES_FILE).write_text(f"{'0' * 64}  ghost.safetensors\n")
    assert problems(folder, "hashes") == [
        f"ghost.safetensors is missing, and {HASHES_FILE} names it",
        f"{SHARD} is not in {HASHES_FILE}",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"{'0' * 64}  ../secret", "names a file outside the folder"),
        (f"{'0' * 64}  below\\secret", "names a file outside the folder"),
        ("0123  model.safetensors", "is not a SHA-256 and a name"),
        (f"{'0' * 64}  {SHARD}", f"has another hash for {SHARD} than a line before"),
    ],
)
def test_a_line_of_hashes_that_is_none_is_named_by_its_number(line, problem, folder):
    digest = hashlib.sha256((folder / SHARD).read_bytes()).hexdigest()
    (folder / HASHES_FILE).write_text(f"{digest} *{SHARD}\n{line}\n")
    (found,) = problems(folder, "hashes")
    assert found.startswith(f"{HASHES_FILE}:2 {problem}")


def test_hashes_that_are_no_text_are_broken(folder):
    (folder / HASHES_FILE).write_bytes(b"\xff\xfe")
    assert "cannot be read" in problems(folder, "hashes")[0]


# Loading


@pytest.mark.parametrize("setting", ["auto_map", "model_file"])
def test_a_folder_with_code_is_not_loaded(setting, folder):
    (folder / "evil.py").write_text("raise SystemExit('it ran')")
    edit_config(folder, lambda config: config.update({setting: "evil.py"}))
    (problem,) = problems(folder, "loads")
    assert f"has {setting}, which would run Python code from the folder" in problem


def test_what_mlx_vlm_says_against_a_folder_is_passed_on(folder):
    edit_config(folder, lambda config: config.update(model_type="ghost"))
    (problem,) = problems(folder, "loads")
    assert problem.startswith("mlx-vlm does not load it: ValueError: ")
    assert "ghost" in problem


def test_a_broken_folder_is_not_tried_to_load(folder):
    edit_index(folder, lambda index: index["weight_map"].pop(NORM))
    (check,) = [check for check in check_weights(folder).checks if check.name == "loads"]
    assert (check.holds, check.detail) == (None, "not tried, for what is said of index")


def test_a_dtype_that_mlx_vlm_reads_by_writing_to_the_file_is_not_tried(folder):
    edit_config(folder, lambda config: config.update(model_type="llava"))
    rewrite(folder, lambda tensors: tensors.update(extra=("F8_E8M0", [1], b"\x7f")))
    before = (folder / SHARD).stat().st_mtime_ns
    (check,) = [check for check in check_weights(folder).checks if check.name == "loads"]
    assert check.holds is None
    assert "F8_E8M0" in check.detail
    assert (folder / SHARD).stat().st_mtime_ns == before


# Against the source


def test_a_kept_tensor_that_is_not_its_source_is_named(folder, source):
    put(folder, NORM, 5, 0x3F00)
    (problem,) = problems(folder, "source", source)
    assert problem == f"{NORM} was kept, but 1 of its 64 values are not the source's in BF16"


def test_a_packed_tensor_of_another_model_is_named(whole, tmp_path):
    other = tiny_checkpoint(tmp_path / "other", change=lambda tensors: tiny_tensors(TINY, seed=1))
    found = problems(whole, "source", other)
    assert any(each.startswith(f"{HEAD}.weight is not its source: its relative error is ") for each in found)


def test_a_tensor_that_the_folder_lacks_or_adds_is_named(folder, source):
    rewrite(folder, lambda tensors: {**{k: v for k, v in tensors.items() if k != NORM}, "ghost": ("BF16", [1], b"aa")})
    found = problems(folder, "source", source)
    assert found == [f"{NORM}: it is missing, and the source has it", "ghost is not in the source"]


def test_a_tensor_of_another_shape_is_named(folder, source):
    rewrite(folder, lambda tensors: tensors.update({NORM: ("BF16", [32], tensors[NORM][2][:64])}))
    assert problems(folder, "source", source) == [f"{NORM}: its shape is (32,), its source's (64,)"]


def test_a_broken_packing_is_not_compared(folder, source):
    edit_quantization(folder, lambda each: each.update({HEAD: {"bits": 8, "group_size": 64}}))
    assert f"{HEAD}.weight: it cannot be compared, since its packing is broken" in problems(folder, "source", source)


def test_a_kept_tensor_that_is_no_float_is_not_compared(folder, source):
    rewrite(folder, lambda tensors: tensors.update({NORM: ("U8", [64], bytes(64))}))
    assert problems(folder, "source", source) == [f"{NORM}: dtype U8 is no float that can be compared"]


def test_values_that_are_not_finite_have_no_relative_error(folder, source):
    put(folder, f"{HEAD}.scales", (3, 0), 0x7FC0)
    found = problems(folder, "source", source)
    assert found == [f"{HEAD}.weight has no relative error: values that are not finite, or a source of zeros"]
    assert check_weights(folder, source).errors[0].relative_error is None


@pytest.mark.parametrize(("source_dtype", "target"), [("F32", "bfloat16"), ("F32", "float16"), ("BF16", "float16")])
def test_a_cast_of_what_is_kept_is_no_problem_and_its_error_is_told(source_dtype, target, tmp_path):
    def change(tensors):
        if source_dtype == "BF16":
            return tensors
        random = np.random.default_rng(1)
        return {
            name: ("F32", shape, random.normal(0, 0.02, shape).astype(np.float32).tobytes())
            for name, (_, shape, _) in tensors.items()
        }

    source = tiny_checkpoint(tmp_path / "source", {"torch_dtype": target}, change)
    convert(source, "none", tmp_path / "out")
    report = check_weights(tmp_path / "out", source)
    assert report.holds
    assert 0 < report.errors[0].relative_error < 3e-3


def padded(folder, source, put_into=None, value=0):
    """Convert *source*, then pad its vision MLP from 44 to 64; *value* goes into the padding of one tensor."""
    convert(source, "4bit", folder)
    without_hashes(folder)

    def pad(tensors):
        for name in [name for name in tensors if name.startswith("vision_tower.blocks.0.mlp.")]:
            dtype, shape, data = tensors[name]
            axis = 0 if "down_proj" not in name else 1 if name.endswith("weight") else None
            if axis is None:
                continue
            widths = [(0, 20) if each == axis else (0, 0) for each in range(len(shape))]
            values = np.pad(np.frombuffer(data, np.uint16).reshape(shape), widths)
            if name == put_into:
                values[-1] = value
            tensors[name] = (dtype, list(values.shape), values.tobytes())

    rewrite(folder, pad)
    edit_config(folder, lambda config: config["vision_config"].update(intermediate_size=64))
    return folder


def test_zeros_that_widen_the_vision_mlp_are_recognised_and_shown(tmp_path, source):
    report = check_weights(padded(tmp_path / "out", source), source)
    assert report.holds
    wider = {error.tensor: error.relative_error for error in report.errors if error.padded}
    gate = UP.replace("up", "gate")
    assert wider == dict.fromkeys(
        [f"{UP}.weight", f"{UP}.bias", f"{gate}.weight", f"{gate}.bias", f"{DOWN}.weight"], 0.0
    )


@pytest.mark.parametrize("name", [f"{UP}.weight", f"{UP}.bias"])
def test_padding_that_is_not_zero_is_named(name, tmp_path, source):
    found = problems(padded(tmp_path / "out", source, name, 0x3F00), "source", source)
    assert len(found) == 1
    assert found[0].startswith(f"{name} is padded to (64,")
    assert found[0].endswith("of the added values are not zero")


def quantized_vision(folder, name):
    """Pack a tensor of the vision tower to 8 bits, as MLX does."""

    def change(tensors):
        dtype, shape, data = tensors.pop(f"{name}.weight")
        weight = mx.array(np.frombuffer(data, np.uint16).reshape(shape)).view(mx.bfloat16)
        with mx.stream(mx.cpu):
            parts = mx.quantize(weight, group_size=32, bits=8)
            for part, array in zip(("weight", "scales", "biases"), parts, strict=True):
                stored = np.array(array.view(mx.uint8))
                kind = "U32" if part == "weight" else dtype
                tensors[f"{name}.{part}"] = (kind, list(array.shape), stored.tobytes())

    rewrite(folder, change)
    edit_quantization(folder, lambda each: each.update({name: {"bits": 8, "group_size": 32, "mode": "affine"}}))


@pytest.mark.parametrize("name", [UP, DOWN])
def test_padding_is_recognised_in_packed_weights_too(name, tmp_path, source):
    folder = padded(tmp_path / "out", source)
    quantized_vision(folder, name)
    report = check_weights(folder, source)
    assert report.holds
    (error,) = [error for error in report.errors if error.tensor == f"{name}.weight"]
    assert error.padded
    assert 0 < error.relative_error < 0.03


@pytest.mark.parametrize("scales", [np.linspace(0.5, 2, 96, dtype=np.float32)[:, None], np.full((1,), 0.3, np.float32)])
def test_values_of_8_bits_times_their_scales_are_the_reference(scales, tmp_path):
    codes = np.arange(96 * 64, dtype=np.uint32).reshape(96, 64).astype(np.uint8) & 0x77
    with mx.stream(mx.cpu):
        truth = np.array(mx.from_fp8(mx.array(codes), dtype=mx.float32)) * scales
    for name, array in (("codes", codes), ("scales", scales), ("kept", truth)):
        (tmp_path / name).write_bytes(array.tobytes())
    scale = TensorInfo("w_scale", "F32", scales.shape, "scales", 0, scales.nbytes)
    info = TensorInfo("w", "F8_E4M3", codes.shape, "codes", 0, codes.nbytes, scale)
    kept = StoredTensor(tmp_path / "kept", TensorInfo("w", "F32", truth.shape, "kept", 0, truth.nbytes))
    source = SourceCheckpoint(ModelFolder(tmp_path), {}, {"w": info})
    difference = compare(source, {"w": kept}, {}, lambda nbytes: None)
    assert (difference.problems, difference.errors[0].relative_error) == ((), 0.0)
    assert difference.errors[0].tensor == "w"


def test_scales_of_8_bit_values_that_are_neither_one_nor_one_a_row_are_named(tmp_path):
    (tmp_path / "zeros").write_bytes(bytes(4096))
    scale = TensorInfo("w_scale", "F32", (2, 2), "zeros", 0, 16)
    info = TensorInfo("w", "F8_E4M3", (32, 32), "zeros", 0, 1024, scale)
    kept = StoredTensor(tmp_path / "zeros", TensorInfo("w", "F32", (32, 32), "zeros", 0, 4096))
    difference = compare(SourceCheckpoint(ModelFolder(tmp_path), {}, {"w": info}), {"w": kept}, {}, lambda nbytes: None)
    assert difference.problems == ("w: its source has scales of shape (2, 2), which are not read here",)


def test_every_byte_of_8_bits_is_the_number_that_mlx_reads():
    codes = np.arange(256, dtype=np.uint8)
    with mx.stream(mx.cpu):
        theirs = np.array(mx.from_fp8(mx.array(codes), dtype=mx.float32))
    finite = codes & 0x7F != 0x7F
    assert np.array_equal(as_float32(codes.view(NUMPY_DTYPES["F8_E4M3"]), "F8_E4M3")[finite], theirs[finite])
    assert np.isnan(as_float32(codes.view(NUMPY_DTYPES["F8_E4M3"]), "F8_E4M3")[~finite]).all()


@pytest.mark.parametrize(("dtype", "theirs"), [("BF16", mx.bfloat16), ("F16", mx.float16), ("F32", mx.float32)])
def test_a_cast_rounds_as_mlx_does(dtype, theirs):
    values = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
    values[:4] = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1e6]
    with mx.stream(mx.cpu):
        expected = np.array(mx.array(values).astype(theirs).astype(mx.float32))
    assert np.array_equal(rounded(values, dtype), expected)


def test_a_source_that_is_no_checkpoint_is_an_error(whole, tmp_path):
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        check_weights(whole, tmp_path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("a file")])
def test_a_folder_that_holds_no_model_is_an_error(make, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"give the folder of an MLX model|holds no model"):
        check_weights(tmp_path / "model")


# Anything at all


@pytest.fixture(scope="module")
def victim(whole, tmp_path_factory):
    return shutil.copytree(whole, tmp_path_factory.mktemp("victim") / "model")


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 1999), flipped=st.integers(1, 255))
def test_any_byte_may_be_flipped_and_a_report_or_one_sentence_follows(whole, victim, place, flipped):
    content = bytearray((whole / SHARD).read_bytes())
    content[place] ^= flipped
    (victim / SHARD).write_bytes(content)
    report = check_weights(victim)
    assert isinstance(report.holds, bool)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(
    file=st.sampled_from(["config.json", INDEX_FILE]),
    key=st.sampled_from(
        ["quantization", "quantization_config", "bits", "metadata", "weight_map", "text_config", "vision_config",
         "rope_scaling", "hidden_size", "torch_dtype", "model_type", "architectures", "tie_word_embeddings"]
    ),
    value=JSON,
)  # fmt: skip
def test_any_setting_may_be_anything_and_a_report_follows(whole, victim, file, key, value):
    shutil.copyfile(whole / SHARD, victim / SHARD)
    for name in ("config.json", INDEX_FILE):
        shutil.copyfile(whole / name, victim / name)
    if key == "bits":
        edit_config(victim, lambda config: config["quantization"].update({key: value, HEAD: value}))
    else:
        edit_json(victim / file, lambda settings: settings.update({key: value}))
    assert isinstance(check_weights(victim).holds, bool)


# The command


def run(*arguments, **options):
    return subprocess.run([*VALIDATE, *map(str, arguments)], capture_output=True, text=True, **options)


def test_the_command_says_one_line_a_check_the_worst_ten_and_the_verdict(whole, source):
    done = run(whole, "--source", source)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    names = ["config", "shards", "index", "tensors", "packing", "values", "hashes", "tokenizer", "loads", "source"]
    assert [line[13:22].strip() for line in lines[: len(names)]] == names
    assert {line[:11].strip() for line in lines[: len(names)]} == {"ok"}
    assert lines[len(names)].startswith("the largest of ")
    assert len(lines) == len(names) + 1 + 10 + 1
    assert lines[-1].startswith(f"{whole} is whole: ")
    assert lines[-1].endswith("bits per weight")


def test_the_command_lists_what_is_wrong_and_ends_with_exit_code_11(folder):
    rewrite(folder, lambda tensors: {name: each for name, each in tensors.items() if "vision_tower" not in name})
    done = run(folder)
    assert done.returncode == 11
    lines = done.stdout.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("broken       tensors")]
    assert all(line.strip().endswith("is missing") for line in lines[start + 1 : start + 11])
    assert lines[start + 11].strip() == "and 8 more"
    assert lines[-1] == f"{folder} is broken: tensors"


def test_the_command_prints_one_object_for_machines(folder, source):
    put(folder, NORM, 5, 0x7FC0)
    done = run(folder, "--source", source, "--json")
    assert done.returncode == 11
    report = json.loads(done.stdout, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert set(report) == {"folder", "holds", "checks", "tensors", "bytes", "bits_per_weight", "errors"}
    assert (report["folder"], report["holds"]) == (str(folder), False)
    values = next(check for check in report["checks"] if check["check"] == "values")
    assert values["holds"] is False
    assert NORM in values["problems"][0]
    assert set(report["errors"][0]) == {"tensor", "relative_error", "bits", "group_size", "padded"}
    assert len(report["errors"]) == len(tiny_tensors(TINY))


def test_the_command_says_in_one_sentence_that_a_folder_holds_no_model(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: {tmp_path} holds no model")


def test_without_mlx_the_rest_is_checked(whole, source, tmp_path):
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx/__init__.py").write_text("raise ImportError('no MLX here')")
    done = run(
        whole,
        "--source",
        source,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.returncode == 0, done.stderr
    assert "not checked  loads    MLX is not installed for this machine (no MLX here)" in done.stdout
    assert done.stdout.strip().endswith("not checked: loads, source")


def test_a_tokenizer_that_is_a_pointer_is_found(folder):
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (problem,) = problems(folder, "tokenizer")
    assert "tokenizer.json is a Git LFS pointer" in problem


def test_tokens_that_the_embeddings_do_not_have_are_said(folder):
    (check,) = [check for check in check_weights(folder).checks if check.name == "tokenizer"]
    assert check.holds
    assert "have ids beyond the 96 rows of the embeddings" in check.detail


def test_an_adapter_beside_the_weights_is_found(folder):
    (folder / "adapter_config.json").write_text("{}")
    (problem,) = problems(folder, "loads")
    assert "holds weights and beside them an adapter (adapter_config.json)" in problem
