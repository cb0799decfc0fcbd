"""Large files on disks that lack what a Mac's or Linux's own has."""

import errno
import os

import pytest

from olmocr.conversion.disk import Buffer, Reader
from olmocr.errors import CheckpointError

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
    reader = Reader(path, large=0, preadv=Disk(1))
    assert bytes(reader.read(300, 5000, Buffer())) == CONTENT[300:5300]
    reader.close()


@pytest.mark.parametrize("disk", [Disk(2), Disk(1, errno.EIO)])
def test_a_disk_that_goes_on_refusing_or_is_broken_is_one_sentence(disk, path):
    reader = Reader(path, large=0, preadv=disk)
    with pytest.raises(CheckpointError, match=r"weights cannot be read: (Invalid argument|Input/output error)"):
        reader.read(0, 100, Buffer())
    reader.close()
