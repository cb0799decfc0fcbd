"""Images of pages that wait are cut before it is their turn, a few at a time."""

from concurrent.futures import Future
from threading import Event

import pytest

from olmocr.errors import InputError
from olmocr.inference.ahead import Ahead
from olmocr.inference.row import Asked
from tests.inference.decoded import request
from tests.waiting import until


def pages(count):
    return [Asked(request(number), Future()) for number in range(count)]


class Cutter:
    """Notes whose image it cut."""

    def __init__(self):
        self.cut = []

    def __call__(self, asked):
        self.cut.append(asked)
        return f"image {len(self.cut)}"


def test_images_of_the_first_pages_are_cut_before_their_turn_and_once():
    cutter, waiting = Cutter(), pages(4)
    ahead = Ahead(cutter, 8)
    for _ in range(3):
        ahead.begin(waiting)
    assert {ahead.take(waiting[0]), ahead.take(waiting[1])} == {"image 1", "image 2"}
    assert len(cutter.cut) == 2


def test_the_image_of_a_page_that_was_not_among_the_first_is_cut_when_it_is_taken():
    (page,) = pages(1)
    assert Ahead(Cutter(), 8).take(page) == "image 1"


def test_the_image_of_a_page_that_waits_no_more_is_forgotten():
    cutter, (gone, stays) = Cutter(), pages(2)
    ahead = Ahead(cutter, 8)
    ahead.begin([gone])
    ahead.begin([stays])
    ahead.take(stays)
    ahead.take(gone)
    # The thread that began with the forgotten image may end after the two that were waited for.
    until(lambda: len(cutter.cut) == 3, 60)


def test_a_page_is_not_kept_waiting_by_the_image_of_another():
    first, second = pages(2)
    may_end = Event()

    def cut(asked):
        if asked is first.request:
            may_end.wait(60)
        return "image"

    ahead = Ahead(cut, 8)
    ahead.begin([first, second])
    assert ahead.take(second) == "image"
    may_end.set()
    assert ahead.take(first) == "image"


def test_an_image_that_the_model_cannot_take_is_refused_when_its_page_is_due():
    def refuse(asked):
        raise InputError("no")

    (page,) = pages(1)
    ahead = Ahead(refuse, 8)
    ahead.begin([page])
    with pytest.raises(InputError, match="no"):
        ahead.take(page)


@pytest.mark.parametrize(("in_work", "cut"), [(1, 2), (24, 3), (100, 4)])
def test_the_more_pages_are_in_work_the_more_images_are_cut_ahead(in_work, cut):
    cutter, waiting = Cutter(), pages(8)
    Ahead(cutter, in_work).begin(waiting)
    until(lambda: len(cutter.cut) >= cut, 60)
    assert len(cutter.cut) == cut
