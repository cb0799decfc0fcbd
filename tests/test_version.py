"""The version is one number, wherever it is asked for."""

from olmocr.version import __version__
from tests.pipeline.commands import olmocr


def test_the_version_is_printed_and_nothing_else():
    done = olmocr("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"olmocr {__version__}\n", "")
