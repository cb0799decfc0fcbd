"""Large files on disks that lack what a Mac's or Linux's own has."""

import errno
import os
from dataclasses import replace

import pytest

from olmocr.conversion.convert import plan_targets, with_weights
from olmocr.conversion.disk import Buffer, FileReader
from olmocr.conversion.recipe import find_recipe
from olmocr.conversion.write import write_models
from olmocr.errors import CheckpointError, PlanError
from olmocr.hub.find import missing_files
from olmocr.model_folder import ModelFolder, RemoteShard
from tests.checkpoints import tiny_checkpoint
from tests.conversion.written import target

CONTENT = bytes(range(256)) * 64


class Disk:
    """Reads as the system does, after it has answered *refusals* times that it cannot."""

    def __init__(self, refusals, number=errno.EINVAL):
        self.refusals, self.number = refusals, number

    def __call__(self, descriptor, views, offset):
        if self.refusals:
            self.refusals -= 1
            raise OSError(self.number, os.strerror(self.number))
        return os.preadv(descriptor, views, offset)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "weights").write_bytes(CONTENT)
    return tmp_path / "weights"


def is_direct(path):
    """Say whether the disk under *path* opens files for reads past the cache."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except (OSError, AttributeError):
        return False
    return True


def test_a_disk_that_opens_files_for_reads_past_the_cache_and_then_refuses_them_is_read_as_usual(path):
    if not is_direct(path):
        pytest.skip("this disk opens no file so")
    reader = FileReader(path, large=0, preadv=Disk(1))
    assert bytes(reader.read(300, 5000, Buffer())) == CONTENT[300:5300]
    reader.close()


@pytest.mark.parametrize("disk", [Disk(2), Disk(1, errno.EIO)])
def test_a_disk_that_keeps_refusing_or_is_broken_is_one_sentence(disk, path):
    reader = FileReader(path, large=0, preadv=disk)
    with pytest.raises(CheckpointError, match=r"weights cannot be read: (Invalid argument|Input/output error)"):
        reader.read(0, 100, Buffer())
    reader.close()


def test_a_disk_without_room_is_noticed_before_anything_is_written(tmp_path):
    targets = target(tiny_checkpoint(tmp_path / "source"), tmp_path / "out")
    vars(targets[0].plan)["file_bytes"] = 1 << 60
    with pytest.raises(PlanError, match="GB free"):
        write_models(targets)
    assert not (tmp_path / "out").exists()


def test_only_what_the_cache_lacks_is_to_be_downloaded(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"here")
    files = (RemoteShard("a.safetensors", 4, None), RemoteShard("b.safetensors", 10**18, None))
    model = ModelFolder(tmp_path, "org/name", "main", remote_weights=True, remote_files=files)
    assert missing_files(model) == files[1:]


def test_a_download_that_the_disk_has_no_room_for_is_refused_before_it_begins(tmp_path):
    (target,) = plan_targets(ModelFolder(tiny_checkpoint(tmp_path / "source")), [find_recipe("4bit")], "fit", None)
    huge = (RemoteShard("model.safetensors", 10**18, None),)
    there = replace(target.plan.source.folder, repo_id="org/name", remote_weights=True, remote_files=huge)
    (tmp_path / "source/model.safetensors").unlink(missing_ok=True)
    target = replace(target, plan=replace(target.plan, source=replace(target.plan.source, folder=there)))
    with pytest.raises(PlanError, match="use `low_disk=True`"):
        with_weights([target], low_disk=False)
