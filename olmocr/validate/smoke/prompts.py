"""A folder's chat templates and tokenizer -> the prompt that a client sends the model, and what is wrong with it.

The pipeline writes the trained prompt itself without a template. Other clients use templates, and a model that reads
easy pages in either order does not reveal a wrong order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from olmocr.conversion.source.chat_template import page_prompts, special_tokens
from olmocr.conversion.source.templates import named_templates
from olmocr.errors import CheckpointError
from olmocr.model_folder import read_json
from olmocr.page import IMAGE_PLACEHOLDER, PAGE_PROMPT, chat_prompt

TOKENIZER_FILE = "tokenizer.json"

_TEMPLATES: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("chat_template.jinja", lambda path: path.read_text(encoding="utf-8")),
    ("chat_template.json", lambda path: read_json(path).get("chat_template")),
    ("processor_config.json", lambda path: read_json(path).get("chat_template")),
    ("tokenizer_config.json", lambda path: read_json(path).get("chat_template")),
)
_MOST_TEMPLATES = 20  # of one file; models have two or three, and a hostile one takes seconds
_IMAGE_MARK = "<|image_pad|>"
_MARKS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", _IMAGE_MARK, "<|vision_end|>")


@dataclass(frozen=True)
class CheckedTemplate:
    """A chat template in *file*; *problem* is None if it renders the trained prompt."""

    file: str
    problem: str | None


def check_templates(folder: Path) -> tuple[CheckedTemplate, ...]:
    """Render every chat template that *folder* has with the trained prompt and an image, listed in either order."""
    return tuple(checked for name, read in _TEMPLATES for checked in _checked(folder / name, read))


def prompt_problems(folder: Path) -> Iterator[str]:
    """Yield what prevents a client from sending the trained prompt to the model in *folder*."""
    checked = check_templates(folder)
    if not checked:
        yield "there is no chat template, which other clients need: copy the source's"
    yield from (f"{each.file}: {each.problem}" for each in checked if each.problem)
    yield from (f"{TOKENIZER_FILE}: {problem}" for problem in _tokenizer_problems(folder))


def _checked(path: Path, read: Callable[[Path], object]) -> Iterator[CheckedTemplate]:
    try:
        found = read(path) if path.is_file() else None
        # A tokenizer may have several, each with a name.
        for template in list(named_templates(found).values())[:_MOST_TEMPLATES]:
            yield CheckedTemplate(path.name, _template_problem(template, special_tokens(path.parent)))
    except (CheckpointError, OSError, UnicodeDecodeError) as error:
        yield CheckedTemplate(path.name, str(error))


def _template_problem(template: str, tokens: Mapping[str, str]) -> str | None:
    prompts = page_prompts(template, PAGE_PROMPT, tokens)
    if not all(0 <= prompt.find(PAGE_PROMPT) < prompt.find(IMAGE_PLACEHOLDER) for prompt in prompts):
        return "image before text if a client lists it first, unlike in training"
    other = next((prompt for prompt in prompts if prompt != chat_prompt()), None)
    return None if other is None else f"another prompt than in training, {_difference(other, chat_prompt())}"


def _difference(text: str, expected: str) -> str:
    pairs = zip(text, expected, strict=False)
    place = next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(text), len(expected)))
    return f"with {text[place : place + 40]!r} where {expected[place : place + 40]!r} should be"


def _tokenizer_problems(folder: Path) -> Iterator[str]:
    """Yield why the trained prompt's ids are not the model's ids for its marks."""
    if not (folder / TOKENIZER_FILE).is_file():
        return
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # the library has no error classes
        yield f"it cannot be read: {error}"
        return
    ids, prompt = tokenizer.encode(chat_prompt(), add_special_tokens=False).ids, chat_prompt()
    for mark in _MARKS:
        if sum(each == tokenizer.token_to_id(mark) for each in ids) != prompt.count(mark):
            yield f"{mark} is not one token"
    if tokenizer.decode(ids, skip_special_tokens=False) != prompt:
        yield "the trained prompt's tokens spell another text"
    expected = read_json(folder / "config.json").get("image_token_id")
    if expected is not None and tokenizer.token_to_id(_IMAGE_MARK) != expected:
        yield f"{_IMAGE_MARK} is {tokenizer.token_to_id(_IMAGE_MARK)}, but {expected} in config.json"
