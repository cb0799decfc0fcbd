"""A conversion that was broken on purpose is caught by its limits on a harder page; whole ones pass."""

import shutil

import numpy as np
import pytest

from olmocr.inference.model import load_model
from olmocr.model_folder import ModelFolder
from olmocr.rendering.render import open_document
from olmocr.validate.fidelity.distributions import diverge, keep
from olmocr.validate.fidelity.forced import ForcedAnswer
from olmocr.validate.fidelity.gates import check_gates, read_gates
from olmocr.validate.fidelity.reading import inputs_of, read_page
from tests.checkpoints import read_tensors, write_tensors
from tests.conftest import CHECKPOINT, DEVICE, ROOT
from tests.validate.reports import report

PAGE = ROOT / "demo" / "hard" / "small_sans.pdf"
LAYER = "language_model.model.layers.{}.{}"


@pytest.fixture(scope="module")
def image():
    with open_document(PAGE, PAGE.name) as document:
        return document.render(1, 644)


@pytest.fixture(scope="module")
def source(image):
    """Return the source's answer, and what it found likely at each of its tokens."""
    loaded = load_model(ModelFolder(CHECKPOINT), DEVICE)
    tokens = read_page(loaded, image, 300).greedy.tokens
    return tokens, keep(ForcedAnswer(loaded, inputs_of(loaded, image, 0), tokens).blocks(), len(tokens) + 1)


def judged(folder, recipe, image, source):
    """Return what the limits of *recipe* say of the model in *folder* by this page."""
    tokens, kept = source
    loaded = load_model(ModelFolder(folder), DEVICE)
    found = diverge(kept, ForcedAnswer(loaded, inputs_of(loaded, image, 0), tokens).blocks())
    agreement = float((found.choices == kept.choices).mean())
    measured = report(recipe=recipe, mean_kl=float(found.divergence.mean()), top1_agreement=agreement)
    return check_gates(measured, read_gates())


def swapped(first, second):
    def swap(tensors):
        for part in ("weight", "scales", "biases"):
            one, other = f"{first}.{part}", f"{second}.{part}"
            tensors[one], tensors[other] = tensors[other], tensors[one]

    return swap


def rolled(module):
    """Return what gives each group of a row the scale of the group before."""

    def roll(tensors):
        dtype, shape, data = tensors[f"{module}.scales"]
        values = np.frombuffer(data, np.uint16).reshape(shape)
        tensors[f"{module}.scales"] = (dtype, shape, np.roll(values, 1, axis=1).tobytes())

    return roll


BREAKS = {
    "two matrices swapped": swapped(LAYER.format(1, "mlp.down_proj"), LAYER.format(4, "mlp.down_proj")),
    "keys and values swapped": swapped(LAYER.format(2, "self_attn.k_proj"), LAYER.format(2, "self_attn.v_proj")),
    "scales of the wrong groups": rolled(LAYER.format(5, "mlp.down_proj")),
}


@pytest.fixture(scope="module")
def broken(converted, tmp_path_factory):
    """Return a function: how -> a folder of the demo checkpoint in 4 bits, broken so."""

    def make(change):
        folder = shutil.copytree(converted("4bit"), tmp_path_factory.mktemp("broken") / "model")
        tensors = read_tensors(folder)
        change(tensors)
        write_tensors(folder / "model.safetensors", tensors)
        return folder

    return make


def seldom(*values):
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize("recipe", ["4bit", *seldom("8bit", "mixed", "mixed-small", "3bit")])
def test_a_whole_conversion_passes_by_the_limits_of_its_recipe(recipe, converted, image, source):
    found = judged(converted(recipe), recipe, image, source)
    assert found.passed, found.broken
    assert found.recipe == recipe


@pytest.mark.parametrize("how", ["two matrices swapped", *seldom(*list(BREAKS)[1:])])
def test_a_broken_conversion_breaks_a_limit(how, broken, image, source):
    found = judged(broken(BREAKS[how]), "4bit", image, source)
    assert "most_mean_kl" in {each.name for each in found.broken}
