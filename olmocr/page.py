"""The page contract in one place: the prompt that requests the format, and the parser that reads it.

olmOCR-2 (``allenai/olmOCR-2-7B-1025``) gets :data:`PAGE_PROMPT` and the page's image, in this order, and
answers in markdown with a YAML front matter of five fields. Prompt and fields are those of the public
``allenai/olmocr`` source, version 0.4.27 (``build_no_anchoring_v4_yaml_prompt``).

PyYAML is imported where an answer is parsed: processes that only render pages import this module, too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from olmocr.errors import ExitCode, OlmocrError, reason_of
from olmocr.text import one_line

if TYPE_CHECKING:
    import yaml
    from PIL.Image import Image

PAGE_PROMPT = (
    "Attached is one page of a document that you must process. "
    "Just return the plain text representation of this document as if you were reading it naturally. "
    "Convert equations to LateX and tables to HTML.\n"
    "If there are any figures or charts, label them with the following markdown syntax "
    "![Alt text describing the contents of the figure](page_startx_starty_width_height.png)\n"
    "Return your output as markdown, with a front matter section on top specifying values for the "
    "primary_language, is_rotation_valid, rotation_correction, is_table, and is_diagram parameters."
)
"""The prompt that olmOCR-2 was trained with ("LateX" is spelled so)."""

END_OF_TURN = "<|im_end|>"

IMAGE_TOKEN = "<|image_pad|>"  # noqa: S105
"""Stands for one part of an image; a prompt is given as many as the image has."""

IMAGE_PLACEHOLDER = f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"

TARGET_LONGEST_IMAGE_DIM = 1288
"""Pixels on the longest side of a page's image, as in training."""

MOST_PAGE_PIXELS = TARGET_LONGEST_IMAGE_DIM * TARGET_LONGEST_IMAGE_DIM
"""The most pixels of a page when olmOCR-2 is asked. Base models allow 12.8 million pixels: an image of that
size, sent by another client, takes all the memory of a small machine."""

MAX_TOTAL_TOKENS = 16384
"""The context that olmOCR-2 is served with; a longer exchange, of prompt and answer, is not accepted."""

TEMPERATURES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 0.9, 1.0)
"""Sampling temperature by attempt: upstream's ladder, except that the first attempt is greedy."""

ROTATIONS = (0, 90, 180, 270)

_LANGUAGE, _BOOLEAN, _ROTATION = map(re.compile, ("[a-z]{2}|null|None", "True|False|true|false", "0|90|180|270"))

FIELDS = {
    "primary_language": _LANGUAGE,
    "is_rotation_valid": _BOOLEAN,
    "rotation_correction": _ROTATION,
    "is_table": _BOOLEAN,
    "is_diagram": _BOOLEAN,
}
"""The fields of a front matter in their order, each with its exact values in training data."""

FRONT_MATTER_REGEX = (
    r"---\n" + "".join(rf"{name}: (?:{exact.pattern})\n" for name, exact in FIELDS.items()) + r"(?:---|---\n[\s\S]+)"
)
"""What a guided answer must match: upstream's expression, which lacks ``None``, with that added."""

LONGEST_FRONT_MATTER = 4096
"""Characters. A front matter has some 110; a longer one is not read, since reading YAML is slow."""

_MOST_BREAKS_SHOWN = 8
_LONGEST_SHOWN = 60  # characters that a sentence quotes of an answer

ParseMode = Literal["strict", "lenient"]


def chat_prompt(prompt: str = PAGE_PROMPT) -> str:
    """Return *prompt* as the model gets it in training: system line, text, then the image's placeholder."""
    return (
        f"<|im_start|>system\nYou are a helpful assistant.{END_OF_TURN}\n"
        f"<|im_start|>user\n{prompt}{IMAGE_PLACEHOLDER}{END_OF_TURN}\n"
        "<|im_start|>assistant\n"
    )


@dataclass(frozen=True)
class PageImage:
    """A page as pixels: an RGB image, turned counter-clockwise by *rotation* degrees from how it was rendered."""

    pixels: Image
    rotation: int = 0


@dataclass(frozen=True)
class PageRequest:
    """One question to a model. *temperature* 0 means greedy; *seed* matters only above 0.

    *guided* requests that the front matter's form be forced, if the model's engine or server can do that. *draft_text*
    is text that the answer may resemble, such as the PDF's own text of the page: it may make an answer faster, and
    never changes it. *time_limit* is in seconds, from when the model begins the page, not from when it begins to wait.
    """

    image: PageImage
    prompt: str = PAGE_PROMPT
    temperature: float = 0.0
    max_tokens: int = 8000
    seed: int = 0
    guided: bool = False
    draft_text: str | None = None
    time_limit: float | None = None


FinishReason = Literal["stop", "length", "loop", "time"]
"""Stopped by the model, cut at the token limit, stopped by us because it looped, or took too long."""


@dataclass(frozen=True)
class ModelResponse:
    """A model's answer. It is complete only if its *finish_reason* is ``stop``. Token counts include everything.

    *passes* counts the passes over the model's weights that wrote it, without those that read the question; 0 if not
    known. *server* is the address of the server that gave it, if that is not this process.
    """

    text: str
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    passes: int = field(default=0, compare=False)
    server: str = field(default="", compare=False)


Ask = Callable[[PageRequest], Awaitable[ModelResponse]]
"""The complete interface between the pipeline and a model."""


@dataclass(frozen=True)
class PageResponse:
    """A valid answer. *natural_text* is None for a page without text."""

    primary_language: str | None
    is_rotation_valid: bool
    rotation_correction: int
    is_table: bool
    is_diagram: bool
    natural_text: str | None


def make_front_matter(values: Mapping[str, object]) -> str:
    """Return a front matter whose fields have these *values*, spelled as ``str`` does; others are left out."""
    lines = "".join(f"{name}: {values[name]}\n" for name in FIELDS)
    return f"---\n{lines}---\n"


@dataclass(frozen=True)
class RuleBreak:
    """One rule of the format that an answer breaks, and the line (from 1) of the answer."""

    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.rule}: {self.message}"


class PageResponseError(OlmocrError):
    """An answer is not in olmOCR's format. ``breaks`` has all rules that it breaks, the text the first eight."""

    exit_code = ExitCode.UNREADABLE_INPUT

    def __init__(self, breaks: tuple[RuleBreak, ...]) -> None:
        more = len(breaks) - _MOST_BREAKS_SHOWN
        shown = [*map(str, breaks[:_MOST_BREAKS_SHOWN]), *([f"and {more} more"] if more > 0 else [])]
        super().__init__("; ".join(shown))
        self.breaks = breaks


def parse_page_response(raw: str, mode: ParseMode = "lenient") -> PageResponse:
    """Read a model's answer.

    ``strict`` accepts exactly what training data looks like: the five fields in order, one a line, with
    exact values. ``lenient`` also accepts a code fence, a byte order mark, CRLF, leading blank lines,
    blanks after the first ``---``, other orders, and YAML's other spellings of the same values. Either reads
    a front matter of at most :data:`LONGEST_FRONT_MATTER` characters.

    Raises:
        PageResponseError: with every broken rule and its line.
    """
    answer, breaks = _opened(raw, mode)
    if answer is None:
        raise PageResponseError(tuple(breaks))
    entries = _strict_entries(answer, breaks) if mode == "strict" else _yaml_entries(answer, breaks)
    values = _typed(entries, answer, mode, breaks)
    if breaks:
        raise PageResponseError(tuple(sorted(breaks, key=lambda each: each.line)))
    return PageResponse(**values, natural_text=answer.body or None)  # type: ignore[arg-type]


def text_below(raw: str) -> str:
    """Return an answer without its front matter, whether that is valid or not; all of it if it has none."""
    answer, _ = _opened(raw, "lenient")
    return raw if answer is None else answer.body


def text_so_far(written: str) -> str:
    """Return the beginning of what :func:`text_below` will return for an answer that is *written* only in part.

    The result is empty for an incomplete answer that does not begin with its front matter.
    """
    end = written.find(_CLOSER, 4, 4 + LONGEST_FRONT_MATTER + len(_CLOSER)) if written.startswith("---\n") else -1
    return "" if end < 0 else written[end + len(_CLOSER) :].strip()


def stated_turn(raw: str) -> int:
    """Return by how many degrees an answer says that its page must be turned; 0 if it does not say so.

    The answer may be cut, even within its front matter, and break any other rule: the model has still seen which way up
    the page is.
    """
    text, line, _, _ = _without_wrapping(raw)
    end = text.find(_CLOSER, 4, 4 + LONGEST_FRONT_MATTER)
    whole_lines = text[: 4 + LONGEST_FRONT_MATTER].rpartition("\n")[0]
    front_matter = (text[:end] if end >= 0 else whole_lines)[4:]
    if not text.startswith("---\n"):
        return 0
    found = {entry.key: entry for entry in _yaml_entries(_SplitAnswer(front_matter, "", line + 1), [])}
    try:
        return 0 if _boolean(found["is_rotation_valid"]) else _rotation(found["rotation_correction"])
    except (KeyError, ValueError):
        return 0


@dataclass(frozen=True)
class _SplitAnswer:
    """An answer cut in two. *first_line* is the number of the front matter's first line in the raw answer."""

    front_matter: str
    body: str
    first_line: int

    @property
    def closer_line(self) -> int:
        return self.first_line + self.front_matter.count("\n") + 1


_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\r?\n")
_OPENER = re.compile(r"---[ \t]*(\r\n|\n|\r)")
_CLOSER = "\n---"


def _opened(raw: str, mode: ParseMode) -> tuple[_SplitAnswer | None, list[RuleBreak]]:
    """Cut *raw* in two, correcting what precedes the first ``---``, if *mode* allows that."""
    text, line, fenced, mended = _without_wrapping(raw)
    breaks = mended if mode == "strict" else []
    if not text.startswith("---\n"):
        found = text.partition("\n")[0][:40]
        breaks.append(RuleBreak(line, "opener", f"the answer begins with {found!r}, not with a line '---'"))
        return None, breaks
    end = text.find(_CLOSER, 4, 4 + LONGEST_FRONT_MATTER + len(_CLOSER))
    if end < 0:
        within = f" within {LONGEST_FRONT_MATTER} characters" if len(text) > LONGEST_FRONT_MATTER else ""
        breaks.append(RuleBreak(line, "closer", f"the front matter that begins here has no closing line '---'{within}"))
        return None, breaks
    after = text[end + len(_CLOSER) :]
    answer = _SplitAnswer(text[4:end], _without_fence(after.strip()) if fenced else after.strip(), line + 1)
    if mode == "strict" and not (after == "" or after.startswith("\n")):
        closer = ("---" + after.partition("\n")[0])[:_LONGEST_SHOWN]
        breaks.append(RuleBreak(answer.closer_line, "closer", f"the closing line is {closer!r}, not '---'"))
    return answer, breaks


def _without_wrapping(raw: str) -> tuple[str, int, bool, list[RuleBreak]]:
    """Return the answer from its first ``---``, that line's number, whether it was fenced, and what was corrected."""
    if raw.startswith("---\n"):
        return raw, 1, False, []
    text, line, breaks = raw, 1, []
    if text.startswith("\ufeff"):
        text = text[1:]
        breaks.append(RuleBreak(line, "byte-order-mark", "the answer begins with a byte order mark"))
    fenced = False
    for _ in range(2):  # blank lines may precede a fence, and follow it
        bare = text.lstrip()
        if bare != text:
            blank = text[: len(text) - len(bare)]
            breaks.append(RuleBreak(line, "leading-blank", "blank space stands before the front matter"))
            line += blank.count("\n")
            text = bare
        if not fenced and (fence := _FENCE.match(text)):
            breaks.append(RuleBreak(line, "code-fence", "the answer stands in a code fence"))
            text, line, fenced = text[fence.end() :], line + 1, True
    opener = _OPENER.match(text)
    if opener and opener[1] != "\n":
        kind = "CRLF" if opener[1] == "\r\n" else "CR"
        breaks.append(RuleBreak(line, "line-ends", f"lines end with {kind}, not LF"))
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if opener and opener[0] != "---" + opener[1]:
        breaks.append(RuleBreak(line, "opener", "blanks follow the '---' that the answer begins with"))
        text = "---" + text[text.index("\n") :]
    return text, line, fenced, breaks


def _without_fence(body: str) -> str:
    """Drop the fence that closes the one before the front matter: at the body's end, or at its beginning."""
    lines = body.split("\n")
    if sum(line.startswith("```") for line in lines) % 2 == 0:
        return body  # every fence in the body has its partner there: the outer one was never closed
    if lines[-1].strip() == "```":
        return "\n".join(lines[:-1]).strip()
    if lines[0].strip() == "```":
        return "\n".join(lines[1:]).strip()
    return body


@dataclass(frozen=True)
class _Entry:
    """One ``key: value`` of the front matter. *tag* is YAML's guess at the type of the text *value*."""

    line: int
    key: str
    value: str
    tag: str


def _strict_entries(answer: _SplitAnswer, breaks: list[RuleBreak]) -> list[_Entry]:
    entries = []
    for line, text in enumerate(answer.front_matter.split("\n"), answer.first_line):
        key, colon, value = text.partition(": ")
        if colon:
            entries.append(_Entry(line, key, value, "str"))
        else:
            breaks.append(RuleBreak(line, "line", f"{text[:_LONGEST_SHOWN]!r} is not 'name: value'"))
    keys = [entry.key for entry in entries if entry.key in FIELDS]
    if keys != sorted(set(keys), key=list(FIELDS).index):
        more = " …" if len(keys) > 2 * len(FIELDS) else ""
        come = ", ".join(keys[: 2 * len(FIELDS)]) + more
        message = f"the fields come as {come}, not once each as {', '.join(FIELDS)}"
        breaks.append(RuleBreak(answer.first_line, "order", message))
    return entries


def _yaml_entries(answer: _SplitAnswer, breaks: list[RuleBreak]) -> list[_Entry]:
    """Read the front matter as YAML, only to nodes: no values are constructed, and aliases are not followed."""
    import yaml

    try:
        root = _composed(answer.front_matter)
    except yaml.MarkedYAMLError as error:
        line = answer.first_line + (error.problem_mark.line if error.problem_mark else 0)
        breaks.append(RuleBreak(line, "yaml", f"the front matter is not YAML: {one_line(str(error.problem), 120)}"))
        return []
    except (yaml.YAMLError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else reason_of(error)
        breaks.append(RuleBreak(answer.first_line, "yaml", f"the front matter is not YAML: {problem}"))
        return []
    if not isinstance(root, yaml.MappingNode):
        if root is not None:
            breaks.append(RuleBreak(answer.first_line, "yaml", "the front matter is not a list of 'name: value'"))
        return []
    return [_entry(key, value, answer.first_line) for key, value in root.value]


@functools.lru_cache(maxsize=64)  # reading YAML takes as long as everything else here, and front matters repeat
def _composed(front_matter: str) -> yaml.Node | None:
    import yaml

    return yaml.compose(front_matter, Loader=yaml.SafeLoader)


def _entry(key: yaml.Node, value: yaml.Node, first_line: int) -> _Entry:
    import yaml

    is_text = isinstance(value, yaml.ScalarNode)
    return _Entry(
        line=first_line + key.start_mark.line,
        key=key.value if isinstance(key, yaml.ScalarNode) else "a nested key",
        value=value.value if is_text else "a list or a mapping",
        tag=value.tag.rpartition(":")[2] if is_text else "nested",
    )


def _typed(
    entries: list[_Entry], answer: _SplitAnswer, mode: ParseMode, breaks: list[RuleBreak]
) -> dict[str, str | bool | int | None]:
    """Turn entries into the five fields; if a field is given twice, the last counts."""
    found = {entry.key: entry for entry in entries}
    for entry in entries:
        if entry.key not in FIELDS:
            breaks.append(
                RuleBreak(entry.line, "unknown-field", f"{entry.key[:_LONGEST_SHOWN]!r} is not a field of the format")
            )
    values: dict[str, str | bool | int | None] = {}
    for name, exact in FIELDS.items():
        if name not in found:
            breaks.append(RuleBreak(answer.closer_line, "missing-field", f"{name} is missing"))
            continue
        entry = found[name]
        if mode == "strict" and not exact.fullmatch(entry.value):
            breaks.append(
                RuleBreak(entry.line, "value", f"{name} is {entry.value[:_LONGEST_SHOWN]!r}, not {exact.pattern}")
            )
            continue
        try:
            values[name] = _READERS[exact](entry)
        except ValueError as error:
            breaks.append(RuleBreak(entry.line, "value", f"{name} is {entry.value[:_LONGEST_SHOWN]!r}, not {error}"))
    return values


def _language(entry: _Entry) -> str | None:
    if entry.tag == "null" or entry.value in ("None", "null", ""):
        return None
    if entry.tag == "bool" and entry.value.lower() == "no":
        return "no"  # Norwegian, which YAML 1.1 takes for False
    if entry.tag != "str" or len(entry.value) > _LONGEST_SHOWN or not _is_text(entry.value):
        raise ValueError("a language code or null")
    return entry.value


def _is_text(value: str) -> bool:
    """Return whether *value* can be written as UTF-8: YAML can also spell halves of characters."""
    return not any("\ud800" <= each <= "\udfff" for each in value)


_YAML_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _boolean(entry: _Entry) -> bool:
    word = entry.value.lower()
    if entry.tag == "bool" and word in _YAML_BOOLEANS:
        return _YAML_BOOLEANS[word]
    if entry.tag == "str" and word in ("true", "false"):
        return word == "true"
    raise ValueError("True or False")


def _rotation(entry: _Entry) -> int:
    degrees = _integer(entry)
    if degrees not in ROTATIONS:
        raise ValueError("0, 90, 180 or 270")
    return degrees


def _integer(entry: _Entry) -> int | None:
    import yaml

    try:
        if entry.tag == "int":  # YAML's own spellings: 0x5A, 0b1011010, 1:30
            node = yaml.ScalarNode("tag:yaml.org,2002:int", entry.value)
            return int(yaml.constructor.SafeConstructor().construct_yaml_int(node))
        return int(entry.value) if entry.tag == "str" else None
    except (ValueError, IndexError):  # PyYAML's own reading of '!!int' has the second
        return None


_READERS: dict[re.Pattern[str], Callable[[_Entry], str | bool | int | None]] = {
    _LANGUAGE: _language,
    _BOOLEAN: _boolean,
    _ROTATION: _rotation,
}
