"""Wrap an Ask for servers that sample a complete batch with the settings of its first request."""

from __future__ import annotations

import asyncio

from olmocr.page import Ask, ModelResponse, PageRequest


def sampled_alone(ask: Ask) -> Ask:
    """Return an Ask that sends greedy requests together, and each sampled request alone.

    mlx-vlm's server takes temperature and seed from the request that begins a batch. A page that is retried at a
    higher temperature while others are being read would get the same greedy answer again. Requests are sent in the
    order in which they come, so later greedy requests cannot delay a sampled one.
    """
    turn = asyncio.Lock()
    idle = asyncio.Event()
    idle.set()
    in_flight = 0
    is_greedy = True

    async def answer(request: PageRequest) -> ModelResponse:
        nonlocal in_flight, is_greedy
        async with turn:  # first come, first served
            if not (is_greedy and request.temperature == 0):
                await idle.wait()
            is_greedy = request.temperature == 0
            in_flight += 1
            idle.clear()
        try:
            return await ask(request)
        finally:
            in_flight -= 1
            if in_flight == 0:
                idle.set()

    return answer
