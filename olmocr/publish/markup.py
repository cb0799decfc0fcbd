"""Text from reports, models and servers -> markdown that shows it and does nothing else."""

from __future__ import annotations

import re

from markupsafe import Markup

from olmocr.text import one_line, printable

# All that CommonMark, GitHub's tables and links, and the Hub's formulas, emoji and mentions could begin with.
_MEANS_SOMETHING = re.compile(r"[\\`*_\[\]{}<>&|~$@#!^:]|(?<=[Ww]{3})\.")


def escaped(text: str) -> Markup:
    """Return *text* on one line, every character that markdown gives a meaning behind a backslash."""
    return Markup(_MEANS_SOMETHING.sub(lambda match: "\\" + match[0], one_line(text)))  # noqa: S704


def code_block(text: str, language: str = "") -> Markup:
    """Return *text* as a block of code, whatever backticks it holds."""
    longest_run = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest_run + 1)
    return Markup(f"{fence}{language}\n{printable(text)}\n{fence}")  # noqa: S704
