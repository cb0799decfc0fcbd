"""Patterns on MLX module paths, as recipes and ``--keep`` write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from olmocr.errors import UsageError

_TOKEN = re.compile(
    r"""
    (?P<anything> \* )
    | \{ (?P<alternatives> [\w.]+ (?: , [\w.]+ )* ) \}
    | (?<!\w) (?P<numbered> layers | blocks ) \. \[ (?P<numbers> -?\d{1,4} | (?:-?\d{1,4})? : (?:-?\d{1,4})? ) \]
      (?= \. | $ )
    | (?P<text> (?: (?! (?<!\w) (?: layers | blocks ) \.\[ ) [\w.] )+ )
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Numbered:
    """The modules ``layers.N`` or ``blocks.N`` for the N that *numbers*, a Python slice or index, selects."""

    kind: str
    numbers: str

    def texts(self, count: int) -> tuple[str, ...]:
        start, colon, stop = self.numbers.partition(":")
        if colon:
            selected = range(count)[slice(int(start) if start else None, int(stop) if stop else None)]
        else:
            number = int(start) + (count if start.startswith("-") else 0)
            selected = range(count)[number : number + 1] if number >= 0 else range(0)
        return tuple(f"{self.kind}.{number}" for number in selected)


# The parts of a pattern: any characters (None), one of several texts, or numbered modules.
_Part = tuple[str, ...] | _Numbered | None


@dataclass(frozen=True)
class Pattern:
    """A glob on a module's path.

    ``*`` is any characters, ``{a,b}`` one of several, and ``[start:stop]`` or ``[n]`` right after ``layers.`` or
    ``blocks.`` selects among the numbered modules as Python does: ``language_model.model.layers.[-2:].*``.
    """

    text: str
    parts: tuple[_Part, ...]

    def matches(self, path: str, blocks: Mapping[str, int]) -> bool:
        """Return whether the pattern matches all of *path*; *blocks* counts ``layers`` and ``blocks``.

        Follows every way through the pattern at once, so no pattern is slow, as a regular expression's can be.
        """
        ends = {0}
        for part in self.parts:
            if part is None:
                ends = set(range(min(ends), len(path) + 1))
            else:
                texts = part.texts(blocks[part.kind]) if isinstance(part, _Numbered) else part
                ends = {end + len(text) for end in ends for text in texts if path.startswith(text, end)}
            if not ends:
                return False
        return len(path) in ends


def parse_pattern(text: str) -> Pattern:
    """Return the pattern that *text* spells.

    Raises:
        UsageError: *text* is not a pattern; the message says from where on.
    """
    parts: list[_Part] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            given, rest = text[:120], text[position:][:60]
            raise UsageError(
                f"{given!r} is not a pattern from {rest!r} on: a pattern is a module's path, in which * is any "
                "characters, {a,b} one of several, and layers.[-2:] or blocks.[0] selects by number"
            )
        parts.append(_part(token))
        position = token.end()
    if not parts:
        raise UsageError("'' is not a pattern: it matches nothing")
    return Pattern(text, tuple(parts))


def _part(token: re.Match[str]) -> _Part:
    if token["anything"]:
        return None
    if token["numbered"]:
        return _Numbered(token["numbered"], token["numbers"])
    return tuple(token["alternatives"].split(",")) if token["alternatives"] else (token["text"],)
