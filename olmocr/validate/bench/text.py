"""Text -> the form in which olmOCR-bench compares it."""

from __future__ import annotations

import re

from olmocr.text import normalized as in_normal_form

# In this order: a pair inside a pair of the other kind is left for the next pass.
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
    return in_normal_form("NFC", text).translate(_ALIKE)
