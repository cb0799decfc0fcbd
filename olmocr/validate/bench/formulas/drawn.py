"""A drawn formula -> whether another one can be seen in it, compared as in olmOCR-bench.

Formulas that look alike can be written in many ways, also in MathML. So the comparison is about which character is next
to which: above, below, left and right.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NEAR = 5.0
"""CSS pixels, at 24 to the em, by which two characters of one row or column may be misaligned."""

_MOST_STEPS = 100_000
"""Characters tried at a place before two formulas count as different; an answer may require any number."""

Places = npt.NDArray[np.float64]
Neighbours = tuple[int, int, int, int]
"""Which character is next above, below, left and right, by its number; -1 for none."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A formula as a browser drew it.

    *mathml* is KaTeX's MathML for it, without white space. *characters* are the n visible ones, and
    *x* and *y* (n) the middle of each in CSS pixels, float64.
    """

    mathml: str
    characters: str
    x: Places
    y: Places

    @functools.cached_property
    def neighbours(self) -> list[Neighbours]:
        """The neighbours of each character (n)."""
        return [self._beside(number) for number in range(len(self.characters))]

    @functools.cached_property
    def counts(self) -> Counter[str]:
        """How often each character occurs."""
        return Counter(self.characters)

    @functools.cached_property
    def numbers(self) -> dict[str, list[int]]:
        """The numbers of each character's places, in their order."""
        found: dict[str, list[int]] = {}
        for number, character in enumerate(self.characters):
            found.setdefault(character, []).append(number)
        return found

    def _beside(self, number: int) -> Neighbours:
        across, down = self.x - self.x[number], self.y - self.y[number]
        in_column, in_row = np.abs(across) <= _NEAR, np.abs(down) <= _NEAR
        return (
            _nearest(-down, in_column & (down < 0)),
            _nearest(down, in_column & (down > 0)),
            _nearest(-across, in_row & (across < 0)),
            _nearest(across, in_row & (across > 0)),
        )


Drawings = Mapping[str, Drawing | None]
"""Formulas as written, and as drawn; None for one that cannot be drawn."""


def _nearest(distances: Places, among: npt.NDArray[np.bool_]) -> int:
    return int(np.where(among, distances, np.inf).argmin()) if among.any() else -1


def shows(drawing: Drawing, wanted: Drawing) -> bool:
    """Return whether *wanted* can be seen in *drawing*, which may show more.

    It can if its MathML is a part of the other's. It also can if each of its characters matches a different one of the
    other's, with the same neighbours wherever *wanted* has any.
    """
    if wanted.mathml and wanted.mathml in drawing.mathml:
        return True
    if not wanted.characters or wanted.counts - drawing.counts:
        return False
    return _can_be_placed(drawing, wanted)


def _can_be_placed(drawing: Drawing, wanted: Drawing) -> bool:
    """Return whether all of *wanted*'s characters find a place, by trying with backtracking."""
    size = len(wanted.characters)
    candidates = [_candidates(drawing, wanted, number) for number in range(size)]
    if not all(candidates):
        return False
    known = [[(way, at) for way, at in enumerate(beside) if 0 <= at < n] for n, beside in enumerate(wanted.neighbours)]
    placed: list[int] = []
    taken: set[int] = set()
    waiting: list[Iterator[int]] = [iter(candidates[0])]
    for _ in range(_MOST_STEPS):
        place = next(waiting[-1], None)
        if place is None:
            waiting.pop()
            if not waiting:
                return False
            taken.discard(placed.pop())
            continue
        beside = drawing.neighbours[place]
        if place in taken or any(beside[way] != placed[at] for way, at in known[len(placed)]):
            continue
        placed.append(place)
        taken.add(place)
        if len(placed) == size:
            return True
        waiting.append(iter(candidates[len(placed)]))
    return False


def _candidates(drawing: Drawing, wanted: Drawing, number: int) -> list[int]:
    """Return which of *drawing*'s characters are the same, and have the same neighbours."""
    beside = [(way, wanted.characters[other]) for way, other in enumerate(wanted.neighbours[number]) if other >= 0]
    return [
        place
        for place in drawing.numbers.get(wanted.characters[number], [])
        if all(
            (other := drawing.neighbours[place][way]) >= 0 and drawing.characters[other] == character
            for way, character in beside
        )
    ]
