from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from olmocr.inference.cache import RowCache
from olmocr.inference.row import Asked, GrowingText, Row, goes_round
from olmocr.page import PageRequest

ROUND = 4096
"""Tokens of one block after which an answer has gone round."""


def circle(length, count):
    """Return *count* tokens of a block of *length* different ones, over and over."""
    return [at % length for at in range(count)]


@pytest.mark.parametrize("length", [1, 2, 37, 63, 64])
def test_an_answer_goes_round_after_4096_tokens_of_a_block_of_up_to_64(length):
    before = [1000 + at for at in range(64 - length)]
    assert goes_round(before + circle(length, ROUND + length))
    assert not goes_round([*before, 999, *circle(length, ROUND + length - 1)])


@pytest.mark.parametrize("length", [65, 66, 128, 4096])
def test_a_block_of_more_than_64_tokens_does_not_go_round_however_often_it_comes(length):
    assert not goes_round(circle(length, 3 * ROUND))


def test_fewer_tokens_than_64_and_4096_never_go_round():
    assert goes_round(circle(1, ROUND + 64))
    assert not goes_round(circle(1, ROUND + 63))


def taken(tokens):
    """Have a row take *tokens*, whose text tells nothing; return why it ended and after how many."""
    row = Row(
        Asked(PageRequest(image=None), Future()),
        SimpleNamespace(key=(b"", b""), cache=RowCache(1), rope_delta=0, ids=[0]),
        most_tokens=8000,
        stop_tokens=frozenset(),
        text=GrowingText(SimpleNamespace(decode=lambda tokens, **_: "")),
        guide=None,
        drafter=None,
        is_looping=lambda text: False,
    )
    for token in tokens:
        if row.finish_reason is None:
            row.take(token)
    return row.finish_reason, row.written


@pytest.mark.parametrize(("length", "ended"), [(1, ("loop", 4160)), (64, ("loop", 4160)), (65, (None, 5000))])
def test_a_row_that_goes_round_is_ended_whatever_its_text(length, ended):
    assert taken(circle(length, 5000)) == ended


def test_a_row_is_looked_at_every_32_tokens():
    assert taken([999, *circle(64, 5000)]) == ("loop", 4192)
