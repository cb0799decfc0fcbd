import asyncio
import contextlib
from pathlib import Path

import pytest
from PIL import Image

from olmocr.backends.choice import Answering
from olmocr.errors import InputError, ServerUnavailableError
from olmocr.page import PageImage
from olmocr.pipeline.ocr_page import Terms
from olmocr.pipeline.one_document import PageReader
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
