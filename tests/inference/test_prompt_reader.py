"""Prompts are read in steps, once for what they have in common, and others go on meanwhile."""

from concurrent.futures import Future
from dataclasses import replace

import pytest

from olmocr.errors import InputError
from olmocr.inference.decode import BatchLimits, Scheduler
from olmocr.inference.draft import Costs
from olmocr.inference.engine import Engine
from olmocr.inference.model import load_model
from olmocr.inference.passes.forward import Language
from olmocr.inference.row import Asked
from olmocr.page import IMAGE_TOKEN, PageRequest
from olmocr.runtime.device import Device
from tests.conftest import DEVICE
from tests.inference.decoded import alone, finished, picture, request, together

"""Keys and values of one token of the random model: 1 layer, 1 head of 32 numbers, float32."""


TOKEN_BYTES = 2 * 32 * 4


@pytest.mark.slow
def test_a_prompt_is_read_in_steps_of_any_size_with_the_same_answer(folder):
    answers = []
    for step in (7, 64, 4096):
        with Engine(folder, DEVICE, prompt_step=step) as engine:
            answers += together(engine, [PageRequest(picture(1, (280, 420)), max_tokens=20)])
    assert answers[0].input_tokens > 200
    assert answers[0] == answers[1] == answers[2]


def test_pages_are_answered_the_same_where_shapes_are_kept_as_on_cuda(folder):
    """Prompts whose pieces are filled up, tokens filled up to a power of two, and a mask of numbers: on a CPU."""
    loaded = load_model(folder, DEVICE)
    loaded = replace(loaded, language=Language(loaded.model, has_kernels=False))
    limits = BatchLimits(3, 20_000 * TOKEN_BYTES, 4096, drafted_pages=3, costs=Costs({1: 1.0, 64: 1.1}))
    requests = [
        PageRequest(picture(number, (280, 140 + 28 * number)), max_tokens=30, draft_text="Total ph forth of found")
        for number in range(5)
    ]
    own = finished(Scheduler(loaded, limits, None), *requests)
    kept = finished(Scheduler(replace(loaded, device=Device("cuda", None, "0")), limits, None), *requests)
    assert [each.tokens for each in kept] == [each.tokens for each in own]


def test_pages_are_answered_the_same_where_passes_are_queued_ahead_as_on_a_gpu(folder):
    """MLX's passes, of which the next is queued before the tokens of the last are known: on a CPU."""
    loaded = load_model(folder, DEVICE)
    limits = BatchLimits(3, 20_000 * TOKEN_BYTES, 64, drafted_pages=0)
    requests = [
        PageRequest(picture(number, (280, 140 + 28 * number)), max_tokens=20 + number, temperature=number / 4, seed=7)
        for number in range(5)
    ]
    requests[2] = replace(requests[2], guided=True)
    own = finished(Scheduler(loaded, limits, None), *requests)
    language = Language(loaded.model, has_kernels=False)
    queued = finished(Scheduler(replace(loaded, language=language), limits, None), *requests)
    assert [each.tokens for each in queued] == [each.tokens for each in own]


def test_a_prompt_that_names_a_second_image_is_refused_and_the_next_one_is_read(folder):
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        with pytest.raises(InputError, match="tokens for an image that has"):
            alone(engine, [replace(request(1), prompt=f"Read this {IMAGE_TOKEN}.")])
        assert alone(engine, [request(1)])[0].output_tokens == 40


def test_others_go_on_while_a_long_prompt_is_read(folder):
    limits = BatchLimits(2, 10_000 * TOKEN_BYTES, prompt_step=16, drafted_pages=0)
    scheduler = Scheduler(load_model(folder, DEVICE), limits, None)
    first = Asked(request(1, max_tokens=3000), Future())
    long = Asked(PageRequest(picture(3, (560, 840)), max_tokens=1), Future())  # read in more than 20 steps
    scheduler.add(first)
    while not scheduler.counts.tokens:
        scheduler.advance()
    before = scheduler.counts.tokens
    scheduler.add(long)
    while not long.answer.done():
        scheduler.advance()
    assert scheduler.counts.tokens - before >= 5  # four steps in each round, since one of two rows is there
    assert not first.answer.done()


def test_a_page_that_is_asked_again_is_not_read_again(folder):
    with Engine(folder, DEVICE, prompt_step=32, drafted_pages=0) as engine:
        big = [PageRequest(picture(1, (560, 420)), temperature=1.0, seed=seed, max_tokens=3) for seed in (1, 2, 3, 1)]
        first = alone(engine, big[:1])
        read = engine.counts.prompt_tokens
        rest = alone(engine, big[1:])
        assert read > 300
        assert engine.counts.prompt_tokens == read
        assert rest[2] == first[0] != rest[0]


def test_the_text_before_the_image_is_read_once_for_all_pages(folder):
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        one, two = alone(engine, [request(1)])[0], request(2)
        read = engine.counts.prompt_tokens
        alone(engine, [two])
        assert engine.counts.prompt_tokens - read < one.input_tokens / 4
