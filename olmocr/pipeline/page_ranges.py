"""The text of ``--pages`` -> which pages of a document are read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from olmocr.errors import UsageError
from olmocr.text import one_line

_RANGE = re.compile(r"(?:([0-9]{1,9})|(?:([0-9]{1,9})\s*)?-\s*([0-9]{1,9})?)")


@dataclass(frozen=True)
class PageRanges:
    """Ranges of page numbers from 1, both ends included; an end that is None is the document's last page."""

    ranges: tuple[tuple[int, int | None], ...]

    def __contains__(self, page_number: int) -> bool:
        return any(first <= page_number and (last is None or page_number <= last) for first, last in self.ranges)

    def numbers(self, page_count: int) -> tuple[int, ...]:
        """Return the numbers that a document of *page_count* pages has, each once, in ascending order."""
        chosen: set[int] = set()
        for first, last in self.ranges:
            chosen.update(range(first, min(page_count, page_count if last is None else last) + 1))
        return tuple(sorted(chosen))


def wanted_numbers(pages: PageRanges | None, page_count: int) -> tuple[int, ...]:
    """Return the wanted page numbers of a document with *page_count* pages: those in *pages*, or all."""
    return pages.numbers(page_count) if pages else tuple(range(1, page_count + 1))


def parse_page_ranges(text: str) -> PageRanges:
    """Read ``1-5,9,12-``: numbers from 1, and ranges that may be open at either end.

    Raises:
        UsageError: it is something else, or a range ends before it begins.
    """
    return PageRanges(tuple(_range(part, text) for part in text.split(",")))


def _range(part: str, text: str) -> tuple[int, int | None]:
    part = part.strip()
    match = _RANGE.fullmatch(part)
    if match is None or part == "-":
        given, wrong = one_line(text, 120), one_line(part, 40)
        raise UsageError(f"pages must be like 1-5,9,12-, not {given!r}: {wrong!r} is neither a page nor a range")
    one, first, last = match.groups()
    begin, end = int(one or first or 1), int(one or last) if one or last else None
    if begin < 1 or (end is not None and end < begin):
        raise UsageError(f"pages are counted from 1 upwards, unlike {part!r}")
    return begin, end
