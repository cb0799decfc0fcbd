"""How many operations a step has for a GPU: this is what its processor is kept busy with between two tokens."""

import sys

import pytest

from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
from kernels import SMALL, step_operations
from passes import make_model

LAYERS = 28


@pytest.mark.parametrize(("rows", "most"), [(1, 13 * LAYERS + 8), (8, 13 * LAYERS + 10)])
def test_a_step_has_thirteen_operations_a_layer(rows, most):
    """Two norms, four products (one has its bias), rotary, two writes, attention, two additions, the gate."""
    counts = step_operations(make_model(SMALL, 16), [1] * rows)
    assert counts.total() <= most
    assert counts["Gather"] == 1  # the embeddings; a part of an array by a number is one, too
    assert counts["Tanh"] == LAYERS  # it stands for the rotary kernel
