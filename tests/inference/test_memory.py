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
from tests.inference.random_models import random_model

KV_BUDGET = 64 << 20
"""Bytes; what is kept of earlier pages is half of it, and full after some thirty of these."""


def resident():
    """Return the bytes that this process has in memory now, not the most that it had."""
    listed = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return int(listed.stdout) * 1024


def page(number):
    """Return a page of noise, of one of 63 sizes, and what is asked: guided, sampled, drafted for, or none of these."""
    width, height = 84 + 28 * (number % 7), 84 + 28 * (number % 9)
    pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return PageRequest(
        PageImage(Image.fromarray(pixels)),
        temperature=0.5 * (number % 3),
        max_tokens=2 + number % 5,
        seed=number,
        guided=number % 4 == 1,
        draft_text=f"Page {number} has a text of its own. " * 8 if number % 2 else None,
    )


def read(engine, numbers):
    async def all_of(some):
        await asyncio.gather(*(engine.ask(page(number)) for number in some))

    for start in range(numbers.start, numbers.stop, 20):
        asyncio.run(all_of(range(start, min(start + 20, numbers.stop))))


def assert_flat(folder, warm_up, pages):
    with Engine(ModelFolder(folder), DEVICE, kv_budget=KV_BUDGET) as engine:
        read(engine, range(warm_up))
        before = resident()
        for start in range(warm_up, warm_up + pages, 20):
            read(engine, range(start, start + 20))
            print(f"{before >> 20} MiB before, {(now := resident()) >> 20} MiB after {start + 20} pages", flush=True)
            assert now < 1.05 * before


def test_memory_is_flat_within_a_twentieth_over_100_pages_of_a_very_small_model(tmp_path):
    assert_flat(random_model(tmp_path / "model"), 60, 100)


@pytest.mark.slow
def test_memory_is_flat_within_a_twentieth_over_500_pages(converted):
    assert_flat(converted("8bit"), 100, 500)
