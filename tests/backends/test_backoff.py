"""Waiting while a server is away: how long, how often, and for what not."""

import asyncio

import pytest
from PIL import Image

from olmocr.backends.backoff import with_backoff
from olmocr.backends.client import ServerClient
from olmocr.errors import ServerError, ServerUnavailableError
from olmocr.page import ModelResponse, PageImage, PageRequest
from tests.backends.model_server import TEXT, ModelServer, chat_stream, fault, reset
from tests.pipeline.doubles import Model, answer

REQUEST = PageRequest(PageImage(Image.new("RGB", (6, 4), "red")))
READ = ModelResponse(TEXT, "stop", 100, 20)


class Clock:
    def __init__(self):
        self.waits = []

    async def sleep(self, seconds):
        self.waits.append(seconds)


AWAY = ServerUnavailableError("away")


def wait_for(*script, attempts=5, **options):
    """Ask a scripted model with backoff; return the waits, and the answer or the error."""
    clock = Clock()
    ask = with_backoff(Model(*script).ask, attempts=attempts, sleep=clock.sleep, **options)
    try:
        return clock.waits, asyncio.run(ask(REQUEST))
    except ServerError as error:
        return clock.waits, error


def test_a_server_that_comes_back_is_asked_again_after_growing_waits():
    waits, response = wait_for(AWAY, AWAY, AWAY, answer())
    assert response == answer()
    assert 1 <= waits[0] <= 2 <= waits[1] <= 3 < 4 <= waits[2] <= 5


def test_waits_grow_to_a_minute_and_not_further():
    waits, _ = wait_for(AWAY, attempts=12)
    assert max(waits) == waits[-1] == 60


def test_the_last_error_is_raised_when_attempts_are_used_up():
    waits, error = wait_for(ServerUnavailableError("first"), ServerUnavailableError("second"), AWAY, attempts=3)
    assert (len(waits), error) == (2, AWAY)


def test_a_server_is_left_alone_for_as_long_as_it_asks_but_not_for_hours():
    asked_for = [ServerUnavailableError("busy", 20.0), ServerUnavailableError("busy", 86400.0), answer()]
    waits, _ = wait_for(*asked_for)
    assert 20 <= waits[0] <= 21
    assert 300 <= waits[1] <= 301


@pytest.mark.parametrize("error", [ServerError("no such model"), ServerError("wrong key")])
def test_what_waiting_does_not_heal_is_not_waited_for(error):
    assert wait_for(error) == ([], error)


def test_each_wait_is_told():
    told = []
    waits, _ = wait_for(AWAY, answer(), on_wait=lambda error, seconds: told.append((error, seconds)))
    assert told == [(AWAY, waits[0])]


def test_pages_that_failed_together_do_not_come_back_together():
    assert len({wait_for(AWAY, answer())[0][0] for _ in range(5)}) == 5


def test_a_server_that_restarts_is_asked_over_real_requests_until_it_answers():
    clock = Clock()

    async def run(url):
        async with ServerClient(url, model="olmocr") as client:
            return await with_backoff(client.ask, attempts=5, sleep=clock.sleep)(REQUEST)

    script = [fault(503), reset, fault(429, headers=[("Retry-After", "3")]), chat_stream()]
    with ModelServer(*script) as server:
        assert asyncio.run(run(server.url)) == READ
    assert len(clock.waits) == 3
    assert 3 <= clock.waits[2] <= 4
