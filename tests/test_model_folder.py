"""What a folder holds, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from olmocr.errors import CheckpointError
from olmocr.model_folder import (
    INDEX_FILE,
    ModelFolder,
    RemoteShard,
    indexed_shards,
    read_config,
    read_json,
    refuse_links_out,
    shard_sha256,
    weights_sha256,
)
from tests.conftest import CHECKPOINT
from tests.hub.repositories import WEIGHTS


def folder_with(path, config):
    path.mkdir()
    (path / "config.json").write_text(config)
    return ModelFolder(path)


def test_a_folder_without_config_json_is_not_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no config\.json"):
        read_config(ModelFolder(tmp_path))


@pytest.mark.parametrize("text", [b'{"architectures": [', b"\xff", b"[" * 100_000], ids=["cut", "not UTF-8", "deep"])
def test_broken_json_is_refused_with_the_files_name(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON: "):
        read_json(tmp_path / "config.json")


def test_a_json_list_is_not_a_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json does not hold a JSON object"):
        read_config(folder_with(tmp_path / "model", "[]"))


def test_another_architecture_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="is a Qwen2VLForConditionalGeneration, which is not supported"):
        read_config(folder_with(tmp_path / "model", '{"architectures": ["Qwen2VLForConditionalGeneration"]}'))


CONFIG = '{"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "_name_or_path": "%s"}'


@pytest.mark.parametrize(("folder", "config"), [("olmOCR-7B-0825", CONFIG % ""), ("m", CONFIG % "x/olmocr-7b-0725")])
def test_a_checkpoint_of_another_prompt_is_refused(tmp_path, folder, config):
    with pytest.raises(CheckpointError, match="trained on another prompt and would get the wrong one; the pipeline"):
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


def in_the_cache(cache):
    """Make a folder as the Hub's cache has it: a link to a blob, one to a blob that the shared store has."""
    repository = cache / "models--tiny--olmocr"
    folder = repository / "snapshots" / ("ab" * 20)
    (folder / "more").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "one").write_text("{}")
    (cache / "blobs" / "ab").mkdir(parents=True)
    (cache / "blobs" / "ab" / "two").write_text("{}")
    (cache / "blobs" / ".huggingface-shared-blobs").touch()
    (repository / "blobs" / "two").symlink_to("../../blobs/ab/two")
    (folder / "config.json").symlink_to("../../blobs/one")
    (folder / "more" / "weights").symlink_to("../../../blobs/two")
    return folder


def test_the_links_of_the_hubs_cache_stay(tmp_path):
    refuse_links_out(in_the_cache(tmp_path / "hub"))
    (tmp_path / "elsewhere").symlink_to(tmp_path / "hub")
    refuse_links_out(tmp_path / "elsewhere/models--tiny--olmocr/snapshots" / ("ab" * 20))


def secret_in(tmp_path):
    secret = tmp_path / "home" / "secret"
    secret.parent.mkdir()
    secret.write_text("a password")
    return secret


HOSTILE = {
    "a link": lambda folder, secret: (folder / "LICENSE").symlink_to(secret),
    "a relative one": lambda folder, secret: (folder / "LICENSE").symlink_to("../home/secret"),
    "one to nothing": lambda folder, secret: (folder / "LICENSE").symlink_to("../not-yet"),
    "one to a folder": lambda folder, secret: (folder / "more").symlink_to(secret.parent),
    "one in a folder": lambda folder, secret: (folder / "more/x").symlink_to(secret),
    "a chain": lambda folder, secret: [(folder / "a").symlink_to("b"), (folder / "b").symlink_to(secret)],
    "one to the folder's own neighbour": lambda folder, secret: (folder / "x").symlink_to(f"../{folder.name}-more"),
    "one with a terminal's commands": lambda folder, secret: (folder / "\x1b[2Jx").symlink_to(secret),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_link_out_of_the_folder_is_refused(make, tmp_path):
    folder = tmp_path / "model"
    (folder / "more" if "more/x" in make.__code__.co_consts else folder).mkdir(parents=True)
    make(folder, secret_in(tmp_path))
    with pytest.raises(CheckpointError, match="is a link out of the folder, to ") as error:
        refuse_links_out(folder)
    assert str(error.value).isprintable()


def test_blobs_that_are_a_link_themselves_are_none_of_the_hubs_cache(tmp_path):
    folder = tmp_path / "models--a--b" / "snapshots" / "c"
    folder.mkdir(parents=True)
    secret_in(tmp_path)
    (tmp_path / "models--a--b" / "blobs").symlink_to(tmp_path / "home")
    (folder / "LICENSE").symlink_to("../../blobs/secret")
    with pytest.raises(CheckpointError, match="is a link out of the folder"):
        refuse_links_out(folder)


def test_a_neighbour_called_blobs_is_not_the_hubs_shared_store(tmp_path):
    folder = in_the_cache(tmp_path / "hub")
    (tmp_path / "hub/blobs/.huggingface-shared-blobs").unlink()
    with pytest.raises(CheckpointError, match=r"weights in .* is a link out of the folder"):
        refuse_links_out(folder)


def test_links_in_a_circle_and_pipes_are_refused_without_being_opened(tmp_path):
    (tmp_path / "config.json").symlink_to("config.json")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(ModelFolder(tmp_path))
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json in .* is not a file or a folder"):
        read_config(ModelFolder(tmp_path))


def test_what_git_keeps_for_itself_is_not_looked_through(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hook").symlink_to("/bin/sh")
    refuse_links_out(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "..\\x.safetensors"])
def test_shards_outside_the_folder_are_none(name, tmp_path):
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": name, "b": WEIGHTS}}))
    assert indexed_shards(ModelFolder(tmp_path)) == ()


def hashed(folder, **hashes):
    """Write weights of these names, and a SHA256SUMS that gives them these hashes."""
    folder.mkdir()
    for name in hashes:
        (folder / f"{name}.safetensors").touch()
    lines = [f"{sha256}  {name}.safetensors\n" for name, sha256 in hashes.items()]
    (folder / "SHA256SUMS").write_text("".join([f"{'c' * 64}  config.json\n", *lines]))
    return ModelFolder(folder)


def test_folders_with_the_same_weights_have_one_hash_whatever_else_is_in_them(tmp_path):
    one = hashed(tmp_path / "one", a="a" * 64, b="b" * 64)
    other = hashed(tmp_path / "other", b="b" * 64, a="a" * 64)
    (tmp_path / "other/SHA256SUMS").write_text(f"{'b' * 64} *b.safetensors\n{'a' * 64}  a.safetensors\n")
    assert weights_sha256(one) == weights_sha256(other)
    assert len(weights_sha256(one) or "") == 64
    assert weights_sha256(hashed(tmp_path / "third", a="a" * 64, b="d" * 64)) != weights_sha256(one)


def test_weights_have_no_hash_if_one_of_them_has_none(tmp_path):
    folder = hashed(tmp_path / "one", a="a" * 64)
    (folder.path / "b.safetensors").touch()
    assert weights_sha256(folder) is None
    assert weights_sha256(hashed(tmp_path / "short", a="a" * 63)) is None
    assert weights_sha256(hashed(tmp_path / "none")) is None
    assert weights_sha256(ModelFolder(CHECKPOINT)) is None


def test_weights_on_the_hub_have_the_hash_of_what_it_lists(tmp_path):
    here = hashed(tmp_path / "here", a="a" * 64)
    there = ModelFolder(tmp_path, "org/m", "abc", True, (RemoteShard("a.safetensors", 7, "a" * 64),))
    assert weights_sha256(there) == weights_sha256(here)
