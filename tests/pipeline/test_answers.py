import asyncio

import pytest

from olmocr.backends.choice import Answering
from olmocr.errors import ServerError, ServerUnavailableError
from olmocr.pipeline.answers import FIRST_LETTERS, Answers, FirstPage
from olmocr.pipeline.config import PipelineConfig
from olmocr.stages import FirstText
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
    assert last == ("the server is away; the run ends after 3 pages in a row without an answer; run it again later")


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


class Writer:
    """Writes as it is told to, one answer after the other."""

    def __init__(self):
        self.asked, self.said, self.done = [], asyncio.Queue(), asyncio.Event()

    async def ask(self, request):
        self.asked.append(request)
        return answer()

    async def ask_aloud(self, request, on_text):
        self.asked.append(request)
        while text := await self.said.get():
            on_text(text)
            self.done.set()
        return answer()


async def several_pages(steps):
    """Ask about three pages; after each of *steps* of the first one's text, return how many were asked."""
    writer, heard, counts = Writer(), [], []
    first_page = FirstPage(heard.append)
    answers = Answering(writer.ask, "m", ask_aloud=writer.ask_aloud)

    async def page(number):
        async with first_page.alone(answers) as asked:
            await asked.ask(number)

    tasks = [asyncio.create_task(page(number)) for number in range(3)]
    for text in steps:
        writer.said.put_nowait(text)
        for _ in range(10):
            await asyncio.sleep(0)
        counts.append(len(writer.asked))
    writer.said.put_nowait("")
    await asyncio.gather(*tasks)
    return counts, heard


def test_the_first_page_is_alone_until_it_has_some_text_and_that_is_told():
    short, long = "a" * (FIRST_LETTERS - 1), "a" * FIRST_LETTERS
    counts, heard = asyncio.run(several_pages([short, long]))
    assert counts == [1, 3]
    assert heard == [FirstText(""), FirstText(short), FirstText(long)]


def test_a_first_page_with_little_text_is_alone_until_it_is_done():
    assert asyncio.run(several_pages(["a few words", ""]))[0] == [1, 3]


async def most_at_once(found, pages):
    """Ask about pages; return how many of them had their turn at a time."""
    open_, most = 0, 0

    async def page(number):
        nonlocal open_, most
        async with found.turn((0, number)):
            open_ += 1
            most = max(most, open_)
            for _ in range(5):
                await asyncio.sleep(0)
            open_ -= 1

    await asyncio.gather(*map(page, range(pages)))
    return most


def test_several_servers_are_asked_for_as_many_pages_as_they_say_and_one_each_waits_also_when_that_grows():
    config = PipelineConfig(workspace="ws", pdfs="a.pdf", server=("http://a", "http://b"))
    room = 3

    async def run():
        nonlocal room
        found = Answers(config, config.workspace)
        found._opened = Answering(Model(answer()).ask, "m", pages_at_once=lambda: room)
        async with found.turn((0, 0)):
            pass
        first = await most_at_once(found, 40)
        room = 7
        return first, await most_at_once(found, 40)

    assert asyncio.run(run()) == (3 + 2, 7 + 2)


def test_a_model_in_this_process_says_how_many_pages_it_is_asked_for_and_no_document_holds_more():
    config = PipelineConfig(workspace="ws", pdfs="a.pdf", model="m")

    async def run():
        found = Answers(config, config.workspace)
        found._opened = Answering(Model(answer()).ask, "m", pages_at_once=lambda: 16)
        async with found.turn((0, 0)):
            pass
        return await most_at_once(found, 40), found.in_hand.count, found.most_in_hand

    at_once, in_hand, most = asyncio.run(run())
    assert at_once == 16
    assert 16 < in_hand < most


def test_of_one_document_as_many_pages_may_be_in_hand_as_servers_can_ever_hold():
    one = PipelineConfig(workspace="ws", pdfs="a.pdf", server="http://a")
    two = PipelineConfig(workspace="ws", pdfs="a.pdf", server=("http://a", "http://b"))
    given = PipelineConfig(workspace="ws", pdfs="a.pdf", server=("http://a", "http://b"), max_concurrent_pages=3)
    alone = Answers(one, one.workspace)
    assert alone.most_in_hand == alone.in_hand.count
    beside = alone.most_in_hand - 8
    assert Answers(two, two.workspace).most_in_hand == 2 * 32 + 2 + beside
    assert Answers(given, given.workspace).most_in_hand == 2 * 3 + 2 + beside


def test_where_answers_come_whole_no_page_waits_for_another():
    async def run():
        writer, heard = Writer(), []
        first_page = FirstPage(heard.append)
        async with first_page.alone(Answering(writer.ask, "m")), first_page.alone(Answering(writer.ask, "m")):
            return heard

    assert asyncio.run(run()) == [FirstText("")]
