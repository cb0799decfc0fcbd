"""Which of the demo's pages are read."""

from olmocr.doctor.measure.pages import PagesToRead, make_requests, spread
from olmocr.doctor.measure.terms import BLANK, TURNED, find_demo
from tests.conftest import PAGES

DEMO = find_demo()


def test_pages_are_spread_over_all_that_there_are():
    places = [(f"{number}", 1) for number in range(10)]
    assert spread(places, 3) == [("0", 1), ("3", 1), ("6", 1)]
    assert spread(places, 12) == [*places, *places[:2]]


def test_those_that_are_left_out_are_there():
    assert all((PAGES / name).is_file() for name in (*TURNED, BLANK[0]))


def test_the_first_few_are_the_same_pages():
    all_of_them = make_requests(PagesToRead(DEMO, 4, 112), guided=True)
    few = make_requests(PagesToRead(DEMO, 4, 112, first=2))
    assert [each.image.pixels.tobytes() for each in few] == [each.image.pixels.tobytes() for each in all_of_them[:2]]
    assert [each.guided for each in all_of_them] == [True] * 4
    assert few[0].draft_text


def test_of_many_pages_none_comes_twice_as_it_was():
    pictures = [each.image.pixels for each in make_requests(PagesToRead(DEMO, 30, 140))]
    assert len({(each.size, each.tobytes()) for each in pictures}) == 30
