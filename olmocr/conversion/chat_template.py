"""The source's chat template -> one that renders text before images, whatever order a client lists them in."""

from __future__ import annotations

import datetime

from jinja2.sandbox import ImmutableSandboxedEnvironment

from olmocr.errors import CheckpointError

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


def page_prompts(template: str, prompt: str) -> tuple[str, str]:
    """Return what *template* makes of a page's image and *prompt* where a client lists the image first, and last.

    Raises:
        CheckpointError: *template* cannot be rendered.
    """
    image, text = {"type": "image"}, {"type": "text", "text": prompt}
    return (
        _render(template, [{"role": "user", "content": [image, text]}]),
        _render(template, [{"role": "user", "content": [text, image]}]),
    )


def _render(template: str, messages: list[dict[str, object]]) -> str:
    """Render as transformers does, with what it offers: sandboxed, since a template is code from a stranger."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(template).render(messages=messages, add_generation_prompt=True)
    except Exception as error:  # a template is a program: it can fail in any way
        raise CheckpointError(f"the chat template cannot be rendered: {error or type(error).__name__}") from error


def _refuse(message: str) -> str:
    raise ValueError(message)
