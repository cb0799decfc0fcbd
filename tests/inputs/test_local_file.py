"""What tells that a file has not changed, on disks with fine and with coarse times."""

import os

import pytest

from olmocr.inputs.local_file import version_by, version_of
from olmocr.inputs.sources import Source


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
