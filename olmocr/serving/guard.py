"""A request -> who may send it, how large, how long; what goes wrong -> an answer; and one line in the log."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from olmocr.backends.client import is_this_machine
from olmocr.errors import OlmocrError
from olmocr.serving.asking import Asking, Place, closing
from olmocr.serving.bounds import Bodies, BodiesInHand, Pace, no_room
from olmocr.serving.limits import ServerLimits
from olmocr.serving.refusals import RequestError, error_body, error_headers, refusal_of
from olmocr.text import one_line

log = logging.getLogger(__name__)

OnAnswer = Callable[[str, int | None], None]
"""Receives the path and the status of each request; None if the client left before there was one."""

NOTE = "olmocr.note"
"""The key in a request's scope for additions to its line in the log."""

STAY = "olmocr.stay"
"""The key in a request's scope for its :class:`Stay`."""

OPEN_PATHS = ("/health", "/")
"""What is served without a key: whether the server runs, and the page that asks a person for the key."""

ON_DISK = ("/v1/ocr",)
"""Where a body is written to the disk as it arrives, and not kept in memory."""

_CONTAINER_NAMES = frozenset(
    ("host.docker.internal", "gateway.docker.internal", "host.containers.internal", "host.lima.internal")
)
"""The name of the host machine in containers; nobody else can register a name in ``.internal``."""

_PIECE = 64 << 10
"""Bytes that are passed on at once, so that the client's speed can be measured."""


@dataclass(frozen=True)
class Admission:
    """Who may send requests: clients with *api_key*; without one, those that use a name of this machine, or *hosts*.

    *origins* are the web pages that may send requests, as browsers name them: ``https://example.com``; ``*`` is any.
    """

    api_key: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class Guard:
    """The outermost ASGI layer of the server.

    With a key, clients that know it may send requests. Without one, those that use a name of this machine may: this
    excludes a web page that points its own name here (DNS rebinding). Web pages must be named to be allowed.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        admission: Admission,
        asking: Asking,
        bodies: BodiesInHand,
        limits: ServerLimits,
        on_answer: OnAnswer,
    ) -> None:
        self._app = app
        self._key = admission.api_key.encode() if admission.api_key else None
        self._hosts = _CONTAINER_NAMES | {host.lower() for host in admission.hosts}
        self._origins = frozenset(origin.lower() for origin in admission.origins)
        self._asking = asking
        self._bodies = bodies
        self._limits = limits
        self._on_answer = on_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bodies = self._bodies.on_disk if scope["path"] in ON_DISK else self._bodies.in_memory
        stay = scope[STAY] = Stay(self._asking, bodies, is_counted=scope["method"] == "POST")
        exchange = _Exchange(scope, receive, send, self._limits, stay, self._asking.is_over)
        started = time.monotonic()
        try:
            await self._answer(exchange)
        finally:
            stay.end()
            self._on_answer(scope["path"], exchange.status)
            _log_line(scope, exchange.status, time.monotonic() - started)

    async def _answer(self, exchange: _Exchange) -> None:
        try:
            headers = Headers(scope=exchange.scope)
            exchange.headers += self._headers_for_page(headers)
            if exchange.headers and exchange.scope["method"] == "OPTIONS":
                await exchange.allow(headers)
                return
            self._check(exchange.scope, headers)
            await exchange.run(self._app)
        except Exception as error:  # the last place where it can become an answer
            if not exchange.is_gone.is_set():
                await exchange.refuse(logged_bugs(error))

    def _headers_for_page(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return the headers that let a browser show the answer to the web page that requested it, if there is one.

        Raises:
            RequestError: it is a page that is not allowed.
        """
        origin, host = headers.get("origin", ""), headers.get("host", "")
        if not origin or origin.partition("://")[2] == host:
            return []
        if not self._origins & {origin.lower(), "*"}:
            shown = one_line(origin, 100)
            raise RequestError(
                403,
                f"other servers' web pages may not use this server; start it with --allow-origin {shown} if that is "
                "your own page",
                code="wrong_origin",
            )
        return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = _name(headers.get("host", ""))
        if self._key is None and not (is_this_machine(host) or host in self._hosts):
            shown = one_line(host, 100) or "NAME"
            raise RequestError(
                403,
                "this server answers to its own address only: http://127.0.0.1; for another name start it with "
                f"--allow-host {shown}, or with a key",
                code="wrong_host",
            )
        if self._key is not None and scope["path"] not in OPEN_PATHS:
            self._check_key(headers.get("authorization", "").encode("latin-1"))
        if scope["method"] == "POST":
            self._check_body(headers)

    def _check_body(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.request_bytes:
            raise _too_large(self._limits)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError(
                415, "a compressed body is not read; send it without Content-Encoding", code="unsupported_media_type"
            )
        self._asking.check()  # so that it is not sent in vain

    def _check_key(self, authorization: bytes) -> None:
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key or b""):
            what = "the API key is wrong" if authorization else "an API key is required: Authorization: Bearer KEY"
            raise RequestError(401, what, code="invalid_api_key")


class Stay:
    """What one request uses while it is here: its bytes, and, once they are complete, a place."""

    def __init__(self, asking: Asking, bodies: Bodies, *, is_counted: bool) -> None:
        self._asking = asking
        self._bodies = bodies
        self._body = bodies.begin() if is_counted else None
        self._place: Place | None = None

    @property
    def must_go(self) -> asyncio.Event:
        """An event that is set when there is no room for its bytes any more."""
        return self._body.must_go if self._body else asyncio.Event()

    def take(self, count: int, *, is_whole: bool) -> None:
        """Count this many more of its bytes, after which it *is_whole* or not.

        Raises:
            RequestError: there is no room for them, or no place for it.
            ServerUnavailableError: no more places are given.
        """
        if self._body is None:
            return
        self._bodies.grow(self._body, count)
        if is_whole and self._place is None:
            self._place = self._asking.admit()
            self._body.is_whole = True

    def keep(self, count: int) -> None:
        """From now on count only as many bytes as are kept of it."""
        if self._body:
            self._body.bytes = count

    def leave_place(self) -> None:
        """Release its place: all that remains is to send the answer."""
        if self._place:
            self._place.give_back()

    def end(self) -> None:
        """Release everything."""
        self.leave_place()
        if self._body:
            self._bodies.end(self._body)


class _Exchange:
    """One request and its answer: limited in size and time, and ended when the client leaves."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: ServerLimits, stay: Stay, is_over: asyncio.Event
    ) -> None:
        self.scope = scope
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self._receive = receive
        self._send = send
        self._limits = limits
        self._stay = stay
        self._ends = (is_over, stay.must_go)
        self._received = 0
        self._coming, self._going = (Pace(limits.stall_seconds, limits.least_rate) for _ in range(2))
        self._is_asked = asyncio.Event()
        self.is_gone = asyncio.Event()  # the client left, or no longer reads
        self._is_answered = False

    async def run(self, app: ASGIApp) -> None:
        """Run *app*; cancel it when the client leaves."""
        answering = asyncio.ensure_future(app(self.scope, self._take, self._give))
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and not self._is_answered:
                answering.cancel()
                await asyncio.wait((answering,))
                return
            await answering
        finally:
            answering.cancel()
            watching.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)

    async def refuse(self, refusal: RequestError) -> None:
        """Answer with an error, unless an answer has begun: then close the connection, which is enough of an error."""
        if self.status is not None:
            return
        body = json.dumps(error_body(refusal))
        answer = Response(body, refusal.status, error_headers(refusal), "application/json")
        with contextlib.suppress(TimeoutError):
            await answer(self.scope, self._receive, self._give)

    async def allow(self, headers: Headers) -> None:
        """Answer a browser that the web page may send the request."""
        allowed = {
            "access-control-allow-methods": "GET, POST, OPTIONS",
            "access-control-allow-headers": headers.get(
                "access-control-request-headers", "authorization, content-type"
            ),
            "access-control-allow-private-network": "true",
            "access-control-max-age": "600",
        }
        await Response(None, 204, allowed)(self.scope, self._receive, self._give)

    async def _take(self) -> Message:
        """Return the next piece of the body.

        Raises:
            RequestError: it is too large, or does not arrive, or there is no room or place for it.
            ServerUnavailableError: the server no longer waits for it.
        """
        if self._is_asked.is_set():
            await self.is_gone.wait()
            return {"type": "http.disconnect"}
        message = await self._next()
        if message["type"] == "http.disconnect":
            self.is_gone.set()
            return message
        size, is_whole = len(message.get("body", b"")), not message.get("more_body", False)
        self._received += size
        if self._received > self._limits.request_bytes:
            raise _too_large(self._limits)
        self._stay.take(size, is_whole=is_whole)
        if is_whole:
            self._is_asked.set()
        return message

    async def _next(self) -> Message:
        coming = asyncio.ensure_future(self._receive())
        ends = [asyncio.ensure_future(each.wait()) for each in self._ends]
        started = time.monotonic()
        try:
            await asyncio.wait((coming, *ends), timeout=self._coming.left, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                message = coming.result()
                self._coming.note(time.monotonic() - started, len(message.get("body", b"")))
                if self._coming.left > 0:
                    return message
            elif ends[0].done():
                raise closing()
            elif ends[1].done():
                raise no_room()
            raise RequestError(408, "the request's body does not arrive, or too slowly", code="timeout")
        finally:
            for each in (coming, *ends):
                each.cancel()

    async def _give(self, message: Message) -> None:
        """Send the answer; drop a client that does not read it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._hand_on({**message, "headers": [*message["headers"], *_HEADERS, *self.headers]}, 0)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        self._is_answered = not more
        for start in range(0, len(body) or 1, _PIECE):
            piece = body[start : start + _PIECE]
            await self._hand_on({**message, "body": piece, "more_body": more or start + _PIECE < len(body)}, len(piece))

    async def _hand_on(self, message: Message, size: int) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._going.left):
                await self._send(message)
        except TimeoutError:
            self.is_gone.set()
            raise
        self._going.note(time.monotonic() - started, size)

    async def _watch(self) -> None:
        """Wait until the client leaves."""
        await self._is_asked.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone.set()


_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


def _too_large(limits: ServerLimits) -> RequestError:
    return RequestError(413, f"the request has more than {limits.request_bytes} bytes; send less", code="too_large")


def _name(host: str) -> str:
    """Return a Host header's name, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _log_line(scope: Scope, status: int | None, seconds: float) -> None:
    note = f", {scope[NOTE]}" if NOTE in scope else ""
    path = one_line(scope["path"], 100)
    log.info("%s %s: %s in %.2f s%s", scope["method"], path, status or "the client left", seconds, note)


def noted(scope: Scope, input_tokens: int, output_tokens: int) -> None:
    """Add the tokens read and written to a request's line in the log."""
    scope[NOTE] = f"{input_tokens} tokens read, {output_tokens} written"


def logged_bugs(error: Exception) -> RequestError:
    """Return the answer to an error; for a bug log where it was raised, not its text: that may quote a page."""
    if not isinstance(error, OlmocrError):
        places = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{place.name} ({place.filename}:{place.lineno})" for place in reversed(places[-5:]))
        log.error("a bug: %s in %s", type(error).__name__, where)
    return refusal_of(error)
