"""Files are replaced whole or not at all, and nothing is left beside them."""

import errno
import hashlib
import os
import re
import stat
import subprocess
import sys

import pytest

from olmocr.errors import OutputError
from olmocr.files import (
    cache_folder,
    file_beside,
    flushed,
    is_file,
    is_folder,
    is_there,
    sha256_of,
    sweep,
    temporary_folder,
    whole_file,
    write_whole,
)


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


HELD = """
import sys, time
from pathlib import Path
from olmocr.files import (
    cache_folder,
    file_beside,
    sha256_of,
    sweep,
    temporary_folder,
    whole_file,
    write_whole,
)
with whole_file(Path(sys.argv[1]) / "text.md") as file, temporary_folder(Path(sys.argv[1])) as folder:
    file.write(b"half"), (folder / "deep").mkdir(), (folder / "deep" / "copy").write_text("private")
    print("ready", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that writes a file and a folder in *tmp_path*."""
    with subprocess.Popen([sys.executable, "-c", HELD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_what_a_living_process_writes_is_left_alone_and_what_a_killed_one_left_is_removed(tmp_path, other):
    (tmp_path / "mine.md").write_text("mine")
    sweep(tmp_path)
    assert len(names_in(tmp_path)) == 3
    other.kill()
    other.wait()
    sweep(tmp_path)
    assert names_in(tmp_path) == ["mine.md"]


def test_what_another_machine_or_another_program_writes_is_left_alone(tmp_path):
    names = [".00000000-0011223344556677.partial", "olmocr-00000000-abcdefgh", "olmocr-mine", ".model.partial"]
    for name in names:
        (tmp_path / name).write_text("")
    sweep(tmp_path)
    assert names_in(tmp_path) == sorted(names)


def left_name(folder):
    """Return what a file is called in *folder* that nobody finished."""
    with file_beside(folder / "a") as (beside, _):
        return beside


def test_a_link_in_place_of_what_was_left_is_not_followed(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "file").write_text("")
    left_name(tmp_path).symlink_to(tmp_path / "private")
    sweep(tmp_path)
    assert names_in(tmp_path / "private") == ["file"]


def test_the_next_file_in_a_folder_sweeps_it_and_a_temporary_folder_too(tmp_path):
    left_name(tmp_path).write_text("left")
    write_whole(tmp_path / "b.md", "new")
    assert names_in(tmp_path) == ["b.md"]
    left_name(tmp_path).write_text("left")
    with temporary_folder(tmp_path) as folder:
        assert names_in(tmp_path) == sorted(["b.md", folder.name])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert names_in(tmp_path) == ["b.md"]


def test_sweeps_never_take_what_others_are_about_to_write(tmp_path):
    """Other processes sweep as fast as they can while this one makes files and folders."""
    sweeping = """
import sys
from pathlib import Path
from olmocr.files import sweep
print(flush=True)
while True:
    sweep(Path(sys.argv[1]))
"""
    others = [
        subprocess.Popen([sys.executable, "-c", sweeping, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for other in others:
            other.stdout.readline()
        for number in range(200):
            with temporary_folder(tmp_path) as folder:
                write_whole(folder / "copy", "copy")
                assert names_in(folder) == ["copy"]
            write_whole(tmp_path / f"{number}.md", "text")
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert names_in(tmp_path) == sorted(f"{number}.md" for number in range(200))


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


def test_nothing_is_at_a_path_that_no_disk_takes(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "gone", tmp_path / ("d" * 300), tmp_path / "d\0"):
        is_what = (path == tmp_path or path.name == "file", path.name == "file", path == tmp_path)
        assert (is_there(path), is_file(path), is_folder(path)) == is_what
