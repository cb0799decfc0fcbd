"""A request -> who may ask, how much, how long; what goes wrong -> an answer; and one line in the log."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
import traceback
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from olmocr.backends.client import is_this_machine
from olmocr.errors import OlmocrError
from olmocr.serving.asking import Asking, closing
from olmocr.serving.limits import ServerLimits
from olmocr.serving.refusals import RequestError, error_body, error_headers, refusal_of
from olmocr.text import one_line

log = logging.getLogger(__name__)

OnAnswer = Callable[[str, int | None], None]
"""Is told the path and the status of each request; None where the client left before there was one."""

NOTE = "olmocr.note"
"""Where a request's scope holds what its line in the log says beside."""

OPEN_PATHS = ("/health",)
"""What is told without a key: whether anything runs."""


class Guard:
    """The outermost layer of the server, as ASGI has them.

    With an *api_key* whoever knows it may ask. Without one, whoever calls this machine by a name of its own: a web page
    that has its own name lead here (DNS rebinding) does not. No other web page may ask at all.
    """

    def __init__(
        self, app: ASGIApp, *, api_key: str | None, asking: Asking, limits: ServerLimits, on_answer: OnAnswer
    ) -> None:
        self._app = app
        self._key = api_key.encode() if api_key else None
        self._asking = asking
        self._limits = limits
        self._on_answer = on_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limits, self._asking.is_over)
        started = time.monotonic()
        try:
            await self._answer(exchange)
        finally:
            self._on_answer(scope["path"], exchange.status)
            _log_line(scope, exchange.status, time.monotonic() - started)

    async def _answer(self, exchange: _Exchange) -> None:
        try:
            self._check(exchange.scope)
            with self._admission(exchange.scope):
                await exchange.run(self._app)
        except Exception as error:  # the last place where it can become an answer
            if not exchange.is_gone.is_set():
                await exchange.refuse(logged_bugs(error))

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._key is None and not is_this_machine(_name(host)):
            raise RequestError(403, "this server answers to its own address only: http://127.0.0.1", code="wrong_host")
        origin = headers.get("origin", "")
        if origin and origin.partition("://")[2] != host:
            raise RequestError(403, "this server answers no web pages of other servers", code="wrong_origin")
        if self._key is not None and scope["path"] not in OPEN_PATHS:
            self._check_key(headers.get("authorization", "").encode("latin-1"))
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.request_bytes:
            raise _too_large(self._limits)

    def _check_key(self, authorization: bytes) -> None:
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key or b""):
            what = "the API key is wrong" if authorization else "an API key is wanted: Authorization: Bearer KEY"
            raise RequestError(401, what, code="invalid_api_key")

    def _admission(self, scope: Scope) -> contextlib.AbstractContextManager[None]:
        return self._asking.admission() if scope["method"] == "POST" else contextlib.nullcontext()


class _Exchange:
    """One request and its answer: as large as allowed, as slow as allowed, and ended when the client leaves."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: ServerLimits, is_over: asyncio.Event
    ) -> None:
        self.scope = scope
        self.status: int | None = None
        self._receive = receive
        self._send = send
        self._limits = limits
        self._is_over = is_over
        self._received = 0
        self._is_asked = asyncio.Event()
        self.is_gone = asyncio.Event()  # the client, or it takes nothing any more
        self._is_answered = False

    async def run(self, app: ASGIApp) -> None:
        """Let *app* answer; when the client leaves, that is cancelled."""
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
        """Answer with an error, unless an answer has begun: then the connection is closed, which says it all."""
        if self.status is not None:
            return
        body = json.dumps(error_body(refusal))
        answer = Response(body, refusal.status, error_headers(refusal), "application/json")
        with contextlib.suppress(TimeoutError):
            await answer(self.scope, self._receive, self._give)

    async def _take(self) -> Message:
        """Return the next piece of the body.

        Raises:
            RequestError: it is too large, or does not come.
            ServerUnavailableError: the server does not wait for it any more.
        """
        if self._is_asked.is_set():
            await self.is_gone.wait()
            return {"type": "http.disconnect"}
        message = await self._next()
        self._received += len(message.get("body", b""))
        if message["type"] == "http.disconnect":
            self.is_gone.set()
        elif not message.get("more_body", False):
            self._is_asked.set()
        if self._received > self._limits.request_bytes:
            raise _too_large(self._limits)
        return message

    async def _next(self) -> Message:
        coming, ending = asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._is_over.wait())
        try:
            await asyncio.wait(
                (coming, ending), timeout=self._limits.stall_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if coming.done():
                return coming.result()
            if ending.done():
                raise closing()
            raise RequestError(408, "the request's body does not come", code="timeout")
        finally:
            coming.cancel()
            ending.cancel()

    async def _give(self, message: Message) -> None:
        """Send on what is answered; a client that does not take it is left."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], *_HEADERS]}
        self._is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        try:
            async with asyncio.timeout(2 * self._limits.stall_seconds):
                await self._send(message)
        except TimeoutError:
            self.is_gone.set()
            raise

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
    """Have a request's line in the log say how many tokens were read and written."""
    scope[NOTE] = f"{input_tokens} tokens read, {output_tokens} written"


def logged_bugs(error: Exception) -> RequestError:
    """Return what to answer; of a bug log where it comes from, and not what it says: that may quote a page."""
    if not isinstance(error, OlmocrError):
        places = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{place.name} ({place.filename}:{place.lineno})" for place in reversed(places[-5:]))
        log.error("a bug: %s in %s", type(error).__name__, where)
    return refusal_of(error)
