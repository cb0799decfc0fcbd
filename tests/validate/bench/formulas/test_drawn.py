"""A formula can be seen in another one if its characters stand there beside the same ones."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.validate.bench.formulas.drawn import Drawing, shows
from tests.validate.bench.formulas.doubles import drawn


@pytest.mark.parametrize(
    ("shown", "wanted", "expected"),
    [
        (["a+b"], ["a+b"], True),
        (["a+b=c"], ["a+b"], True),
        (["a+b"], ["a+b=c"], False),
        (["b+a"], ["a+b"], False),
        (["a", "b"], ["ab"], False),
        (["ab"], ["a", "b"], False),
        (["a", "-", "b"], ["a", "-", "b"], True),
        (["c=a+b"], ["a+b"], True),
        (["xa+bx", "xcx  "], ["a+b"], True),
        (["aab"], ["ab"], True),
        (["ab", " ", "cd"], ["ab", " ", "cd"], True),
        (["ab", " ", "dc"], ["ab", " ", "cd"], False),
        (["abab"], ["aa"], False),
        (["a"], [""], False),
    ],
)
def test_what_is_beside_a_character_has_to_be_beside_it_there(shown, wanted, expected):
    assert shows(drawn(*shown), drawn(*wanted)) is expected


def test_mathml_within_the_others_is_enough():
    assert shows(drawn("y", mathml="<mrow><mi>a</mi></mrow>"), drawn("x", mathml="<mi>a</mi>"))
    assert not shows(drawn("y", mathml="<mi>b</mi>"), drawn("x", mathml="<mi>a</mi>"))
    assert not shows(drawn("y"), drawn("x"))


@pytest.mark.parametrize(("out_of_line", "expected"), [(5.0, (-1, -1, -1, 1)), (5.5, (-1, -1, -1, -1))])
def test_a_row_may_be_out_of_line_by_five_pixels(out_of_line, expected):
    drawing = Drawing("", "ab", np.array([0.0, 20.0]), np.array([0.0, out_of_line]))
    assert drawing.neighbours[0] == expected


def test_the_nearest_in_each_direction_is_the_neighbour():
    assert drawn(" a ", "bcd", " e ").neighbours[2] == (0, 4, 1, 3)


@given(
    st.lists(st.text("ab ", min_size=3, max_size=3), min_size=1, max_size=3),
    st.lists(st.text("ab ", min_size=2, max_size=2), min_size=1, max_size=2),
)
def test_it_is_shown_if_and_only_if_there_is_a_way_to_place_all_of_it(shown, wanted):
    whole, part = drawn(*shown), drawn(*wanted)
    size = len(part.characters)
    expected = size > 0 and any(
        all(part.characters[at] == whole.characters[place] for at, place in enumerate(places))
        and all(
            (other := whole.neighbours[places[at]][way]) >= 0
            and (other == places[beside] if beside < at else whole.characters[other] == part.characters[beside])
            for at in range(size)
            for way, beside in enumerate(part.neighbours[at])
            if beside >= 0
        )
        for places in itertools.permutations(range(len(whole.characters)), size)
    )
    assert shows(whole, part) is expected


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(0, 3))
def test_many_that_are_alike_come_to_an_end(count, fewer):
    """Characters without neighbours could be tried in any order, and no time is enough for all of these."""
    apart = np.arange(float(count)) * 100

    def scattered(number):
        return Drawing("", "a" * number, apart[:number], apart[:number])

    started = time.process_time()
    assert shows(scattered(count), scattered(count - min(fewer, count - 1)))
    assert not shows(scattered(count), Drawing("", "a" * count, apart, apart * 0))
    assert time.process_time() - started < 60
