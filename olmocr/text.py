"""Untrusted text -> text that can be shown: control characters of terminals and browsers become visible.

The standard library takes more than linear time for some texts, or refuses them; these functions handle any text.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair, which UTF-8 cannot hold

# Control characters except tab and line end, direction overrides, and lone surrogates.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]|[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return *text* for a message: every character that cannot be printed, except the line end, is escaped."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def one_line(text: str, most: int | None = None) -> str:
    """Return *text* for a message on one line, spaces folded, cut at *most* characters."""
    line = printable(" ".join(text.split()))
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def in_a_line(text: str) -> str:
    """Return *text* for a message, line ends as escapes, too: a file name may contain anything."""
    return printable(text).replace("\n", "\\n")


def named(name: str) -> str:
    """Return the *name* of a file or URL in valid UTF-8: bytes that are not text become escapes."""
    return _HALF.sub(lambda half: ascii(half[0])[1:-1], name)


def whole(text: str) -> str:
    """Return *text* in valid UTF-8 at the same length: a lone surrogate becomes the replacement character."""
    return _HALF.sub("\ufffd", text)


def strict_json(value: Any, *, indent: int | None = None) -> str:
    """Return *value* as JSON that every reader accepts: no NaN, no infinity, no lone surrogates.

    Strict readers refuse a complete file for one of these. Line ends of all kinds and non-ASCII are escaped.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(_with_whole_texts(value), indent=indent, allow_nan=False)


def _with_whole_texts(value: Any) -> Any:
    match value:
        case str():
            return named(value)
        case dict():
            return {_with_whole_texts(key): _with_whole_texts(each) for key, each in value.items()}
        case list() | tuple():
            return [_with_whole_texts(each) for each in value]
    return value


def visible(text: str) -> str:
    """Return a page's *text* with line ends as LF, and control characters as pictures or numbers.

    Joiners, which Persian and emoji need, stay: this is a document's text, not a message.
    """
    return _OBEYED.sub(_name, text.replace("\r\n", "\n").replace("\r", "\n"))


def _name(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures of control characters: ␛ for escape
    return "\ufffd" if 0xD800 <= code < 0xE000 else f"[U+{code:04X}]"


_STRETCH = 256  # characters
_ASCII = re.compile("[\x00-\x7f]")
# Not marks, but they combine with what is before them: Korean vowels and finals, Japanese half-width sound marks.
_JOINS_ON = re.compile("[\u1160-\u11ff\u3131-\u318e\uff9e-\uffdc]")


def normalized(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
    """Return *text* in a Unicode normal form, in linear time.

    The standard library sorts a run of marks in quadratic time: 160,000 of them take 25 s. Here a run of more than 256
    may be cut, which is what Unicode's stream-safe format (UAX #15, section 13) does to one of more than 30.
    """
    if text.isascii():
        return text
    return "".join(unicodedata.normalize(form, stretch) for stretch in _stretches(text))


def _stretches(text: str) -> Iterator[str]:
    """Cut *text* into pieces of at most 512 characters, at characters that do not combine with earlier ones."""
    start = 0
    while start < len(text):
        end = min(len(text), start + _STRETCH)
        if end < len(text):
            found = _ASCII.search(text, end, end + _STRETCH)
            end = found.start() if found else _beginning(text, end)
        yield text[start:end]
        start = end


def _beginning(text: str, start: int) -> int:
    end = min(len(text), start + _STRETCH)
    begins = (
        at for at in range(start, end) if unicodedata.category(text[at])[0] != "M" and not _JOINS_ON.match(text[at])
    )
    return next(begins, end)


_ZEROS = re.compile("&#0+(?=[0-9])")
_BEYOND_UNICODE = re.compile("&#[1-9][0-9]{7,}")


def unescaped(text: str) -> str:
    """Return *text* with HTML's character references as characters; the library raises for one of 4300 digits."""
    return html.unescape(_BEYOND_UNICODE.sub("&#1114112", _ZEROS.sub("&#", text)))
