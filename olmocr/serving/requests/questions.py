"""JSON in either of OpenAI's formats -> Question, or a RequestError that says what this server cannot do."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import secrets
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from olmocr.backends.wire import Api
from olmocr.errors import reason_of
from olmocr.page import FRONT_MATTER_REGEX, MAX_TOTAL_TOKENS, PAGE_PROMPT, PageRequest
from olmocr.serving.refusals import RequestError, bad_request
from olmocr.serving.requests.parameters import check_parameters, parse_labels, unknown, unsupported
from olmocr.serving.requests.pictures import check_picture, read_picture

MOST_TOKENS = 8000
"""The most tokens in an answer if a question does not say."""

_LONGEST_PROMPT = 100_000  # characters: the model reads some 30,000 tokens at most

# Upstream's own expression for guided answers, which ours includes.
_EXPRESSIONS = (FRONT_MATTER_REGEX, FRONT_MATTER_REGEX.replace("|null|None)", "|null)"))

_DATA_URI = re.compile(r"\s*data:[^,]{0,200};\s*base64\s*,", re.IGNORECASE)

_URL_SAFE = bytes.maketrans(b"-_", b"+/")

_OWN_SYSTEM = "You are a helpful assistant."
"""The system message of every question, as in training; a client may send exactly the same."""

_SYSTEM_ROLES = ("system", "developer")

_MESSAGE_FIELDS = frozenset(("role", "content", "type", "id", "status", "name"))

_PART_FIELDS = frozenset(("type", "text", "image_url", "detail", "uuid", "cache_control", "annotations"))

_DETAILS = (None, "auto", "high", "original")

# Tokens that show a model who speaks, and where an image is.
_SPECIAL = re.compile(r"<\|(im_start|im_end|endoftext|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>")

_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "n_predict")

_MOST_VALUES = 100_000  # in one request's JSON: each takes some 100 bytes, and a question has a dozen


@dataclass(frozen=True)
class Question:
    """A question to the model.

    *picture* is a file's bytes, with this many *pixels*. *usage* says whether a stream ends with the counts of tokens,
    *front_matter* whether the answer includes its front matter, or only the text below.
    """

    model: str
    picture: bytes
    pixels: int
    prompt: str
    temperature: float
    max_tokens: int
    seed: int
    guided: bool
    stream: bool
    usage: bool
    front_matter: bool
    labels: Mapping[str, str]

    @property
    def size(self) -> int:
        """The bytes that it takes, approximately."""
        return len(self.picture) + 4 * len(self.prompt)

    @property
    def pixel_bytes(self) -> int:
        """The bytes that its picture takes once it is read, as RGB."""
        return 3 * self.pixels

    def page_request(self, time_limit: float | None = None) -> PageRequest:
        """Return it as a request to the model, limited to *time_limit* seconds; the picture is read now.

        Raises:
            RequestError: the picture is damaged.
        """
        image, sampling = read_picture(self.picture), (self.temperature, self.max_tokens, self.seed)
        return PageRequest(image, self.prompt, *sampling, self.guided, time_limit=time_limit)


def parse_question(content: bytes | bytearray, api: Api, *, drops_system: bool = False) -> Question:
    """Read a question; large ones take a tenth of a second.

    With *drops_system*, a system or developer message is ignored; otherwise it is refused.

    Raises:
        RequestError: it is not a question, or requests something unavailable.
    """
    body = _object(content)
    temperature = _number(body, "temperature", 0.0, 2.0, default=0.0)
    field = "messages" if api == "chat" else "input"
    check_parameters(body, question=field, samples=temperature > 0)
    texts, picture = _parts(body, field, drops_system=drops_system)
    pixels = check_picture(picture)
    return Question(
        model=_text(body, "model"),
        picture=picture,
        pixels=pixels,
        prompt=_prompt(texts),
        temperature=temperature,
        max_tokens=_max_tokens(body),
        seed=_seed(body),
        guided=_is_guided(body),
        stream=_flag(body, "stream"),
        usage=(body.get("stream_options") or {}).get("include_usage") is True,
        front_matter=body.get("front_matter") is None or _flag(body, "front_matter"),
        labels=parse_labels(body.get("metadata")),
    )


def _object(content: bytes | bytearray) -> dict[str, Any]:
    if not content:
        raise bad_request("the request has no body; send a question as JSON", code="invalid_json")
    if sum(content.count(mark) for mark in b",:[{") > _MOST_VALUES:  # each begins a value, or is part of a text
        raise bad_request(f"the request's JSON has more than {_MOST_VALUES} values", code="invalid_json")
    try:
        body = msgspec.json.decode(content[3:] if content.startswith(codecs.BOM_UTF8) else content)
    except RecursionError as error:
        raise bad_request("the request's body is JSON with too many levels", code="invalid_json") from error
    except ValueError as error:  # its text says what and where, and quotes nothing
        raise bad_request(f"the request's body is not JSON: {reason_of(error)}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise bad_request("the request's body is JSON, but not an object", code="invalid_json")
    return body


def _parts(body: dict[str, Any], field: str, *, drops_system: bool) -> tuple[list[str], bytes]:
    """Return the texts and the one picture of a question."""
    texts: list[str] = []
    urls: list[str] = []
    if not drops_system:
        _check_system(body.get("instructions"), "instructions")
    for part in _pieces(body.get(field), field, drops_system=drops_system):
        kind = part.get("type")
        if kind in ("text", "input_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image_url", "input_image"):
            urls.append(_url(part, field))
        elif kind in ("file", "input_file", "image"):
            raise unsupported(kind)
        else:
            raise bad_request(
                f"a question consists of text and one picture; there is a part of another kind in {field}", field
            )
    if len(urls) != 1:
        count = f"{len(urls)} pictures are" if urls else "no pictures are"
        raise bad_request(
            f"a question has one picture, and {count} in {field}; ask about each page on its own, or send a "
            "complete document to POST /v1/ocr",
            field,
        )
    return texts, _picture(urls[0], field)


def _pieces(messages: Any, field: str, *, drops_system: bool) -> Iterator[dict[str, Any]]:
    """Yield the parts of the only user message."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise bad_request(f"{field} must be a list of messages", field)
    system = [each for each in messages if each.get("role") in _SYSTEM_ROLES]
    if not drops_system:
        for each in system:
            _check_system(each.get("content"), field)
    others = [each for each in messages if each.get("role") not in _SYSTEM_ROLES]
    if len(others) != 1 or others[0].get("role") != "user":
        raise bad_request(
            f"{field} must have one message, with the role user: a page is one question, with nothing before", field
        )
    _check_fields(others[0], _MESSAGE_FIELDS)
    content = others[0].get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise bad_request(f"a message's content in {field} must be text or a list of parts", field)
    for part in parts:
        if part.get("file_id") is not None:
            raise _no_data_uri(field)
        _check_fields(part, _PART_FIELDS | {str(part.get("type"))})
        yield part


def _check_fields(given: dict[str, Any], known: Set[Any]) -> None:
    for name, value in given.items():
        if name not in known and value not in (None, [], "", {}):
            raise unknown(name)


def _check_system(content: Any, field: str) -> None:
    """Refuse a system message, unless it is empty or the one that the model gets anyway."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if any(text not in (None, "") and text != _OWN_SYSTEM for text in texts):
        raise bad_request(
            "olmOCR was trained with its own system message and no other; leave yours out of "
            f"{field}, or start the server with --drop-system-messages",
            field,
        )


def _url(part: dict[str, Any], field: str) -> str:
    """Return where the picture of *part* is said to be."""
    url = part.get("image_url")
    detail = part.get("detail")
    if isinstance(url, dict):
        _check_fields(url, {"url", "detail", "file_id"})
        detail = url.get("detail", detail)
        url = url.get("url")
    if detail not in _DETAILS:
        raise bad_request(
            "a picture is read at full size; leave detail out, or set it to high, and send a smaller picture if less "
            "detail is enough",
            field,
            "unsupported_parameter",
        )
    if not isinstance(url, str):
        raise _no_data_uri(field)
    return url


def _no_data_uri(field: str) -> RequestError:
    return bad_request(
        "a picture must be sent as data:image/png;base64,…: this server opens no files and no URLs",
        field,
        "invalid_image_url",
    )


def _picture(url: str, field: str) -> bytes:
    start = _DATA_URI.match(url)
    if not start:
        raise _no_data_uri(field)
    try:
        return decoded(url[start.end() :])
    except (binascii.Error, ValueError) as error:
        raise bad_request("the picture's base64 is damaged", field, "invalid_base64_image") from error


def decoded(text: str) -> bytes:
    """Decode base64: with or without line ends and padding, in either alphabet.

    Raises:
        ValueError: it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:  # the most common form was tried first; others are brought into that form
        letters = unquote_to_bytes(text) if "%" in text else text.encode("ascii")
        letters = b"".join(letters.split()).rstrip(b"=").translate(_URL_SAFE)
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)


def _prompt(texts: list[str]) -> str:
    """Return the question's text; without one, the prompt that the model was trained on."""
    prompt = "\n".join(texts)
    if len(prompt) > _LONGEST_PROMPT:
        raise bad_request(f"the text has more than {_LONGEST_PROMPT} characters", code="context_length_exceeded")
    if found := _SPECIAL.search(prompt):
        raise bad_request(f"the text has {found[0]} in it, which only this server may use")
    return prompt if prompt.strip() else PAGE_PROMPT


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise bad_request(f"{name} must be text", name)
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise bad_request(f"{name} must be true or false", name)
    return bool(value)


def _number(body: dict[str, Any], name: str, least: float, most: float, *, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise bad_request(f"{name} must be a number from {least:g} to {most:g}", name)
    return float(value)


def _whole(body: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if isinstance(value, float) and value.is_integer():  # 100.0, as some languages write it
        value = int(value)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise bad_request(f"{name} must be a whole number from {least} to {most}", name)
    return value


def _max_tokens(body: dict[str, Any]) -> int:
    """Return the longest answer allowed; some clients send -1 for as long as possible."""
    for name in _TOKENS:
        if body.get(name) == -1:
            return MAX_TOTAL_TOKENS
        if (value := _whole(body, name, 1, 10**9)) is not None:
            return value
    return MOST_TOKENS


def _seed(body: dict[str, Any]) -> int:
    seed = _whole(body, "seed", -(2**63), 2**63 - 1)
    return secrets.randbelow(2**31) if seed in (None, -1) else seed


def _is_guided(body: dict[str, Any]) -> bool:
    """Return whether to force the front matter's form: clients request it in vLLM's two ways, or in our launcher's."""
    outputs, form = body.get("structured_outputs"), body.get("response_format")
    text = body.get("text")
    if form is None and isinstance(text, dict):
        form = text.get("format")
    wanted = [
        body.get("guided_regex"),
        outputs.get("regex", "") if isinstance(outputs, dict) else outputs,
        _schema(form),
    ]
    expressions = [each for each in wanted if each is not None]
    if any(each not in _EXPRESSIONS for each in expressions):
        raise bad_request(
            "this server can force only the form of olmOCR's front matter, with its own regular expression",
            "response_format" if form else "guided_regex",
            "unsupported_parameter",
        )
    return bool(expressions)


def _schema(form: Any) -> Any:
    """Return the expression in a response format; None if any text will do."""
    if form is None or (isinstance(form, dict) and form.get("type") == "text"):
        return None
    if not isinstance(form, dict):
        return form
    inner = form.get("json_schema", form)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return schema.get("x-regex", "") if isinstance(schema, dict) else ""
