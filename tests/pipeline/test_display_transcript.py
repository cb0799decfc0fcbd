"""The screens in docs/display.md are what the command shows."""

import re

import pytest

from tests.conftest import ROOT
from tests.pipeline.display_transcript import masked, transcript

PRINTED = (ROOT / "docs" / "display.md").read_text()


@pytest.mark.slow
def test_the_screens_in_the_docs_are_what_the_command_shows():
    assert masked(PRINTED[PRINTED.index("## 80 columns") :]) == masked(transcript())


@pytest.mark.parametrize("width", [80, 120])
def test_no_screen_in_the_docs_is_wider_than_its_terminal(width):
    part = re.split("(?m)^## ", PRINTED.partition(f"## {width} columns")[2])[0]
    screens = [block for block in re.findall("```\n(.*?)\n```", part, re.DOTALL) if not block.startswith("$")]
    assert len(screens) == 4
    assert max(len(line) for block in screens for line in block.splitlines()) <= width


def test_what_differs_from_run_to_run_is_masked():
    one = "downloading a/b\n\u2501\u2501\u2501\u2501\u257a\u2501\u2501  21.0 MB of 26.1 MB  4.9 MB/s  1 s left"
    other = "downloading a/b\n\u2501\u2501\u2501\u2501\u2501\u2501\u257a  900.0 kB of 26.1 MB  12.9 kB/s  2 min left"
    assert masked(one) == masked(other)
