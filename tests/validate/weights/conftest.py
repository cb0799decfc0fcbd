"""What these tests share."""

import shutil

import pytest

from olmocr.conversion.convert import convert
from tests.checkpoints import tiny_checkpoint
from tests.validate.weights.folders import without_hashes


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "source")


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """Return the tiny checkpoint's folder in 4 bits; not to be written to."""
    folder = tmp_path_factory.mktemp("tiny") / "4bit"
    convert(source, "4bit", folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """Return a copy of the tiny folder, to be broken; without hashes, so that a look at it has to find what is."""
    return without_hashes(shutil.copytree(whole, tmp_path / "model"))
