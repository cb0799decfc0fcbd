"""The source's chat template -> one that renders text before images, whatever order a client lists them in."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from olmocr.conversion.source.apart import ApartError, run_apart
from olmocr.errors import CheckpointError
from olmocr.model_folder import read_json
from olmocr.text import one_line

MOST_SECONDS = 3
"""Seconds of CPU time that a template may take; a normal one takes milliseconds."""

MOST_MEMORY = 500 * 10**6
"""Bytes of memory of the process that renders an untrusted template; Python itself takes about 30 MB."""

# The template of Qwen2.5-VL, which olmOCR-2 has, too: it is known to end, so it runs in this process.
_KNOWN = {"a0bc6f6fc7a29a80017a433e8f03a1cc1236e838a944a2d034295a60c4f2fddb"}

_LONGEST_TEMPLATE = 2**20  # characters; the longest in published models have about 20 thousand
_LONGEST_PROMPT = 2**22  # characters of rendered prompt; a page's prompt has some hundreds

_APART = "from olmocr.conversion.source.chat_template import render_for_parent; render_for_parent()"

Messages = list[dict[str, object]]
Tokens = tuple[tuple[str, str], ...]

_TAKE = "copy the one that the model was trained with"

# Runs before the source's own template and passes it messages whose text comes first. Several clients
# (mlx-vlm's own among them) list the image first, and olmOCR-2 was trained the other way round.
# Uses only what the small Jinja ports in other runtimes also know: no filters, no calls.
_TEXT_FIRST = (
    "{%- set ordered = namespace(messages=[]) -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string or not message['content'] or message['role'] != 'user' -%}"
    "{%- set ordered.messages = ordered.messages + [message] -%}"
    "{%- else -%}"
    "{%- set parts = namespace(text=[], media=[]) -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{%- set parts.text = parts.text + [part] -%}"
    "{%- else -%}{%- set parts.media = parts.media + [part] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- set ordered.messages = ordered.messages + "
    "[{'role': message['role'], 'content': parts.text + parts.media}] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- set messages = ordered.messages %}"
)


def text_first(template: str, special_tokens: Mapping[str, str] | None = None) -> str:
    """Return *template* with every user message's text moved before its images, and check that it works.

    Raises:
        CheckpointError: *template* cannot be rendered, or drops the text or the image.
    """
    changed = template if template.startswith(_TEXT_FIRST) else _TEXT_FIRST + template
    if not renders_text_first(changed, special_tokens):
        raise CheckpointError(f"the chat template does not render a page's prompt and image; {_TAKE}")
    return changed


def renders_text_first(template: str, special_tokens: Mapping[str, str] | None = None) -> bool:
    """Return whether *template* puts a page's prompt before its image when a client lists the image first.

    Raises:
        CheckpointError: *template* cannot be rendered.
    """
    (rendered, _) = page_prompts(template, "PROMPT", special_tokens)
    return 0 <= rendered.find("PROMPT") < rendered.find("<|image_pad|>")


def page_prompts(template: str, prompt: str, special_tokens: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return what *template* renders for a page's image and *prompt*, with the image listed first, and last.

    Raises:
        CheckpointError: *template* cannot be rendered, or takes too long or too much memory.
    """
    return _page_prompts(template, prompt, tuple(sorted((special_tokens or {}).items())))


@functools.lru_cache(maxsize=64)
def _page_prompts(template: str, prompt: str, tokens: Tokens) -> tuple[str, str]:
    image, text = {"type": "image"}, {"type": "text", "text": prompt}
    first, last = _rendered(
        template, [[{"role": "user", "content": [image, text]}], [{"role": "user", "content": [text, image]}]], tokens
    )
    return first, last


def _rendered(template: str, conversations: list[Messages], tokens: Tokens) -> list[str]:
    """Return what *template* renders for each of *conversations*."""
    try:
        if len(template) > _LONGEST_TEMPLATE:
            raise ApartError(f"it has {len(template):,} characters")
        own = template.removeprefix(_TEXT_FIRST).encode()
        if hashlib.sha256(own).hexdigest() in _KNOWN:
            return [render_template(template, messages, dict(tokens)) for messages in conversations]
        request = json.dumps([template, conversations, dict(tokens)]).encode("ascii")
        answer = json.loads(run_apart(_APART, request, seconds=MOST_SECONDS, memory=MOST_MEMORY))
    except UnicodeEncodeError as error:
        raise CheckpointError(f"the chat template contains half of a surrogate pair; {_TAKE}") from error
    except ApartError as error:
        raise CheckpointError(f"the chat template cannot be rendered: {error}; {_TAKE}") from error
    if "refused" in answer:
        raise CheckpointError(answer["refused"])
    return [str(each) for each in answer["rendered"]]


def render_for_parent() -> None:
    """Render what standard input requests; this process may be ended at any time."""
    template, conversations, tokens = json.load(sys.stdin)
    try:
        rendered = [render_template(template, messages, tokens) for messages in conversations]
        longest = max(map(len, rendered))
        answer: dict[str, object] = {"rendered": rendered}
        if longest > _LONGEST_PROMPT:
            answer = {"refused": f"the chat template renders a prompt of {longest:,} characters; {_TAKE}"}
    except CheckpointError as error:
        answer = {"refused": str(error)}
    json.dump(answer, sys.stdout)


def special_tokens(folder: Path) -> dict[str, str]:
    """Return the tokens that templates use by name, such as ``bos_token``, as transformers reads them.

    Raises:
        CheckpointError: a file that may hold them is not a JSON object.
    """
    tokens = {}
    for file in (folder / name for name in ("special_tokens_map.json", "tokenizer_config.json")):
        for name, value in (read_json(file) if file.is_file() else {}).items():
            content = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(content, str):
                tokens[name] = content
    return tokens


def render_template(
    template: str, messages: list[dict[str, object]], special_tokens: Mapping[str, str] | None = None
) -> str:
    """Render as transformers does, with the same functions: sandboxed, because a template is untrusted code.

    Raises:
        CheckpointError: *template* cannot be rendered.
    """
    variables = {**(special_tokens or {}), "messages": messages, "tools": None, "documents": None}
    try:
        return _environment().from_string(template).render(variables, add_generation_prompt=True)
    except MemoryError:  # this ends the process, and the parent reports the limit
        raise
    except Exception as error:  # a template is a program and can fail in any way
        reason = one_line(str(error), 300) or type(error).__name__
        raise CheckpointError(f"the chat template cannot be rendered: {reason}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    environment.globals["raise_exception"] = _refuse
    return environment


class _Generation(Extension):
    """Knows ``{% generation %}``, with which training marks the model's own words."""

    tags = {"generation"}  # noqa: RUF012  (so does jinja2 declare it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what is inside, in a scope of its own as in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = nodes.CallBlock(self.call_method("_same"), [], [], body)
        return [call.set_lineno(line)]

    def _same(self, caller: Callable[[], str]) -> str:
        return caller()


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write plain JSON: jinja2's own filter escapes characters for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> str:
    raise ValueError(message)
