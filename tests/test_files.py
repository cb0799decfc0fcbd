"""Files are replaced whole or not at all, and nothing is left beside them."""

import errno
import hashlib
import os
import re

import pytest

from olmocr.errors import OutputError
from olmocr.files import cache_folder, flushed, sha256_of, whole_file, write_whole


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_the_folders_on_the_way_to_it_are_written(tmp_path):
    write_whole(tmp_path / "a" / "b" / "text.md", "Größe")
    assert (tmp_path / "a" / "b" / "text.md").read_bytes() == "Größe".encode()


def test_pieces_are_written_as_they_come(tmp_path):
    write_whole(tmp_path / "text.md", (str(each) for each in range(3)))
    assert (tmp_path / "text.md").read_text() == "012"


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "text.md"
    path.write_text("old")
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("no more"), KeyboardInterrupt()])
def test_a_file_whose_writing_ends_early_stays_as_it_was(tmp_path, error):
    path = tmp_path / "text.md"
    path.write_text("old")

    def write():
        with whole_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["text.md"]


def test_a_place_that_cannot_be_written_is_an_output_error_and_nothing_is_left(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder could not be written"):
        write_whole(tmp_path / "folder", "text")
    with pytest.raises(OutputError, match=r"text\.md could not be written"):
        write_whole(tmp_path / "file" / "text.md", "text")
    assert names_in(tmp_path) == ["file", "folder"]


def test_a_lone_surrogate_becomes_a_question_mark(tmp_path):
    write_whole(tmp_path / "text.md", "a\ud800b")
    assert (tmp_path / "text.md").read_bytes() == b"a?b"


def test_a_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"bytes").hexdigest()


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("bench") == tmp_path / "olmocr" / "bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("bench") == tmp_path / ".cache" / "olmocr" / "bench"


class Flush:
    """A way to have a file on the disk that a file system answers with an error, or does."""

    def __init__(self, number=0):
        self.number, self.asked = number, 0

    def __call__(self, descriptor):
        self.asked += 1
        if self.number:
            raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.EBADF])
def test_a_disk_without_one_way_to_be_flushed_is_flushed_in_the_next_or_not_at_all(number):
    ways = [Flush(number), Flush(), Flush()]
    flushed(3, ways)
    assert [way.asked for way in ways] == [1, 1, 0]
    flushed(3, [Flush(number), Flush(number)])


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_broken_or_full_is_an_error_when_it_is_flushed(number):
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        flushed(3, [Flush(number), Flush()])


def test_a_file_and_a_folder_of_this_disk_are_flushed(tmp_path):
    for path in (tmp_path, tmp_path / "file"):
        path.exists() or path.touch()
        descriptor = os.open(path, os.O_RDONLY)
        flushed(descriptor)
        os.close(descriptor)
