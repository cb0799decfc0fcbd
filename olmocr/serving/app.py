"""What answers -> a Starlette application: OpenAI's two formats, complete documents, health, models and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from olmocr.backends.wire import Api
from olmocr.inputs.local_file import scratch_folder
from olmocr.page import ModelResponse
from olmocr.rendering.pool import RenderPool
from olmocr.serving.asking import Asking, Write
from olmocr.serving.bounds import Bodies, BodiesInHand, Bound
from olmocr.serving.document_formats import EVENTS, MARKDOWN, as_markdown, event_pieces, line_pieces, wanted_format
from olmocr.serving.documents import TERMS, DocumentReader
from olmocr.serving.formats import Format, below_front_matter, make_format
from olmocr.serving.guard import STAY, Admission, Guard, logged_bugs, noted
from olmocr.serving.limits import ServerLimits
from olmocr.serving.metrics import CONTENT_TYPE, Metrics
from olmocr.serving.refusals import RequestError, bad_request, error_body
from olmocr.serving.requests.questions import Question, parse_question
from olmocr.serving.requests.uploads import kept, kept_copy, parse_wanted, shown_name
from olmocr.serving.start_page import start_page
from olmocr.text import one_line
from olmocr.version import __version__

UPSTREAM_NAME = "olmocr"
"""The name of the model in upstream's own server, which its client requests."""

CURRENT = "current"
"""The name for the model that is there, whatever it is called."""

_NOT_IN_A_FRAME = {"content-security-policy": "frame-ancestors 'none'", "referrer-policy": "no-referrer"}
"""The header with a page's policy. A page that contains its own policy does not need it."""

_DOCUMENT_TYPES = ("application/pdf", "application/octet-stream", "image/")

_FORM_FIELDS, _LONGEST_FIELD = 8, 1000
"""The most fields of a form besides its file, and the most bytes of each: options are short."""

_USUAL_LIMITS = ServerLimits()

_PATHS = frozenset(
    ("/", "/v1/chat/completions", "/v1/responses", "/v1/ocr", "/v1/models", "/health", "/metrics", "/version")
)


def make_app(
    ask: Write,
    model: str,
    *,
    other_names: Iterable[str] = (),
    api_key: str | None = None,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
    drops_system: bool = False,
    limits: ServerLimits = _USUAL_LIMITS,
    engine_counts: Callable[[], Mapping[str, float]] = dict,
    weights: str | None = None,
) -> Starlette:
    """Return an application in which *ask* answers.

    Args:
        ask: takes a request and a callback for the text written so far; an engine's ``ask`` does.
        model: the model's name, as listed.
        other_names: further names that clients may use, besides ``olmocr`` and ``current``; they are not listed.
        api_key: what clients must send; None: any program on this machine may send requests.
        allowed_hosts: host names under which clients may use this machine without a key, besides its own.
        allowed_origins: web pages that may send requests, such as ``https://example.com``; ``*`` is any.
        drops_system: ignore system and developer messages, which are otherwise refused.
        limits: how much the server accepts.
        engine_counts: the engine's counters, for ``/metrics``.
        weights: the SHA-256 of the model's weights, for clients that use several servers.
    """
    asking = Asking(ask, at_once=limits.at_once, waiting=limits.waiting, pixels=Bound(limits.picture_bytes))
    bodies = BodiesInHand(
        Bodies(max(limits.held_bytes, limits.request_bytes)), Bodies(max(limits.upload_bytes, limits.request_bytes))
    )
    metrics = Metrics(asking, bodies, engine_counts, _PATHS)
    names = frozenset((model, UPSTREAM_NAME, CURRENT, *other_names))
    service = _Service(asking, metrics, model, names, limits, drops_system=drops_system, weights=weights)
    admission = Admission(api_key, tuple(allowed_hosts), tuple(allowed_origins))
    app = Starlette(
        routes=[
            Route("/", service.start),
            Route("/v1/chat/completions", functools.partial(service.answer, api="chat"), methods=["POST"]),
            Route("/v1/responses", functools.partial(service.answer, api="responses"), methods=["POST"]),
            Route("/v1/ocr", service.ocr, methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.named_model),
            Route("/health", service.health),
            Route("/version", service.version),
            Route("/metrics", service.metrics),
        ],
        middleware=[
            Middleware(
                Guard, admission=admission, asking=asking, bodies=bodies, limits=limits, on_answer=metrics.on_answer
            )
        ],
        exception_handlers={404: _no_such_path, 405: _no_such_path},
        lifespan=service.opened,
    )
    app.state.asking = asking
    app.state.limits = limits
    return app


async def _no_such_path(request: Request, error: Exception) -> Response:
    raise RequestError(
        getattr(error, "status_code", 404),
        f"{request.method} {one_line(request.url.path, 100)} is not something this server does; "
        "it does POST /v1/chat/completions, /v1/responses and /v1/ocr",
        code="unknown_url",
    )


class _Service:
    """What answers at each path."""

    def __init__(
        self,
        asking: Asking,
        metrics: Metrics,
        model: str,
        names: frozenset[str],
        limits: ServerLimits,
        *,
        drops_system: bool,
        weights: str | None,
    ) -> None:
        self._asking = asking
        self._metrics = metrics
        self._model = model
        self._names = names
        self._limits = limits
        self._drops_system = drops_system
        self._weights = weights

    @contextlib.asynccontextmanager
    async def opened(self, app: Starlette) -> AsyncIterator[None]:
        """Provide what documents need while the server runs: processes that render, and a folder for uploads."""
        with scratch_folder() as self._folder:
            async with RenderPool() as pool:
                self._reader = DocumentReader(
                    ask=self._asking.ask,
                    pool=pool,
                    model=self._model,
                    at_once=self._limits.at_once,
                    rendered=asyncio.Semaphore(2 * self._limits.at_once),
                    pixels=self._asking.pixels,
                    kept=Bound(max(self._limits.pages_in_hand, self._limits.pages)),
                    most_pages=self._limits.pages,
                    figure_bytes=self._limits.figure_bytes,
                    terms=replace(TERMS, time_limit=self._limits.answer_seconds),
                    on_page=self._metrics.on_page,
                )
                try:
                    yield
                finally:
                    self._asking.close_thread()

    async def start(self, request: Request) -> Response:
        return Response(start_page(), headers=_NOT_IN_A_FRAME, media_type="text/html")

    async def health(self, request: Request) -> Response:
        is_closing = self._asking.is_closing
        return JSONResponse({"status": "closing" if is_closing else "ok"}, 503 if is_closing else 200)

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": __version__})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._listed()]})

    async def named_model(self, request: Request) -> Response:
        self._require(request.path_params["name"])
        return JSONResponse(self._listed())

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def ocr(self, request: Request) -> Response:
        """Read a document; its pages are sent when finished, as JSON lines or events, or in order as markdown."""
        wanted = wanted_format(",".join(request.headers.getlist("accept")))
        lines = self._document(request, sends_files=wanted != MARKDOWN)
        if wanted == MARKDOWN:
            pieces = as_markdown(lines)
        else:
            pieces = _encoded(lines, event_pieces if wanted == EVENTS else line_pieces)
        first = await anext(pieces, b"")  # a fault of the complete document gets a status of its own
        return _Streamed(_continued(first, pieces), media_type=wanted)

    async def answer(self, request: Request, api: Api) -> Response:
        question = await self._asking.alone(functools.partial(self._parse, await _whole_body(request), api))
        request.scope[STAY].keep(question.size)
        self._require(question.model)
        pieces = self._written(request, question)
        if not question.front_matter:
            pieces = below_front_matter(pieces)
        form = make_format(api, question)
        first = await anext(pieces)  # and so does a fault before there is any text
        if question.stream:
            return _Streamed(_events(form, first, pieces), media_type="text/event-stream")
        async with contextlib.aclosing(pieces):
            while isinstance(first, str):
                first = await anext(pieces)
        return JSONResponse(form.whole(first))

    def _parse(self, content: bytearray, api: Api) -> Question:
        return parse_question(content, api, drops_system=self._drops_system)

    async def _written(self, request: Request, question: Question) -> AsyncGenerator[str | ModelResponse]:
        make_request = functools.partial(question.page_request, self._limits.answer_seconds)
        when_answered = request.scope[STAY].leave_place
        written = self._asking.stream(make_request, question.pixel_bytes, when_answered)
        async with contextlib.aclosing(written) as pieces:
            async for piece in pieces:
                if isinstance(piece, ModelResponse):
                    self._metrics.on_response(piece)
                    noted(request.scope, piece.input_tokens, piece.output_tokens)
                yield piece

    async def _document(self, request: Request, *, sends_files: bool) -> AsyncGenerator[dict[str, Any]]:
        async with _uploaded(request, self._folder) as (path, name, given):
            wanted = parse_wanted(given, sends_files=sends_files)
            async with contextlib.aclosing(self._reader.read(path, name, wanted)) as lines:
                async for line in lines:
                    if line["type"] == "summary":
                        noted(request.scope, line["input_tokens"], line["output_tokens"])
                    yield line

    def _require(self, name: str) -> None:
        if name not in self._names:
            names = ", ".join(sorted({self._model, UPSTREAM_NAME}))
            raise RequestError(
                404,
                f"the model {one_line(name, 100)!r} is not here; this server has one, by the names {names}, and "
                f"{CURRENT} is also this one",
                code="model_not_found",
                param="model",
            )

    def _listed(self) -> dict[str, Any]:
        listed = {"id": self._model, "object": "model", "created": 0, "owned_by": UPSTREAM_NAME}
        told = {"max_concurrent_pages": self._limits.at_once}
        return listed | told | ({"weights_sha256": self._weights} if self._weights else {})


@contextlib.asynccontextmanager
async def _uploaded(request: Request, folder: Path) -> AsyncIterator[tuple[Path, str, dict[str, str]]]:
    """Yield the document's file, its name, and the rest of the request.

    Raises:
        RequestError: it has no document.
    """
    given = dict(request.query_params)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with _form(request) as form:
            file = form.get("file")
            if file is None or isinstance(file, str):
                raise bad_request("the form has no file in its field 'file'", "file")
            given |= {name: value for name, value in form.items() if isinstance(value, str)}
            async with kept_copy(file.file, folder) as path:
                yield path, shown_name(file.filename), given
    elif not kind or kind.startswith(_DOCUMENT_TYPES):
        async with kept(request.stream(), folder) as path:
            yield path, shown_name(None), given
    else:
        raise RequestError(
            415,
            "send the document as multipart/form-data in the field 'file', or as the body itself, as application/pdf",
            code="unsupported_media_type",
        )


class _FormParser(MultiPartParser):
    spool_max_size = 1  # bytes in memory: a document goes to the disk from its beginning


@contextlib.asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """Yield a form's fields, and its file, if it has one.

    Raises:
        RequestError: it cannot be read, or has more than one file.
    """
    async with contextlib.aclosing(request.stream()) as stream:
        bounds = {"max_files": 1, "max_fields": _FORM_FIELDS, "max_part_size": _LONGEST_FIELD}
        try:
            form = await _FormParser(request.headers, stream, **bounds).parse()
        except MultiPartException as error:
            raise bad_request(
                f"the form cannot be read: {one_line(error.message, 200)}", code="invalid_form"
            ) from error
    try:
        yield form
    finally:
        await form.close()


async def _whole_body(request: Request) -> bytearray:
    """Return a request's body. Starlette's own method would keep it until the request ends."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
    return body


async def _events(
    form: Format, first: str | ModelResponse, pieces: AsyncGenerator[str | ModelResponse]
) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(pieces):
        for each in form.begin():
            yield each
        try:
            piece = first
            while isinstance(piece, str):
                yield form.piece(piece)
                piece = await anext(pieces)
            ending = form.end(piece)
        except Exception as error:  # the status is already sent: only the stream can report it
            ending = form.fail(logged_bugs(error))
        for each in ending:
            yield each


async def _continued(first: bytes, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece


async def _encoded(
    lines: AsyncGenerator[dict[str, Any]], encode: Callable[[Mapping[str, Any]], Iterable[bytes]]
) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(lines):
        yield b"".join(encode(await anext(lines)))
        try:
            async for line in lines:
                for piece in encode(line):
                    yield piece
        except Exception as error:
            yield b"".join(encode({"type": "error", **error_body(logged_bugs(error))}))


class _Streamed(StreamingResponse):
    """Pieces that are sent as they come, and closed however that ends. The guard knows whether the client is there."""

    def __init__(self, pieces: AsyncGenerator[bytes], *, media_type: str) -> None:
        super().__init__(pieces, media_type=media_type)
        self._pieces = pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
