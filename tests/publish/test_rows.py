"""Rows of variants, kept beside a card: what was written is read, and what is anything else tells of none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.publish.rows import CardRow, Measured, parse_rows, with_kept, write_rows
from olmocr.reports.parts import ComponentBits, Interval

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 10**12)
MEASURED = st.builds(Measured, COUNTS, NUMBERS, st.builds(Interval, NUMBERS, NUMBERS, NUMBERS, COUNTS), COUNTS, COUNTS)
PARTS = st.lists(st.builds(ComponentBits, st.text(), COUNTS, COUNTS, NUMBERS), max_size=3).map(tuple)
ROWS = st.lists(st.builds(CardRow, st.text(), COUNTS, NUMBERS, COUNTS, PARTS, st.none() | MEASURED), max_size=3)


def row(title, nbytes=1):
    return CardRow(title, nbytes, 8.0, 2, (), None)


@given(ROWS)
def test_rows_that_were_written_are_read(rows):
    assert parse_rows(write_rows(rows)) == tuple(rows)


@given(st.text())
def test_a_text_that_is_none_tells_of_no_variant(text):
    assert parse_rows(text) == ()


def test_a_new_row_replaces_the_old_one_and_the_own_variant_is_not_a_row():
    kept = with_kept([row("a/new", 5)], [row("a/new", 3), row("a/own"), row("a/old")], "a/own")
    assert kept == (row("a/new", 5), row("a/old"))


@pytest.mark.parametrize("component", ["vision", "head"])
def test_a_component_that_a_variant_does_not_have_is_told(component):
    this = CardRow("a", 1, 8.0, 2, (ComponentBits("vision", 8, 8, 8.0),), None)
    assert this.bits_of(component) == {"vision": "8.00", "head": "none"}[component]
