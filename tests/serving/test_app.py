""""""

import asyncio
import json
import logging
import socket
import threading

import httpx
import pytest

from olmocr.backends.client import probe
from olmocr.errors import AnswerError, InputError, ServerError, ServerUnavailableError
from tests.pipeline.doubles import answer
from tests.serving.asked import BODIES, EACH, data_of, error_of, text_of
from tests.serving.servers import CHAT, Writer, chat, data_uri, running
from tests.waiting import until


def test_an_answer_has_as_much_time_as_the_server_gives():
    write = Writer()
    with running(write, answer_seconds=90.0) as server:
        server.post(CHAT, json=chat())
    assert [request.time_limit for request in write.requests] == [90.0]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("the image is too thin"), 400, "too thin"),
        (AnswerError("the model failed at this page"), 500, "the model failed"),
        (ServerUnavailableError("away", 7), 503, "away"),
        (ServerError("the model was closed"), 503, "closed"),
        (ZeroDivisionError("secret page text"), 500, "a bug"),
    ],
)
def test_what_goes_wrong_before_there_is_text_has_a_status(error, status, words):
    with running(Writer(error)) as server:
        asked = [(path, BODIES[path](stream=stream)) for path in BODIES for stream in (False, True)]
        replies = [server.post(path, json=body) for path, body in asked]
    for reply in replies:
        assert reply.status_code == status
        assert words in error_of(reply)["message"]
        assert "secret" not in reply.text
        assert ("retry-after" in reply.headers) == (status == 503)


@EACH
def test_what_goes_wrong_afterwards_is_told_in_the_stream(path):
    with running(Writer("one", AnswerError("no memory"))) as server:
        data = data_of(server.post(path, json=BODIES[path](stream=True)).text.splitlines())
    assert text_of([each for each in data if "no memory" not in each]) == "one"
    assert any("no memory" in each for each in data[-2:])
    assert not any("response.completed" in each for each in data)


@EACH
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_answer(path, stream):
    write = Writer("one", "two", waits=True)
    write.go_on()
    with running(write, at_once=1, waiting=0) as server:
        leave(server, path, BODIES[path](stream=stream), lambda: write.begun)
        until(lambda: write.cancelled == 1)
        write.go_on(9)
        assert server.post(path, json=BODIES[path]()).status_code == 200  # its place is free again


def test_a_client_that_takes_nothing_is_left_and_its_place_is_free(caplog):
    write = Writer(*["x" * 1_000_000] * 30)
    with running(write, at_once=1, waiting=0, stall_seconds=1) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            content = json.dumps(chat(stream=True)).encode()
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content)
            with server.client() as client:
                until(lambda: write.begun)
                until(lambda: "olmocr_requests_in_hand 0.0" in client.get("/metrics").text)
    assert "bug" not in caplog.text


def test_a_client_that_leaves_while_it_sends_is_not_a_bug(server, caplog):
    host, port = server.url.removeprefix("http://").split(":")
    with caplog.at_level(logging.INFO, "olmocr.serving"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/ocr HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n%PDF")
        until(lambda: any(message.startswith("POST /v1/ocr: the client left") for message in caplog.messages))
    assert "bug" not in caplog.text


def leave(server, path, body, when):
    """Ask, and close the connection without a word as soon as *when* says so."""
    content = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        until(when)


def test_whoever_finds_the_queue_full_is_sent_away_and_the_others_are_answered():
    write = Writer("one", waits=True)

    async def ask_all(url):
        async with httpx.AsyncClient(
            base_url=url, trust_env=False, verify=False, timeout=20, limits=httpx.Limits()
        ) as client:
            tasks = [asyncio.create_task(client.post(CHAT, json=chat())) for _ in range(100)]
            while sum(task.done() for task in tasks) < 94:
                await asyncio.sleep(0.01)
            write.go_on(100)
            return await asyncio.gather(*tasks)

    with running(write, at_once=2, waiting=4) as server:
        replies = asyncio.run(ask_all(server.url))
    refused = [reply for reply in replies if reply.status_code == 429]
    assert [reply.status_code for reply in replies].count(200) == 6
    assert len(refused) == 94
    assert error_of(refused[0])["code"] == "queue_full"
    assert int(refused[0].headers["retry-after"]) >= 1
    assert write.most_at_once == 2


def test_a_picture_is_read_when_its_turn_has_come_and_not_before():
    write = Writer("one", waits=True)
    with running(write, at_once=1) as server:
        threads = [threading.Thread(target=server.post, args=(CHAT,), kwargs={"json": chat()}) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: write.begun == 1)
        assert len(write.requests) == 1
        write.go_on(3)
        for thread in threads:
            thread.join()
    assert len(write.requests) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"nonsense", b"[]", b"\x00" * 100])
@EACH
def test_a_body_that_is_not_a_question_is_refused_in_openais_form(server, path, content):
    reply = server.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert error_of(reply)["type"] == "invalid_request_error"


def test_an_unknown_model_is_told_which_there_is(server):
    reply = server.post(CHAT, json=chat() | {"model": "gpt-4o"})
    assert reply.status_code == 404
    assert (error_of(reply)["code"], error_of(reply)["param"]) == ("model_not_found", "model")
    assert "by the names olmocr, scripted" in error_of(reply)["message"]
    assert server.post(CHAT, json=chat() | {"model": "olmocr"}).json()["model"] == "olmocr"


def test_the_model_that_there_is_is_asked_for_as_current(server):
    assert server.post(CHAT, json=chat() | {"model": "current"}).status_code == 200
    assert "current is also this one" in error_of(server.post(CHAT, json=chat() | {"model": "x"}))["message"]


def test_where_the_model_lies_is_told_to_nobody():
    names = ("/Users/me/models/private", "build/x")
    with running(Writer(), other_names=names) as server:
        assert server.post(CHAT, json=chat() | {"model": names[0]}).status_code == 200
        message = error_of(server.post(CHAT, json=chat() | {"model": "gpt-4o"}))["message"]
    assert not any(name in message for name in names)


def test_the_model_is_listed_once(server):
    with server.client() as client:
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["scripted"]
        assert client.get("/v1/models/olmocr").json()["id"] == "scripted"
        assert client.get("/v1/models/other/name").status_code == 404


def test_a_client_of_several_servers_is_told_how_much_this_one_takes_and_which_weights_it_has():
    with running(Writer(), at_once=3, weights="ab" * 32) as server:
        info = asyncio.run(probe(server.url))
    assert (info.kind, info.room, info.weights) == ("olmocr serve", 3, f"safetensors {'ab' * 32}")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/v1/embeddings", 404), ("GET", CHAT, 405), ("GET", "/docs", 404),
     ("GET", "/openapi.json", 404), ("GET", "/v1/../etc/passwd", 404), ("GET", "/%1b[31m", 404)],
)  # fmt: skip
def test_what_there_is_not_is_said_in_openais_form(server, method, path, status):
    with server.client() as client:
        reply = client.request(method, path)
    assert reply.status_code == status
    assert "POST /v1/chat/completions" in error_of(reply)["message"]
    assert "\x1b" not in reply.text


@pytest.mark.parametrize("host", ["host.docker.internal:8000", "host.containers.internal", "HOST.DOCKER.INTERNAL"])
def test_a_container_on_this_machine_is_answered(server, host):
    assert server.post(CHAT, json=chat(), headers={"host": host}).status_code == 200


def test_another_name_is_answered_where_it_was_allowed():
    with running(Writer(), allowed_hosts=["Mac.local"]) as server:
        assert server.post(CHAT, json=chat(), headers={"host": "mac.LOCAL:8000"}).status_code == 200
        reply = server.post(CHAT, json=chat(), headers={"host": "other.local"})
    assert reply.status_code == 403
    assert "--allow-host other.local" in error_of(reply)["message"]


def test_a_web_page_may_ask_where_it_was_allowed():
    page = "https://tool.example"
    with running(Writer(), allowed_origins=[page], api_key="sesame") as server, server.client() as client:
        wanted = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,x-stainless",
        }
        asked = client.options(CHAT, headers={"origin": page, **wanted})
        assert (asked.status_code, asked.content) == (204, b"")
        assert asked.headers["access-control-allow-headers"] == "authorization,x-stainless"
        assert "POST" in asked.headers["access-control-allow-methods"]
        right, wrong = ({"origin": page, "authorization": f"Bearer {key}"} for key in ("sesame", "open"))
        replies = [client.post(CHAT, json=chat(), headers=headers) for headers in (right, wrong)]
        replies.append(client.post(CHAT, json=chat(stream=True), headers=right))
        assert [reply.status_code for reply in replies] == [200, 401, 200]
        for reply in (asked, *replies):
            assert reply.headers["access-control-allow-origin"] == page
            assert reply.headers["vary"] == "origin"
        other = client.options(CHAT, headers={"origin": "https://evil.example", **wanted})
        assert (other.status_code, error_of(other)["code"]) == (403, "wrong_origin")
        assert "--allow-origin https://evil.example" in error_of(other)["message"]
        assert client.post(CHAT, json=chat(), headers={"authorization": "Bearer sesame"}).status_code == 200


def test_any_web_page_may_ask_where_all_were_allowed():
    with running(Writer(), allowed_origins=["*"], api_key="sesame") as server:
        headers = {"origin": "null", "authorization": "Bearer sesame"}
        assert server.post(CHAT, json=chat(), headers=headers).headers["access-control-allow-origin"] == "null"


def test_a_system_message_is_dropped_where_the_server_was_told_so():
    body = chat()
    body["messages"].insert(0, {"role": "developer", "content": "Be brief."})
    write = Writer()
    with running(write, drops_system=True) as server:
        assert server.post(CHAT, json=body).status_code == 200
    assert [request.prompt for request in write.requests] == ["Read this."]


@EACH
def test_half_of_a_character_is_the_clients_fault(server, path):
    for text in ("a\ud800b", "\udfff"):
        content = json.dumps(BODIES[path](text=text)).encode()
        reply = server.post(path, content=content, headers={"content-type": "application/json"})
        assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_json")


@EACH
def test_a_text_with_a_character_that_says_nothing_is_read(server, path):
    assert server.post(path, json=BODIES[path](text="a\0b")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"content-encoding": "gzip"}, 415), ({"content-type": "multipart/form-data; boundary=x"}, 200),
     ({"content-type": "text/plain"}, 200), ({"content-encoding": "identity"}, 200)],
)  # fmt: skip
def test_json_is_read_whatever_it_is_called_but_not_compressed(server, headers, status):
    reply = server.post(CHAT, content=json.dumps(chat()).encode(), headers=headers)
    assert reply.status_code == status


def test_the_log_has_a_line_for_each_request_and_nothing_of_a_page(server, caplog):
    with caplog.at_level(logging.INFO, "olmocr.serving"):
        server.post(CHAT, json=chat(text="my secret"))
        server.post("/v1/%1b[31m")
        until(lambda: any(message.startswith("POST /v1/\\x1b[31m: 404 in ") for message in caplog.messages))
    # Those of an earlier test's requests may come late, but before these: a server writes them one after the other.
    asked, unknown = caplog.messages[-2:]
    assert asked.startswith("POST /v1/chat/completions: 200 in ")
    assert asked.endswith("100 tokens read, 20 written")
    assert unknown.startswith("POST /v1/\\x1b[31m: 404 in ")
    assert not any(word in caplog.text for word in ("secret", "Hello", data_uri()[:60]))


def test_a_bug_is_logged_by_its_place_and_not_by_what_it_says(caplog):
    with running(Writer(ZeroDivisionError("secret page text"))) as server:
        server.post(CHAT, json=chat())
    assert "a bug: ZeroDivisionError in _write (" in caplog.text
    assert "secret" not in caplog.text


def test_metrics_tell_requests_by_status_and_tokens():
    with running(Writer()) as server, server.client() as client:
        client.post(CHAT, json=chat())
        client.post(CHAT, content=b"")
        client.post("/v1/anything")
        until(lambda: 'path="other"' in client.get("/metrics").text)
        lines = client.get("/metrics").text.splitlines()
    assert 'olmocr_requests_total{path="/v1/chat/completions",status="200"} 1.0' in lines
    assert 'olmocr_requests_total{path="/v1/chat/completions",status="400"} 1.0' in lines
    assert 'olmocr_requests_total{path="other",status="404"} 1.0' in lines
    assert 'olmocr_answer_tokens_total{kind="output"} 20.0' in lines
    assert 'olmocr_answers_total{finish="stop"} 1.0' in lines
    assert any(line.startswith("olmocr_peak_memory_bytes ") for line in lines)


FRONT_MATTER = answer("").text


@EACH
def test_the_text_alone_is_given_to_whoever_wants_no_front_matter(path):
    writer = Writer(FRONT_MATTER[:30], FRONT_MATTER[30:], "\n# One", "\n\ntwo ", "\n")
    with running(writer) as server, server.client() as client:
        whole = client.post(path, json=BODIES[path](front_matter=False)).json()
        with client.stream("POST", path, json=BODIES[path](front_matter=False, stream=True)) as reply:
            data = data_of(list(reply.iter_lines()))
        with_it = client.post(path, json=BODIES[path](front_matter=True)).text
    text = whole["choices"][0]["message"]["content"] if path == CHAT else whole["output"][0]["content"][0]["text"]
    assert text == text_of(data) == "# One\n\ntwo"
    assert "primary_language" not in "".join(data)
    assert "primary_language" in with_it


def test_text_without_front_matter_is_streamed_as_it_is_written():
    writer = Writer(FRONT_MATTER, "# One", "\n\ntwo", waits=True)
    with running(writer) as server, server.client() as client:
        writer.go_on(2)
        with client.stream("POST", CHAT, json=chat(front_matter=False, stream=True)) as reply:
            lines = reply.iter_lines()
            while "# One" not in next(lines):
                pass
            writer.go_on()
            assert text_of(data_of(list(lines))) == "\n\ntwo"


def test_an_answer_without_front_matter_comes_as_it_is():
    with running(Writer("---\nprimary_", "language: e")) as server:
        reply = server.post(CHAT, json=chat(front_matter=False)).json()
        assert reply["choices"][0]["message"]["content"] == "---\nprimary_language: e"
        refused = server.post(CHAT, json=chat(front_matter="no"))
    assert (refused.status_code, error_of(refused)["param"]) == (400, "front_matter")
