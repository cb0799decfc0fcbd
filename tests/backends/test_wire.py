"""Answers and streams of both formats are read, or refused as no answer."""

import asyncio

import pytest

from olmocr.backends.client import ServerClient
from olmocr.errors import AnswerError
from tests.backends.asked import READ, REQUEST, WHOLE, apis, ask
from tests.backends.model_server import (
    chat_body,
    chat_pieces,
    chat_stream,
    events,
    responses_body,
    responses_stream,
    whole,
)

STREAM = {"chat": chat_stream, "responses": responses_stream}


@apis
def test_a_whole_answer_is_read(api):
    assert ask(whole(WHOLE[api]()), api=api) == READ


@apis
def test_a_streamed_answer_is_read_as_the_whole_one_would_be(api):
    assert ask(STREAM[api](), api=api) == READ


def test_a_stream_that_leaves_the_text_out_of_its_last_event_is_read_from_the_pieces():
    pieces = [{"type": "response.output_text.delta", "delta": piece} for piece in ("Hel", "lo")]
    last = {"type": "response.completed", "response": responses_body("")}
    assert ask(events(*pieces, last), api="responses").text == "Hello"


def test_a_stream_without_counts_counts_its_pieces():
    assert ask(chat_stream("1234567" * 3, usage=None)).output_tokens == 3


def test_characters_that_are_cut_between_two_pieces_of_a_stream_arrive_whole():
    async def one_byte_at_a_time(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        event = '{"choices":[{"delta":{"content":"né 漢"},"finish_reason":"stop"}]}'
        for byte in f"event: x\r\ndata: {event}\r\n\r\n: a comment\r\n\r\ndata: [DONE]\r\n\r\n".encode():
            writer.write(bytes([byte]))
            await writer.drain()
        writer.close()

    async def run():
        server = await asyncio.start_server(one_byte_at_a_time, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, ServerClient(f"127.0.0.1:{port}", model="olmocr", timeout=5) as client:
            return await client.ask(REQUEST)

    assert asyncio.run(run()).text == "né 漢"


@pytest.mark.parametrize("step", [whole(chat_body(finish_reason="length")), chat_stream(finish_reason="length")])
def test_an_answer_that_chat_completions_cut_says_so(step):
    assert ask(step).finish_reason == "length"


@pytest.mark.parametrize(
    "step",
    [
        whole(responses_body(status="incomplete", incomplete_details={"reason": "max_output_tokens"})),
        responses_stream(status="incomplete"),
        whole(responses_body(usage=(100, 50))),  # "completed", at the limit of 50 tokens
    ],
)
def test_an_answer_that_responses_cut_says_so_whatever_the_status(step):
    assert ask(step, api="responses").finish_reason == "length"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"choices": [{"mess', "not complete JSON"),
        (b"<html>Bad</html>", "not complete JSON"),
        (b"", "not complete JSON"),
        (b"[" * 100_000, "not complete JSON"),
        (b"[1, 2]", "no text"),
        ({"choices": []}, "no text"),
        ({"choices": None}, "no text"),
        ({"choices": "stop"}, "no text"),
        (chat_body(finish_reason={"type": "stop"}), "for the reason 'dict'"),
        (chat_body(finish_reason=False), "for the reason 'bool'"),
        (chat_body(finish_reason="x" * 1000), "for the reason 'x{40}', not"),
        (chat_body([{"type": "refusal", "refusal": "no", "text": "no"}]), "no text"),
        (chat_body(finish_reason="content_filter"), "content_filter"),
        (chat_body(None), "no text"),
        (chat_body(""), "no text"),
        (chat_body([{"type": "text"}]), "no text"),
    ],
)
def test_what_is_not_an_answer_of_chat_completions_is_an_answer_error(body, message):
    with pytest.raises(AnswerError, match=message):
        ask(whole(body))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "no text"),
        (responses_body(status="failed"), "failed"),
        (responses_body(status=1), "the status 'int'"),
        (responses_body(status=None, incomplete_details={"reason": "content_filter"}), "content_filter"),
        ({"status": "completed", "output": None}, "no text"),
        (responses_body(status="in_progress"), "in_progress"),
        (responses_body(status="incomplete", incomplete_details={"reason": "content_filter"}), "content_filter"),
    ],
)
def test_what_is_not_an_answer_of_responses_is_an_answer_error(body, message):
    with pytest.raises(AnswerError, match=message):
        ask(whole(body), api="responses")


@pytest.mark.parametrize("step", [events(*chat_pieces()), events(b"{garbage"), events(b"[DONE]"), events()])
def test_a_stream_that_ends_without_saying_why_is_an_answer_error(step):
    with pytest.raises(AnswerError):
        ask(step)


def test_a_responses_stream_that_ends_too_early_is_an_answer_error():
    with pytest.raises(AnswerError, match="ended before the answer did"):
        ask(events({"type": "response.output_text.delta", "delta": "Hel"}), api="responses")


def test_an_answer_without_an_end_is_not_read_to_its_end():
    with pytest.raises(AnswerError, match="longer than 16 MiB"):
        ask(whole(b" " * (17 << 20)))
