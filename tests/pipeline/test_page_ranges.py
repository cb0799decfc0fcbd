import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.errors import UsageError
from olmocr.pipeline.page_ranges import parse_page_ranges


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1-5,9,12-", (1, 2, 3, 4, 5, 9, 12, 13, 14)),
        ("3", (3,)),
        ("-2", (1, 2)),
        (" 2 - 3 , 3 ", (2, 3)),
        ("9,1", (1, 9)),
        ("13-999999999", (13, 14)),
        ("15-", ()),
    ],
)
def test_ranges_name_pages_from_1_and_may_be_open(text, numbers):
    assert parse_page_ranges(text).numbers(14) == numbers


@pytest.mark.parametrize("text", ["", "-", "a", "1-2-3", "0", "0-3", "5-3", "1,,2", "1;2", "1.5", "٣", "9" * 10, "+1"])
def test_what_is_not_a_range_is_one_sentence(text):
    with pytest.raises(UsageError, match="pages"):
        parse_page_ranges(text)


@st.composite
def ranges(draw):
    first = draw(st.integers(1, 60))
    last = draw(st.none() | st.integers(first, 80))
    return first, last


@given(st.lists(ranges(), min_size=1, max_size=6), st.integers(0, 50))
def test_a_page_is_chosen_exactly_if_a_range_holds_it(pairs, page_count):
    text = ",".join(f"{first}-{'' if last is None else last}" for first, last in pairs)
    chosen = parse_page_ranges(text)
    wanted = {n for n in range(1, page_count + 1) for first, last in pairs if first <= n <= (last or page_count)}
    assert chosen.numbers(page_count) == tuple(sorted(wanted))
    assert {number for number in range(1, page_count + 1) if number in chosen} == wanted


@given(st.text("0123456789-, a", max_size=12))
def test_any_text_is_ranges_or_refused(text):
    try:
        chosen = parse_page_ranges(text)
    except UsageError:
        return
    assert all(1 <= number <= 20 for number in chosen.numbers(20))
