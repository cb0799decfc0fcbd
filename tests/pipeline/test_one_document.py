import asyncio
import contextlib
from pathlib import Path

import pytest
from PIL import Image

from olmocr.backends.choice import Answering
from olmocr.errors import InputError, ServerUnavailableError
from olmocr.page import PageImage
from olmocr.pipeline.ocr_page import Terms
from olmocr.pipeline.one_document import PageReader, read_pages
from olmocr.pipeline.page_records import blank_record, unrendered_record
from olmocr.rendering.pool import RenderedPage
from tests.pipeline.doubles import Model, answer

TERMS = Terms()
GREY = PageImage(Image.new("RGB", (4, 4), "grey"))


class Pool:
    """Renders nothing: page 2 is blank, page 3 damaged."""

    async def render(self, path, name, number, longest_side):
        if number == 3:
            raise InputError(f"page 3 of {name} is damaged")
        return RenderedPage(GREY, f"layer {number}, {longest_side} pixels", is_blank=number == 2)


def read(number, answering, *, is_only=False, terms=TERMS):
    reader = PageReader(Path("a.pdf"), "a", Pool(), 644, terms, is_only)
    return asyncio.run(reader.read(number, contextlib.nullcontext(answering)))


def test_a_page_is_rendered_and_asked_for_and_its_record_names_the_model():
    model = Model(answer("Hello"))
    page = read(1, Answering(model.ask, "m"))
    assert (page.page_number, page.status, page.response.natural_text, page.model) == (1, "valid", "Hello", "m")
    assert [request.draft_text for request in model.requests] == ["layer 1, 644 pixels"]


def test_nobody_is_asked_about_a_page_that_is_blank_or_damaged():
    model = Model(answer())
    assert read(2, Answering(model.ask, "m")) == blank_record(2)
    assert read(3, Answering(model.ask, "m")) == unrendered_record(3, "page 3 of a is damaged")
    assert model.requests == []


def test_what_is_wrong_with_the_only_page_is_wrong_with_the_document():
    with pytest.raises(InputError, match="page 3 of a is damaged"):
        read(3, Answering(Model(answer()).ask, "m"), is_only=True)


def test_a_page_that_fell_back_while_the_server_was_away_says_nothing_of_the_page():
    cut = Model(answer(finish_reason="length"))
    away = ServerUnavailableError("away")
    with pytest.raises(ServerUnavailableError, match="away"):
        read(1, Answering(cut.ask, "m", fault=lambda: away), terms=Terms(max_attempts=1))
    assert read(1, Answering(cut.ask, "m"), terms=Terms(max_attempts=1)).is_fallback
    good = Model(answer())
    assert read(1, Answering(good.ask, "m", fault=lambda: away)).status == "valid", "it was answered all the same"


class Pages:
    """Reads when it is told to, and remembers what was begun and what was ended."""

    def __init__(self):
        self.gates = {}
        self.ended = []

    async def read(self, number):
        gate = self.gates[number] = asyncio.get_running_loop().create_future()
        try:
            return await gate
        finally:
            self.ended.append(number)

    async def begun(self, *numbers):
        while list(self.gates) != list(numbers):
            await asyncio.sleep(0)


def test_pages_are_begun_in_order_so_many_at_once_and_come_as_they_are_read():
    async def run():
        pages = Pages()
        found = read_pages([5, 6, 7, 8], pages.read, at_once=2)
        first = asyncio.create_task(anext(found))
        await pages.begun(5, 6)
        pages.gates[6].set_result("six")
        assert await first == "six"
        await pages.begun(5, 6, 7)
        pages.gates[7].set_result("seven")
        assert await anext(found) == "seven"
        await pages.begun(5, 6, 7, 8)
        pages.gates[5].set_result("five")
        pages.gates[8].set_result("eight")
        assert sorted([each async for each in found]) == ["eight", "five"]

    asyncio.run(run())


def test_the_next_page_is_begun_before_the_one_that_was_read_is_taken():
    async def run():
        pages = Pages()
        found = read_pages([1, 2], pages.read, at_once=1)
        first = asyncio.create_task(anext(found))
        await pages.begun(1)
        pages.gates[1].set_result("one")
        await first
        await pages.begun(1, 2)
        await found.aclose()
        assert pages.ended == [1, 2]

    asyncio.run(run())


def test_the_first_error_ends_all_pages_and_begins_no_other():
    async def run():
        pages = Pages()
        found = read_pages([1, 2, 3, 4], pages.read, at_once=3)
        first = asyncio.create_task(anext(found))
        await pages.begun(1, 2, 3)
        pages.gates[2].set_exception(InputError("damaged"))
        with pytest.raises(InputError, match="damaged"):
            await first
        return pages

    pages = asyncio.run(run())
    assert sorted(pages.ended) == [1, 2, 3]


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_whoever_stops_reading_ends_all_pages_at_once(how):
    async def run():
        pages = Pages()
        found = read_pages([1, 2, 3], pages.read, at_once=2)
        first = asyncio.create_task(anext(found))
        await pages.begun(1, 2)
        if how == "closed":
            pages.gates[1].set_result("one")
            await first
            await found.aclose()
        else:
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        return pages.ended

    assert sorted(set(asyncio.run(run())))[:2] == [1, 2]


def test_of_no_pages_none_come():
    async def run():
        return [each async for each in read_pages([], Pages().read, at_once=3)]

    assert asyncio.run(run()) == []
