"""Folders that are whole, and every way in which one can be broken: made on the spot, and named by the check."""

import hashlib
import json
import os
import shutil
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.convert import convert
from olmocr.errors import CheckpointError
from olmocr.model_folder import HASHES_FILE, INDEX_FILE
from olmocr.validate.weights.check import check_weights
from tests.checkpoints import TINY, TINY_FAMILIES, read_tensors, tiny_checkpoint, tiny_tensors, write_tensors
from tests.conftest import CHECKPOINT
from tests.validate.weights.folders import (
    SHARD,
    edit_config,
    edit_index,
    edit_json,
    problems,
    put,
    rewrite,
    run,
)

HEAD = "language_model.lm_head"


QUERY = "language_model.model.layers.0.self_attn.q_proj"


NORM = "language_model.model.norm.weight"


def states(report):
    return {check.name: check.holds for check in report.checks}


def write_hashes(folder):
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())]
    (folder / HASHES_FILE).write_text("\n".join(lines) + "\n")


def test_a_converted_folder_is_whole_in_every_respect(whole):
    report = check_weights(whole)
    assert report.holds
    assert set(states(report).values()) == {True}
    assert report.bytes == sum(len(data) for _, _, data in read_tensors(whole).values())
    assert report.errors == ()


@pytest.mark.parametrize(
    "recipe", ["none", "4bit", *(pytest.param(each, marks=pytest.mark.slow) for each in ("8bit", "mixed"))]
)
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


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_every_family_is_whole_beside_its_source_and_a_tensor_that_is_missing_is_named(family, tmp_path):
    source = tiny_checkpoint(tmp_path / "source", base=TINY_FAMILIES[family])
    convert(source, "4bit", tmp_path / "out")
    report = check_weights(tmp_path / "out", source)
    assert set(states(report).values()) == {True}
    last = "vision_tower.blocks.0.norm2.weight"
    rewrite(tmp_path / "out", lambda tensors: {name: each for name, each in tensors.items() if name != last})
    assert problems(tmp_path / "out", "tensors") == [f"{last} is missing"]


def test_a_folder_of_another_family_is_checked_as_far_as_its_names_are_not_needed(folder):
    edit_config(folder, lambda config: config.update(model_type="llava"))
    report = check_weights(folder)
    assert (states(report)["tensors"], states(report)["packing"], states(report)["values"]) == (None, True, True)
    assert "not known here" in next(check.detail for check in report.checks if check.name == "tensors")


def test_a_mac_s_hidden_file_beside_a_shard_is_not_a_shard(folder):
    (folder / f"._{SHARD}").write_bytes(b"resource fork")
    assert check_weights(folder).holds


def test_progress_ends_where_it_was_announced_to_end(folder, source):
    write_hashes(folder)
    calls = []
    check_weights(folder, source, lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1]
    assert calls == sorted(calls)


def test_a_truncated_shard_is_named(folder):
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[:-1])
    (problem,) = problems(folder, "shards")
    assert f"{SHARD} is truncated" in problem


def test_a_header_of_absurd_length_is_named(folder):
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(struct.pack("<Q", 1 << 60) + content[8:])
    assert "a header cannot have 1152921504606846976 bytes" in problems(folder, "shards")[0]


def test_a_folder_without_shards_is_broken(folder):
    (folder / SHARD).unlink()
    assert "has no *.safetensors files" in problems(folder, "shards")[0]
    assert f"{SHARD} is missing, but {INDEX_FILE} names it" in problems(folder, "index")


def test_a_config_that_is_not_json_is_broken_and_the_rest_is_checked(folder):
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
    assert f"b.safetensors exists, but {INDEX_FILE} does not name it" in found


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
    assert "says that total_size is 7, but the tensors have" in problems(folder, "index")[0]


@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100_000])
def test_an_index_of_another_form_is_broken(text, folder):
    (folder / INDEX_FILE).write_text(text)
    assert INDEX_FILE in problems(folder, "index")[0]


def test_a_numbered_shard_that_no_index_names_is_missed(folder):
    (folder / INDEX_FILE).unlink()
    assert check_weights(folder).holds
    (folder / SHARD).rename(folder / "model-00001-of-00002.safetensors")
    assert "only 1 of the 2 files" in problems(folder, "index")[0]


def test_a_tensor_that_is_missing_or_too_many_is_named(folder):
    rewrite(folder, lambda tensors: {**{k: v for k, v in tensors.items() if k != NORM}, "ghost": ("BF16", [1], b"aa")})
    assert problems(folder, "tensors") == [f"{NORM} is missing", "ghost (1,) is not a tensor of this model"]


def test_a_kept_tensor_of_another_shape_or_dtype_is_named(folder):
    bias = f"{QUERY}.bias"

    def change(tensors):
        tensors[NORM] = ("BF16", [32], tensors[NORM][2][:64])
        tensors[bias] = ("U32", [32], tensors[bias][2])

    rewrite(folder, change)
    found = problems(folder, "tensors")
    assert f"{NORM} has shape (32,), config.json requires (64,)" in found
    assert any(each.startswith(f"{bias} has dtype U32") for each in found)


def test_a_hugging_face_checkpoint_is_told_apart(source):
    (problem,) = problems(source, "tensors")
    assert "is a Hugging Face name: convert this checkpoint to MLX first" in problem


def test_a_config_without_a_dimension_is_broken(folder):
    edit_config(folder, lambda config: config.pop("hidden_size"))
    assert problems(folder, "tensors") == ["config.json says hidden_size is None, not a dimension"]


def test_hashes_that_differ_are_named(folder):
    write_hashes(folder)
    put(folder, NORM, 0, 0x3F00)
    assert f"{SHARD} has another SHA-256 than {HASHES_FILE} lists" in problems(folder, "hashes")


def test_hashes_of_what_is_not_there_or_not_listed_are_named(folder):
    (folder / HASHES_FILE).write_text(f"{'0' * 64}  ghost.safetensors\n")
    assert problems(folder, "hashes") == [
        f"ghost.safetensors is missing, but {HASHES_FILE} names it",
        f"{SHARD} is not in {HASHES_FILE}",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"{'0' * 64}  ../secret", "names a file outside the folder"),
        (f"{'0' * 64}  below\\secret", "names a file outside the folder"),
        ("0123  model.safetensors", "is not a SHA-256 and a name"),
        (f"{'0' * 64}  {SHARD}", f"has another hash for {SHARD} than an earlier line"),
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


def test_a_source_that_is_not_a_checkpoint_is_an_error(whole, tmp_path):
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        check_weights(whole, tmp_path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("a file")])
def test_a_folder_that_holds_no_model_is_an_error(make, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"give the folder of an MLX model|does not hold a model"):
        check_weights(tmp_path / "model")


@pytest.fixture(scope="module")
def victim(whole, tmp_path_factory):
    return shutil.copytree(whole, tmp_path_factory.mktemp("victim") / "model")


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


def test_the_command_says_one_line_a_check_the_worst_ten_and_the_verdict(whole, source):
    done = run(whole, "--source", source)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    names = ["config", "shards", "index", "tensors", "packing", "values", "hashes", "tokenizer", "loads", "source"]
    assert [line[13:22].strip() for line in lines[: len(names)]] == names
    assert {line[:11].strip() for line in lines[: len(names)]} == {"ok"}
    assert lines[len(names)].startswith("the largest of ")
    assert len(lines) == len(names) + 1 + 10 + 1
    assert lines[-1].startswith(f"{whole} is complete: ")
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
    assert done.stderr.startswith(f"error: {tmp_path} does not hold a model")


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
    assert "holds weights and also an adapter (adapter_config.json)" in problem


@pytest.mark.parametrize("name", ["gone", "d" * 300])
def test_what_no_disk_has_is_not_a_model(name, tmp_path):
    with pytest.raises(CheckpointError, match="is not a readable folder"):
        check_weights(tmp_path / name)
