"""Prose from a Python installation: descriptions of packages, licences, docstrings; cut into windows of tokens.

The windows depend on the installed packages and on the seed. No paragraph occurs twice, not even in different windows;
paragraphs with the same beginning count as one. So calibration and measurement never share a paragraph, although most
packages have one of four licences.
"""

from __future__ import annotations

import ast
import itertools
import random
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

WINDOW = 256  # tokens
LEAST_PARAGRAPH = 200  # characters: no headings
LEAST_WORDS = 0.85  # the share of letters and spaces: no code, no rows of badges
BEGINNING = 60  # letters: paragraphs that begin alike are taken for the same
LARGEST_FILE = 400_000  # bytes
MOST_WINDOWS = 8  # of one document

Windows = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prose:
    """Windows (windows, tokens) to *calibrate* on and to *measure* on."""

    calibrate: Windows
    measure: Windows


def find_prose(encode: Callable[[str], list[int]], calibrate: int, measure: int, seed: int = 16) -> Prose:
    """Return *calibrate* and *measure* windows, a third of each of descriptions, licences and docstrings.

    Raises:
        RuntimeError: the installation does not have as much.
    """
    shuffled, seen = random.Random(seed), set[str]()
    parts: list[tuple[list[list[int]], list[list[int]]]] = []
    for number, (place, patterns, read) in enumerate(KINDS):
        files = _files(place, patterns)
        shuffled.shuffle(files)
        # Thirds that add up; the first windows are measured, so that these stay when more are calibrated on.
        wanted = [share(measure, number), share(calibrate, number)]
        windows = _windows(_tokens(map(read, files), seen, encode), sum(wanted))
        parts.append((windows[wanted[0] :], windows[: wanted[0]]))
    return Prose(*(np.array(list(itertools.chain(*windows)), np.int32) for windows in zip(*parts, strict=True)))


def share(total: int, number: int) -> int:
    """Return how many of *total* belong to kind *number* of three."""
    return total // 3 + (number < total % 3)


def _tokens(documents: Iterable[str], seen: set[str], encode: Callable[[str], list[int]]) -> Iterator[list[int]]:
    """Yield each document's tokens, without paragraphs that occurred before."""
    for document in documents:
        fresh = []
        for paragraph in filter(is_prose, document.split("\n\n")):
            beginning = "".join(filter(str.isalpha, paragraph.lower()))[:BEGINNING]
            if beginning not in seen:
                seen.add(beginning)
                fresh.append(paragraph.strip())
        if fresh:
            yield encode("\n\n".join(fresh))


def is_prose(paragraph: str) -> bool:
    """Return whether *paragraph* is long enough and consists of words."""
    words = sum(letter.isalpha() or letter.isspace() for letter in paragraph)
    return len(paragraph) >= LEAST_PARAGRAPH and words >= LEAST_WORDS * len(paragraph)


def _windows(documents: Iterator[list[int]], count: int) -> list[list[int]]:
    """Return *count* windows, each of one document."""
    windows: list[list[int]] = []
    for tokens in documents:
        whole = len(tokens) // WINDOW
        windows += [tokens[number * WINDOW :][:WINDOW] for number in range(min(whole, MOST_WINDOWS))]
        if len(windows) >= count:
            return windows[:count]
    raise RuntimeError(f"this Python installation has prose for {len(windows)} windows of one kind, not for {count}")


def described(path: Path) -> str:
    """Return the description of the package whose METADATA is at *path*."""
    return _read(path).partition("\n\n")[2]


def docstrings(path: Path) -> str:
    """Return the docstrings of the module in *path*."""
    try:
        module = ast.parse(_read(path))
    except (SyntaxError, ValueError):
        return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return "\n\n".join(ast.get_docstring(node) or "" for node in ast.walk(module) if isinstance(node, documented))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="ignore")


KINDS: tuple[tuple[str, tuple[str, ...], Callable[[Path], str]], ...] = (
    ("purelib", ("*.dist-info/METADATA",), described),
    ("purelib", tuple(f"*.dist-info/**/{name}" for name in ("LICEN[CS]E*", "COPYING*", "*NOTICE*")), _read),
    ("stdlib", ("*.py",), docstrings),
)
"""Where files of each kind are, and how text is read from one."""


def _files(place: str, patterns: Sequence[str]) -> list[Path]:
    folder = Path(sysconfig.get_path(place))
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and path.stat().st_size < LARGEST_FILE)
