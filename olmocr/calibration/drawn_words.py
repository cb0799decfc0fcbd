"""Chance -> the text of a drawn page, block by block."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from olmocr.calibration.drawn_texts import (
    COLUMNS,
    GOODS,
    HEADINGS,
    ITEMS,
    LABELS,
    LANGUAGES,
    STEPS,
    SYLLABLES,
    TEMPLATES,
    THINGS,
    TRADES,
)

_SLOT = re.compile(r"\{(\w+)\}")
_LETTERS, _DIGITS = "ABCDEFGHJKLMNPQRTUVWXY", "0123456789"
_TEMPLATED = 0.4  # of English sentences: those with unpredictable names, numbers and codes


@dataclass(frozen=True)
class Block:
    """Text on lines of its own: *text* on one page."""

    style: Literal["paragraph", "heading", "line", "item"]
    text: str


class Writer:
    """Writes random texts; a sentence repeats only after all others of its language."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._decks: dict[Sequence[str], list[str]] = {}
        self._slots: dict[str, Callable[[], str]] = {
            "name": self.name,
            "town": lambda: self._invented().capitalize(),
            "trade": lambda: self._dealt(TRADES),
            "things": lambda: self._dealt(THINGS),
            "number": lambda: f"{chance.randrange(2, 10 ** chance.randint(1, 4)):,}",
            "year": lambda: str(chance.randrange(1690, 2040)),
            "date": lambda: f"{chance.randrange(1, 29)} {chance.choice(_MONTHS)} {chance.randrange(1820, 2030)}",
            "money": lambda: chance.choice(("$", "£", "EUR ")) + self._amount(),
            "percent": lambda: f"{chance.randrange(1, 1000) / 10} %",
            "code": lambda: self._drawn(_LETTERS, chance.randint(1, 3)) + "-" + self._drawn(_DIGITS, 5),
        }

    def blocks(self, content: str, language: str) -> Iterator[Block]:
        """Yield blocks of the kinds in *content*, endlessly, or until a kind runs out."""
        if content in ("article", "list", "steps"):
            yield Block("heading", self._dealt(HEADINGS))
        if content == "numbers":
            while True:
                yield Block("line", f"{self._dealt(LABELS)} {self._figures()}")
        if content == "list":
            yield Block("paragraph", self._paragraph(language, 2))
            yield from (Block("item", self._dealt(ITEMS)) for _ in range(5))
        if content == "steps":
            yield from (Block("line", f"{number}. {step}") for number, step in enumerate(STEPS, 1))
        if language != "en":
            sentences = list(LANGUAGES[language])
            self._chance.shuffle(sentences)
            yield from (
                Block("paragraph", " ".join(sentences[start : start + 3])) for start in range(0, len(sentences), 3)
            )
            return
        while True:
            yield Block("paragraph", self._paragraph(language, self._chance.randint(1, 3)))

    def table(self, columns: int, rows: int) -> tuple[tuple[str, ...], ...]:
        """Return a table: its head, *rows* - 1 rows, and *columns* columns, the first of which contains names."""
        kinds = self._chance.sample(COLUMNS, columns - 1)
        body = [(self._dealt(GOODS), *(self._cell(kind) for kind in kinds)) for _ in range(rows - 1)]
        return (("Item", *kinds), *body)

    def name(self) -> str:
        """Return an invented name of a person."""
        first = self._chance.choice(("Dr. ", "Mrs. ", "", "", f"{self._chance.choice(_LETTERS)}. "))
        return first + self._invented().capitalize()

    def _paragraph(self, language: str, sentences: int) -> str:
        return " ".join(self._sentence(language) for _ in range(sentences))

    def _sentence(self, language: str) -> str:
        if language == "en" and self._chance.random() < _TEMPLATED:
            return _SLOT.sub(lambda slot: self._slots[slot[1]](), self._dealt(TEMPLATES))
        return self._dealt(LANGUAGES[language])

    def _cell(self, column: str) -> str:
        chance = self._chance
        if column == "Date":
            return f"{chance.randrange(1990, 2030)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
        if column in ("Price", "Sum"):
            return self._amount()
        if column == "Share":
            return f"{chance.randrange(1, 1000) / 10}%"
        if column == "Weight":
            return f"{chance.randrange(1, 9000) / 10} kg"
        return self._slots["code" if column == "Code" else "year" if column == "Year" else "number"]()

    def _figures(self) -> str:
        """Return figures in groups, such as an account's number."""
        chance = self._chance
        if chance.random() < 0.3:
            return self._amount()
        return " ".join(self._drawn(_DIGITS, chance.randint(2, 5)) for _ in range(chance.randint(1, 3)))

    def _amount(self) -> str:
        return f"{self._chance.randrange(100, 10 ** self._chance.randint(4, 7)) / 100:,.2f}"

    def _drawn(self, letters: str, count: int) -> str:
        return "".join(self._chance.choice(letters) for _ in range(count))

    def _invented(self) -> str:
        return "".join(self._chance.choice(SYLLABLES) for _ in range(self._chance.randint(2, 3)))

    def _dealt(self, all_of_them: Sequence[str]) -> str:
        """Return one, and all others before the same one again."""
        deck = self._decks.setdefault(all_of_them, [])
        if not deck:
            deck.extend(all_of_them)
            self._chance.shuffle(deck)
        return deck.pop()


_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "October", "November", "December")
