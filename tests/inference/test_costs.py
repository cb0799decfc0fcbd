"""What passes of several sizes cost, and what lies between."""

from olmocr.inference.costs import measure_costs
from olmocr.inference.draft import Costs
from olmocr.inference.model import load_model
from tests.conftest import DEVICE


def test_costs_between_measured_sizes_are_interpolated_and_beyond_them_go_on():
    costs = Costs({1: 1.0, 2: 3.0, 4: 4.0})
    assert [costs.of(size) for size in (1, 2, 3, 4, 6)] == [1.0, 3.0, 3.5, 4.0, 5.0]


def test_a_larger_pass_is_never_measured_as_cheaper(random_folder):
    costs = measure_costs(load_model(random_folder, DEVICE))
    seconds = [costs.of(size) for size in (1, 2, 8, 32, 64)]
    assert seconds == sorted(seconds)
