"""A text that is being written -> whether it is stuck in a loop."""

from __future__ import annotations

import re

LONGEST_PERIOD = 1000
"""Characters of the longest block whose repetition is detected."""

_FEWEST_REPEATS = 12
_NEEDLE = 32  # characters
_STRIDE = 500  # characters

# More characters of repetition than any real page has. Better to stop a loop late than a real page early: a thousand
# more characters cost seconds, but a real page that is taken for a loop is lost.
_WORDS = 2000  # real: 30 equal address labels, 10 business cards, 40 lines of "Name: ____ Signature: ____"
_ROWS = 4000  # real: 50 table rows of "Yes", "No", "No", the tags counted
_FILLER = 8000  # real: 60 rows of 10 empty cells or zeros, 60 lines of dots or underscores over the whole width

_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_ROW = re.compile(r"</?t[dhr]\b|\|", re.IGNORECASE)
_LOOK_BACK = max(_FILLER, LONGEST_PERIOD * _FEWEST_REPEATS)  # characters at a text's end that decide
_FEWEST_SIGNS = 3  # different letters and digits; with fewer it is "N/A", 0.00, a hex dump of zeros


def is_looping(text: str) -> bool:
    """Say whether *text* ends in a block of at most 1000 characters that repeats 12 times, for 2000 characters.

    Rows of a table must repeat for 4000 characters, and text with hardly a letter in it (empty cells, zeros, dots) for
    8000, since real pages have much of these. The last block may be cut off. The check takes microseconds, however
    long the text is, so it can run after every token.
    """
    tail = text[-_LOOK_BACK:]
    if len(tail) < _WORDS:
        return False
    needle = tail[-_NEEDLE:]
    first = max(0, len(tail) - LONGEST_PERIOD - _NEEDLE)
    at = tail.rfind(needle, first, -1)
    while at >= 0:
        period = len(tail) - _NEEDLE - at
        if _repeats(tail, period, _WORDS):  # the shortest period; all longer ones are multiples of it
            return _repeats(tail, period, _enough(tail[-period:]))
        at = tail.rfind(needle, first, at + _NEEDLE - 1)
    return False


def has_looped(text: str) -> bool:
    """Say whether *text* has a loop anywhere, even one that it left: for an answer that came in one piece.

    A loop is found if it lasts for 500 characters more than :func:`is_looping` needs.
    """
    ends = range(_WORDS, len(text), _STRIDE)
    return any(is_looping(text[max(0, end - _LOOK_BACK) : end]) for end in ends) or is_looping(text)


def _repeats(tail: str, period: int, characters: int) -> bool:
    """Say whether the last *period* characters of *tail* repeat 12 times, and for at least so many *characters*."""
    span = max(characters, period * _FEWEST_REPEATS)
    return len(tail) >= span and tail[-span:-period] == tail[len(tail) - span + period :]


def _enough(block: str) -> int:
    """Return how many characters of *block*, repeated, are a loop rather than a page."""
    start = max(0, block.find("<"))  # the block may begin within a tag, which is not text
    text = _TAG.sub("", block[start:] + block[:start])
    if len(set(filter(str.isalnum, text))) < _FEWEST_SIGNS:
        return _FILLER
    return _ROWS if _ROW.search(block + block) else _WORDS
