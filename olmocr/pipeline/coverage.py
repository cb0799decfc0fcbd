"""A page's own text and the answer to it -> how much of the one is in the other."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter

LOW_COVERAGE = 0.7
"""Below this an answer has probably left text out.

A page of two columns that lost one has about 0.5, one of three columns 0.67. What olmOCR leaves out on purpose,
running heads, page numbers and labels within figures, is seldom three words in ten.
"""

_FEWEST_WORDS = 20  # with fewer, a running head alone is a third of the page
_LONGEST = 200_000  # characters; a page of newsprint has 40,000
_FEWEST_READABLE = 0.9  # of a layer's characters; a font without a Unicode table gives private ones or none at all
_MOST_SINGLE = 0.5  # of a layer's words; "T h i s" is a layer whose spaces mean nothing

_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_INLINE_TAG = re.compile(r"</?(?:a|b|em|i|s|small|span|strong|sub|sup|u)\b[^<>]*>", re.IGNORECASE)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_MARKS = re.compile("[_^{}\\\\*`\u0300-\u036f]+")  # x_2 and x^{2} are x2, *word* is word, accents go
_HYPHEN = re.compile("(?<=\\w)[-\u00ad\u2010\u2011\u2013\ufffe](?:[ \t]*\r?\n[ \t]*)?(?=\\w)")
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"  # Thai … Khmer, kana, Han
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def coverage(text_layer: str | None, answer: str | None) -> float | None:
    """Return the share, from 0 to 1, of the words in the file's own text that the answer has, each as often.

    Order, case, accents, hyphens, ligatures and markup do not matter; single letters, which formulas are full of, do
    not count. None where the file's text is no measure: fewer than 20 words, or unreadable.
    """
    if not text_layer:
        return None
    wanted = _words(text_layer[:_LONGEST])
    if wanted.total() < _FEWEST_WORDS or not _is_readable(text_layer[:_LONGEST]):
        return None
    found = wanted & _words(_without_markup((answer or "")[: 2 * _LONGEST]))
    return found.total() / wanted.total()


def _without_markup(answer: str) -> str:
    text = _TAG.sub(" ", _INLINE_TAG.sub("", answer)) if "<" in answer else answer
    text = html.unescape(text) if "&" in text else text
    return _COMMAND.sub(" ", text) if "\\" in text else text


def _words(text: str) -> Counter[str]:
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    text = _MARKS.sub("", _HYPHEN.sub("", text.casefold()))
    return Counter(word for word in _WORD.findall(text) if len(word) > 1 or word.isdigit() or _is_unspaced(word))


def _is_unspaced(character: str) -> bool:
    return _UNSPACED_CHARACTER.match(character) is not None


def _is_readable(text: str) -> bool:
    """Say whether a layer is text, and not glyph numbers in disguise or single letters."""
    kinds = Counter(map(unicodedata.category, "".join(text.split())))
    readable = 1 - (kinds["Co"] + kinds["Cn"] + kinds["Cc"] + text.count("\ufffd")) / len(text)
    words = [word for word in text.split() if word.isalpha() and word.isascii()]
    singles = sum(len(word) == 1 for word in words)
    return readable >= _FEWEST_READABLE and singles <= _MOST_SINGLE * max(1, len(words))
