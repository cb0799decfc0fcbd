import signal
import threading

import pytest

from olmocr.conversion.interruption import interruption_held_back


def test_an_interruption_asks_for_the_end_at_once_and_takes_effect_when_the_block_is_done():
    steps = []
    with pytest.raises(KeyboardInterrupt), interruption_held_back(lambda: steps.append("stop")):  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        steps.append("rest of the block")
    assert steps == ["stop", "rest of the block"]


def test_what_handled_the_signal_before_handles_it_and_does_so_again_afterwards():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with pytest.raises(KeyboardInterrupt), interruption_held_back(lambda: seen.append("stop")):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["stop", signal.SIGTERM, signal.SIGTERM]


def test_without_a_signal_nothing_is_raised_and_errors_pass():
    with interruption_held_back(lambda: pytest.fail("nothing happened")):
        pass
    with pytest.raises(ValueError, match="mine"), interruption_held_back(lambda: None):
        raise ValueError("mine")


def test_it_can_be_used_in_a_thread_that_gets_no_signals():
    done = []

    def work():
        with interruption_held_back(lambda: None):
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
