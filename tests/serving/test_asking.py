import asyncio

import pytest

from olmocr.errors import AnswerError, ServerUnavailableError
from olmocr.page import ModelResponse
from olmocr.serving.asking import Asking
from olmocr.serving.bounds import Bound

DONE = ModelResponse("abcd", "stop", 1, 2)


def telling(*texts):
    """Return what tells these texts, one after the other, and answers "abcd"."""

    async def write(request, on_text):
        for text in texts:
            on_text(text)
            await asyncio.sleep(0.001)
        return DONE

    return write


async def all_of(write):
    asking = Asking(write, at_once=1, waiting=0, pixels=Bound(100))
    return [piece async for piece in asking.stream(lambda: "a request")]


def test_an_answer_that_is_begun_anew_is_told_once():
    assert asyncio.run(all_of(telling("ab", "abc", "", "a", "ab", "abcd"))) == ["ab", "c", "d", DONE]


def test_what_was_never_told_comes_at_the_end():
    assert asyncio.run(all_of(telling())) == ["abcd", DONE]


def test_an_answer_that_comes_out_otherwise_the_second_time_is_broken_off():
    with pytest.raises(AnswerError, match="had to be restarted"):
        asyncio.run(all_of(telling("ax", "", "abcd")))


def test_nothing_is_begun_when_all_was_ended():
    async def ask():
        asking = Asking(telling(), at_once=1, waiting=0, pixels=Bound(100))
        asking.end_all()
        await asking.ask("a request")

    with pytest.raises(ServerUnavailableError, match="closing"):
        asyncio.run(ask())
