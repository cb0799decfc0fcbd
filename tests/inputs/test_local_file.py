"""What tells that a file has not changed, on disks with fine and with coarse times."""

import io
import os
import pty
import subprocess
import sys

import pytest

from olmocr.inputs.local_file import version_by, version_of
from olmocr.inputs.origins import StandardInput
from olmocr.inputs.sources import Source
from tests.inputs.documents import PDF, SMALL, content_of, why


def status(modified, changed, size=10):
    """Return what a system says of a file; times in nanoseconds."""
    seconds = (0, int(modified // 10**9), int(changed // 10**9))
    return os.stat_result(
        (0o100644, 7, 1, 1, 0, 0, size, *seconds),
        {"st_mtime_ns": modified, "st_ctime_ns": changed},
    )


def test_a_file_that_is_changed_with_its_size_and_time_kept_has_another_version(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(b"one")
    before = version_of(Source("a.pdf", path))
    kept = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert before
    assert version_of(Source("a.pdf", path)) != before


@pytest.mark.parametrize("second", [1_700_000_000, 1_700_000_002])
def test_a_disk_that_keeps_whole_seconds_tells_nothing_cheaply(second):
    assert version_by(status(second * 10**9, second * 10**9)) == ""


def test_a_time_that_a_program_set_to_a_whole_second_tells_as_much_as_any(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(b"one")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert version_of(Source("a.pdf", path)) or path.stat().st_ctime_ns % 10**9 == 0
    assert version_by(status(1_700_000_000 * 10**9, 1_700_000_000 * 10**9 + 5))


def test_standard_input_is_read_from_a_pipe(here):
    code = (
        "import pathlib; from olmocr.inputs.local_file import local_file; "
        "from olmocr.inputs.sources import find_sources; (source,) = find_sources(['-', '-'])\n"
        "with local_file(source, pathlib.Path('scratch')) as path: print(path.read_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=PDF, capture_output=True, check=True)
    assert done.stdout.decode().strip() == str(PDF)


def test_standard_input_that_is_a_keyboard_is_refused(here):
    master, terminal = pty.openpty()
    code = "from olmocr.inputs.sources import find_sources; find_sources(['-'])"
    done = subprocess.run([sys.executable, "-c", code], stdin=terminal, capture_output=True, check=False)
    os.close(terminal)
    os.close(master)
    assert b"InputError: - stands for standard input, but nothing is piped into it" in done.stderr


def test_standard_input_is_one_document_that_can_be_read_again(here):
    source = Source("-", StandardInput())
    piped = io.BytesIO(PDF)
    assert content_of(source, here, stdin=piped) == PDF
    assert content_of(source, here, stdin=piped) == PDF


def test_standard_input_without_end_is_refused(here):
    assert "- has more than 1000000 bytes" in why(
        Source("-", StandardInput()), here, stdin=io.BytesIO(bytes(1_000_001)), limits=SMALL
    )
