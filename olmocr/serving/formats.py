"""ModelResponse -> JSON, or text as it is written -> events, in either of OpenAI's formats."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import Any

from olmocr.backends.wire import Api
from olmocr.page import ModelResponse, text_below, text_so_far
from olmocr.serving.refusals import RequestError, error_body
from olmocr.serving.requests.questions import Question

DONE = b"data: [DONE]\n\n"


def event(data: Any, name: str | None = None) -> bytes:
    """Return a server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


async def below_front_matter(
    pieces: AsyncGenerator[str | ModelResponse],
) -> AsyncGenerator[str | ModelResponse]:
    """Yield an answer's text below its front matter as it is written, and then the answer with that text alone.

    An answer without complete front matter, such as one that was cut within it, is yielded as it is.
    """
    written, sent = "", ""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, str):
                written += piece
                text = text_so_far(written)
            else:
                text = text_below(piece.text)
            if len(text) > len(sent):
                yield text[len(sent) :]
                sent = text
            if isinstance(piece, ModelResponse):
                yield replace(piece, text=text)


class _Chat:
    def __init__(self, question: Question) -> None:
        self._question = question
        self._common = {"id": f"chatcmpl-{_id()}", "created": int(time.time()), "model": question.model}

    def whole(self, answer: ModelResponse) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, **_ending(answer)}
        return {**self._common, "object": "chat.completion", "choices": [choice], "usage": _chat_usage(answer)}

    def begin(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def end(self, answer: ModelResponse) -> Iterator[bytes]:
        yield self._chunk({}, **_ending(answer))
        if self._question.usage:
            yield event(
                {**self._common, "object": "chat.completion.chunk", "choices": [], "usage": _chat_usage(answer)}
            )
        yield DONE

    def fail(self, refusal: RequestError) -> Iterator[bytes]:
        yield event(error_body(refusal))
        yield DONE

    def _chunk(self, delta: dict[str, Any], **ending: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **ending}
        return event({**self._common, "object": "chat.completion.chunk", "choices": [choice]})


def _ending(answer: ModelResponse) -> dict[str, Any]:
    """Return why an answer ended. One that looped, or took too long, was cut: *stop_reason* says which."""
    why = _why_cut(answer)
    return {"finish_reason": "length" if why else answer.finish_reason, "stop_reason": why}


def _why_cut(answer: ModelResponse) -> str | None:
    """Return why an answer was cut, if OpenAI's formats have no word for the reason."""
    return answer.finish_reason if answer.finish_reason in ("loop", "time") else None


def _chat_usage(answer: ModelResponse) -> dict[str, int]:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


class _Responses:
    def __init__(self, question: Question) -> None:
        self._message_id = f"msg_{_id()}"
        self._number = 0
        self._common = {
            "id": f"resp_{_id()}",
            "object": "response",
            "created_at": int(time.time()),
            "model": question.model,
            "instructions": None,
            "max_output_tokens": question.max_tokens,
            "metadata": dict(question.labels),
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": question.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0,
        }

    def whole(self, answer: ModelResponse) -> dict[str, Any]:
        is_whole = answer.finish_reason == "stop"
        return {
            **self._common,
            "status": "completed" if is_whole else "incomplete",
            "error": None,
            "incomplete_details": None if is_whole else {"reason": "max_output_tokens"},
            "stop_reason": _why_cut(answer),
            "output": [self._message(answer.text, "completed" if is_whole else "incomplete")],
            "usage": {
                "input_tokens": answer.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": answer.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": answer.input_tokens + answer.output_tokens,
            },
        }

    def begin(self) -> Iterator[bytes]:
        response = self._begun("in_progress")
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)
        item = {**self._message("", "in_progress"), "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **self._place, part=_part(""))

    def piece(self, text: str) -> bytes:
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def end(self, answer: ModelResponse) -> Iterator[bytes]:
        whole = self.whole(answer)
        yield self._event("response.output_text.done", **self._place, text=answer.text, logprobs=[])
        yield self._event("response.content_part.done", **self._place, part=_part(answer.text))
        yield self._event("response.output_item.done", output_index=0, item=whole["output"][0])
        yield self._event(f"response.{whole['status']}", response=whole)

    def fail(self, refusal: RequestError) -> Iterator[bytes]:
        error = {"code": "server_error", "message": str(refusal)}
        yield self._event("response.failed", response={**self._begun("failed"), "error": error})

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def _begun(self, status: str) -> dict[str, Any]:
        return {
            **self._common, "status": status, "error": None, "incomplete_details": None, "output": [], "usage": None
        }  # fmt: skip

    def _message(self, text: str, status: str) -> dict[str, Any]:
        return {
            "type": "message", "id": self._message_id, "status": status, "role": "assistant", "content": [_part(text)]
        }  # fmt: skip

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)


Format = _Chat | _Responses
"""The format of one answer. A stream consists of ``begin``, a ``piece`` for each text, and ``end`` or ``fail``."""


def make_format(api: Api, question: Question) -> Format:
    """Return the format that answers *question*."""
    return _Chat(question) if api == "chat" else _Responses(question)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _id() -> str:
    return secrets.token_hex(12)
