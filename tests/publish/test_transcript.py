"""The transcript in docs/publishing.md is what its commands print."""

import re

import pytest

from tests.conftest import ROOT
from tests.publish.transcript import transcript


@pytest.mark.slow
def test_the_transcript_in_the_docs_is_what_the_commands_print():
    (printed,) = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "publishing.md").read_text(), re.DOTALL)
    assert printed == transcript()
