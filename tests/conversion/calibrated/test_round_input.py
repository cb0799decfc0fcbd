"""Matrices with one input are rounded together, each as it is asked for."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.statistics import InputSum
from olmocr.conversion.calibrated.round_input import round_input
from olmocr.conversion.calibrated.rounding.read_back import stored_values
from olmocr.conversion.calibrated.store import key_of
from olmocr.conversion.plan import make_plan
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.recipe import find_recipe
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder
from tests.checkpoints import TINY, tiny_checkpoint

Q, K = (f"language_model.model.layers.0.self_attn.{name}_proj.weight" for name in "qk")


@dataclass(frozen=True)
class Held:
    """A matrix in memory."""

    module: str
    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    def rows(self, first=0, end=None):
        return self.values[first:end]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Return how 4bit and 8bit store each tensor of a tiny model, by recipe and name."""
    source = read_checkpoint(ModelFolder(tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "source", TINY)))
    plans = {recipe: make_plan(source, find_recipe(recipe), "calibrated") for recipe in ("4bit", "8bit")}
    return {recipe: {tensor.name: tensor for tensor in plan.tensors} for recipe, plan in plans.items()}


def seen(columns, seed=0):
    total = InputSum(holds_out=True)
    for place in range(3):
        values = np.random.default_rng([seed, place]).normal(size=(300, columns)).astype(np.float32)
        total.add(mx.array(values), np.ones(300, np.float32), is_held_out=place == 2)
    return total.finish()


def asked(planned, recipe, name, values):
    tensor = planned[recipe][name]
    return Held(name.removesuffix(".weight"), values), key_of(tensor), tensor


def test_each_matrix_gets_a_part_for_each_kind_that_is_asked_for(planned):
    drawn = np.random.default_rng(1)
    q, k = (drawn.normal(size=planned["4bit"][name].source.shape).astype(np.float32) for name in (Q, K))
    wanted = [asked(planned, "4bit", Q, q), asked(planned, "8bit", Q, q), asked(planned, "4bit", K, k)]
    parts = round_input(seen(q.shape[1]), wanted, find_processor(), threads=1)
    assert [part.key for part in parts] == [key for _, key, _ in wanted]
    errors = []
    for part, weight in zip(parts, (q, q, k), strict=True):
        assert part.loss.stored < part.loss.fit
        values = stored_values(part.arrays, len(weight), part.key.bits, part.key.dtype)
        errors.append(np.linalg.norm(values - weight) / np.linalg.norm(weight))
    assert errors[1] < 0.02 < errors[0] < 0.2
    assert errors[2] == pytest.approx(errors[0], rel=0.3)


def test_a_matrix_with_a_value_that_is_not_a_number_is_named(planned):
    weight = np.zeros(planned["4bit"][Q].source.shape, np.float32)
    weight[3, 4] = np.nan
    with pytest.raises(
        CheckpointError, match=r"^language_model\.model\.layers\.0\.self_attn\.q_proj: a matrix has inf"
    ):
        round_input(seen(weight.shape[1]), [asked(planned, "4bit", Q, weight)], find_processor(), threads=1)
