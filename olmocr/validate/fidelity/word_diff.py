"""Two texts -> their equal and different stretches, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from olmocr.validate.score import changes, numbers_in

# A tag, spaces, a line end, one ideograph or syllable (written without spaces), anything else up to these.
_WIDE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"</?[a-zA-Z][^<>\n]{{0,200}}>|[^\S\n]+|\n|[{_WIDE}]|<|[^\s<{_WIDE}]+")

MOST_WORDS = 12_000
"""How many words of each text are compared, including spaces: an alignment's memory grows with their product."""


@dataclass(frozen=True)
class Stretch:
    """A part of both texts, as it is in each."""

    before: str
    after: str

    @property
    def is_same(self) -> bool:
        """Whether both texts have it alike."""
        return self.before == self.after

    @property
    def numbers(self) -> tuple[str, str] | None:
        """The numbers in either, if they differ."""
        numbers = " ".join(numbers_in(self.before)), " ".join(numbers_in(self.after))
        return numbers if numbers[0] != numbers[1] else None


def word_diff(before: str, after: str) -> tuple[Stretch, ...]:
    """Return both texts in stretches; no two adjacent ones differ. Tags and table cells are words.

    Beyond *MOST_WORDS*, the rest of the texts is one stretch.

    Raises:
        MissingDependencyError: rapidfuzz is not installed.
    """
    if before == after:
        return (Stretch(before, after),) if before else ()
    words, others = _WORD.findall(before), _WORD.findall(after)
    stretches = list(_aligned(words[:MOST_WORDS], others[:MOST_WORDS]))
    rest = Stretch("".join(words[MOST_WORDS:]), "".join(others[MOST_WORDS:]))
    return tuple(_merged([*stretches, rest]))


def _aligned(words: Sequence[str], others: Sequence[str]) -> Iterator[Stretch]:
    for start, end, other_start, other_end in changes(words, others):
        yield Stretch("".join(words[start:end]), "".join(others[other_start:other_end]))


def _merged(stretches: Sequence[Stretch]) -> Iterator[Stretch]:
    """Join changes separated by one space only: two replaced words count as one change, not as two."""
    last = Stretch("", "")
    for number, each in enumerate(stretches):
        between = each.is_same and each.before == " " and number + 1 < len(stretches) and not last.is_same
        if last.is_same == (each.is_same and not between):
            last = Stretch(last.before + each.before, last.after + each.after)
        else:
            if last != Stretch("", ""):
                yield last
            last = each
    if last != Stretch("", ""):
        yield last
