"""The source's chat template -> one that renders text before images, whatever order a client lists them in."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

from olmocr.conversion.apart import ApartError, run_apart
from olmocr.errors import CheckpointError
from olmocr.text import one_line

MOST_SECONDS = 3
"""Seconds of computing that a template may take; one that is as it should be takes thousandths of one."""

MOST_MEMORY = 500 * 10**6
"""Bytes of the process in which a stranger's template is rendered; Python itself takes about 30 MB."""

# The template of Qwen2.5-VL, which olmOCR-2 has, too: known to end, so that it needs no process of its own.
_KNOWN = {"a0bc6f6fc7a29a80017a433e8f03a1cc1236e838a944a2d034295a60c4f2fddb"}

_LONGEST_TEMPLATE = 2**20  # characters; the longest that models come with are some 20 thousand
_LONGEST_PROMPT = 2**22  # characters that may be made of a page's prompt, which has some hundreds

_APART = "from olmocr.conversion.chat_template import render_for_parent; render_for_parent()"

Messages = list[dict[str, object]]

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


def text_first(template: str) -> str:
    """Return *template* with every user message's text moved before its images, and prove that it works.

    Raises:
        CheckpointError: *template* cannot be rendered, or drops the text or the image.
    """
    changed = template if template.startswith(_TEXT_FIRST) else _TEXT_FIRST + template
    if not renders_text_first(changed):
        raise CheckpointError("the chat template does not render a page's prompt and image; take the base model's")
    return changed


def renders_text_first(template: str) -> bool:
    """Tell whether *template* has a page's prompt before its image where a client lists the image first.

    Raises:
        CheckpointError: *template* cannot be rendered.
    """
    (rendered, _) = page_prompts(template, "PROMPT")
    return 0 <= rendered.find("PROMPT") < rendered.find("<|image_pad|>")


@functools.lru_cache(maxsize=64)
def page_prompts(template: str, prompt: str) -> tuple[str, str]:
    """Return what *template* makes of a page's image and *prompt* where a client lists the image first, and last.

    A template is a stranger's program: unless it is a known one, it runs in a process of its own, with limits.

    Raises:
        CheckpointError: *template* cannot be rendered, or not within the limits.
    """
    image, text = {"type": "image"}, {"type": "text", "text": prompt}
    first, last = _rendered(
        template, [[{"role": "user", "content": [image, text]}], [{"role": "user", "content": [text, image]}]]
    )
    return first, last


def _rendered(template: str, conversations: list[Messages]) -> list[str]:
    """Return what *template* makes of each of *conversations*."""
    try:
        if len(template) > _LONGEST_TEMPLATE:
            raise ApartError(f"it has {len(template):,} characters")
        own = template.removeprefix(_TEXT_FIRST).encode()
        if hashlib.sha256(own).hexdigest() in _KNOWN:
            return [_render(template, messages) for messages in conversations]
        request = json.dumps([template, conversations]).encode("ascii")
        answer = json.loads(run_apart(_APART, request, seconds=MOST_SECONDS, memory=MOST_MEMORY))
    except UnicodeEncodeError as error:
        raise CheckpointError("the chat template holds half of a character; take the base model's") from error
    except ApartError as error:
        raise CheckpointError(f"the chat template cannot be rendered: {error}; take the base model's") from error
    if "refused" in answer:
        raise CheckpointError(answer["refused"])
    return [str(each) for each in answer["rendered"]]


def render_for_parent() -> None:
    """Render what standard input asks for; the process that this is may be ended at any time."""
    template, conversations = json.load(sys.stdin)
    try:
        rendered = [_render(template, messages) for messages in conversations]
        longest = max(map(len, rendered))
        answer: dict[str, object] = {"rendered": rendered}
        if longest > _LONGEST_PROMPT:
            answer = {"refused": f"the chat template makes {longest:,} characters of a prompt; take the base model's"}
    except CheckpointError as error:
        answer = {"refused": str(error)}
    json.dump(answer, sys.stdout)


def _render(template: str, messages: Messages) -> str:
    """Render as transformers does, with what it offers: sandboxed, since a template is code from a stranger."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(template).render(messages=messages, add_generation_prompt=True)
    except MemoryError:  # the process ends by it, and the parent says what the limit was
        raise
    except Exception as error:  # a template is a program: it can fail in any way
        reason = one_line(str(error), 300) or type(error).__name__
        raise CheckpointError(f"the chat template cannot be rendered: {reason}") from error


def _refuse(message: str) -> str:
    raise ValueError(message)
