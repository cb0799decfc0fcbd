import asyncio

import pytest

from olmocr.errors import ServerError, ServerUnavailableError
from olmocr.pipeline.answers import Answers
from olmocr.pipeline.config import PipelineConfig
from tests.pipeline.doubles import Model, answer

AWAY = ServerUnavailableError("the server is away")


CONFIG = PipelineConfig(workspace="ws", pdfs="a.pdf", model="m", max_concurrent_pages=2)


def answers():
    return Answers(CONFIG, CONFIG.workspace, Model(answer()).ask)


async def ask_in_vain(found, number):
    try:
        async with found.turn((0, number)):
            raise AWAY
    except ServerUnavailableError:
        return "the page is given up"
    except ServerError as error:
        return str(error)


def test_three_pages_in_a_row_that_nobody_answers_end_the_run():
    async def run():
        found = answers()
        return [await ask_in_vain(found, number) for number in range(3)]

    *pages, last = asyncio.run(run())
    assert pages == ["the page is given up"] * 2
    assert last == ("the server is away; the run ends after 3 pages in a row without an answer, go on with it later")


def test_a_page_that_is_answered_in_between_begins_the_row_anew():
    async def run():
        found = answers()
        given_up = []
        for number in range(6):
            if number % 3 == 2:
                async with found.turn((0, number)) as answering:
                    assert answering.model == "m"
            else:
                given_up.append(await ask_in_vain(found, number))
        return given_up

    assert asyncio.run(run()) == ["the page is given up"] * 4


def test_the_first_in_order_is_next_and_no_more_than_may_be_asked_at_once():
    async def run():
        found, order, gate = answers(), [], asyncio.Event()

        async def page(number):
            async with found.turn((0, number)):
                order.append(number)
                await gate.wait()

        tasks = [asyncio.create_task(page(number)) for number in (9, 8, 5, 3, 4)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert order == [9, 8]
        gate.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == [9, 8, 3, 4, 5]


def test_nothing_is_opened_and_nothing_counted_before_a_page_needs_it():
    async def run():
        async with Answers(CONFIG, CONFIG.workspace) as found:
            return found.counts(), found.seconds

    assert asyncio.run(run()) == ({}, 0.0)


def test_a_server_that_is_away_from_the_first_ends_the_run():
    async def run():
        config = PipelineConfig(workspace="ws", pdfs="a.pdf", server="http://127.0.0.1:9")
        async with Answers(config, config.workspace) as found, found.turn((0, 1)):
            pass

    with pytest.raises(ServerError, match="cannot be reached") as caught:
        asyncio.run(run())
    assert not isinstance(caught.value, ServerUnavailableError)
