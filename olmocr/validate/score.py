"""How far an answer is from the truth. The only module that uses rapidfuzz and fuzzysearch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from olmocr.errors import MissingDependencyError
from olmocr.html_tables import html_tables
from olmocr.runtime.extras import install_command

Table = tuple[tuple[str, ...], ...]
"""Rows of cells, as text."""

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_MARK = re.compile(r"^#{1,6} |\*\*|^[-*] ", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
"""A number, a date or a time: 1,479.68 and 2019-04-27 are one each."""


def character_error_rate(text: str, truth: str) -> float:
    """Return the Levenshtein distance of *text* from *truth*, divided by the truth's characters.

    It can exceed 1. An empty truth counts as one character, so that text where none should be is an error.

    Raises:
        MissingDependencyError: rapidfuzz is not installed.
    """
    return _distance(text, truth) / max(1, len(truth))


def word_error_rate(text: str, truth: str) -> float:
    """Return the same, counted in words.

    Raises:
        MissingDependencyError: rapidfuzz is not installed.
    """
    words = truth.split()
    return _distance(text.split(), words) / max(1, len(words))


def changes(words: Sequence[str], others: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Return the steps of a shortest way from *words* to *others*: the start and end of each in both.

    Equal stretches are steps, too.

    Raises:
        MissingDependencyError: rapidfuzz is not installed.
    """
    steps = _rapidfuzz().distance.Levenshtein.opcodes(words, others)
    return [(step.src_start, step.src_end, step.dest_start, step.dest_end) for step in steps]


def similarity(text: str, other: str) -> float:
    """Return how similar two texts are, from 0 to 1: what insertions and deletions leave of both.

    Raises:
        MissingDependencyError: rapidfuzz is not installed.
    """
    return float(_rapidfuzz().fuzz.ratio(text, other)) / 100


def partial_similarity(text: str, other: str) -> float:
    """Return the same for the shorter text and the most similar part of the longer one.

    Raises:
        MissingDependencyError: rapidfuzz is not installed.
    """
    return float(_rapidfuzz().fuzz.partial_ratio(text, other)) / 100


def _distance(text: Sequence[str], truth: Sequence[str]) -> int:
    return int(_rapidfuzz().distance.Levenshtein.distance(text, truth))


def places(phrase: str, text: str, most_edits: int) -> list[int]:
    """Return where *phrase* begins in *text*, with at most this many characters wrong, missing or added.

    Raises:
        MissingDependencyError: fuzzysearch is not installed.
    """
    try:
        import fuzzysearch
    except ImportError as error:
        raise _missing("fuzzysearch") from error
    return [match.start for match in fuzzysearch.find_near_matches(phrase, text, max_l_dist=most_edits)]


def _rapidfuzz() -> Any:
    try:
        import rapidfuzz
        import rapidfuzz.distance
    except ImportError as error:
        raise _missing("rapidfuzz") from error
    return rapidfuzz


def _missing(library: str) -> MissingDependencyError:
    return MissingDependencyError(f"{library} is not installed; install it with: {install_command('validate')}")


def plain(text: str) -> str:
    """Return *text* without HTML tags, marks of headings, lists and bold type, and with single spaces."""
    return " ".join(_MARK.sub("", _TAG.sub(" ", text)).split())


def numbers_in(text: str) -> list[str]:
    """Return the numbers, dates and times in *text*, without tags."""
    return NUMBER.findall(_TAG.sub(" ", text))


def exact_numbers(text: str, truth: str) -> int:
    """Return how many of the truth's numbers are in *text*, anywhere, counting repeats."""
    return (Counter(numbers_in(text)) & Counter(numbers_in(truth))).total()


def tables_in(text: str) -> list[Table]:
    """Return the HTML tables in *text*, with single spaces."""
    tables = html_tables(text, line_break="")
    return [tuple(tuple(" ".join(cell.text.split()) for cell in row) for row in table) for table in tables]


def exact_cells(tables: Sequence[Table], true: Sequence[Table]) -> int:
    """Return how many cells of *true* are in the same table, row and column with the same text."""
    return sum(
        cell == other
        for table, found in zip(true, tables, strict=False)
        for row, found_row in zip(table, found, strict=False)
        for cell, other in zip(row, found_row, strict=False)
    )


def exact_tables(tables: Sequence[Table], true: Sequence[Table]) -> int:
    """Return how many tables of *true* have the same rows and columns, and the same text in each."""
    return sum(table == found for table, found in zip_longest(true, tables) if table is not None)
