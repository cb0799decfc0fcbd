import asyncio

from olmocr.pipeline.turns import Turns


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


def test_of_equal_places_the_first_to_come_goes_first():
    assert order_of([(1,), (1,), (0,)]) == [(0,), (1,), (1,)]


def test_no_turn_is_lost_when_one_who_waits_gives_up():
    assert order_of([(1,), (2,), (3,)], cancelled=[0, 2]) == [(2,)]


def test_a_turn_that_was_given_to_one_who_gives_up_in_that_moment_goes_on_to_the_next():
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
