"""Answers in the chat and Responses formats, complete and as a stream."""

import json
import socket

import pytest

from tests.pipeline.doubles import answer
from tests.serving.asked import BODIES, EACH, data_of, text_of
from tests.serving.servers import CHAT, RESPONSES, Writer, chat, response, running


def test_an_answer_in_the_chat_format(server):
    body = server.post(CHAT, json=chat()).json()
    assert body["choices"][0]["message"]["content"] == "---\nHello"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def test_an_answer_in_the_responses_format(server):
    body = server.post(RESPONSES, json=response()).json()
    assert body["output"][0]["content"][0]["text"] == "---\nHello"
    assert (body["status"], body["usage"]["output_tokens"]) == ("completed", 20)


@pytest.mark.parametrize("model", ["olmocr", "unknown"])
def test_an_answer_is_one_that_upstreams_own_client_can_read(server, model):
    """It names no port, closes after one question, and reads only as many bytes as Content-Length says."""
    content = json.dumps(chat(temperature=0.1, max_tokens=8000) | {"model": model}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + content)
        status, *headers = (
            b"".join(iter(lambda: connection.recv(4096), b"")).split(b"\r\n\r\n")[0].lower().split(b"\r\n")
        )
    assert status.split()[1] == (b"200" if model == "olmocr" else b"404")
    assert any(header.startswith(b"content-length: ") for header in headers)


@EACH
def test_text_is_sent_as_it_is_written(path):
    write = Writer("one ", "two ", "three", waits=True)
    with running(write) as server, server.client() as client:
        write.go_on()
        with client.stream("POST", path, json=BODIES[path](stream=True)) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            lines = reply.iter_lines()
            assert text_of(data_of(next_events(lines, until="one "))) == "one "
            write.go_on()
            assert text_of(data_of(next_events(lines, until="two "))) == "two "
            write.go_on()
            assert text_of(data_of(lines)) == "three"


def next_events(lines, until):
    found = []
    for line in lines:
        found.append(line)
        if text_of(data_of(found)) == until:
            return found
    raise AssertionError(found)


@pytest.mark.parametrize("reason", ["length", "loop", "time"])
def test_an_answer_that_was_cut_says_so_in_each_format(reason):
    with running(Writer(ends=answer(finish_reason=reason))) as server:
        whole, other = (server.post(path, json=BODIES[path]()).json() for path in (CHAT, RESPONSES))
        streamed = data_of(server.post(CHAT, json=chat(stream=True)).text.splitlines())
        last = data_of(server.post(RESPONSES, json=response(stream=True)).text.splitlines())[-1]
    stop_reason = None if reason == "length" else reason
    assert (whole["choices"][0]["finish_reason"], whole["choices"][0]["stop_reason"]) == ("length", stop_reason)
    assert (other["status"], other["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert json.loads(streamed[-2])["choices"][0]["finish_reason"] == "length"
    assert json.loads(last)["type"] == "response.incomplete"


def test_a_stream_counts_tokens_when_it_is_asked_to(server):
    asked = data_of(server.post(CHAT, json=chat(stream=True, stream_options={"include_usage": True})).text.splitlines())
    unasked = data_of(server.post(CHAT, json=chat(stream=True)).text.splitlines())
    assert json.loads(asked[-2])["usage"]["total_tokens"] == 120
    assert asked[-1] == unasked[-1] == "[DONE]"
    assert not any("usage" in each for each in unasked)
