"""A model server on the loopback interface that does what its script says, fault by fault, and keeps what it was asked.

A step of a script is a function of the connection's handler; the last one is repeated for ever.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\n"
    "is_table: False\nis_diagram: False\n---\nHello"
)


class ModelServer:
    """Use it as a context manager. *requests* holds (path, headers, JSON) of each POST, *gets* each GET's path.

    *heard* is called with the connection's handler and the JSON before a step is.
    """

    def __init__(self, *script, models=("olmocr",), pages=None, api_key=None, port=0):
        self.script = list(script)
        self.pages = {"/v1/models": model_list(*models), **(pages or {})}
        self.api_key = api_key
        self.requests = []
        self.gets = []
        self.hung_up = threading.Event()
        self.heard = lambda handler, body: None
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._http.daemon_threads = True
        self._http.handle_error = lambda request, client: None  # a client that hangs up is no news
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info):
        self._http.shutdown()
        self._http.server_close()

    def next_step(self):
        with self._lock:
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def _handler_of(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            server.gets.append(self.path)
            page = server.pages.get(self.path)
            if server.api_key and self.headers.get("authorization") != f"Bearer {server.api_key}":
                send(self, 401, {"detail": "Unauthorized"})
            elif callable(page):
                page(self)
            else:
                send(self, 404 if page is None else 200, {"detail": "Not Found"} if page is None else page)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            server.requests.append((self.path, dict(self.headers), json.loads(body)))
            server.heard(self, server.requests[-1][2])
            try:
                server.next_step()(self)
            except OSError:
                server.hung_up.set()
                self.close_connection = True

        def log_message(self, *args):
            pass

    return Handler


def model_list(*models, **extra):
    """Return what GET /v1/models answers; a model is a name, or the entry itself."""
    entries = [each if isinstance(each, dict) else {"id": each, "object": "model"} for each in models]
    return {"object": "list", "data": [{**entry, **extra} for entry in entries]}


def send(handler, code, body, content_type="application/json", headers=()):
    """Answer with *body*: bytes as they are, else JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(code)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(content)))
    for name, value in headers:
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def chat_body(text=TEXT, finish_reason="stop", usage=(100, 20)):
    """Return a whole answer of Chat Completions."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return {"choices": [choice], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}


def responses_body(text=TEXT, status="completed", usage=(100, 20), **extra):
    """Return a whole answer of Responses, with a thought before it."""
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    usage = {"input_tokens": usage[0], "output_tokens": usage[1]}
    return {"object": "response", "status": status, "output": [thought, message], "usage": usage, **extra}


def whole(body, code=200, **options):
    """Return a step that answers at once and whole."""
    return lambda handler: send(handler, code, body, **options)


def fault(code, detail="broken", headers=()):
    """Return a step that answers with an HTTP error."""
    return whole({"error": {"message": detail}}, code, headers=headers)


def events(*bodies, pause=0.0, end="whole"):
    """Return a step that streams *bodies* as server-sent events; *end* is ``whole``, ``reset`` or ``hang``.

    A function among the bodies is called when it is its turn.
    """

    def step(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for body in bodies:
            if callable(body):
                body()
                continue
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            _chunk(handler, b"data: " + data + b"\n\n")
            time.sleep(pause)
        if end == "whole":
            _chunk(handler, b"")
        elif end == "reset":
            reset(handler)
        else:  # comments, until nobody listens any more
            for _ in range(500):
                time.sleep(0.01)
                _chunk(handler, b": still here\n\n")

    return step


def _chunk(handler, data):
    handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    handler.wfile.flush()


def chat_pieces(text=TEXT, size=7):
    """Return the events that a text comes in, in Chat Completions."""
    starts = range(0, len(text), size)
    return [{"choices": [{"delta": {"content": text[at : at + size]}, "finish_reason": None}]} for at in starts]


def chat_stream(text=TEXT, finish_reason="stop", usage=(100, 20), before=(), **options):
    """Return a step that streams a whole answer of Chat Completions, after the events *before*."""
    last = {"choices": [{"delta": {}, "finish_reason": finish_reason}]}
    counts = {"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}} if usage else last
    return events(*before, *chat_pieces(text), last, counts, b"[DONE]", **options)


def responses_stream(text=TEXT, status="completed", **options):
    """Return a step that streams a whole answer of Responses."""
    pieces = [{"type": "response.output_text.delta", "delta": text[at : at + 7]} for at in range(0, len(text), 7)]
    last = {"type": f"response.{status}", "response": responses_body(text, status)}
    return events({"type": "response.created", "response": {}}, *pieces, last, **options)


def reset(handler):
    """Reset the connection, as a server that dies does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.rfile.close()
    handler.wfile.close()
    handler.connection.close()


def cut(body):
    """Return a step that promises all of *body* and sends half of it."""

    def step(handler):
        content = json.dumps(body).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.close_connection = True

    return step


def late(gate):
    """Return a step that answers when *gate* opens: an event that is set, or a barrier that as many have come to."""

    def step(handler):
        gate.wait(60)
        send(handler, 200, chat_body())

    return step
