""""""

import itertools
import json
from concurrent.futures import Future

import pytest

from olmocr.errors import InputError
from olmocr.inference.decode import BatchLimits, Counts, Scheduler, pieces
from olmocr.inference.draft import Costs
from olmocr.inference.engine import Engine
from olmocr.inference.model import load_model
from olmocr.inference.row import Asked, Generation
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest
from tests.conftest import DEVICE, PAGES
from tests.inference.decoded import alone, finished, picture, request, together
from tests.inference.test_engine import page_image

"""Keys and values of one token of the random model: 1 layer, 1 head of 32 numbers, float32."""


TOKEN_BYTES = 2 * 32 * 4


MIXED = [
    request(number, temperature=temperature, max_tokens=most, guided=number % 3 == 0)
    for number, (temperature, most) in enumerate(
        [(0.0, 40), (1.0, 90), (0.0, 7), (0.5, 60), (2.0, 25), (0.0, 90), (1.0, 1), (0.8, 60), (0.0, 33), (1.0, 50)]
    )
]


@pytest.mark.parametrize("pauses", [(), (0, 3, 9, 1, 4)])
def test_pages_of_any_temperature_seed_length_and_guidance_are_answered_in_a_batch_as_alone(folder, pauses):
    with Engine(folder, DEVICE, most_pages=4, drafted_pages=0) as engine:
        assert together(engine, MIXED, pauses) == alone(engine, MIXED)


def test_a_page_that_is_sent_back_is_counted_once_for_each_time_and_its_passes_too(chain):
    limits = BatchLimits(2, 600 * TOKEN_BYTES, 512, drafted_pages=0, expected_tokens=1)
    scheduler = Scheduler(chain, limits, None)
    finished(scheduler, *(PageRequest(picture(number), max_tokens=200) for number in range(2)))
    counts = scheduler.counts
    assert (counts.sent_back, counts.ended_length, counts.drafts, counts.drafted, counts.accepted) == (1, 2, 0, 0, 0)
    assert counts.row_steps == counts.tokens == 2 * 200  # what was written stays
    assert counts.steps < counts.row_steps


@pytest.mark.parametrize(("rows", "expected"), [(0, 64), (1, 64), (2, 32), (16, 4), (31, 4), (32, 1)])
def test_the_fewer_answers_there_are_the_more_pieces_of_new_pages_come_before_their_next_step(rows, expected):
    assert pieces(32, rows) == expected


def test_where_pieces_take_long_there_is_one_before_each_step(chain):
    """A second passes each time that this clock is looked at."""
    seconds = iter(range(10_000))
    scheduler = Scheduler(chain, BatchLimits(8, 1 << 30, 16, drafted_pages=0), None, clock=lambda: next(seconds))
    for number in range(3):
        scheduler.add(Asked(PageRequest(picture(number), max_tokens=5), Future()))
    before = 0
    while not scheduler.is_idle:
        scheduler.advance()
        assert scheduler.counts.prompt_tokens - before <= 16
        before = scheduler.counts.prompt_tokens


@pytest.mark.parametrize(
    "options",
    [pytest.param({"temperature": 1.0}, marks=pytest.mark.slow), {"guided": True, "temperature": 1.0}],
)
def test_a_page_that_had_to_wait_again_continues_after_what_was_written(folder, options):
    loaded = load_model(folder, DEVICE)
    pages = [request(number, max_tokens=300, **options) for number in range(3)]
    expected = [finished(Scheduler(loaded, BatchLimits(1, 1 << 30, 64, 0), None), page)[0] for page in pages]
    scheduler = Scheduler(loaded, BatchLimits(3, 1000 * TOKEN_BYTES, 64, drafted_pages=0, expected_tokens=1), None)
    told = []
    asked = [Asked(page, Future(), told.append if page is pages[2] else None) for page in pages]
    for each in asked:
        scheduler.add(each)
    while not scheduler.is_idle:
        scheduler.advance()
    assert scheduler.counts.sent_back > 0
    assert [each.answer.result() for each in asked] == expected
    assert scheduler.counts.tokens == sum(len(each.tokens) for each in expected)
    assert all(after.startswith(before) for before, after in itertools.pairwise(told))


def test_pages_are_counted_by_how_they_ended():
    counts = Counts()
    for number, end in enumerate(("stop", "length", "loop", "time", "cancelled", InputError("no")), start=1):
        for _ in range(number):
            answer = Future()
            if end == "cancelled":
                answer.cancel()
            elif isinstance(end, str):
                answer.set_result(Generation("", (), end, 1))
            else:
                answer.set_exception(end)
            counts.count_end(answer)
    assert counts == Counts(ended_stop=1, ended_length=2, ended_loop=3, ended_time=4, cancelled=5, failed=6)
    assert (counts.steps_a_token, counts.accepted_a_draft) == (0, 0)


@pytest.mark.slow
def test_demo_pages_are_read_in_a_batch_as_alone_and_with_drafts_as_without(converted):
    """On a CPU in float32 there is no page with another token; 16-bit arithmetic may differ where two are as likely."""
    entries = json.loads((PAGES / "pages.json").read_text())
    requests = [PageRequest(page_image(entry["pdf"], entry["page"]), max_tokens=2000) for entry in entries]
    folder = ModelFolder(converted("8bit"))
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        expected = together(engine, requests)
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        assert alone(engine, requests[::4]) == expected[::4]
    drafted = [
        PageRequest(each.image, max_tokens=2000, draft_text=entry["natural_text"])
        for each, entry in zip(requests, entries, strict=True)
    ]
    with Engine(folder, DEVICE, most_pages=3, costs=Costs({1: 1.0, 64: 2.0})) as engine:
        assert together(engine, drafted) == expected
        assert engine.counts.steps_a_token < 0.3
