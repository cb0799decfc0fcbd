from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from olmocr.inference.draft import Beside
from olmocr.inference.passes.cache import RowCache
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


def a_row(*, drafter=None, decode=lambda tokens, **_: ""):
    return Row(
        Asked(PageRequest(image=None), Future()),
        SimpleNamespace(key=(b"", b""), cache=RowCache(1), rope_delta=0, ids=[0], prompt_length=1),
        most_tokens=8000,
        stop_tokens=frozenset(),
        text=GrowingText(SimpleNamespace(decode=decode)),
        guide=None,
        drafter=drafter,
        is_looping=lambda text: False,
    )


def taken(tokens):
    """Have a row take *tokens*, whose text tells nothing; return why it ended and after how many."""
    row = a_row()
    for token in tokens:
        if row.finish_reason is None:
            row.take(token)
    return row.finish_reason, row.written


@pytest.mark.parametrize(("length", "ended"), [(1, ("loop", 4160)), (64, ("loop", 4160)), (65, (None, 5000))])
def test_a_row_that_goes_round_is_ended_whatever_its_text(length, ended):
    assert taken(circle(length, 5000)) == ended


def test_a_row_is_looked_at_every_32_tokens():
    assert taken([999, *circle(64, 5000)]) == ("loop", 4192)


def test_a_body_is_what_follows_the_front_matter_and_empty_before_that_is_closed():
    row = a_row(decode=lambda tokens, **_: "".join(map(chr, tokens)))
    for letter in "---\na: b\n---\n":
        assert row.body == ""
        row.take(ord(letter))
    for letter in "text\n---\nmore":
        row.take(ord(letter))
    assert row.body == "text\n---\nmore"


class Learning:
    """A drafter that notes what it is told."""

    def __init__(self):
        self.is_resting, self.told = False, []

    def propose(self, text, beside, most):
        return [5, 6][:most]

    def learn(self, *what):
        self.told.append(what)

    def rest(self):
        self.told.append("rested")


def test_a_drafter_learns_of_each_draft_once_and_of_nothing_where_it_was_not_asked():
    row = a_row(drafter=(drafter := Learning()))
    assert row.take_all([4], [], 2) == 0
    assert row.propose(Beside(1, 1)) == [5, 6]
    assert row.take_all([5, 7, 8], [5, 6], 2) == 1
    assert row.take_all([9], [], 2) == 0
    drafter.is_resting = True
    assert row.propose(Beside(1, 1)) == []
    assert row.take_all([9], [], 2) == 0
    assert drafter.told == [(2, 1, Beside(1, 1), 2), "rested"]
    assert row.ids[1:] == [4, 5, 7, 9, 9]


def test_without_a_drafter_nothing_is_proposed_or_learned():
    row = a_row()
    assert row.propose(Beside()) == []
    assert row.take_all([4], [], 1) == 0
