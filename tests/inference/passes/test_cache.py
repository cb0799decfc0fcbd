"""Keys and values of a batch stay within their budget and are the same however often they move."""

import tracemalloc
from concurrent.futures import Future

import mlx.core as mx
import pytest

from olmocr.errors import InputError
from olmocr.inference.decode import BatchLimits, Scheduler, decode
from olmocr.inference.engine import Engine
from olmocr.inference.model import load_model
from olmocr.inference.passes.cache import BatchCache, RowCache
from olmocr.inference.row import Asked
from olmocr.page import PageRequest
from tests.conftest import DEVICE
from tests.inference.decoded import alone, picture, request, together

"""Keys and values of one token of the random model: 1 layer, 1 head of 32 numbers, float32."""


TOKEN_BYTES = 2 * 32 * 4


def test_pages_wait_if_there_is_no_memory_for_their_keys_and_values_and_all_are_answered(folder):
    requests = [request(number) for number in range(6)]
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        expected = alone(engine, requests)
    with Engine(folder, DEVICE, kv_budget=600 * TOKEN_BYTES, drafted_pages=0) as engine:
        assert together(engine, requests) == expected
        assert engine.counts.sent_back == 0
        assert engine.counts.steps > 2 * 40  # two at a time at the most: each may grow to 256 tokens


@pytest.mark.slow
def test_answers_that_outgrow_the_memory_are_sent_back_and_written_again_the_same(folder):
    loaded = load_model(folder, DEVICE)
    requests = [request(number, max_tokens=200) for number in range(2)]
    limits = BatchLimits(4, 700 * TOKEN_BYTES, prompt_step=512, drafted_pages=0, expected_tokens=50)
    scheduler = Scheduler(loaded, limits, is_looping=lambda text: False)
    pages = [Asked(each, Future()) for each in requests]
    for page in pages:
        scheduler.add(page)
    while not scheduler.is_idle:
        scheduler.advance()
    assert scheduler.counts.sent_back == 1
    assert [page.answer.result() for page in pages] == [decode(loaded, each) for each in requests]


def test_a_page_that_fits_into_no_memory_is_refused(folder):
    with Engine(folder, DEVICE, kv_budget=256 * TOKEN_BYTES) as engine:
        assert together(engine, [request(1)])[0].output_tokens == 40
        with pytest.raises(InputError, match="the model has room for 256"):
            alone(engine, [PageRequest(picture(1, (560, 420)))])


@pytest.mark.slow
def test_keys_and_values_stay_within_their_budget(folder):
    def held():
        return mx.get_active_memory() + tracemalloc.get_traced_memory()[0]  # on a CPU they are numpy's

    requests = [request(number, max_tokens=100) for number in range(8)]
    tracemalloc.start()
    try:
        with Engine(folder, DEVICE, kv_budget=1000 * TOKEN_BYTES, drafted_pages=0) as engine:
            alone(engine, requests[:1])
            before = held()
            together(engine, requests)
            together(engine, [request(number) for number in range(100, 112)])  # what is kept of these is bounded, too
            assert held() < before + 1000 * TOKEN_BYTES + 2_000_000  # and images' features
    finally:
        tracemalloc.stop()


def peak_of_a_join(copied_together):
    """Return the peak of memory while a row joins three, as a multiple of the batch of four."""
    layers, shape = 16, (1, 2, 256, 32)
    batch = BatchCache(layers, copied_together=copied_together)

    def new_row():
        row = RowCache([(mx.ones(shape), mx.ones(shape)) for _ in range(layers)])
        mx.eval(row.arrays())
        return row

    rows = [object() for _ in range(4)]
    batch.arrange(rows[:3], [new_row() for _ in range(3)], 256)
    batch.expect([256] * 3, [1] * 3)
    kept = batch.beginning(rows[0], 256)  # computes the copies
    one, before = sum(array.nbytes for layer in kept for array in layer), mx.get_active_memory()
    joining = new_row()
    mx.reset_peak_memory()
    batch.arrange(rows, [joining], 256)
    batch.beginning(rows[3], 1)
    return (mx.get_peak_memory() - before + 3 * one) / (4 * one)


def test_a_batch_that_a_page_joins_is_not_in_memory_twice():
    assert peak_of_a_join(copied_together=1 << 30) > 1.6
    assert peak_of_a_join(copied_together=1) < 1.5
