"""Tests wait for what another thread or process does, and fail where it never comes."""

import time


def until(holds, seconds=20):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)
