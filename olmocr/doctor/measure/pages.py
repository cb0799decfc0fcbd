"""The demo's pages -> requests to a model, with the text of their documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from olmocr.doctor.measure.terms import BLANK, TURNED, Demo
from olmocr.page import PageRequest
from olmocr.rendering.render import open_document

MAX_TOKENS = 1500

_SMALLER = 28  # the side, in pixels, of the square that becomes one token


@dataclass(frozen=True)
class PagesToRead:
    """The *first* few of *count* of the demo's pages (None: all of them), and their size in pixels."""

    demo: Demo
    count: int
    longest_side: int
    first: int | None = None


def make_requests(pages: PagesToRead, *, guided: bool = False) -> tuple[PageRequest, ...]:
    """Return requests for *pages*, spread over all pages that are upright and not blank.

    If *pages* needs more, they are repeated, each time a little smaller, so that no cache can know a page beforehand.
    """
    entries = json.loads((pages.demo.pages / "pages.json").read_text(encoding="utf-8"))
    places = [(each["pdf"], each["page"]) for each in entries]
    upright = [place for place in places if place[0] not in TURNED and place != BLANK]
    return tuple(
        _request(pages.demo, *place, pages.longest_side - _SMALLER * (number // len(upright)), guided=guided)
        for number, place in enumerate(spread(upright, pages.count)[: pages.first])
    )


def spread(places: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """Return *count* of *places*, evenly spread; if there are fewer, all of them are repeated."""
    if count <= len(places):
        return [places[number * len(places) // count] for number in range(count)]
    return [places[number % len(places)] for number in range(count)]


def _request(demo: Demo, name: str, number: int, longest_side: int, *, guided: bool) -> PageRequest:
    with open_document(demo.pages / name, name) as document:
        image, text = document.render(number, longest_side), document.text(number)
    return PageRequest(image, max_tokens=MAX_TOKENS, draft_text=text, guided=guided)
