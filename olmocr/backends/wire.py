"""The two formats that model servers speak: PageRequest -> JSON, JSON or a stream of events -> ModelResponse."""

from __future__ import annotations

import base64
import io
import json
from typing import Any, Literal

from olmocr.errors import AnswerError
from olmocr.page import FRONT_MATTER_REGEX, FinishReason, ModelResponse, PageRequest

Api = Literal["chat", "responses"]
"""OpenAI's Chat Completions, which every server speaks, or its Responses."""

Guide = Literal["vllm", "mlx-vlm"]
"""How a server is told the expression that an answer must match: vLLM's way, or that of our own mlx-vlm launcher."""

PATHS: dict[Api, str] = {"chat": "/chat/completions", "responses": "/responses"}

_MOST_TOKENS = 2**53  # the largest whole number that every reader of JSON knows exactly


def make_body(request: PageRequest, *, api: Api, model: str, guide: Guide | None) -> bytes:
    """Return the question as JSON, text first and then the image as PNG. Encoding takes a tenth of a second."""
    image = _data_uri(request)
    body: dict[str, Any]
    if api == "chat":
        parts = [{"type": "text", "text": request.prompt}, {"type": "image_url", "image_url": {"url": image}}]
        body = {"messages": [{"role": "user", "content": parts}], "max_tokens": request.max_tokens}
        body["stream_options"] = {"include_usage": True}
    else:
        parts = [{"type": "input_text", "text": request.prompt}, {"type": "input_image", "image_url": image}]
        # Without "store": false some servers keep every page's image in memory.
        body = {"input": [{"role": "user", "content": parts}], "max_output_tokens": request.max_tokens, "store": False}
    body |= {"model": model, "temperature": request.temperature, "seed": request.seed, "stream": True}
    return json.dumps(body | _guidance(request, guide)).encode()


def _data_uri(request: PageRequest) -> str:
    buffer = io.BytesIO()
    request.image.pixels.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getbuffer()).decode("ascii")


def _guidance(request: PageRequest, guide: Guide | None) -> dict[str, Any]:
    if not request.guided or guide is None:
        return {}
    if guide == "vllm":  # the first is known until 0.11, the second since 0.10.2; each ignores the other
        return {"guided_regex": FRONT_MATTER_REGEX, "structured_outputs": {"regex": FRONT_MATTER_REGEX}}
    schema = {"name": "olmocr", "schema": {"x-regex": FRONT_MATTER_REGEX}}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def load_json(content: bytes | str) -> Any:
    """Return JSON as Python values.

    Raises:
        AnswerError: it is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"the server's answer is no whole JSON of {len(content)} bytes ({error})") from error


def parse_answer(body: Any, api: Api, max_tokens: int) -> ModelResponse:
    """Read a whole answer in either format.

    Raises:
        AnswerError: there is no text in it, or it did not end in a way that we know.
    """
    return _parse_chat(body) if api == "chat" else _parse_responses(body, max_tokens)


def _parse_chat(body: Any) -> ModelResponse:
    text = _at(body, "choices", 0, "message", "content")
    reason = _at(body, "choices", 0, "finish_reason")
    if reason not in ("stop", "length"):
        raise AnswerError(f"the server ended the answer for the reason {str(reason)[:40]!r}, not 'stop' or 'length'")
    return _response(text, reason, _at(body, "usage", "prompt_tokens"), _at(body, "usage", "completion_tokens"))


def _parse_responses(body: Any, max_tokens: int) -> ModelResponse:
    status, why = _at(body, "status"), _at(body, "incomplete_details", "reason")
    if status not in ("completed", "incomplete") or why not in (None, "max_output_tokens", "max_tokens"):
        raise AnswerError(f"the server ended the answer with the status {str(status)[:40]!r}, reason {str(why)[:40]!r}")
    output_tokens = _at(body, "usage", "output_tokens")
    # Older mlx-vlm says "completed" even of an answer that it cut.
    is_cut = status == "incomplete" or _count(output_tokens) >= max_tokens
    text = _responses_text(body)
    return _response(text, "length" if is_cut else "stop", _at(body, "usage", "input_tokens"), output_tokens)


def _responses_text(body: Any) -> Any:
    if isinstance(text := _at(body, "output_text"), str):
        return text
    items = _at(body, "output")
    parts = [
        part
        for item in (items if isinstance(items, list) else [])
        if _at(item, "type") in ("message", None) and isinstance(_at(item, "content"), list)
        for part in item["content"]
    ]
    return "".join(text for part in parts if isinstance(text := _at(part, "text"), str))


def _response(text: Any, reason: FinishReason, input_tokens: Any, output_tokens: Any) -> ModelResponse:
    if not isinstance(text, str) or not text:
        raise AnswerError(f"the server's answer has no text (it ended with {reason!r})")
    return ModelResponse(text, reason, _count(input_tokens), _count(output_tokens))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value < _MOST_TOKENS else 0


def _at(value: Any, *path: str | int) -> Any:
    """Return what lies in JSON at *path*; None if nothing does."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


class Stream:
    """An answer that comes in pieces; in the end the same JSON as if it had come whole."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._pieces: list[str] = []
        self._reason: Any = None
        self._usage: Any = None
        self._whole: Any = None
        self.characters = 0

    @property
    def text(self) -> str:
        """All that has come."""
        return "".join(self._pieces)

    @property
    def is_over(self) -> bool:
        """Whether nothing more has to come."""
        return self._whole is not None

    def add(self, event: Any) -> Any:
        """Take in one event; return the error that it reports, if it does."""
        if self._api == "chat":
            self._add_text(_at(event, "choices", 0, "delta", "content"))
            self._reason = _at(event, "choices", 0, "finish_reason") or self._reason
            self._usage = _at(event, "usage") or self._usage
            return _at(event, "error")
        kind = _at(event, "type")
        if kind == "response.output_text.delta":
            self._add_text(_at(event, "delta"))
        elif kind in ("response.completed", "response.incomplete"):
            self._whole = _at(event, "response")
        elif kind in ("response.failed", "error"):
            return _at(event, "response", "error") or _at(event, "error") or _at(event, "message") or "no reason given"
        return None

    def _add_text(self, piece: Any) -> None:
        if isinstance(piece, str) and piece:
            self._pieces.append(piece)
            self.characters += len(piece)

    def ended(self, reason: FinishReason) -> ModelResponse:
        """Return what has come as an answer that we ended for *reason*.

        Counts come at a stream's end: the input's is not known, the output's is that of the pieces.
        """
        return ModelResponse(self.text, reason, _count(_at(self._usage, "prompt_tokens")), len(self._pieces))

    def answer(self, max_tokens: int) -> ModelResponse:
        """Return the whole answer.

        Raises:
            AnswerError: the stream ended too early, or as in :func:`parse_answer`.
        """
        if self._api == "chat":
            # Not every server counts in a stream; those that do not send one token in each piece.
            usage = self._usage or {"completion_tokens": len(self._pieces)}
            choice = {"message": {"content": self.text}, "finish_reason": self._reason}
            return _parse_chat({"choices": [choice], "usage": usage})
        if self._whole is None:
            raise AnswerError("the server's stream ended before the answer did")
        if not _responses_text(self._whole) and isinstance(self._whole, dict):
            self._whole["output_text"] = self.text
        return _parse_responses(self._whole, max_tokens)
