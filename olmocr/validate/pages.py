"""Raw answers -> which are valid, and which rule each other one breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError
from olmocr.files import is_file, is_folder
from olmocr.page import PageResponseError, ParseMode, RuleBreak, parse_page_response
from olmocr.strays import own_parts

ANSWER_ENDINGS = (".md", ".txt")


@dataclass(frozen=True)
class CheckedAnswer:
    """One raw answer, and every rule it breaks, by line; it is valid if there are none."""

    path: Path
    breaks: tuple[RuleBreak, ...]


def check_answers(path: Path, mode: ParseMode) -> Iterator[CheckedAnswer]:
    """Check a file with one answer, or every ``*.md`` and ``*.txt`` in a folder and below, sorted by name.

    Raises:
        InputError: *path* or a file in it cannot be read, or there are no answers.
    """
    for file in _answer_files(path):
        # newline="" keeps CRLF, which this check must find.
        yield CheckedAnswer(file, _breaks(read_text(file, newline=""), mode))


def _answer_files(path: Path) -> list[Path]:
    if is_file(path):
        return [path]
    if not is_folder(path):
        raise InputError(f"there is no file or folder {path}")
    files = sorted(
        file for file in path.rglob("*") if file.suffix in ANSWER_ENDINGS and file.is_file() and own_parts(file, path)
    )
    if not files:
        raise InputError(f"{path} does not hold answers: no file in it ends with {' or '.join(ANSWER_ENDINGS)}")
    return files


def read_text(file: Path, newline: str | None = None) -> str:
    """Return the content of a text file, with line ends as :func:`open` makes them by *newline*.

    Raises:
        InputError: it cannot be read, or is not UTF-8 text.
    """
    try:
        with file.open(encoding="utf-8", newline=newline) as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


def _breaks(raw: str, mode: ParseMode) -> tuple[RuleBreak, ...]:
    try:
        parse_page_response(raw, mode)
    except PageResponseError as error:
        return error.breaks
    return ()
