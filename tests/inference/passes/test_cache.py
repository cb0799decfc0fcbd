"""Keys and values of a batch stay within their budget and are the same however often they move."""

import tracemalloc
from concurrent.futures import Future

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


HEADS, QUERIES, WIDTH = 2, 6, 8


class RowAlone:
    """A row of random keys and values, which also attends alone: to its own cache, without any other row."""

    def __init__(self, length, numbers):
        self._numbers = numbers
        self.joins = self._read(length)
        self._own = RowCache(
            [(layer.keys[..., :length, :], layer.values[..., :length, :]) for layer in self.joins.layers]
        )

    def _read(self, length):
        cache = RowCache(1)
        cache.attend(0, self._some(QUERIES, length), self._some(HEADS, length), self._some(HEADS, length), 0.5)
        mx.eval(cache.arrays())
        return cache

    def _some(self, heads, tokens):
        return mx.array(self._numbers.normal(size=(tokens, heads, WIDTH)).astype(np.float32))

    @property
    def length(self):
        return self._own.length

    def forget(self, count):
        self._own.drop_last(count)

    def next(self, count):
        """Return the queries, keys and values of *count* tokens, and the attention output of this row alone."""
        given = [self._some(heads, count) for heads in (QUERIES, HEADS, HEADS)]
        return [*given, self._own.attend(0, *given, 0.5)]


@given(
    ways=st.sampled_from([{}, {"has_plans": True}, {"is_slow_behind_masks": True}]),
    passes=st.lists(
        st.tuples(
            st.lists(st.integers(1, 40), max_size=3),  # the lengths of rows that join
            st.sets(st.integers(0, 11), max_size=4),  # which rows leave
            st.lists(st.integers(1, 9), min_size=1, max_size=4),  # how many tokens the rows have, in turn
            st.integers(0, 3),  # how many of them were wrong
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_rows_that_join_and_leave_in_any_order_attend_as_each_does_alone(ways, passes):
    numbers, batch, rows = np.random.default_rng(0), BatchCache(1, **ways), []
    for joining, leaving, counts, wrong in passes:
        staying = [row for place, row in enumerate(rows) if place not in leaving]
        new = [RowAlone(length, numbers) for length in joining][: 12 - len(staying)]
        rows = [*staying, *new]
        if not rows:
            batch.clear()
            continue
        count = {row: counts[place % len(counts)] for place, row in enumerate(rows)}
        order = batch.arrange(rows, [row.joins for row in new], max(row.length + count[row] for row in rows))
        ordered = [rows[number] for number in order]
        batch.expect([row.length for row in ordered], [count[row] for row in ordered])
        *given, alone = (mx.concatenate(each) for each in zip(*(row.next(count[row]) for row in ordered), strict=True))
        np.testing.assert_allclose(np.array(batch.attend(0, *given, 0.5)), np.array(alone), rtol=1e-4, atol=1e-5)
        for row in rows:
            row.forget(min(wrong, count[row] - 1))


def new_row(length):
    return RowAlone(length, np.random.default_rng(0)).joins


def joined(count):
    """Return a batch with lasting shapes and *count* rows, and the rows."""
    rows, batch = [object() for _ in range(count)], BatchCache(1, has_plans=True)
    batch.arrange(rows, [new_row(4) for _ in rows], 512)
    return batch, rows


def test_a_batch_with_lasting_shapes_has_places_for_rows_to_come():
    allocated = [joined(count)[0].allocated(count, 512) // 512 for count in (1, 2, 3, 5, 9, 17, 32, 33)]
    assert allocated == [1, 2, 4, 8, 16, 24, 32, 40]


def test_a_batch_with_lasting_shapes_stays_where_it_is_until_much_of_it_is_empty():
    batch, rows = joined(8)
    assert batch.allocated(3, 512) == 8 * 512
    assert batch.allocated(2, 512) == 2 * 512
    assert batch.allocated(8, 420) == 8 * 512
    assert batch.allocated(8, 400) == 8 * 400
    assert batch.arrange([*rows[:2], *rows[5:]], [], 420) == [0, 1, 2, 3, 4]
    order = batch.arrange([*rows[:2], *rows[5:], "new"], [new_row(4)], 420)
    assert order == [0, 1, 5, 2, 3, 4]  # the new row is where the third was
    assert batch.capacity == 512


def test_a_batch_without_lasting_shapes_has_only_what_its_rows_need():
    batch = BatchCache(1)
    rows = [object() for _ in range(3)]
    batch.arrange(rows, [new_row(4) for _ in rows], 512)
    assert batch.allocated(2, 256) == 2 * 256
    assert batch.arrange(rows[1:], [], 256) == [0, 1]
    assert batch.capacity == 256


def test_a_row_that_takes_the_place_of_a_damaged_one_is_not_damaged():
    batch, rows = joined(2)
    batch.expect([4, 4], [1, 1])
    damaged = mx.full((2, HEADS, WIDTH), mx.nan)
    mx.eval(batch.attend(0, mx.ones((2, QUERIES, WIDTH)), damaged, damaged, 0.5))
    batch.arrange([rows[1], "new"], [new_row(3)], 512)
    batch.expect([3, 5], [1, 1])
    fine = mx.ones((2, HEADS, WIDTH))
    found = np.array(batch.attend(0, mx.ones((2, QUERIES, WIDTH)), fine, fine, 0.5))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
