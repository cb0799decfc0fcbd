"""Coroutines for callers that are not asynchronous, also inside another event loop; and threads that never end."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from olmocr.runtime.threads import EventLoopThread, in_a_lasting_thread


async def doubled(number):
    await asyncio.sleep(0)
    return 2 * number


@pytest.fixture(autouse=True)
def pythons_own_answer_to_interruptions():
    """Whatever a command that ran in this process before made of them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_a_coroutine_returns_is_returned():
    with EventLoopThread() as loop:
        assert [loop.run(doubled(number)) for number in range(3)] == [0, 2, 4]


def test_what_a_coroutine_raises_is_raised():
    async def fail():
        raise KeyError("this")

    with EventLoopThread() as loop, pytest.raises(KeyError, match="this"):
        loop.run(fail())


def test_it_works_where_an_event_loop_runs_already():
    async def cell():
        with EventLoopThread() as loop:
            return loop.run(doubled(4))

    assert asyncio.run(cell()) == 8


def test_coroutines_of_one_context_share_their_loop():
    async def its_loop():
        return asyncio.get_running_loop()

    with EventLoopThread() as loop:
        assert loop.run(its_loop()) is loop.run(its_loop())


def test_an_interruption_cancels_the_coroutine_and_is_raised_when_it_has_ended():
    steps = []

    async def work():
        try:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("put away")

    with EventLoopThread() as loop:
        with pytest.raises(KeyboardInterrupt):
            loop.run(work())
        assert steps == ["put away"]
        assert loop.run(doubled(1)) == 2


def test_no_thread_is_left():
    before = threading.active_count()
    with EventLoopThread() as loop:
        loop.run(asyncio.to_thread(lambda: None))
    assert threading.active_count() == before


def test_a_lasting_thread_is_alive_when_its_work_is_done():
    thread = in_a_lasting_thread(threading.current_thread).result(60)
    assert thread.is_alive()
    assert thread.daemon, "it keeps no process"


def test_what_work_in_a_lasting_thread_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        in_a_lasting_thread(lambda: 1 // 0).result(60)
    assert in_a_lasting_thread(lambda: 1).result(60) == 1


def test_work_that_waits_does_not_hold_up_other_work():
    gate = threading.Event()
    waiting = in_a_lasting_thread(gate.wait)
    assert in_a_lasting_thread(lambda: 1).result(60) == 1
    gate.set()
    assert waiting.result(60)


def test_at_the_end_of_a_process_each_thread_that_has_done_its_work_is_waiting():
    """None is between its work and its next one, where it would take the GIL of an interpreter that is gone."""
    code = textwrap.dedent("""
        import atexit, sys, threading
        where = []
        def look():
            for each in threading.enumerate():
                if each.name == "olmocr-mlx":
                    frame = sys._current_frames()[each.ident]
                    where.append(frame.f_code.co_name)
            print(where)
        atexit.register(look)
        from olmocr.runtime.threads import in_a_lasting_thread
        gate = threading.Event()
        works = [in_a_lasting_thread(gate.wait) for _ in range(3)]
        sys.setswitchinterval(1e-6)
        gate.set()
        for work in works:
            work.result()
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "['_work', '_work', '_work']\n"
