"""Who may ask the server, from where, and with how large a body."""

import socket

import pytest

from olmocr.errors import UsageError
from olmocr.serving.server import listen
from tests.serving.asked import error_of
from tests.serving.servers import CHAT, OCR, RESPONSES, Writer, chat, running
from tests.waiting import until


@pytest.mark.parametrize("path", [CHAT, RESPONSES, OCR])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_50_mb_is_refused_in_words_that_arrive(path, is_chunked):
    def pieces():
        for _ in range(50):
            yield b"a" * 1_000_000

    with running(Writer(), request_bytes=1_000_000) as server:
        content = pieces() if is_chunked else b"a" * 50_000_000
        reply = server.post(path, content=content, headers={"content-type": "application/pdf"})
        assert reply.status_code == 413
        assert "more than 1000000 bytes" in error_of(reply)["message"]
        assert server.post(CHAT, json=chat()).status_code == 200


def test_whoever_sends_all_before_it_reads_hears_why_it_is_refused():
    with running(Writer(), request_bytes=1_000_000) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = "POST /v1/ocr HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20000000\r\n\r\n"
            connection.sendall(head.encode() + b"a" * 20_000_000)
            assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_not_waited_for():
    with running(Writer(), stall_seconds=0.2, at_once=1, waiting=0) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        with server.client() as client:
            until(lambda: "olmocr_requests_in_hand 0.0" in client.get("/metrics").text)


def test_only_whoever_has_the_key_may_ask():
    with running(Writer(), api_key="sesame") as server, server.client() as client:
        for given in (None, "Bearer wrong", "Bearer", "Basic sesame", "sesame", "Bearer sésame".encode()):
            headers = {"authorization": given} if given else {}
            for path in (CHAT, RESPONSES, OCR):
                reply = client.post(path, json=chat(), headers=headers)
                assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
            assert client.get("/metrics", headers=headers).status_code == 401
        assert client.get("/health").status_code == 200
        right = {"authorization": "Bearer sesame", "host": "ocr.example.com"}
        assert client.post(CHAT, json=chat(), headers=right).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "0.0.0.0:8000"])
def test_a_name_that_only_leads_here_is_not_answered(server, host):
    reply = server.post(CHAT, json=chat(), headers={"host": host})
    assert (reply.status_code, error_of(reply)["code"]) == (403, "wrong_host")


@pytest.mark.parametrize("host", ["localhost:9", "LOCALHOST", "127.0.0.1:80", "[::1]:8000", "127.0.0.2"])
def test_this_machines_own_names_are_answered_at_any_port(server, host):
    assert server.post(CHAT, json=chat(), headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
def test_web_pages_of_other_servers_are_not_answered(server, origin):
    reply = server.post(CHAT, json=chat(), headers={"origin": origin})
    assert (reply.status_code, error_of(reply)["code"]) == (403, "wrong_origin")
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_may_ask_only_where_a_key_is_set(host):
    with pytest.raises(UsageError, match="OLMOCR_API_KEY"):
        listen(host, 0, has_key=False)
    listen(host, 0, has_key=True).close()


def test_a_host_that_is_none_is_refused():
    with pytest.raises(UsageError, match="not an address"):
        listen("no.such.host.invalid", 0, has_key=True)
