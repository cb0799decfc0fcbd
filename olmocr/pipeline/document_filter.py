"""A document's own text -> why it is not worth reading in a collection, if so. Only this module uses py3langid."""

from __future__ import annotations

import re
from collections.abc import Iterable

from olmocr.errors import MissingDependencyError
from olmocr.runtime.extras import install_command

SAMPLE_PAGES = 5
"""How many of a document's first pages are examined."""

_FEWEST_CHARACTERS = 200
_FEWEST_LETTERS = 0.5  # of the characters; with fewer it is a scan's rubbish, or a table, and has no clear language
_MOST_SPAM = 0.004  # of the words

# Words that abound on pages made for search engines rather than readers.
_SPAM = frozenset(
    {"download", "downloads", "ebook", "ebooks", "epub", "mobi", "torrent", "casino", "casinos", "betting", "viagra"}
    | {"cialis", "porn", "forex", "coupon"}
)
_WORD = re.compile(r"[^\W\d_]+")


def why_filtered(text: str, *, has_form: bool, languages: Iterable[str]) -> str | None:
    """Return why a document is left out: it is a form, in none of *languages* (ISO 639-1 codes), or spam; or None.

    *text* is the file's own text of its first pages. A document with too little text to judge is not left out.

    Raises:
        MissingDependencyError: the extra that detects languages is not installed.
    """
    if has_form:
        return "it is a form"
    if len(text) < _FEWEST_CHARACTERS or sum(map(str.isalpha, text)) < _FEWEST_LETTERS * len(text):
        return None
    wanted, found = frozenset(languages), _language_of(text)
    if found not in wanted:
        return f"its language is {found}, not {' or '.join(sorted(wanted))}"
    words = [word.casefold() for word in _WORD.findall(text)]
    spam = sum(word in _SPAM for word in words)
    if spam > _MOST_SPAM * len(words):
        return f"{spam} of {len(words)} words are typical of advertising"
    return None


def _language_of(text: str) -> str:
    """Return the ISO 639-1 code of the most likely language of *text*."""
    try:
        from py3langid.langid import classify
    except ImportError as error:
        raise MissingDependencyError(
            f"`apply_filter` needs a package that detects languages; install it with: {install_command('filter')}"
        ) from error
    code: str = classify(text)[0]
    return code
