"""An Ask for servers that sample a whole batch as its first question wants it, around one that knows nothing of it."""

from __future__ import annotations

import asyncio

from olmocr.page import Ask, ModelResponse, PageRequest


def sampled_alone(ask: Ask) -> Ask:
    """Return an Ask that sends greedy questions together, and each sampled one when no other is being answered.

    mlx-vlm's server takes temperature and seed from the question that begins a batch: a page that is asked again
    at a higher temperature while others are being read would get the same greedy answer again. Questions are sent
    in the order in which they come, so that a sampled one is not kept waiting by greedy ones that come later.
    """
    turn = asyncio.Lock()
    idle = asyncio.Event()
    idle.set()
    in_flight = 0
    is_greedy = True

    async def answer(request: PageRequest) -> ModelResponse:
        nonlocal in_flight, is_greedy
        async with turn:  # the first to come is the first to go on
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
