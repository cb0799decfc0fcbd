"""Why an answer ends, and how much memory pages have: each limit is kept, recorded and explained."""

import asyncio
import random
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from olmocr.errors import InputError, UsageError
from olmocr.inference.decode import BatchLimits, Scheduler, decode
from olmocr.inference.engine import Engine
from olmocr.inference.model import load_model
from olmocr.inference.passes.cache import RowCache
from olmocr.inference.row import Asked, GrowingText, Row
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest
from olmocr.pipeline.repetition import is_looping
from olmocr.runtime.memory import parse_size
from tests.conftest import CHECKPOINT, DEVICE
from tests.inference.random_models import random_model
from tests.inference.test_decode import TOKEN_BYTES, picture, request
from tests.pipeline.test_repetition import REAL

MOST_TOKENS_OF_A_LOOP = 4096 + 64 + 32 + 16
"""After so many tokens, a few of something else before them counted, any loop was ended; an answer may have 8000."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ModelFolder(random_model(tmp_path_factory.mktemp("random") / "model"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(CHECKPOINT)


class Clock:
    """Shows a second more each time that it is looked at."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def answered(loaded, *requests, pages=4, prompt_step=512):
    """Answer *requests* with a clock on which a step takes a second to three."""
    limits = BatchLimits(pages, 10_000 * TOKEN_BYTES, prompt_step=prompt_step, drafted_pages=0)
    scheduler = Scheduler(loaded, limits, lambda text: False, clock=Clock())
    asked = [Asked(each, Future()) for each in requests]
    for each in asked:
        scheduler.add(each)
    while not scheduler.is_idle:
        scheduler.advance()
    return [each.answer.result() for each in asked]


def test_an_answer_ends_when_its_time_is_over_and_the_others_go_on(folder):
    loaded = load_model(folder, DEVICE)
    short, long = answered(loaded, request(1, time_limit=30.0, max_tokens=200), request(2, max_tokens=200))
    assert short.finish_reason == "time"
    assert 5 < len(short.tokens) < 30
    assert short.tokens == decode(loaded, request(1, max_tokens=200)).tokens[: len(short.tokens)]
    assert (long.finish_reason, len(long.tokens)) == ("length", 200)


def test_time_runs_from_when_a_page_joins_and_not_while_it_waits(folder):
    loaded = load_model(folder, DEVICE)
    first, second = answered(loaded, request(1, max_tokens=100), request(2, time_limit=60.0, max_tokens=30), pages=1)
    assert (first.finish_reason, len(first.tokens)) == ("length", 100)
    assert (second.finish_reason, len(second.tokens)) == ("length", 30)


def test_a_prompt_that_takes_all_the_time_ends_with_no_text(folder):
    loaded = load_model(folder, DEVICE)
    (answer,) = answered(loaded, PageRequest(picture(3, (560, 840)), time_limit=10.0), prompt_step=16)
    assert (answer.finish_reason, answer.text, answer.tokens) == ("time", "", ())
    assert answer.input_tokens > 500


def test_the_engine_counts_pages_by_how_they_ended(folder):
    is_cancelled = threading.Event()

    async def ask(engine):
        waiting = [
            request(1, max_tokens=9),
            request(2, max_tokens=3000, time_limit=0.0),
            request(3, max_tokens=3000),
            PageRequest(picture(4, (3000, 4))),
        ]
        tasks = [asyncio.ensure_future(engine.ask(each)) for each in waiting]
        await asyncio.wait([tasks[0], tasks[1], tasks[3]])
        tasks[2].cancel()
        is_cancelled.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    def is_looping(text):  # asked after 32 tokens, of the third page alone: it goes no further until it is cancelled
        return not is_cancelled.wait(60)

    with Engine(folder, DEVICE, drafted_pages=0, is_looping=is_looping) as engine:
        answers = asyncio.run(ask(engine))
        counts = engine.counts
    assert [answers[0].finish_reason, answers[1].finish_reason] == ["length", "time"]
    assert answers[1].output_tokens == 0
    assert answers[0].passes == 9
    assert (counts.ended_length, counts.ended_time, counts.cancelled, counts.failed) == (1, 1, 1, 1)
    assert (counts.ended_stop, counts.ended_loop) == (0, 0)


def test_a_budget_without_room_for_a_page_says_how_much_it_takes(folder):
    with pytest.raises(UsageError) as error, Engine(folder, DEVICE, kv_budget=300_000, longest_side=1288):
        pass
    assert "300KB have room for keys and values of 1024 tokens, but a page of 1288 pixels has " in str(error.value)
    enough = str(error.value).split("give `kv_budget` ")[1].split(" ")[0]
    with Engine(folder, DEVICE, kv_budget=parse_size(enough, "it"), longest_side=1288) as engine:
        answer = asyncio.run(engine.ask(PageRequest(picture(1, (910, 1288)), max_tokens=2)))
    assert answer.output_tokens == 2


def test_a_page_that_is_larger_than_the_memory_says_how_much_it_takes(folder):
    with Engine(folder, DEVICE, kv_budget=256 * TOKEN_BYTES) as engine, pytest.raises(InputError) as error:
        asyncio.run(engine.ask(PageRequest(picture(1, (560, 420)))))
    assert str(error.value).endswith("render the page smaller, or give `kv_budget` 394KB or more")


def written(tokenizer, text, **options):
    """Have a row take the tokens of *text*, and return why it ended, and after how many."""
    reading = SimpleNamespace(key=(b"", b""), cache=RowCache(1), rope_delta=0, ids=[0], prompt_length=1)
    row = Row(
        Asked(request(1), Future()),
        reading,
        most_tokens=100_000,
        stop_tokens=frozenset(),
        text=GrowingText(tokenizer),
        guide=None,
        drafter=None,
        is_looping=is_looping,
        **options,
    )
    for token in tokenizer.encode(text, add_special_tokens=False):
        row.take(token)
        if row.finish_reason:
            break
    return row.finish_reason, row.written


def rows(count, cells):
    values = random.Random(0)
    return "<table>\n" + "".join(
        "<tr>" + "".join(f"<td>{cell or values.randint(0, 9)}</td>" for cell in cells) + "</tr>\n" for _ in range(count)
    )


@pytest.mark.parametrize(
    "cells",
    [
        ("Item", "", "pieces", "0.00", "0.00"),
        ("Yes", "No", "No", "N/A"),
        ("", "", "", "", ""),
        ("2019", "Municipal Works Department", "Approved", "", "1,200.00"),
    ],
)
def test_a_table_of_60_similar_rows_is_written_to_its_end(cells, tokenizer):
    reason, count = written(tokenizer, "A report.\n\n" + rows(60, cells) + "</table>\n")
    assert reason is None
    assert count > 700


@pytest.mark.parametrize("what", REAL)
def test_what_a_real_page_may_end_in_is_written_to_its_end(what, tokenizer):
    assert written(tokenizer, "# A heading\n\n" + REAL[what])[0] is None


def block(length):
    """Return a text of about so many tokens, all of them different for the first 26."""
    return "".join(f" {chr(97 + (7 * at) % 26)}" for at in range(length))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 16, 31, 64])
def test_a_loop_of_1_to_64_tokens_is_ended_after_a_bounded_number_of_tokens(length, tokenizer):
    reason, count = written(tokenizer, "# Minutes\n\n" + block(length) * (10_000 // length))
    assert reason == "loop"
    assert count <= (1100 if length > 2 else MOST_TOKENS_OF_A_LOOP)


HARDLY_ANYTHING = ["0\n", "<td></td>", "<tr><td>0</td></tr>\n", ". ", "| ", "1. Item\n", "\n", "漢", "🦊"]


@pytest.mark.parametrize("what", HARDLY_ANYTHING)
def test_a_loop_of_hardly_anything_is_ended_before_the_answer_may_be_full(what, tokenizer):
    reason, count = written(tokenizer, "# Minutes\n\n" + what * 10_000)
    assert reason == "loop"
    assert count < MOST_TOKENS_OF_A_LOOP
