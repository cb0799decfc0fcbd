"""How far a converted model is from its source, block by block, against the whole model computed at once."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.divergence import measured_divergence
from olmocr.conversion.calibrated.passes.walk import WalkOptions, in_order, walk
from olmocr.conversion.calibrated.rounding.read_back import roundings
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.recipe import find_recipe
from olmocr.conversion.write import write_models
from olmocr.model_folder import ModelFolder
from tests.checkpoints import decided_checkpoint
from tests.conversion.calibrated.pages import random_pages
from tests.conversion.calibrated.whole_model import measured_kl


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return decided_checkpoint(tmp_path_factory.mktemp("tiny") / "source", layers=2)


def made(source, output, recipe, method):
    targets = plan_targets(ModelFolder(source), [find_recipe(recipe)], method, output)
    write_models(targets)
    return targets[0].plan, tuple(random_pages(targets[0].plan.source.config, 2))


def test_a_model_that_was_rounded_is_as_far_as_the_whole_model_is(source, tmp_path):
    plan, pages = made(source, tmp_path / "model", "4bit", "stock")
    blocks = []
    found = measured_divergence(plan, tmp_path / "model", pages, tmp_path, lambda *done: blocks.append(done))
    bits = {tensor.name.removesuffix(".weight"): tensor.params and tensor.params.bits for tensor in plan.tensors}
    stock = roundings(["stock"], "BF16", find_processor())["stock"](None)
    states = tmp_path / "states"
    states.mkdir()
    walk(plan.source, pages, lambda block: None, states, options=WalkOptions(needed=(), keep_states_from=0))

    def change(module, matrix):
        return mx.array(stock(np.array(matrix), bits[module])) if bits[module] else matrix

    assert found == pytest.approx(measured_kl(plan.source, in_order(pages), states, change), rel=1e-3)
    assert blocks[-1][0] == blocks[-1][1]
    assert [done for done, _ in blocks] == sorted({done for done, _ in blocks})


def test_a_model_that_keeps_all_is_its_source(source, tmp_path):
    plan, pages = made(source, tmp_path / "model", "bf16", "fit")
    assert measured_divergence(plan, tmp_path / "model", pages[::-1], tmp_path) == pytest.approx(0, abs=1e-6)
