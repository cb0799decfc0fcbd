"""Text from reports, models and servers -> markdown that only shows it."""

from __future__ import annotations

import re

from markupsafe import Markup

from olmocr.text import one_line, printable

# Characters that can begin syntax of CommonMark, GitHub's tables and links, or the Hub's formulas, emoji, mentions.
_MEANS_SOMETHING = re.compile(r"[\\`*_\[\]{}<>&|~$@#!^:]|(?<=[Ww]{3})\.")


def escaped(text: str) -> Markup:
    """Return *text* on one line, with a backslash before every character that means something in markdown."""
    return Markup(_MEANS_SOMETHING.sub(lambda match: "\\" + match[0], one_line(text)))  # noqa: S704


def code_block(text: str, language: str = "") -> Markup:
    """Return *text* as a block of code, whatever backticks it holds."""
    longest_run = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest_run + 1)
    return Markup(f"{fence}{language}\n{printable(text)}\n{fence}")  # noqa: S704
