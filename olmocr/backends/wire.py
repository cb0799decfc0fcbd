"""The two formats of model servers: PageRequest -> JSON, and JSON or a stream of events -> ModelResponse."""

from __future__ import annotations

import base64
import io
import json
from typing import Any, Literal

from olmocr.errors import AnswerError
from olmocr.page import FRONT_MATTER_REGEX, FinishReason, ModelResponse, PageRequest

Api = Literal["chat", "responses"]
"""OpenAI's Chat Completions, which every server offers, or its Responses."""

Guide = Literal["vllm", "mlx-vlm"]
"""How to send a server the expression that an answer must match: as vLLM or as our own mlx-vlm launcher expects it."""

LONGEST_TEXT = 1 << 20
"""The most characters to read of an answer. A page has a few thousand, and 8000 tokens cannot be this long."""

_LONGEST_WORD = 40

# The reasons why answers end, as OpenAI, text-generation-inference, Mistral, Anthropic and Ollama spell them. An answer
# without a reason counts as complete.
_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(("", "stop", "eos", "eos_token", "stop_sequence", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
}
_STATUSES = {"", "completed", "incomplete"}
_WHY_CUT = {"", "max_output_tokens", "max_tokens", "length"}

PATHS: dict[Api, str] = {"chat": "/chat/completions", "responses": "/responses"}

_MOST_TOKENS = 2**53  # the largest integer that every JSON reader represents exactly


def make_body(request: PageRequest, *, api: Api, model: str, guide: Guide | None) -> bytes:
    """Return the request as JSON, with the text before the image, a PNG. Encoding takes a tenth of a second."""
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
    if guide == "vllm":  # vLLM up to 0.11 knows the first key, from 0.10.2 the second; each ignores the other
        return {"guided_regex": FRONT_MATTER_REGEX, "structured_outputs": {"regex": FRONT_MATTER_REGEX}}
    schema = {"name": "olmocr", "schema": {"x-regex": FRONT_MATTER_REGEX}}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def load_json(content: bytes | str) -> Any:
    """Return JSON as Python values.

    Raises:
        AnswerError: it is not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"the server's answer, {len(content)} bytes, is not complete JSON ({error})") from error


def parse_answer(body: Any, api: Api, max_tokens: int) -> ModelResponse:
    """Read a complete answer in either format.

    An answer that does not say why it ended counts as complete, unless it has *max_tokens* tokens. One that is longer
    than :data:`LONGEST_TEXT` is cut there.

    Raises:
        AnswerError: it has no text, or it ended for an unknown reason.
    """
    return _parse_chat(body, max_tokens) if api == "chat" else _parse_responses(body, max_tokens)


def _parse_chat(body: Any, max_tokens: int) -> ModelResponse:
    message, stated = _at(body, "choices", 0, "message"), _at(body, "choices", 0, "finish_reason")
    input_tokens, output_tokens = _at(body, "usage", "prompt_tokens"), _at(body, "usage", "completion_tokens")
    reason = _REASONS.get(_word(stated))
    if reason is None:
        raise AnswerError(f"the server ended the answer for the reason {_shown(stated)}, not 'stop' or 'length'")
    if not _word(stated) and _count(output_tokens) >= max_tokens:
        reason = "length"
    return _response(_written_in(message), reason, input_tokens, output_tokens)


def _parse_responses(body: Any, max_tokens: int) -> ModelResponse:
    status, why = _at(body, "status"), _at(body, "incomplete_details", "reason")
    if _word(status) not in _STATUSES or _word(why) not in _WHY_CUT:
        raise AnswerError(f"the server ended the answer with the status {_shown(status)}, reason {_shown(why)}")
    output_tokens = _at(body, "usage", "output_tokens")
    # Older versions of mlx-vlm report "completed" even for an answer that they cut.
    is_cut = "incomplete" in _statuses(body) or bool(_word(why)) or _count(output_tokens) >= max_tokens
    text = _responses_text(body)
    return _response(text, "length" if is_cut else "stop", _at(body, "usage", "input_tokens"), output_tokens)


def _statuses(body: Any) -> set[str]:
    """Return the statuses with which an answer and each of its messages say that they ended."""
    return {_word(_at(each, "status")) for each in (body, *_messages(body))}


def _messages(body: Any) -> list[Any]:
    items = _at(body, "output")
    return [item for item in items if _at(item, "type") in ("message", None)] if isinstance(items, list) else []


def _responses_text(body: Any) -> str:
    if isinstance(text := _at(body, "output_text"), str) and text:
        return text
    return "".join(_text_in(_at(item, "content")) for item in _messages(body))


def _written_in(message: Any) -> str:
    """Return the text of a message or of a piece of one.

    If a server expects a model to think first, and the model does not, the server reports its answer as thoughts.
    """
    return _text_in(_at(message, "content")) or _thought_in(message)


def _thought_in(message: Any) -> str:
    return _text_in(_at(message, "reasoning_content")) or _text_in(_at(message, "reasoning"))


def _text_in(content: Any) -> str:
    """Return the text of a string or of a list of parts, without parts that are refusals, pictures or thoughts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    kinds = (None, "text", "output_text")
    return "".join(text for part in parts if _at(part, "type") in kinds and isinstance(text := _at(part, "text"), str))


def _response(text: str, reason: FinishReason, input_tokens: Any, output_tokens: Any) -> ModelResponse:
    if not text:
        raise AnswerError(f"the server's answer has no text (it ended with {reason!r})")
    reason = "length" if len(text) > LONGEST_TEXT else reason
    return ModelResponse(_whole_characters(text[:LONGEST_TEXT]), reason, _count(input_tokens), _count(output_tokens))


def _whole_characters(text: str) -> str:
    """Join the surrogate halves that JSON escapes can spell; replace a lone half, which cannot be encoded."""
    if text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _word(value: Any) -> str:
    """Return a word in the form of the tables above: empty for None, and in no table if *value* is not a string."""
    if value is None:
        return ""
    return value[:_LONGEST_WORD].strip().lower() if isinstance(value, str) else "no word"


def _shown(value: Any) -> str:
    return repr(value[:_LONGEST_WORD]) if isinstance(value, str) else repr(type(value).__name__)


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value <= _MOST_TOKENS else 0


def _at(value: Any, *path: str | int) -> Any:
    """Return the JSON value at *path*, or None if there is none."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


class Stream:
    """An answer that comes in pieces. At its end, it is the same JSON as if it had come in one piece."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._reason: Any = None
        self._usage: Any = None
        self._whole: Any = None
        self._is_told_over = False
        self.characters = 0

    @property
    def _written(self) -> list[str]:
        return self._pieces or self._thoughts

    @property
    def text(self) -> str:
        """All text so far."""
        return _whole_characters("".join(self._written))

    @property
    def is_over(self) -> bool:
        """Whether the answer is complete without another event."""
        return self._whole is not None

    def tail(self, characters: int) -> str:
        """Return the last *characters* of the text so far, in a time that does not depend on the text's length."""
        pieces, length = [], 0
        for piece in reversed(self._written):
            if length >= characters:
                break
            pieces.append(piece[-characters:])
            length += len(piece)
        return "".join(reversed(pieces))[-characters:]

    def end(self) -> None:
        """Record that the server announced the end."""
        self._is_told_over = True

    def add(self, event: Any) -> Any:
        """Add one event, and return the error that it reports, if any."""
        return self._add_chat(event) if self._api == "chat" else self._add_responses(event)

    def _add_chat(self, event: Any) -> Any:
        choice = _at(event, "choices", 0)
        # The complete message may come at the end, after its pieces or instead of them.
        piece = _at(choice, "delta") if _at(choice, "delta") or self._pieces else _at(choice, "message")
        self._add(self._pieces, _text_in(_at(piece, "content")))
        self._add(self._thoughts, _thought_in(piece))
        self._reason = _at(choice, "finish_reason") or self._reason
        self._usage = _at(event, "usage") or self._usage
        return _at(event, "error")

    def _add_responses(self, event: Any) -> Any:
        kind = _at(event, "type")
        if kind == "response.output_text.delta":
            self._add(self._pieces, _text_in(_at(event, "delta")))
        elif kind == "response.output_text.done" and not self._pieces:
            self._add(self._pieces, _text_in(_at(event, "text")))
        elif kind in ("response.completed", "response.incomplete"):
            response = _at(event, "response")
            self._whole = response if isinstance(response, dict) else {}
            self._whole["status"] = self._whole.get("status") or kind.removeprefix("response.")
        elif kind in ("response.failed", "error"):
            return _at(event, "response", "error") or _at(event, "error") or _at(event, "message") or "no reason given"
        return None

    def _add(self, pieces: list[str], piece: str) -> None:
        if piece:
            pieces.append(piece)
            self.characters += len(piece)

    def ended(self, reason: FinishReason) -> ModelResponse:
        """Return the text so far as an answer that we ended for *reason*.

        Token counts come at the end of a stream. So the input's is unknown, and the output's is the number of pieces.
        """
        text = self.text[:LONGEST_TEXT]
        return ModelResponse(text, reason, _count(_at(self._usage, "prompt_tokens")), len(self._written))

    def answer(self, max_tokens: int) -> ModelResponse:
        """Return the complete answer.

        Raises:
            AnswerError: the stream ended too early, or as in :func:`parse_answer`.
        """
        if self._api == "chat":
            self._refuse_early_end(self._reason)
            # Some servers do not count tokens in a stream; those send one token in each piece.
            usage = self._usage or {"completion_tokens": len(self._written)}
            choice = {"message": {"content": self.text}, "finish_reason": self._reason}
            return _parse_chat({"choices": [choice], "usage": usage}, max_tokens)
        self._refuse_early_end(self._whole)
        whole = self._whole or {"usage": {"output_tokens": len(self._written)}}
        return _parse_responses(whole if _responses_text(whole) else {**whole, "output_text": self.text}, max_tokens)

    def _refuse_early_end(self, said_at_the_end: Any) -> None:
        if said_at_the_end is None and not self._is_told_over:
            raise AnswerError("the server's stream ended before the answer did")
