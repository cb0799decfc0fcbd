"""A checkpoint's folder -> the chat template in use, out of all those in every place that may hold one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from olmocr.conversion.source.chat_template import page_prompts, special_tokens, text_first
from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder, is_left_out, read_json, refuse_no_content
from olmocr.text import one_line

# In the order in which processors of transformers 5 and mlx-vlm look; a tokenizer alone uses the last two.
PLACES = ("processor_config.json", "chat_template.json", "chat_template.jinja", "tokenizer_config.json")
_KEY = "chat_template"
_DEFAULT = "default"
_MORE_TEMPLATES = "additional_chat_templates"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceTemplates:
    """*default*, text first, is what pages are read with; *named* are all templates of each file, unchanged."""

    default: str
    named: dict[str, dict[str, str]]


def read_templates(folder: ModelFolder) -> SourceTemplates:
    """Return the templates of *folder*.

    Files that render a page alike count as one, whatever else differs. A template that cannot render a page is ignored
    if a processor would look into another file first. An example is the template of a text model in a tokenizer's
    settings.

    Raises:
        CheckpointError: it has none, the first cannot render a page, or two render it differently.
    """
    named = {place: found for place in PLACES if (found := _read_place(folder, place))}
    if not named:
        raise CheckpointError(f"{folder.where} lacks a chat template; copy the one that the model was trained with")
    tokens = special_tokens(folder.path)
    usable: dict[str, str] = {}
    problems: dict[str, CheckpointError] = {}
    for place, found in named.items():
        try:
            usable[place] = text_first(_default_of(found, place), tokens)
        except CheckpointError as error:
            problems[place] = error
    first = next(iter(named))
    if first in problems:  # the one that a processor takes counts, even if another would render
        more = f", or convert with `leave_out='{_option(first)}'`" if usable else ""
        raise CheckpointError(f"{folder.path / first}: {problems[first]}{more}")
    for place, problem in problems.items():
        _log.warning("%s: %s is not used: %s", folder.where, place, one_line(str(problem), 200))
    rendered = {place: page_prompts(template, "PROMPT", tokens) for place, template in usable.items()}
    if len(set(rendered.values())) > 1:
        raise CheckpointError(_two_readings(folder, rendered))
    _say_more_templates(folder)
    return SourceTemplates(next(iter(usable.values())), named)


def _two_readings(folder: ModelFolder, rendered: dict[str, tuple[str, str]]) -> str:
    places = list(rendered)
    other = next(place for place in places if rendered[place] != rendered[places[0]])
    answers = " or ".join(f"`leave_out='{_option(place)}'`" for place in (places[0], other))
    return (
        f"{folder.where} has chat templates that render a page differently: {places[0]}, which a processor of "
        f"transformers or mlx-vlm takes, {rendered[places[0]][0]!r}, and {other}, {rendered[other][0]!r}; "
        f"leave out the one that is not the model's with {answers}"
    )


def _option(place: str) -> str:
    return f"{place}:{_KEY}" if place in ("processor_config.json", "tokenizer_config.json") else place


def _read_place(folder: ModelFolder, place: str) -> dict[str, str]:
    """Return the templates in one file by name, or none if it has none or is to be left out."""
    file = folder.file(place)
    if file is None or is_left_out(f"{place}:{_KEY}", folder.left_out):
        return {}
    if place.endswith(".jinja"):
        try:
            content = file.read_bytes()
            refuse_no_content(file, content)
            return {_DEFAULT: content.decode("utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
    return named_templates(read_json(file).get(_KEY))


def named_templates(value: Any) -> dict[str, str]:
    """Return a setting's templates by name: a single one, a list with names, or a group of settings."""
    if isinstance(value, str):
        return {_DEFAULT: value}
    if isinstance(value, list):
        pairs = [(each.get("name"), each.get("template")) for each in value if isinstance(each, dict)]
    else:
        pairs = list(value.items()) if isinstance(value, dict) else []
    return {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}


def _default_of(named: dict[str, str], place: str) -> str:
    if _DEFAULT in named:
        return named[_DEFAULT]
    if len(named) == 1:
        return next(iter(named.values()))
    raise CheckpointError(f"{place} has several chat templates, {', '.join(named)}, but none is called {_DEFAULT}")


def _say_more_templates(folder: ModelFolder) -> None:
    more = sorted(path.name for path in (folder.path / _MORE_TEMPLATES).glob("*.jinja"))
    if more:
        _log.warning(
            "%s: the chat templates in %s are not copied, because they cannot render a page: %s",
            folder.where,
            _MORE_TEMPLATES,
            ", ".join(one_line(name, 100) for name in more[:5]),
        )


def all_text_first(value: Any, templates: SourceTemplates, tokens: dict[str, str]) -> Any:
    """Return the setting *value* in its own form, with the default template replaced and the others text first."""
    if isinstance(value, list):
        return [
            {**each, "template": _changed(each.get("name"), each.get("template"), templates, tokens, len(value) == 1)}
            if isinstance(each, dict)
            else each
            for each in value
        ]
    if isinstance(value, dict):
        return {name: _changed(name, each, templates, tokens, len(value) == 1) for name, each in value.items()}
    return templates.default


def _changed(name: Any, template: Any, templates: SourceTemplates, tokens: dict[str, str], is_alone: bool) -> Any:
    if name == _DEFAULT or is_alone:
        return templates.default
    try:
        return text_first(template, tokens) if isinstance(template, str) else template
    except CheckpointError:
        return template  # it is for something other than a page, and used only if a client names it
