"""Limits of memory, and growth, as they are told."""

import pytest

from olmocr.doctor.measure.memory import early_and_late, limits_in_force
from olmocr.reports.machine import MemoryLimit
from olmocr.runtime.device import Device, memory_limits

INFO = {"max_recommended_working_set_size": 12 << 30, "memory_size": 16 << 30}


class Metal:
    """Has limits, and returns the one before of each that is set."""

    def __init__(self, **limits):
        self._limits = limits

    def device_info(self):
        return INFO

    def __getattr__(self, name):
        kind = name.removeprefix("set_").removesuffix("_limit")

        def set_limit(size):
            before, self._limits[kind] = self._limits[kind], size
            return before

        return set_limit


def test_on_metal_limits_are_read_back_and_compared_with_what_was_held():
    wanted = memory_limits(INFO)
    mlx = Metal(wired=wanted.wired, memory=5, cache=wanted.cache)
    assert limits_in_force(Device("metal", None, "1"), mlx, peak=70, cached=8) == (
        MemoryLimit("wired", wanted.wired, wanted.wired, None),
        MemoryLimit("memory", wanted.memory, 5, 70),
        MemoryLimit("cache", wanted.cache, wanted.cache, 8),
    )


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_elsewhere_there_are_none(kind):
    assert limits_in_force(Device(kind, None, "1"), Metal(), peak=70, cached=8) == ()


def test_the_second_quarter_and_the_last_are_compared():
    assert early_and_late([1, 1, 9, 8, 7, 7, 6, 5]) == (8, 5)
    assert early_and_late([3]) == (3, 3)
