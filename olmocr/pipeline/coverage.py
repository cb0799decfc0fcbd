"""A page's own text and the model's answer -> how much of the text is in the answer."""

from __future__ import annotations

import re
from collections import Counter

from olmocr.text import normalized, unescaped

_FEWEST_WORDS = 20  # with fewer, a running head alone is a third of the page
_LONGEST = 200_000  # characters; a page of newsprint has 40,000
_MOST_UNREADABLE = 0.1  # of a layer's characters; a font without a Unicode table gives private characters or none
_MOST_SINGLE = 0.5  # of a layer's words; "T h i s" is a layer whose spaces mean nothing

_UNREADABLE = re.compile("[\\x00-\\x08\\x0e-\\x1f\\x7f-\\x9f\\ue000-\\uf8ff\\ufffd]")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_INLINE_TAG = re.compile(r"</?(?:a|b|em|i|s|small|span|strong|sub|sup|u)\b[^<>]*>")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_MARKS = re.compile("[_^{}\\\\*`\u0300-\u036f]+")  # x_2 and x^{2} are x2, *word* is word, accents are dropped
_HYPHEN = re.compile("(?<=\\w)[-\u00ad\u2010\u2011\u2013\ufffe](?:[ \t]*\r?\n[ \t]*)?(?=\\w)")
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"  # Thai … Khmer, kana, Han
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def coverage(text_layer: str | None, answer: str | None) -> float | None:
    """Return the share, from 0 to 1, of the words in the file's own text that the answer has equally often.

    Order, case, accents, hyphens, ligatures and markup do not matter. Single letters, common in formulas, do not count.
    None if the file's text cannot be a measure: it has fewer than 20 words, or is unreadable.
    """
    wanted = _readable_words((text_layer or "")[:_LONGEST])
    if wanted is None or wanted.total() < _FEWEST_WORDS:
        return None
    found = wanted & _words(_without_markup((answer or "")[: 2 * _LONGEST]))
    return found.total() / wanted.total()


def _readable_words(layer: str) -> Counter[str] | None:
    """Return a layer's words without single letters; None if much is unreadable, or most words are single letters."""
    words = _words(layer)
    if len(_UNREADABLE.findall(layer)) > _MOST_UNREADABLE * len(layer):
        return None
    singles = [word for word in words if len(word) == 1 and word.isalpha() and not _UNSPACED_CHARACTER.match(word)]
    if sum(words[word] for word in singles) > _MOST_SINGLE * words.total():
        return None
    for word in singles:
        del words[word]
    return words


def _without_markup(answer: str) -> str:
    text = _TAG.sub(" ", _INLINE_TAG.sub("", answer)) if "<" in answer else answer
    text = unescaped(text) if "&" in text else text
    return _COMMAND.sub(" ", text) if "\\" in text else text


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(_MARKS.sub("", _HYPHEN.sub("", normalized("NFKD", text).casefold()))))
