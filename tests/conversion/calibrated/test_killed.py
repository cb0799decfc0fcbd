"""A calibration that is killed, as by a crash or a power cut: the same command resumes, the same bytes come of it."""

import signal
import subprocess

import pytest

from tests.conftest import CHECKPOINT
from tests.programs import CONVERT, run, wait_for

TERMS = ("-q", "4bit", "--method", "calibrated", "--calibration-tokens", "300")


def killed(output, blocks):
    """Start a conversion, and kill it when so many blocks are complete."""
    command = map(str, [*CONVERT, CHECKPOINT, *TERMS, "-o", output])
    folder = output.with_name(f".{output.name}.calibration")
    process = subprocess.Popen([*command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: len(list(folder.glob("*.parts.json"))) >= blocks, process, seconds=600)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_conversion_that_is_killed_twice_makes_the_same_bytes(tmp_path):
    whole = run(CONVERT, CHECKPOINT, *TERMS, "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for blocks in (1, 4):
        killed(tmp_path / "killed", blocks)
        assert not (tmp_path / "killed").exists()
    again = run(CONVERT, CHECKPOINT, *TERMS, "-o", tmp_path / "killed")
    assert again.returncode == 0, again.stderr
    assert "calibration resumes" in again.stderr
    sums = [(tmp_path / name / "SHA256SUMS").read_text() for name in ("whole", "killed")]
    assert sums[0] == sums[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]
