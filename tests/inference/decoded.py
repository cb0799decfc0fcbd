"""Pictures, questions and batches that the tests of decoding share."""

import asyncio
from concurrent.futures import Future

import numpy as np
from PIL import Image

from olmocr.inference.row import Asked
from olmocr.page import PageImage, PageRequest


def picture(number, size=(56, 84)):
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return PageImage(Image.fromarray(pixels))


def request(number, **options):
    return PageRequest(picture(number), seed=number, **{"temperature": 1.0, "max_tokens": 40, **options})


def together(engine, requests, pauses=()):
    """Ask for all *requests*; before each of the first ones, let the event loop run so many times."""

    async def gather():
        tasks = []
        for number, each in enumerate(requests):
            for _ in range(pauses[number] if number < len(pauses) else 0):
                await asyncio.sleep(0.001)
            tasks.append(asyncio.ensure_future(engine.ask(each)))
        return await asyncio.gather(*tasks)

    return asyncio.run(gather())


def alone(engine, requests):
    return [asyncio.run(engine.ask(each)) for each in requests]


def finished(scheduler, *requests):
    """Answer *requests*; each is counted when it has ended."""
    pages = [Asked(each, Future()) for each in requests]
    for page in pages:
        page.answer.add_done_callback(scheduler.counts.count_end)
        scheduler.add(page)
    while not scheduler.is_idle:
        scheduler.advance()
    return [page.answer.result() for page in pages]
