"""Intervals and paired tests: which differences are significant, and which are not evidence."""

import pytest

from olmocr.reports.bench import Outcome
from olmocr.validate.bench.statistics import compare, mcnemar, tally


def outcomes(passed, categories=("a", "b"), each=1):
    """Return one document for each of *passed*, the categories in turn, with *each* checks."""
    return [
        Outcome(f"{at}-{number}", "present", categories[at % len(categories)], f"{at}.pdf", 1, one)
        for at, one in enumerate(passed)
        for number in range(each)
    ]


def test_categories_count_the_same_however_many_checks_they_have():
    many = [*outcomes([True] * 9, ("a",)), Outcome("z", "present", "b", "z.pdf", 1, False)]
    assert tally(many).overall() == 0.5


def test_documents_are_drawn_and_not_single_checks():
    alike = outcomes([True, False] * 10, ("a",), each=1)
    clustered = outcomes([True, False] * 10, ("a",), each=20)
    wide, narrow = (tally(each).scores(tally(each).draws()).std() for each in (clustered, alike))
    assert wide == pytest.approx(narrow)


def test_a_model_that_reads_as_the_other_does_is_not_told_apart():
    same = tally(outcomes([True, False, True, True] * 5))
    found = compare(same, same)
    assert (found.difference, found.interval.low, found.interval.high, found.p_value) == (0, 0, 0, 1)


def test_a_model_that_reads_what_the_other_does_not_is_told_apart():
    found = compare(tally(outcomes([True] * 40)), tally(outcomes([True, False, False, True] * 10)))
    assert found.difference == pytest.approx(0.5)
    assert found.p_value < 0.001
    assert 0.3 < found.interval.low < 0.5 < found.interval.high < 0.7


def test_a_difference_on_one_document_alone_is_not_evidence_however_many_checks_it_has():
    worse = [Outcome(one.id, one.type, one.category, one.document, 1, one.document != "0.pdf") for one in
             outcomes([True] * 10, each=30)]  # fmt: skip
    found = compare(tally(outcomes([True] * 10, each=30)), tally(worse))
    assert found.p_value > 0.9


@pytest.mark.parametrize(
    ("only_this", "only_other", "expected"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (400, 800, 0.0)],
)
def test_mcnemars_test_counts_what_one_of_them_alone_passed(only_this, only_other, expected):
    assert mcnemar(only_this, only_other) == pytest.approx(expected, abs=1e-9)
    assert mcnemar(only_other, only_this) == mcnemar(only_this, only_other)
