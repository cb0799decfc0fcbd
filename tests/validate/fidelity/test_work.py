"""What is kept of a measurement comes back, and what is damaged counts as not measured."""

import numpy as np
import pytest

from olmocr.validate.fidelity.distributions import PageDivergence
from olmocr.validate.fidelity.reading import PageAnswer, PageReading
from olmocr.validate.fidelity.work import PageMeasurement, PhaseCost, Work

ANSWER = PageAnswer((1, 2), "text \udcff", "stop", 0, False, 1.5)
READING = PageReading(ANSWER, True, "stop", True, 1, ("why",), False, 2.0)
PAGE = PageMeasurement(READING, 7, 0.25, ("digit", "letter"))
DIVERGENCE = PageDivergence(**{name: np.array([1.0, 2.0]) for name in PageDivergence.__dataclass_fields__})


def test_a_page_and_its_arrays_come_back_as_they_were(tmp_path):
    work = Work(tmp_path)
    work.keep(3, PAGE, DIVERGENCE)
    assert work.knows(3)
    assert work.page(3) == PAGE
    assert np.array_equal(work.arrays(3, PageDivergence).divergence, DIVERGENCE.divergence)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reading": 1}', "{\xff"])
def test_a_page_that_is_damaged_counts_as_not_measured(text, tmp_path):
    Work(tmp_path).keep(0, PAGE, DIVERGENCE)
    (tmp_path / "0000.json").write_bytes(text.encode("latin-1"))
    assert not Work(tmp_path).knows(0)
    assert not Work(tmp_path).knows(1)


def test_of_several_costs_the_highest_peak_counts_and_the_last_rest(tmp_path):
    work = Work(tmp_path)
    work.keep_cost(PhaseCost("bfloat16", 2.0, 300))
    work.keep_cost(PhaseCost("float32", 1.0, 200))
    assert work.cost() == PhaseCost("float32", 1.0, 300)
    (tmp_path / "cost.json").write_text("{}")
    work.keep_cost(PhaseCost("float32", 1.0, 200))
    assert work.cost() == PhaseCost("float32", 1.0, 200)
