"""Conversions that are interrupted, and go on: what was whole is not made again, and the bytes are the same."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from olmocr.conversion import plan as plan_module
from olmocr.conversion.convert import convert, plan_targets
from olmocr.conversion.partial import partial_folder
from olmocr.conversion.recipe import find_recipe
from olmocr.conversion.source.names import mlx_name
from olmocr.conversion.write import write_models
from olmocr.errors import CheckpointError, OutputError, UsageError
from olmocr.files import sha256_of
from olmocr.model_folder import HASHES_FILE, ModelFolder
from olmocr.tensors.header import read_header
from tests.checkpoints import TINY, tiny_checkpoint


@pytest.fixture
def small_shards(monkeypatch):
    """Have a tiny model in several shards."""
    monkeypatch.setattr(plan_module, "MAX_SHARD_BYTES", 30_000)


@pytest.fixture
def source(tmp_path):
    return tiny_checkpoint(tmp_path / "source")


class Interrupted(Exception):
    pass


def interrupt(source, output, when_left=1, method="fit"):
    """Convert until *when_left* shards are whole; leave it there."""
    partial = output.with_name(f".{output.name}.partial")

    def stop(nbytes):
        state = partial / "state.json"
        if state.is_file() and len(json.loads(state.read_text())["shards"]) >= when_left:
            raise Interrupted

    with pytest.raises(Interrupted):
        convert(source, "4bit", output, method=method, threads=1, progress=stop)
    assert not output.exists()
    return partial


def files(folder):
    """Return the content of all that two conversions of one source have in common."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "conversion_report.json"}


@pytest.fixture
def expected(small_shards, source, tmp_path):
    convert(source, "4bit", tmp_path / "expected")
    return files(tmp_path / "expected")


def test_what_was_whole_is_gone_on_with_and_the_bytes_are_the_same(expected, source, tmp_path):
    partial = interrupt(source, tmp_path / "out", 2)
    whole = {
        name: (partial / name).stat().st_mtime_ns for name in json.loads((partial / "state.json").read_text())["shards"]
    }
    assert len(whole) >= 2
    assert {path.name for path in partial.iterdir()} == {*whole, "state.json"}
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert report.resumed_shards == len(whole)
    assert files(tmp_path / "out") == expected
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in whole} == whole
    assert not partial.exists()


def test_progress_counts_what_is_there_already(expected, source, tmp_path):
    interrupt(source, tmp_path / "out", 2)
    seen, fresh = [], []
    convert(source, "4bit", tmp_path / "out", progress=seen.append)
    convert(source, "4bit", tmp_path / "fresh", progress=fresh.append)
    assert sum(seen) == sum(fresh)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from olmocr.conversion import plan
from olmocr.conversion.convert import convert

plan.MAX_SHARD_BYTES = 30_000
state = Path(sys.argv[2]).with_name(".out.partial") / "state.json"


def kill(nbytes):
    if state.is_file() and json.loads(state.read_text())["shards"]:
        os.kill(os.getpid(), signal.SIGKILL)


convert(sys.argv[1], "4bit", Path(sys.argv[2]), progress=kill)
"""


def test_a_conversion_that_was_killed_leaves_no_folder_and_is_gone_on_with(expected, source, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(source), str(tmp_path / "out")], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out").exists()
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert report.resumed_shards > 0
    assert files(tmp_path / "out") == expected


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [damage, lambda path: os.truncate(path, 100), lambda path: path.unlink()],
    ids=["flipped", "truncated", "removed"],
)
def test_a_shard_that_is_no_longer_whole_is_made_again(harm, expected, source, tmp_path):
    partial = interrupt(source, tmp_path / "out")
    state = json.loads((partial / "state.json").read_text())
    harm(partial / next(iter(state["shards"])))
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert report.resumed_shards == len(state["shards"]) - 1
    assert files(tmp_path / "out") == expected


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"fingerprint": 1, "shards": []}', "\x00\xff"])
def test_a_state_that_cannot_be_read_is_begun_anew(state, expected, source, tmp_path):
    partial = interrupt(source, tmp_path / "out")
    (partial / "state.json").write_text(state)
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert report.resumed_shards == 0
    assert files(tmp_path / "out") == expected


def test_a_state_that_names_a_file_elsewhere_does_not_reach_it(expected, source, tmp_path):
    (tmp_path / "mine").write_text("mine")
    partial = interrupt(source, tmp_path / "out")
    state = json.loads((partial / "state.json").read_text())
    state["shards"] = {"../mine": next(iter(state["shards"].values()))}
    (partial / "state.json").write_text(json.dumps(state))
    convert(source, "4bit", tmp_path / "out")
    assert (tmp_path / "mine").read_text() == "mine"
    assert files(tmp_path / "out") == expected


def test_what_was_made_by_another_method_is_not_gone_on_with(expected, source, tmp_path):
    interrupt(source, tmp_path / "out", method="stock")
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert report.resumed_shards == 0
    assert files(tmp_path / "out") == expected


def test_a_source_that_changed_since_is_begun_anew(small_shards, source, tmp_path):
    interrupt(source, tmp_path / "out")
    damage(source / "model.safetensors")
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert report.resumed_shards == 0
    convert(source, "4bit", tmp_path / "again")
    assert files(tmp_path / "out") == files(tmp_path / "again")


def change_unseen(path, tensor):
    """Change a tensor's bytes, and neither the file's size nor its times."""
    before = path.stat()
    info = next(each for each in read_header(path) if each.name == tensor)
    with path.open("r+b") as file:
        file.seek(info.offset)
        data = file.read(info.nbytes)
        file.seek(info.offset)
        file.write(data[2:] + data[:2])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def matrix_in(partial, source, whole):
    """Return the source's name of a matrix in a finished shard if *whole*, otherwise of one in none."""
    shards = json.loads((partial / "state.json").read_text())["shards"]
    made = {info.name for name in shards for info in read_header(partial / name)}
    names = [info.name for info in read_header(source / "model.safetensors") if len(info.shape) == 2]
    return next(name for name in names if (mlx_name(name, TINY) in made) == whole)


@pytest.mark.parametrize("whole", [True, False])
def test_a_source_that_changed_since_with_its_time_and_size_kept_leaves_no_mixture(
    whole, expected, source, tmp_path, caplog
):
    partial = interrupt(source, tmp_path / "out", 2)
    change_unseen(source / "model.safetensors", matrix_in(partial, source, whole))
    (report,) = convert(source, "4bit", tmp_path / "out")
    (fresh,) = convert(source, "4bit", tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh") != expected
    assert report.source.files == fresh.source.files
    # What only a later shard is made of may change: nothing that was made before is of it.
    assert (report.resumed_shards == 0) == whole
    assert ("changed since this conversion was interrupted; starting over" in caplog.text) == whole


def put_in_the_way(output):
    output.mkdir(exist_ok=True)
    (output / "mine").touch()


def test_what_is_whole_stays_when_its_name_is_taken_meanwhile(expected, source, tmp_path):
    with pytest.raises(OutputError, match="Directory not empty"):
        convert(source, "4bit", tmp_path / "out", progress=lambda nbytes: put_in_the_way(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    shutil.rmtree(tmp_path / "out")
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert report.resumed_shards == len([name for name in expected if name.endswith(".safetensors")])
    assert files(tmp_path / "out") == expected


def test_a_source_that_changed_after_it_was_hashed_is_begun_anew(expected, source, tmp_path):
    with pytest.raises(OutputError):
        convert(source, "4bit", tmp_path / "out", progress=lambda nbytes: put_in_the_way(tmp_path / "out"))
    shutil.rmtree(tmp_path / "out")
    change_unseen(source / "model.safetensors", "lm_head.weight")
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert report.resumed_shards == 0
    assert [each.sha256 for each in report.source.files] == [sha256_of(source / "model.safetensors")]


def test_two_conversions_into_one_folder_are_kept_apart(source, tmp_path):
    (tmp_path / ".out.partial").mkdir()
    held = os.open(tmp_path / ".out.partial", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(OutputError, match=r"another process is converting to .*out; wait for it"):
            convert(source, "4bit", tmp_path / "out")
    finally:
        os.close(held)
    convert(source, "4bit", tmp_path / "out")


def test_a_source_that_is_broken_leaves_nothing_even_after_whole_shards(small_shards, tmp_path):
    def last_is_no_number(tensors):
        name = list(tensors)[-1]
        dtype, shape, data = tensors[name]
        return tensors | {name: (dtype, shape, data[:-2] + b"\xc0\x7f")}

    source = tiny_checkpoint(tmp_path / "source", change=last_is_no_number)
    with pytest.raises(CheckpointError, match="infinite values or NaN"):
        convert(source, "4bit", tmp_path / "out", threads=1)
    assert list(tmp_path.iterdir()) == [source]


def test_the_sources_hashes_are_reported_whichever_of_several_recipes_is_gone_on_with(small_shards, source, tmp_path):
    (whole,) = convert(source, "8bit", tmp_path / "expected")

    def stop(nbytes):
        state = tmp_path / "all/.source-mlx-8bit.partial/state.json"
        if len(json.loads(state.read_text())["shards"]) >= 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        convert(source, ["4bit", "8bit"], tmp_path / "all", threads=1, progress=stop)
    (report,) = convert(source, "8bit", tmp_path / "all/source-mlx-8bit")
    assert report.resumed_shards >= 2
    assert report.source.files == whole.source.files
    assert whole.source.files[0].sha256 == hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()


def test_a_source_whose_hash_an_interruption_took_is_hashed_when_all_shards_are_whole(expected, source, tmp_path):
    partial = interrupt(source, tmp_path / "out", len([name for name in expected if name.endswith(".safetensors")]))
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert [file.name for file in report.source.files] == ["model.safetensors"]
    assert not partial.exists()


class Server:
    """A disk that does not rename open folders, or, if *always*, none; the error is *number*."""

    def __init__(self, number=errno.EBUSY, always=False):
        self.number, self.always, self.refused = number, always, 0

    def rename(self, old, new):
        if self.always or is_open(old):
            self.refused += 1
            raise OSError(self.number, os.strerror(self.number))
        old.rename(new)


def is_open(folder):
    """Say whether this process has *folder* open."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY])
def test_where_nothing_open_is_renamed_the_lock_is_lifted_first(number, tmp_path):
    server = Server(number)
    with partial_folder(tmp_path / "out", "this") as folder:
        (folder.path / "config.json").touch()
        folder.finish(tmp_path / "out", server.rename)
    assert server.refused == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


def test_a_disk_that_renames_no_folder_at_all_is_one_sentence(tmp_path):
    with (
        pytest.raises(OutputError, match="out could not be written: Permission denied"),
        partial_folder(tmp_path / "out", "this") as folder,
    ):
        folder.finish(tmp_path / "out", Server(errno.EACCES, always=True).rename)
    assert not (tmp_path / "out").exists()


def test_two_outputs_that_differ_in_capitals_only_are_one_on_a_macs_disk(source, tmp_path):
    with pytest.raises(UsageError, match="would become the same folder"):
        write_models(
            [
                *plan_targets(ModelFolder(source), [find_recipe("4bit")], "fit", tmp_path / "Out"),
                *plan_targets(ModelFolder(source), [find_recipe("8bit")], "fit", tmp_path / "out"),
            ]
        )


def test_an_output_in_the_source_is_refused_however_it_is_spelled(source, tmp_path):
    (tmp_path / "other").symlink_to(source)
    with pytest.raises(OutputError, match="lies in the source"):
        convert(source, "4bit", tmp_path / "other" / "out")


@pytest.mark.skipif(not os.path.ismount("/dev"), reason="nothing is mounted there")
def test_a_whole_disk_is_not_an_output(source):
    with pytest.raises(OutputError, match="/dev is an entire disk; choose an `output` in it, like /dev/model"):
        convert(source, "4bit", Path("/dev"))


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """Return a function that changes the state of an interrupted conversion, and resumes it."""
    monkeypatch.setattr(plan_module, "MAX_SHARD_BYTES", 30_000)
    source, state = tiny_checkpoint(tmp_path / "source"), tmp_path / ".out.partial/state.json"
    convert(source, "4bit", tmp_path / "expected")

    def stop(nbytes):
        if state.is_file() and json.loads(state.read_text())["shards"]:
            raise KeyboardInterrupt

    def go_on(change):
        with pytest.raises(KeyboardInterrupt):
            convert(source, "4bit", tmp_path / "out", threads=1, progress=stop)
        state.write_text(change(json.loads(state.read_text())))
        convert(source, "4bit", tmp_path / "out")
        assert (tmp_path / "out" / HASHES_FILE).read_text() == (tmp_path / "expected" / HASHES_FILE).read_text()

    return go_on


def test_a_state_nested_too_deeply_is_begun_anew(interrupted):
    interrupted(lambda state: "[" * 200_000)


def bad_errors(sums):
    def change(state):
        for entry in state["shards"].values():
            entry["errors"] = dict.fromkeys(entry["errors"], sums)
        return json.dumps(state)

    return change


@pytest.mark.parametrize("sums", [[1], ["x", "y"], {}])
def test_a_state_whose_errors_are_no_pairs_of_numbers_is_begun_anew(sums, interrupted):
    interrupted(bad_errors(sums))


def without_a_tensor(state):
    for entry in state["shards"].values():
        entry["errors"].popitem()
    return json.dumps(state)


def with_a_number_for_a_hash(state):
    return json.dumps({**state, "hashes": {"model.safetensors": 7}})


@pytest.mark.parametrize("change", [without_a_tensor, with_a_number_for_a_hash])
def test_a_state_that_was_changed_is_begun_anew(change, interrupted, tmp_path):
    interrupted(change)
    assert json.loads((tmp_path / "out/conversion_report.json").read_text())["resumed_shards"] == 0


def test_a_state_names_no_file_outside_the_folder_even_one_with_the_right_bytes(interrupted, tmp_path):
    def elsewhere(state):
        name = next(iter(state["shards"]))
        (tmp_path / "mine").write_bytes((tmp_path / ".out.partial" / name).read_bytes())
        state["shards"] = {"../mine": state["shards"][name]}
        return json.dumps(state)

    interrupted(elsewhere)
    assert (tmp_path / "mine").is_file()
    assert "mine" not in (tmp_path / "out" / HASHES_FILE).read_text()
    report = json.loads((tmp_path / "out/conversion_report.json").read_text())
    assert report["resumed_shards"] == 0
