"""What a folder holds, and what is refused."""

import json
from pathlib import Path

import pytest

from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder, read_config, read_json, shard_sha256
from tests.conftest import CHECKPOINT
from tests.hub.repositories import WEIGHTS


def folder_with(path, config):
    path.mkdir()
    (path / "config.json").write_text(config)
    return ModelFolder(path)


def test_a_folder_without_config_json_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no checkpoint: it has no config\.json"):
        read_config(ModelFolder(tmp_path))


@pytest.mark.parametrize("text", [b'{"architectures": [', b"\xff", b"[" * 100_000], ids=["cut", "not UTF-8", "deep"])
def test_broken_json_is_refused_with_the_files_name(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON: "):
        read_json(tmp_path / "config.json")


def test_a_json_list_is_no_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json holds no JSON object"):
        read_config(folder_with(tmp_path / "model", "[]"))


def test_another_architecture_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="is a Qwen2VLForConditionalGeneration, which is not supported"):
        read_config(folder_with(tmp_path / "model", '{"architectures": ["Qwen2VLForConditionalGeneration"]}'))


CONFIG = '{"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "_name_or_path": "%s"}'


@pytest.mark.parametrize(("folder", "config"), [("olmOCR-7B-0825", CONFIG % ""), ("m", CONFIG % "x/olmocr-7b-0725")])
def test_a_checkpoint_of_another_prompt_is_refused(tmp_path, folder, config):
    with pytest.raises(CheckpointError, match="trained on another prompt and would be asked wrongly; the pipeline"):
        read_config(folder_with(tmp_path / folder, config))


def test_a_config_of_olmocr_2_is_read():
    assert read_config(ModelFolder(CHECKPOINT)) == json.loads((CHECKPOINT / "config.json").read_text())


def test_the_hash_of_a_cached_shard_is_its_blobs_name(tmp_path):
    sha256, of_the_store = "ab" * 32, "cd" * 32
    (tmp_path / "blobs").mkdir()
    (tmp_path / of_the_store).touch()
    (tmp_path / "blobs" / sha256).symlink_to(tmp_path / of_the_store)
    (tmp_path / WEIGHTS).symlink_to(Path("blobs") / sha256)
    assert shard_sha256(ModelFolder(tmp_path, "a/b", "c"), WEIGHTS) == sha256


def test_a_shard_without_a_blob_of_that_name_has_no_hash(tmp_path):
    (tmp_path / "copied.safetensors").touch()
    (tmp_path / "git.safetensors").symlink_to("ab" * 20)
    (tmp_path / "linked.safetensors").symlink_to("ab" * 32)
    from_the_hub = ModelFolder(tmp_path, "a/b", "c")
    assert shard_sha256(from_the_hub, "copied.safetensors") is None
    assert shard_sha256(from_the_hub, "git.safetensors") is None
    assert shard_sha256(ModelFolder(tmp_path), "linked.safetensors") is None
