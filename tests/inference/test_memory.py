"""Whether the engine's memory stays what it was, however many pages it has read."""

import asyncio
import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from olmocr.inference.engine import Engine
from olmocr.model_folder import ModelFolder
from olmocr.page import PageImage, PageRequest
from tests.conftest import DEVICE

KV_BUDGET = 64 << 20
"""Bytes; what is kept of earlier pages is half of it, and full after some thirty of these."""


def resident():
    """Return the bytes that this process has in memory now, not the most that it had."""
    listed = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return int(listed.stdout) * 1024


def page(number):
    """Return a page of noise, of one of 63 sizes, and what is asked of it; some are guided, sampled, drafted for."""
    width, height = 84 + 28 * (number % 7), 84 + 28 * (number % 9)
    pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return PageRequest(
        PageImage(Image.fromarray(pixels)),
        temperature=0.5 * (number % 3),
        max_tokens=4 + number % 13,
        seed=number,
        guided=number % 4 == 1,
        draft_text=f"Page {number} has a text of its own. " * 8 if number % 2 else None,
    )


def read(engine, numbers):
    async def all_of(some):
        await asyncio.gather(*(engine.ask(page(number)) for number in some))

    for start in range(numbers.start, numbers.stop, 20):
        asyncio.run(all_of(range(start, min(start + 20, numbers.stop))))


@pytest.mark.parametrize(("warm_up", "pages"), [(60, 60), pytest.param(100, 500, marks=pytest.mark.slow)])
def test_memory_is_flat_within_a_twentieth_however_many_pages_are_read(warm_up, pages, converted):
    with Engine(ModelFolder(converted("8bit")), DEVICE, kv_budget=KV_BUDGET) as engine:
        read(engine, range(warm_up))
        before, seen = resident(), []
        for start in range(warm_up, warm_up + pages, 20):
            read(engine, range(start, start + 20))
            seen.append(resident())
    print(f"{before >> 20} MiB, then {[each >> 20 for each in seen]}")
    assert max(seen) < 1.05 * before
