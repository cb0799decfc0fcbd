"""The source's chat template -> one that renders text before images, whatever order a client lists them in."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from olmocr.errors import CheckpointError
from olmocr.model_folder import read_json

# Runs before the source's own template and hands it messages whose text comes first. Several clients
# (mlx-vlm's own among them) list the image first, and olmOCR-2 was trained the other way round.
# Only constructs that the small Jinja ports in other runtimes also know: no filters, no calls.
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
    """Return *template* with every user message's text moved before its images, and prove that it works.

    Raises:
        CheckpointError: *template* cannot be rendered, or drops the text or the image.
    """
    changed = template if template.startswith(_TEXT_FIRST) else _TEXT_FIRST + template
    if not renders_text_first(changed, special_tokens):
        raise CheckpointError(
            "the chat template does not render a page's prompt and image; copy the one that it was trained with"
        )
    return changed


def renders_text_first(template: str, special_tokens: Mapping[str, str] | None = None) -> bool:
    """Tell whether *template* has a page's prompt before its image where a client lists the image first.

    Raises:
        CheckpointError: *template* cannot be rendered.
    """
    (rendered, _) = page_prompts(template, "PROMPT", special_tokens)
    return 0 <= rendered.find("PROMPT") < rendered.find("<|image_pad|>")


def page_prompts(template: str, prompt: str, special_tokens: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return what *template* makes of a page's image and *prompt* where a client lists the image first, and last.

    Raises:
        CheckpointError: *template* cannot be rendered.
    """
    image, text = {"type": "image"}, {"type": "text", "text": prompt}
    return (
        render_template(template, [{"role": "user", "content": [image, text]}], special_tokens),
        render_template(template, [{"role": "user", "content": [text, image]}], special_tokens),
    )


def special_tokens(folder: Path) -> dict[str, str]:
    """Return the tokens that templates know by name, such as ``bos_token``, as transformers reads them.

    Raises:
        CheckpointError: a file that may hold them is no JSON object.
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
    """Render as transformers does, with what it offers: sandboxed, since a template is code from a stranger.

    Raises:
        CheckpointError: *template* cannot be rendered.
    """
    variables = {**(special_tokens or {}), "messages": messages, "tools": None, "documents": None}
    try:
        return _environment().from_string(template).render(variables, add_generation_prompt=True)
    except Exception as error:  # a template is a program: it can fail in any way
        raise CheckpointError(f"the chat template cannot be rendered: {error or type(error).__name__}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    environment.globals["raise_exception"] = _refuse
    return environment


class _Generation(Extension):
    """Knows ``{% generation %}``, with which training tells the model's own words from those it is asked."""

    tags = {"generation"}  # noqa: RUF012  (so does jinja2 declare it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands inside, in a scope of its own as in transformers."""
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
    """Write JSON as it is: jinja2's own filter escapes what HTML would obey."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> str:
    raise ValueError(message)
