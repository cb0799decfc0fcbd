import asyncio

from PIL import Image

from olmocr.backends.batches import sampled_alone
from olmocr.page import ModelResponse, PageImage, PageRequest

IMAGE = PageImage(Image.new("RGB", (4, 4)))


def neighbours(*temperatures, fails=(), cancelled=()):
    """Ask about pages at once; return, for each, the temperatures that were being answered while it was."""
    together = [set() for _ in temperatures]
    running = set()

    async def ask(request):
        page = request.seed
        running.add(page)
        try:
            for _ in range(3):
                for other in running:
                    together[other] |= {temperatures[each] for each in running - {other}}
                await asyncio.sleep(0)
            if page in fails:
                raise ZeroDivisionError
        finally:
            running.remove(page)
        return ModelResponse("", "stop", 1, 1)

    async def run():
        alone = sampled_alone(ask)
        requests = [PageRequest(IMAGE, temperature=each, seed=page) for page, each in enumerate(temperatures)]
        tasks = [asyncio.create_task(alone(request)) for request in requests]
        await asyncio.sleep(0)
        for page in cancelled:
            tasks[page].cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)

    return together, asyncio.run(run())


def test_greedy_questions_are_sent_together():
    assert neighbours(0, 0, 0)[0] == [{0}, {0}, {0}]


def test_a_sampled_question_is_sent_alone():
    together, answers = neighbours(0, 0, 0.1, 0, 0.2, 0.2, 0)
    assert [together[page] for page in (2, 4, 5)] == [set(), set(), set()]
    assert all(isinstance(answer, ModelResponse) for answer in answers)


def test_a_question_that_fails_or_is_cancelled_does_not_hold_the_others_up():
    _, answers = neighbours(0.1, 0, 0.2, 0, fails=(0,), cancelled=(2,))
    assert [type(answer).__name__ for answer in answers] == [
        "ZeroDivisionError",
        "ModelResponse",
        "CancelledError",
        "ModelResponse",
    ]
