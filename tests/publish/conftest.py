"""A converted model that is small enough to be copied and uploaded in every test."""

import pytest

from olmocr.conversion.convert import convert
from tests.checkpoints import tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return a folder of 60 thousand parameters, converted to 8 bits."""
    root = tmp_path_factory.mktemp("tiny")
    convert(tiny_checkpoint(root / "source"), "8bit", root / "tiny-8bit")
    return root / "tiny-8bit"
