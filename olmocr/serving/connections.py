"""Connections: how many may be open, and how long one may be idle. uvicorn's own wait for ever, and for everybody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from olmocr.serving.limits import ServerLimits
from olmocr.serving.refusals import RequestError, error_body, error_headers

_OTHER_FILES = 128
"""Files that a process needs besides its connections: the model's, pipes to renderers, uploads."""

_MOST_FILES = 10_240
"""The most that macOS allows a process if no limit is set."""

_MOST_LINGERING, _LINGER_SECONDS = 64, 2.0
"""How many refused connections may be still open, besides the others, and how long each has to read the reason."""

_HEAD_START = 16 << 10
"""Bytes that a connection is assumed to have brought at once, when the slowest is looked for."""


class Connection(H11Protocol):
    """A connection to one client; only so many may be open at a time.

    If there are more, the one whose request comes slowest is closed, or the newest, if all are being answered. Protocol
    errors are reported like all other errors.
    """

    def __init__(self, limits: ServerLimits, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._limits = limits
        self._since = self.loop.time()
        self._bytes = 0
        self._closing_since: float | None = None
        self._lingers_until: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and close another connection if there are too many."""
        super().connection_made(transport)
        self._begin_to_wait()
        everybody = [each for each in self.connections if isinstance(each, Connection) and each._closing_since is None]
        if len(everybody) > self._limits.connections:
            others = [each for each in everybody if each is not self and not each._is_asked]
            slowest = min(others, key=lambda each: (each._rate(), each._since), default=self)
            slowest.close_with(
                RequestError(503, "too many connections are open; ask later", code="busy", retry_after=1)
            )

    def data_received(self, data: bytes) -> None:
        """Continue with a request; data after a refused request is ignored, so that the refusal arrives."""
        if self._lingers_until is None:
            self._bytes += len(data)
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._begin_to_wait()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Report that the data is not HTTP, or its head is too large."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        what = "the request is not readable HTTP/1.1"
        if status == 431:
            what = "the request's head is larger than this server reads"
        self.close_with(RequestError(status, what, code="invalid_http"))

    def look(self, now: float) -> None:
        """Close it, if it has kept the server waiting for long enough."""
        if self._closing_since is None and self.transport.is_closing():
            self._closing_since = now
        if self._lingers_until is not None and now > self._lingers_until:
            self.transport.abort()
        elif self._closing_since is not None:
            if now - self._closing_since > self._limits.stall_seconds:
                self.transport.abort()  # it does not read what it was sent
        elif not self._is_busy and now - self._since > self._limits.stall_seconds:
            self.close_with(RequestError(408, "no request arrives, or too slowly", code="timeout"))

    def close_with(self, refusal: RequestError) -> None:
        """Send the reason, if nothing was sent yet, and close it."""
        self._closing_since = self.loop.time()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and (self._bytes or refusal.status >= 500):
            with contextlib.suppress(h11.LocalProtocolError):
                self.transport.write(self._answer(refusal))
                if len(self.connections) < self._limits.connections + _MOST_LINGERING:
                    self.transport.write_eof()  # closing at once would lose the answer if more data comes
                    self._lingers_until = self.loop.time() + _LINGER_SECONDS
                    return
        self.transport.close()

    def _answer(self, refusal: RequestError) -> bytes:
        body = json.dumps(error_body(refusal)).encode()
        headers = {
            **error_headers(refusal),
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
        events = (h11.Response(status_code=refusal.status, headers=list(headers.items())), h11.Data(data=body))
        return b"".join(self.conn.send(event) or b"" for event in (*events, h11.EndOfMessage()))

    def _begin_to_wait(self) -> None:
        self._since = self.loop.time()
        self._bytes = 0

    @property
    def _is_busy(self) -> bool:
        """Whether a request is being received or answered: the guard limits how long."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_asked(self) -> bool:
        return self._is_busy and not self.cycle.more_body

    def _rate(self) -> float:
        """Return how fast its request arrives; a new one counts as fast."""
        return (self._bytes + _HEAD_START) / max(self.loop.time() - self._since, 1e-3)


def room_for(connections: int) -> int:
    """Return how many connections this process may have open, up to *connections*; raise its limit of files."""
    try:
        import resource
    except ImportError:  # not on Windows
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = min(wanted, _MOST_FILES if hard == resource.RLIM_INFINITY else hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, max(_OTHER_FILES // 4, soft - _OTHER_FILES))
