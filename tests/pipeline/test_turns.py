import asyncio

import pytest

from olmocr.errors import InputError
from olmocr.pipeline.turns import Turns, side_by_side


def order_of(places, count=1, cancelled=()):
    """Return in which order those who wait for a turn get it, after somebody who holds all turns gives them back."""

    async def run():
        turns, got = Turns(count), []
        for _ in range(count):
            await turns.take((0,))

        async def wait(place):
            async with turns.turn(place):
                got.append(place)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(wait(place)) for place in places]
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        for _ in range(count):
            turns.give()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with turns.turn((9,)):  # nothing was lost
            return got

    return asyncio.run(run())


def test_the_least_place_goes_first_whoever_came_first():
    assert order_of([(2, 1), (1, 7), (1, 2), (3,)]) == [(1, 2), (1, 7), (2, 1), (3,)]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 2)])
def test_more_or_fewer_may_go_on_once_that_is_said(before, after):
    async def run():
        turns, most, now, gate = Turns(before), 0, 0, asyncio.Event()

        async def work(number):
            nonlocal most, now
            async with turns.turn((number,)):
                now += 1
                most = max(most, now)
                await gate.wait()
                await asyncio.sleep(0)
                now -= 1

        tasks = [asyncio.create_task(work(number)) for number in range(3)]
        await asyncio.sleep(0)
        turns.resize(after)
        for _ in range(3):
            await asyncio.sleep(0)
        first, most = most, 0
        gate.set()
        await asyncio.gather(*tasks)
        now = most = 0
        await asyncio.gather(*(work(number) for number in range(9)))
        return first, most

    assert asyncio.run(run()) == (max(before, after), after)


def test_of_equal_places_the_first_to_come_goes_first():
    assert order_of([(1,), (1,), (0,)]) == [(0,), (1,), (1,)]


def test_no_turn_is_lost_when_one_who_waits_gives_up():
    assert order_of([(1,), (2,), (3,)], cancelled=[0, 2]) == [(2,)]


def test_a_turn_given_to_one_who_gives_up_at_that_moment_passes_to_the_next():
    async def run():
        turns = Turns(1)
        await turns.take((0,))
        first, second = (asyncio.create_task(turns.take((place,))) for place in (1, 2))
        await asyncio.sleep(0)
        turns.give()  # to the first, which is not yet told
        first.cancel()
        await asyncio.wait_for(second, 1)

    asyncio.run(run())


def test_no_more_than_the_count_go_on_at_once():
    async def run():
        turns, now, most = Turns(3), 0, 0

        async def work(place):
            nonlocal now, most
            async with turns.turn((place,)):
                now += 1
                most = max(most, now)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(work(place) for place in range(20)))
        return most

    assert asyncio.run(run()) == 3


class Pages:
    """Reads when it is told to, and remembers what was begun and what was ended."""

    def __init__(self):
        self.gates = {}
        self.ended = []

    async def read(self, number):
        gate = self.gates[number] = asyncio.get_running_loop().create_future()
        try:
            return await gate
        finally:
            self.ended.append(number)

    async def begun(self, *numbers):
        while list(self.gates) != list(numbers):
            await asyncio.sleep(0)


def test_pages_are_begun_in_order_so_many_at_once_and_come_as_they_are_read():
    async def run():
        pages = Pages()
        found = side_by_side([5, 6, 7, 8], pages.read, at_once=2)
        first = asyncio.create_task(anext(found))
        await pages.begun(5, 6)
        pages.gates[6].set_result("six")
        assert await first == "six"
        await pages.begun(5, 6, 7)
        pages.gates[7].set_result("seven")
        assert await anext(found) == "seven"
        await pages.begun(5, 6, 7, 8)
        pages.gates[5].set_result("five")
        pages.gates[8].set_result("eight")
        assert sorted([each async for each in found]) == ["eight", "five"]

    asyncio.run(run())


def test_the_next_page_is_begun_before_the_one_that_was_read_is_taken():
    async def run():
        pages = Pages()
        found = side_by_side([1, 2], pages.read, at_once=1)
        first = asyncio.create_task(anext(found))
        await pages.begun(1)
        pages.gates[1].set_result("one")
        await first
        await pages.begun(1, 2)
        await found.aclose()
        assert pages.ended == [1, 2]

    asyncio.run(run())


def test_the_first_error_ends_all_pages_and_begins_no_other():
    async def run():
        pages = Pages()
        found = side_by_side([1, 2, 3, 4], pages.read, at_once=3)
        first = asyncio.create_task(anext(found))
        await pages.begun(1, 2, 3)
        pages.gates[2].set_exception(InputError("damaged"))
        with pytest.raises(InputError, match="damaged"):
            await first
        return pages

    pages = asyncio.run(run())
    assert sorted(pages.ended) == [1, 2, 3]


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_whoever_stops_reading_ends_all_pages_at_once(how):
    async def run():
        pages = Pages()
        found = side_by_side([1, 2, 3], pages.read, at_once=2)
        first = asyncio.create_task(anext(found))
        await pages.begun(1, 2)
        if how == "closed":
            pages.gates[1].set_result("one")
            await first
            await found.aclose()
        else:
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        return pages.ended

    assert sorted(set(asyncio.run(run())))[:2] == [1, 2]


def test_of_no_pages_none_come():
    async def run():
        return [each async for each in side_by_side([], Pages().read, at_once=3)]

    assert asyncio.run(run()) == []
