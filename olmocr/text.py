"""Text that strangers wrote -> text that can be shown: what a terminal or a browser would obey is made visible."""

from __future__ import annotations

import re

# Control characters except tab and line end, what turns the direction of writing, and half of a character.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]|[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return *text* for a message: every character that cannot be printed, except the line end, as its escape."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def one_line(text: str, most: int | None = None) -> str:
    """Return *text* for a message on one line, spaces folded, cut at *most* characters."""
    line = printable(" ".join(text.split()))
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def visible(text: str) -> str:
    """Return a page's *text* with line ends as LF, and what would be obeyed by its picture or number.

    What joins letters, as Persian or emoji need it, stays: this is somebody's text, and not a message.
    """
    return _OBEYED.sub(_name, text.replace("\r\n", "\n").replace("\r", "\n"))


def _name(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures of control characters: ␛ for escape
    return "\ufffd" if 0xD800 <= code < 0xE000 else f"[U+{code:04X}]"
