"""Text -> the form in which olmOCR-bench compares it, and the places where a phrase stands in it, nearly or exactly."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import numpy.typing as npt

# In this order: a pair within a pair of the other kind is left for the pass after it.
_MARKS = tuple(
    (re.compile(pattern), kept)
    for pattern, kept in (
        (r"<br/?>", " "),
        (r"\*\*(.*?)\*\*", r"\1"),
        (r"__(.*?)__", r"\1"),
        (r"</?[bi]>", ""),
        (r"(\*\*|__)(.*?)\1", r"\2"),
        (r"(\*|_)(.*?)\1", r"\2"),
        (r"\s+", " "),
    )
)
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a", "'"),  # single quotation marks
        **dict.fromkeys("\u201c\u201d\u201e", '"'),  # double ones
        **dict.fromkeys("\u2013\u2014\u2011\u2012\u2212", "-"),  # dashes, a hyphen that does not break, minus
        "\uff3f": "_",  # a full-width low line
        "\u00b5": "\u03bc",  # the micro sign, which is a Greek mu
    }
)


def normalized(text: str) -> str:
    """Return *text* without marks of bold and italic type, on one line, with plain quotation marks and dashes."""
    for pattern, kept in _MARKS:
        text = pattern.sub(kept, text)
    return unicodedata.normalize("NFC", text).translate(_ALIKE)


def places(phrase: str, text: str, most_edits: int) -> list[int]:
    """Return where *phrase* begins in *text*, with at most so many characters wrong, missing or added.

    Of matches that overlap only the best one counts: the one with the fewest edits, of these the longest.
    """
    if most_edits == 0:
        return [match.start() for match in re.finditer(f"(?={re.escape(phrase)})", text)]
    edits = _edits_by_end(phrase, text)
    best: list[tuple[int, int, int]] = []  # of each run of matches that overlap: edits, minus its length, its start
    reach = 0  # where the last run ends
    for end in np.flatnonzero(edits <= most_edits).tolist():
        start = _start(phrase, text, end, int(edits[end]))
        match = (int(edits[end]), start - end, start)
        if best and start < reach:
            best[-1] = min(best[-1], match)
        else:
            best.append(match)
        reach = end
    return [start for _, _, start in best]


def _edits_by_end(phrase: str, text: str) -> npt.NDArray[np.int64]:
    """Return for each place in *text*, its end included, the fewest edits of a match that ends before it."""
    letters = np.array([ord(letter) for letter in phrase])
    steps = np.arange(len(phrase) + 1)
    column = steps.copy()  # edits of each beginning of the phrase
    found = np.empty(len(text) + 1, np.int64)
    found[0] = column[-1]
    for place, letter in enumerate(text, 1):
        after = column + 1
        after[0] = 0  # a match may begin anywhere
        np.minimum(after[1:], column[:-1] + (letters != ord(letter)), out=after[1:])
        column = np.minimum.accumulate(after - steps) + steps
        found[place] = column[-1]
    return found


def _start(phrase: str, text: str, end: int, edits: int) -> int:
    """Return where the longest match with *edits* that ends before *end* begins."""
    window = text[max(0, end - len(phrase) - edits) : end]
    backwards = _edits_of_beginnings(phrase[::-1], window[::-1])
    return end - int(np.flatnonzero(backwards == edits)[-1])


def _edits_of_beginnings(phrase: str, text: str) -> npt.NDArray[np.int64]:
    """Return for each length of a beginning of *text* how many edits it is from *phrase*."""
    letters = np.array([ord(letter) for letter in phrase])
    steps = np.arange(len(phrase) + 1)
    column = steps.copy()
    found = [int(column[-1])]
    for letter in text:
        after = column + 1
        np.minimum(after[1:], column[:-1] + (letters != ord(letter)), out=after[1:])
        column = np.minimum.accumulate(after - steps) + steps
        found.append(int(column[-1]))
    return np.array(found)
