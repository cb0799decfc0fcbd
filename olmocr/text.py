"""Anybody's text -> text that can be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return *text* with control characters shown, not obeyed, those that turn its direction among them."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)
