"""The server ends: answers in the making are finished or ended."""

import socket
import threading

from tests.serving.asked import BODIES, EACH, error_of
from tests.serving.servers import CHAT, Writer, chat, running
from tests.waiting import until


@EACH
def test_answers_in_the_making_are_ended_when_the_server_closes(path):
    write = Writer("one", "two", waits=True)
    with running(write, at_once=1) as server:
        write.go_on()
        replies = []
        streamed = threading.Thread(target=lambda: replies.append(server.post(path, json=BODIES[path](stream=True))))
        streamed.start()
        until(lambda: write.begun)
        waiting = threading.Thread(target=lambda: replies.append(server.post(path, json=BODIES[path]())))
        waiting.start()
        with server.client() as client:
            until(lambda: "olmocr_requests_in_hand 2.0" in client.get("/metrics").text)
        server.stop()
        streamed.join()
        waiting.join()
    statuses = {reply.status_code: reply for reply in replies}
    assert sorted(statuses) == [200, 503]
    assert "closing" in statuses[200].text
    assert "closing" in error_of(statuses[503])["message"]
    assert write.cancelled == 1


def test_a_client_that_never_sends_all_of_its_question_does_not_hold_up_the_end(caplog):
    with running(Writer()) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{")
            with server.client() as client:
                until(lambda: "olmocr_requests_coming 1.0" in client.get("/metrics").text)
            server.stop()
            assert connection.recv(100).startswith(b"HTTP/1.1 503")
    assert "Traceback" not in caplog.text


def test_answers_that_are_nearly_done_are_finished_when_the_server_closes():
    write = Writer("one", "two", waits=True)
    with running(write, grace=10) as server:
        replies = []
        thread = threading.Thread(target=lambda: replies.append(server.post(CHAT, json=chat())))
        thread.start()
        until(lambda: write.begun)
        server.stop()
        write.go_on(2)
        thread.join()
    assert replies[0].json()["choices"][0]["message"]["content"] == "onetwo"
