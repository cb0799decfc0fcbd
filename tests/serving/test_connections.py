"""Connections that others would wait for: each is ended, and while it is there it holds no place."""

import contextlib
import json
import select
import socket
import sys

import pytest

from olmocr.serving.connections import room_for
from tests.serving.servers import CHAT, Writer, chat, running
from tests.waiting import until


@contextlib.contextmanager
def connected(server, *, small=False):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        if small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect((host, int(port)))
        yield connection


def everything(connection):
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def answer_of(connection):
    head, _, body = everything(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def head(path=CHAT, length=10, *more):
    lines = (f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {length}", *more)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET /health HTTP/1.1\r\nhost: local"])
def test_a_request_that_does_not_come_is_not_waited_for(begun):
    with running(Writer(), stall_seconds=0.2) as server, connected(server) as connection:
        connection.sendall(begun)
        if begun:
            status, error = answer_of(connection)
            assert (status, error["code"]) == (408, "timeout")
        else:
            assert everything(connection) == b""


@pytest.mark.parametrize("small", [False, True])
def test_a_connection_that_did_all_its_work_is_not_kept_for_ever(small):
    with running(Writer(), stall_seconds=0.2) as server, connected(server, small=small) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert everything(connection).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 300_000, 431),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 50_000, 431),
        (b"POST /v1/ocr HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /v1/ocr HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST /v1/ocr HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (head().replace(b"content-length: 10", b"transfer-encoding: chunked") + b"zz\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_is_refused_in_openais_form(sent, status):
    with running(Writer()) as server, connected(server) as connection:
        connection.sendall(sent)
        got, error = answer_of(connection)
        assert got == status
        assert (error["code"], error["type"]) == (
            "invalid_http",
            "server_error" if got > 499 else "invalid_request_error",
        )


def test_of_too_many_connections_that_come_at_the_same_moment_the_newest_stays():
    with running(Writer(), connections=1) as server:
        for _ in range(5):
            server.pause(0.05)
            with connected(server):
                assert server.post(CHAT, json=chat()).status_code == 200


def test_of_too_many_connections_the_slowest_go_and_who_comes_is_answered():
    with running(Writer(), connections=20) as server, contextlib.ExitStack() as opened:
        slow = [opened.enter_context(connected(server)) for _ in range(30)]
        for each in slow[::2]:
            with contextlib.suppress(OSError):
                each.sendall(head(length=1000) + b"{")
        for _ in range(3):
            assert server.post(CHAT, json=chat()).status_code == 200
        ended, _, _ = select.select(slow, [], [], 20)
        assert len(ended) >= 10
        status, error = answer_of(ended[-1])
        assert (status, error["code"]) == (503, "busy")


def test_connections_with_bodies_on_their_way_hold_no_place():
    with running(Writer(), at_once=1, waiting=0) as server, contextlib.ExitStack() as opened:
        for _ in range(40):
            connection = opened.enter_context(connected(server))
            connection.sendall(head(length=1000) + b"{")
        with server.client() as client:
            until(lambda: "olmocr_requests_coming 40.0" in client.get("/metrics").text)
            assert "olmocr_requests_in_hand 0.0" in client.get("/metrics").text
        assert server.post(CHAT, json=chat()).status_code == 200


def test_a_body_that_comes_byte_by_byte_is_ended_and_no_other_notices():
    with running(Writer(), stall_seconds=0.3) as server, connected(server) as connection:
        connection.sendall(head(length=1_000_000))
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b" ")
                assert server.post(CHAT, json=chat()).status_code == 200
        status, error = answer_of(connection)
        assert (status, error["code"]) == (408, "timeout")


def test_a_slow_reader_of_a_streamed_answer_has_no_place_once_the_model_is_done():
    write = Writer(*["x" * 200_000] * 30)
    with running(write, at_once=1, waiting=0) as server, connected(server, small=True) as connection:
        content = json.dumps(chat(stream=True)).encode()
        connection.sendall(head(CHAT, len(content)) + content)
        with server.client() as client:
            until(lambda: write.begun and not write.open)
            until(lambda: "olmocr_requests_in_hand 0.0" in client.get("/metrics").text)
        assert server.post(CHAT, json=chat()).status_code == 200
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_a_client_that_closes_its_side_holds_nothing():
    write = Writer("one", waits=True)
    with running(write, at_once=1, waiting=0) as server, connected(server) as connection:
        content = json.dumps(chat()).encode()
        connection.sendall(head(CHAT, len(content)) + content)
        until(lambda: write.begun)
        connection.shutdown(socket.SHUT_WR)
        until(lambda: write.cancelled)
        write.go_on(5)
        assert server.post(CHAT, json=chat()).status_code == 200


def test_requests_one_after_the_other_without_a_pause_are_answered_in_order():
    with running(Writer()) as server, connected(server) as connection:
        one = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
        content = json.dumps(chat()).encode()
        connection.sendall(
            one + head(CHAT, len(content)) + content + one.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        )
        said = everything(connection)
        assert said.count(b"HTTP/1.1 200") == 3
        assert said.index(b'"ok"') < said.index(b"chat.completion") < said.rindex(b'"ok"')


def test_whoever_asks_whether_to_send_is_told_to_go_on_or_why_not():
    with running(Writer(), request_bytes=10_000) as server:
        content = json.dumps(chat()).encode()
        with connected(server) as connection:
            connection.sendall(head(CHAT, len(content), "expect: 100-continue"))
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
            connection.sendall(content)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        with connected(server) as connection:
            connection.sendall(head(CHAT, 10_001, "expect: 100-continue"))
            assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_no_more_connections_are_kept_than_there_may_be_files():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert room_for(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 428
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert room_for(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
