"""A converted model that is small enough to be copied and uploaded in every test."""

import json

import pytest

from olmocr.conversion.convert import convert
from tests.checkpoints import tiny_checkpoint
from tests.publish.samples import model_copy


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return a folder of 60 thousand parameters, converted to 8 bits."""
    root = tmp_path_factory.mktemp("tiny")
    source = tiny_checkpoint(root / "source")
    shorten(source / "tokenizer.json")
    convert(source, "8bit", root / "tiny-8bit")
    return root / "tiny-8bit"


def shorten(tokenizer):
    """Leave 300 pieces of a vocabulary: all of a file is looked through for secrets, twice in most tests here."""
    whole = json.loads(tokenizer.read_text())
    kept = {piece: number for piece, number in whole["model"]["vocab"].items() if number < 300}
    merges = [
        [first, second] for first, second in whole["model"]["merges"] if {first, second, first + second} <= set(kept)
    ]
    whole["model"] |= {"vocab": kept, "merges": merges}
    tokenizer.write_text(json.dumps(whole))


@pytest.fixture
def model(tiny, tmp_path):
    """Return a copy of it with good reports."""
    return model_copy(tiny, tmp_path / "tiny-8bit")


@pytest.fixture
def hub(writable_hub):
    """Return a Hub that is empty, to upload to."""
    return writable_hub


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("sources") / "source")
