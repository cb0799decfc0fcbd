import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.serving.bounds import Bodies, Bound, Pace
from olmocr.serving.refusals import RequestError


async def moments(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def test_whoever_finds_too_little_room_waits_first_come_first_served():
    async def main():
        bound, done = Bound(10), []

        async def take(amount):
            async with bound.taken(amount):
                done.append(amount)
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(take(amount)) for amount in (6, 5, 1)]
        await moments()
        assert done == [6]
        tasks[0].cancel()
        await moments()
        assert done == [6, 5, 1]
        for task in tasks:
            task.cancel()
        await moments()
        assert bound.free == 10

    asyncio.run(main())


def test_whoever_wants_more_than_there_is_has_all_of_it():
    async def main():
        bound = Bound(10)
        async with bound.taken(11):
            assert bound.free == 0
        assert bound.free == 10

    asyncio.run(main())


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=30))
def test_room_is_never_lost_and_never_given_twice(steps):
    """Each step begins somebody with an amount, and ends the one who came first or the one who came last."""

    async def main():
        bound, held = Bound(10), []

        async def take(amount):
            async with bound.taken(amount):
                held.append(min(amount, 10))
                try:
                    await asyncio.Event().wait()
                finally:
                    held.remove(min(amount, 10))

        tasks = []
        for amount, ends_first in steps:
            tasks.append(asyncio.create_task(take(amount)))
            await moments(2)
            assert sum(held) + bound.free == 10
            if len(tasks) > 3:
                tasks.pop(0 if ends_first else -1).cancel()
            await moments(2)
            assert sum(held) + bound.free == 10
        for task in tasks:
            task.cancel()
            await moments()
        assert (bound.free, held) == (10, [])

    asyncio.run(main())


def test_a_byte_now_and_then_buys_no_time():
    pace = Pace(30, 16384)
    for _ in range(4):
        pace.note(8, 1)
    assert pace.left < 0


def test_a_client_that_keeps_the_pace_is_waited_for_without_end():
    pace = Pace(30, 16384)
    for _ in range(1000):
        pace.note(4, 65536)
        assert pace.left == 30


def test_much_at_once_buys_no_more_than_the_first_seconds():
    pace = Pace(30, 16384)
    pace.note(1, 1 << 30)
    assert pace.left == 30


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_where_bytes_are_short_the_slowest_goes_and_those_that_are_whole_stay():
    clock = Clock()
    bodies = Bodies(100, clock)
    whole, slow, fast = bodies.begin(), bodies.begin(), bodies.begin()
    bodies.grow(whole, 1)
    whole.is_whole = True
    clock.now = 10
    bodies.grow(slow, 30)
    bodies.grow(fast, 60)
    assert (bodies.bytes, bodies.coming) == (91, 2)
    bodies.grow(fast, 20)
    assert [each.must_go.is_set() for each in (whole, slow, fast)] == [False, True, False]
    assert bodies.bytes == 81
    with pytest.raises(RequestError) as caught:
        bodies.grow(fast, 20)
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert (bodies.bytes, bodies.coming) == (1, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.booleans()), max_size=60))
def test_no_more_is_ever_held_than_allowed(steps):
    clock = Clock()
    bodies = Bodies(100, clock)
    all_of_them = {}
    for number, count, is_last in steps:
        clock.now += 1
        body = all_of_them.get(number)
        if body is None or body.must_go.is_set() or body.is_whole:
            if body is not None:
                bodies.end(body)
            body = all_of_them[number] = bodies.begin()
        with contextlib.suppress(RequestError):
            bodies.grow(body, count)
            body.is_whole = is_last
        assert bodies.bytes <= 100
