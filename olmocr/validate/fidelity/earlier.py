"""Stored measurements of a source -> its answers, by page.

Import it after ``start_mlx``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from olmocr.files import sha256_of, write_whole
from olmocr.page import PAGE_PROMPT
from olmocr.reports.typed_json import parse_as
from olmocr.validate.fidelity.reading import PageAnswer
from olmocr.validate.fidelity.work import Work
from olmocr.validate.known_pages.page_set import KnownPage

_FILE = "asked.json"


@dataclass(frozen=True)
class EarlierQuestion:
    """A source's questions: *pages* are the SHA-256 of each page's document, and its number there."""

    weights: Mapping[str, str]
    pages: tuple[tuple[str, int], ...]
    longest_side: int
    prompt: str


def write_asked(folder: Path, weights: Mapping[str, str], pages: Sequence[KnownPage], longest_side: int) -> None:
    """Write the questions into the *folder* of a measurement, so that its answers can be found again.

    Raises:
        OutputError: it cannot be written.
    """
    hashes = {path: sha256_of(path) for path in {page.path for page in pages}}
    asked = tuple((hashes[page.path], page.page_number) for page in pages)
    write_whole(folder / _FILE, json.dumps(asdict(EarlierQuestion(weights, asked, longest_side, PAGE_PROMPT))))


def earlier_answers(work: Path, weights: Mapping[str, str], longest_side: int) -> dict[tuple[str, int], PageAnswer]:
    """Return the answers below *work* of the source with these *weights* (SHA-256 by name) to pages of that size.

    Their keys are the SHA-256 of the page's document, and its number there, from 1.
    """
    found: dict[tuple[str, int], PageAnswer] = {}
    for path in sorted(work.glob(f"*/{_FILE}")):
        try:
            asked = parse_as(EarlierQuestion, path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (dict(asked.weights), asked.longest_side, asked.prompt) != (dict(weights), longest_side, PAGE_PROMPT):
            continue
        source = Work(path.parent / "source")
        numbers = [number for number in range(len(asked.pages)) if source.knows(number)]
        found |= {asked.pages[number]: source.page(number).reading.greedy for number in numbers}
    return found


def is_anything_kept(work: Path) -> bool:
    """Say whether there are answers below *work*, of any source."""
    return any(work.glob(f"*/{_FILE}"))
