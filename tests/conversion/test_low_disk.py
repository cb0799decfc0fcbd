"""A repository whose shards are fetched one by one, over real requests to a Hub on the loopback interface."""

import os
import subprocess
import sys

import pytest

from olmocr.conversion.convert import convert
from olmocr.model_folder import HASHES_FILE
from tests.conftest import CHECKPOINT
from tests.conversion.edge_states import low_disk
from tests.hub_server import Commit, Cut, HubServer, Repository

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def running_hub():
    with HubServer({"demo/olmocr": Repository({"main": Commit(CHECKPOINT)})}) as server:
        yield server


def run(hub, folder):
    """Run the command in *folder*, with a Hub cache of its own."""
    names = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "olmocr.convert_to_mlx", "demo/olmocr", "-q", "4bit", "--low-disk", "-o", "out",
         "--no-smoke-test"],
        cwd=folder, env=os.environ | names, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "out"
    convert(CHECKPOINT, "4bit", folder)
    return (folder / HASHES_FILE).read_text()


def test_a_repository_is_converted_with_no_shard_of_it_left_on_the_disk(running_hub, expected, tmp_path):
    done = run(running_hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / HASHES_FILE).read_text() == expected
    assert [path for path in tmp_path.rglob("*.safetensors") if path.parent.name != "out"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]
    assert [running_hub.sent[shard] >= (CHECKPOINT / shard).stat().st_size for shard in SHARDS] == [True, True]


@pytest.mark.slow
def test_a_connection_that_breaks_is_taken_up_again(running_hub, expected, tmp_path):
    running_hub.cut_once[SHARDS[1]] = Cut(12 << 20, "reset")
    done = run(running_hub, tmp_path)
    if done.returncode:  # the client gave up: one sentence, and the same command goes on
        assert "error: demo/olmocr could not be downloaded" in done.stderr
        assert not (tmp_path / "out").exists()
        done = run(running_hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / HASHES_FILE).read_text() == expected


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("stop_in", SHARDS)
def test_an_interrupted_low_disk_conversion_resumes_with_never_more_than_one_shard_on_the_disk(stop_in, tmp_path):
    with HubServer({"demo/olmocr": Repository({"main": Commit(CHECKPOINT)})}) as hub:
        first = low_disk(hub, tmp_path, stop_in)
        assert first.returncode == 9, first.stderr
        assert [path.name for path in (tmp_path / ".out.partial/source").iterdir()] == [stop_in]
        hub.sent.clear()
        done = low_disk(hub, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "1"
        if stop_in == SHARDS[0]:
            assert hub.sent[stop_in] < 1 << 20, "it was here already"
    convert(CHECKPOINT, "4bit", tmp_path / "expected")
    assert (tmp_path / "out" / HASHES_FILE).read_text() == (tmp_path / "expected" / HASHES_FILE).read_text()
