"""benchmarks/virtual_time.py: waiting takes no time, and threads are there as many as their pool has."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
from virtual_time import VirtualLoop


def run(coroutine):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def test_hours_of_waiting_go_by_on_the_clock_alone():
    async def wait():
        await asyncio.gather(asyncio.sleep(7200), asyncio.sleep(36000))
        return asyncio.get_running_loop().time()

    assert run(wait()) == pytest.approx(36000)


def test_calls_for_threads_take_what_they_say_and_wait_for_a_free_thread():
    async def call():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as threads:
            calls = [loop.run_in_executor(threads, lambda: loop.spend(10) or loop.time()) for _ in range(5)]
            return [round(begun) for begun in await asyncio.gather(*calls)]

    assert run(call()) == [0, 0, 10, 10, 20]


def test_what_a_call_raises_is_raised_where_it_is_awaited():
    async def call():
        await asyncio.to_thread(int, "none")

    with pytest.raises(ValueError, match="none"):
        run(call())


def test_tasks_that_wait_for_nothing_are_an_error_and_no_standstill():
    async def wait():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="wait for what will never happen"):
        run(wait())
