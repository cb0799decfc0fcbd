import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from olmocr.errors import InputError
from olmocr.inputs.limits import LIMITS
from olmocr.inputs.local_file import local_file, version_of
from olmocr.inputs.origins import Pipe, own_descriptor
from olmocr.inputs.sources import find_sources
from tests.conftest import ROOT

CONTENT = b"%PDF-1.4 " + bytes(200_000)


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "p.pdf"
    os.mkfifo(path)
    return path


def content(source, scratch, **options):
    with local_file(source, scratch, **options) as path:
        return path.read_bytes()


def writing(path, *pieces):
    def write():
        with contextlib.suppress(BrokenPipeError), path.open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_a_pipe_that_has_a_name_is_one_document_that_can_be_read_again(pipe, tmp_path):
    (source,) = find_sources([str(pipe)])
    assert source.origin == Pipe(str(pipe))
    writer = writing(pipe, CONTENT[:5], CONTENT[5:])
    assert content(source, tmp_path / "scratch") == CONTENT
    writer.join(60)
    assert content(source, tmp_path / "scratch") == CONTENT, "of the copy"
    assert version_of(source) == "", "what is written next time may be something else"


def test_a_pipe_into_which_nobody_writes_is_given_up_with_a_sentence(pipe, tmp_path):
    (source,) = find_sources([str(pipe)])
    with pytest.raises(InputError, match=rf"^nothing was written into the pipe {pipe} for 0\.2 seconds$"):
        content(source, tmp_path / "scratch", limits=replace(LIMITS, stall_seconds=0.2))


def test_a_pipe_that_nobody_wants_any_more_is_left(pipe, tmp_path):
    (source,) = find_sources([str(pipe)])
    with pytest.raises(InputError, match="this copy is no longer needed"):
        content(source, tmp_path / "scratch", is_over=lambda: True)


def test_a_pipe_that_never_ends_is_refused(pipe, tmp_path):
    (source,) = find_sources([str(pipe)])
    writing(pipe, *[CONTENT] * 10)
    with pytest.raises(InputError, match="has more than 500000 bytes"):
        content(source, tmp_path / "scratch", limits=replace(LIMITS, document_bytes=500_000))


@pytest.mark.parametrize(("path", "what"), [("/dev/null", "a device"), ("/dev/zero", "a device")])
def test_a_device_is_told_to_be_one(path, what):
    with pytest.raises(InputError, match=f"^{path} is {what}, not a file; nothing was started$"):
        find_sources([path])


@pytest.mark.parametrize(
    ("path", "number"),
    [("/dev/fd/63", 63), ("/proc/self/fd/7", 7), ("/dev/stdin", 0), ("/dev/fd/a", None), ("/tmp/dev/fd/3", None)],
)
def test_a_path_that_is_an_open_file_of_this_process_is_known(path, number):
    assert own_descriptor(path) == number


PROGRAM = """
import sys
from pathlib import Path
from olmocr.inputs.local_file import local_file
from olmocr.inputs.sources import find_sources
for source in find_sources(sys.argv[2:]):
    with local_file(source, Path(sys.argv[1])) as path:
        print(len(path.read_bytes()))
"""


def run_shell(line, folder):
    return subprocess.run(
        ["bash", "-c", line.replace("PROGRAM", '"$0" -c "$1" "$2"'), sys.executable, PROGRAM, str(folder / "scratch")],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "lengths"),
    [
        ("PROGRAM <(cat a.pdf)", [9]),
        ("PROGRAM <(cat a.pdf) <(cat b.pdf)", [9, 5]),
        ("cat a.pdf | PROGRAM /dev/stdin", [9]),
        ("PROGRAM /dev/stdin < a.pdf", [9]),
        ("PROGRAM /dev/fd/5 5< a.pdf", [9]),
        ("PROGRAM <(true)", [0]),
    ],
)
def test_what_a_shell_puts_in_a_files_place_is_read(line, lengths, tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\n")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-")
    done = run_shell(line, tmp_path)
    assert (done.returncode, [int(each) for each in done.stdout.split()]) == (0, lengths), done.stderr
    assert Path(tmp_path / "a.pdf").read_bytes() == b"%PDF-1.4\n"
