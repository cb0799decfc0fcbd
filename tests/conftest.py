"""What many tests stand on: the demo checkpoint, its pages with their true text, and a converted model."""

import json
from pathlib import Path

import pytest

from olmocr.conversion.folder import plan_conversion, write_model
from olmocr.conversion.recipe import find_recipe
from olmocr.device import start_mlx
from olmocr.model_folder import ModelFolder

# Before any test module imports MLX or mlx-vlm, or the fast BLAS comes too late.
DEVICE = start_mlx()

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "demo" / "checkpoint"
PAGES = ROOT / "demo" / "pages"


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """Return a function: recipe name -> the demo checkpoint's folder in that recipe, made once a session."""
    folders = {}

    def convert(recipe):
        if recipe not in folders:
            folders[recipe] = tmp_path_factory.mktemp("models") / recipe
            write_model(plan_conversion(ModelFolder(CHECKPOINT), find_recipe(recipe)), folders[recipe])
        return folders[recipe]

    return convert


@pytest.fixture(scope="session")
def truth():
    """Return {(PDF's name, page number): that page's entry in pages.json}."""
    entries = json.loads((PAGES / "pages.json").read_text())
    return {(entry["pdf"], entry["page"]): entry for entry in entries}
