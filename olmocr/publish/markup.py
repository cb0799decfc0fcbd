"""Text from reports, models and servers -> markdown that shows it and does nothing else."""

from __future__ import annotations

import re

from markupsafe import Markup

from olmocr.text import printable

# All that CommonMark, GitHub's tables and links, and the Hub's formulas, emoji and mentions could begin with.
_MEANS_SOMETHING = re.compile(r"[\\`*_\[\]{}<>&|~$@#!^:]|(?<=[Ww]{3})\.")


def escaped(text: str) -> Markup:
    """Return *text* on one line, every character that markdown gives a meaning behind a backslash."""
    return Markup(_MEANS_SOMETHING.sub(lambda match: "\\" + match[0], " ".join(printable(text).split())))  # noqa: S704


def code_span(text: str) -> Markup:
    """Return *text* on one line as inline code. Not for a table's cell, which a bar in it would end."""
    line = " ".join(printable(text).split())
    fence = "`" * (_longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{fence}{space}{line}{space}{fence}")  # noqa: S704


def code_block(text: str, language: str = "") -> Markup:
    """Return *text* as a block of code, whatever backticks it holds."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markup(f"{fence}{language}\n{printable(text)}\n{fence}")  # noqa: S704


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
