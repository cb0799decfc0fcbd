"""What these tests share."""

import json

import pytest

from olmocr.conversion.convert import convert
from olmocr.conversion.recipe import changed, find_recipe
from tests.checkpoints import TINY_FAMILIES, fp8_checkpoint, tiny_checkpoint


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A tiny checkpoint of each family, and one in FP8."""
    root = tmp_path_factory.mktemp("sources")
    folders = {family: tiny_checkpoint(root / family, base=base) for family, base in TINY_FAMILIES.items()}
    return folders | {"fp8": fp8_checkpoint(root / "fp8")}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Return the tiny checkpoint's reports in 4 and in 8 bits, as they were written."""
    folder = tmp_path_factory.mktemp("reports")
    source = tiny_checkpoint(folder / "source")
    recipe = changed(find_recipe("mixed"), group_size=32, keep=("*.lm_head",))
    convert(source, ["4bit", "8bit", recipe], folder / "out")
    return {
        path.parent.name.removeprefix("source-mlx-"): json.loads(path.read_text())
        for path in (folder / "out").glob("*/conversion_report.json")
    }
