"""The transcript in docs/scale.md is what the command shows."""

import pytest

from tests.conftest import ROOT
from tests.pipeline.servers_transcript import masked, transcript

PRINTED = (ROOT / "docs" / "scale.md").read_text().partition("### What it looks like")[2]
BLOCK = f"```{PRINTED.split('```')[1]}```\n"


@pytest.mark.slow
def test_the_transcript_in_the_docs_is_what_the_command_shows():
    assert masked(BLOCK) == masked(transcript())


def test_what_differs_from_run_to_run_is_masked():
    one = (
        "3 of 6+ pages, about 3 min left, 20 tokens/s\nhttp://a:8102/v1 is gone; it is left out, and tried again in 2 s"
    )
    other = "http://a:8102/v1 closed it; it is left out, and tried again in 1 s"
    assert masked(one) == masked(other)
