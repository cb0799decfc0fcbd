"""JSON in either of OpenAI's formats -> Question, or a RequestError that says what this server cannot do."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from olmocr.backends.wire import Api
from olmocr.page import FRONT_MATTER_REGEX, PAGE_PROMPT, PageRequest
from olmocr.serving.pictures import check_picture, read_picture
from olmocr.serving.refusals import bad_request

MOST_TOKENS = 8000
"""Tokens in an answer where a question does not say."""

_LONGEST_PROMPT = 100_000  # characters: the model reads some 30,000 tokens at most

# Upstream's own expression for guided answers, which ours contains.
_EXPRESSIONS = (FRONT_MATTER_REGEX, FRONT_MATTER_REGEX.replace("|null|None)", "|null)"))

_DATA_URI = re.compile(r"data:[\w.+/;=-]{0,100};base64,", re.IGNORECASE | re.ASCII)

# Tokens by which a model tells who speaks, and where an image is.
_SPECIAL = re.compile(r"<\|(im_start|im_end|endoftext|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>")

# What would change an answer, and the value at which it does not.
_UNSUPPORTED = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "stop": ([],),
    "tools": ([],),
    "functions": ([],),
    "logit_bias": ({},),
    "previous_response_id": (),
    "conversation": (),
    "background": (False,),
    "guided_json": (),
    "guided_choice": (),
    "guided_grammar": (),
}

_TOKENS: dict[Api, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
}


@dataclass(frozen=True)
class Question:
    """What is asked. *picture* holds a file's bytes. *usage* says whether a stream ends with the counts of tokens."""

    model: str
    picture: bytes
    prompt: str
    temperature: float
    max_tokens: int
    seed: int
    guided: bool
    stream: bool
    usage: bool

    def page_request(self, time_limit: float | None = None) -> PageRequest:
        """Return it as a model is asked, who has *time_limit* seconds for it; the picture is read now.

        Raises:
            RequestError: the picture is damaged.
        """
        image, sampling = read_picture(self.picture), (self.temperature, self.max_tokens, self.seed)
        return PageRequest(image, self.prompt, *sampling, self.guided, time_limit=time_limit)


def parse_question(content: bytes, api: Api) -> Question:
    """Read a question; large ones take a tenth of a second.

    Raises:
        RequestError: it is no question, or asks for what there is not.
    """
    body = _object(content)
    _refuse_unsupported(body)
    texts, pictures = _parts(body, api)
    temperature = _number(body, "temperature", 0.0, 2.0, default=0.0)
    if temperature > 0 and _number(body, "top_p", 0.0, 1.0, default=1.0) < 1:
        raise bad_request("top_p is not supported: at a temperature above 0 every token may come", "top_p")
    seed = _whole(body, "seed", -(2**63), 2**63 - 1)
    options = body.get("stream_options")
    return Question(
        model=_text(body, "model"),
        picture=pictures[0],
        prompt=_prompt(texts),
        temperature=temperature,
        max_tokens=_max_tokens(body, api),
        seed=secrets.randbelow(2**31) if seed is None else seed,
        guided=_is_guided(body),
        stream=_flag(body, "stream"),
        usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _object(content: bytes) -> dict[str, Any]:
    if not content:
        raise bad_request("the request has no body; send a question as JSON", code="invalid_json")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise bad_request("the request's body is no JSON", code="invalid_json") from error
    if not isinstance(body, dict):
        raise bad_request("the request's body is JSON, but no object", code="invalid_json")
    return body


def _refuse_unsupported(body: dict[str, Any]) -> None:
    for name, harmless in _UNSUPPORTED.items():
        if body.get(name) is not None and body[name] not in harmless:
            raise bad_request(f"{name} is not supported; leave it out", name, "unsupported_parameter")


def _parts(body: dict[str, Any], api: Api) -> tuple[list[str], list[bytes]]:
    """Return the texts and the one picture of a question."""
    field = "messages" if api == "chat" else "input"
    texts: list[str] = []
    pictures: list[bytes] = []
    if body.get("instructions"):
        raise _no_system("instructions")
    for kind, value in _pieces(body.get(field), field):
        if kind in ("text", "input_text") and isinstance(value.get("text"), str):
            texts.append(value["text"])
        elif kind in ("image_url", "input_image"):
            pictures.append(_picture(value.get("image_url"), field))
        else:
            raise bad_request(
                f"a question consists of text and one picture; a part of another kind is in {field}", field
            )
    if len(pictures) != 1:
        count = f"{len(pictures)} pictures are" if pictures else "no picture is"
        raise bad_request(f"a page is asked about with one picture, and {count} in {field}", field)
    check_picture(pictures[0])
    return texts, pictures


def _pieces(messages: Any, field: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the parts of the one user's message, each with its type."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise bad_request(f"{field} must be a list of messages", field)
    if any(each.get("role") in ("system", "developer") for each in messages):
        raise _no_system(field)
    if len(messages) != 1 or messages[0].get("role") != "user":
        raise bad_request(f"{field} must hold one message, of the role user: a page is asked about once", field)
    content = messages[0].get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise bad_request(f"a message's content in {field} must be text or a list of parts", field)
    for part in parts:
        yield part.get("type"), part


def _no_system(field: str) -> Exception:
    return bad_request(
        f"olmOCR was trained with a system message of its own and knows no other; leave that out of {field}", field
    )


def _picture(url: Any, field: str) -> bytes:
    if isinstance(url, dict):
        url = url.get("url")
    if not isinstance(url, str) or not (start := _DATA_URI.match(url)):
        raise bad_request(
            "a picture is taken as data:image/png;base64,… and in no other way: this server opens no files and no URLs",
            field,
            "invalid_image_url",
        )
    try:
        return base64.b64decode(url[start.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request("the picture's base64 is damaged", field, "invalid_base64_image") from error


def _prompt(texts: list[str]) -> str:
    """Return what is asked; what the model was trained on, if there is no text."""
    prompt = "\n".join(texts)
    if len(prompt) > _LONGEST_PROMPT:
        raise bad_request(f"the text has more than {_LONGEST_PROMPT} characters", code="context_length_exceeded")
    if found := _SPECIAL.search(prompt):
        raise bad_request(f"the text has {found[0]} in it, which only this server may write")
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
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise bad_request(f"{name} must be a whole number from {least} to {most}", name)
    return value


def _max_tokens(body: dict[str, Any], api: Api) -> int:
    given = [_whole(body, name, 1, 10**9) for name in _TOKENS[api]]
    return next((value for value in given if value is not None), MOST_TOKENS)


def _is_guided(body: dict[str, Any]) -> bool:
    """Say whether the front matter's form is to be forced: asked for in vLLM's two ways, or in our launcher's."""
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
            "this server can force the form of olmOCR's front matter, by its own regular expression, and no other form",
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
