"""A conversion ends in a whole folder or in none."""

import os

import pytest

from olmocr.conversion.write import write_models
from olmocr.errors import CheckpointError, OutputError
from tests.checkpoints import tiny_checkpoint
from tests.conversion.written import converted_by, target


def test_a_private_umask_is_kept(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    before = os.umask(0o077)
    try:
        converted_by(source, tmp_path / "out")
    finally:
        os.umask(before)
    assert [
        path.name for path in [tmp_path / "out", *(tmp_path / "out").iterdir()] if path.stat().st_mode & 0o077
    ] == []


def test_the_same_source_gives_the_same_bytes(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    for name in ("a", "b"):
        converted_by(source, tmp_path / name)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_an_empty_output_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    converted_by(tiny_checkpoint(tmp_path / "source"), tmp_path / "out")
    assert (tmp_path / "out/config.json").exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_output_that_exists_is_refused_and_kept(kind, tmp_path):
    source, output = tiny_checkpoint(tmp_path / "source"), tmp_path / "out"
    kept = output if kind == "file" else output / "mine.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        converted_by(source, output)
    assert kept.read_text() == "mine"


def test_an_output_inside_the_source_is_refused(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    with pytest.raises(OutputError, match="lies in the source"):
        converted_by(source, source / "mlx")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("bug")])
def test_a_conversion_that_stops_in_the_middle_leaves_no_folder(error, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    targets = target(source, tmp_path / "out")

    def stop(nbytes):
        raise error

    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_models(targets, stop)
    assert list(tmp_path.iterdir()) == [source]


def test_a_source_that_shrinks_while_it_is_read_is_named_and_no_folder_is_left(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    targets = target(source, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"model\.safetensors became shorter while it was being read"):
        write_models(targets, lambda nbytes: os.truncate(source / "model.safetensors", 9000))
    assert list(tmp_path.iterdir()) == [source]


def test_a_name_that_no_disk_takes_is_one_sentence(tmp_path):
    with pytest.raises(OutputError, match="could not be written: File name too long"):
        converted_by(tiny_checkpoint(tmp_path / "source"), tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_one_sentence(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="could not be written"):
        converted_by(source, tmp_path / "closed" / "out")
