"""Formulas -> a page that draws them with KaTeX; a browser's result for it -> Drawings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from olmocr.html import asset, page_policy
from olmocr.validate.bench.formulas.drawn import Drawing
from olmocr.viewer.katex import Katex

_HERE = "olmocr.validate.bench.formulas"

_MOST_SPANS = 20_000  # of one formula; macros can make any number from a short one

_CHROME = re.compile(r"Chrome/([0-9.]+)")  # in the user agent of each browser of the family

# White space and similar characters: thin spaces, joiners and marks of no width.
_SPACE = re.compile("[\\s\u200a-\u200d\u2060\ufeff]+")


class NotDrawnError(ValueError):
    """A browser did not finish a page; the text says what it left."""


@dataclass(frozen=True)
class Drawn:
    """The *drawings* of a page, in its formulas' order, None for one that KaTeX refuses.

    *versions* are KaTeX's and the browser's own.
    """

    drawings: tuple[Drawing | None, ...]
    versions: Mapping[str, str]


def formula_page(formulas: Sequence[str], katex: Katex, token: str) -> str:
    """Return a page whose script draws *formulas*, and puts the result into an element with the id *token*.

    Formulas come from a model's answers and may be hostile. They are included as JSON that cannot form a tag.
    """
    style, script = (asset(_HERE, f"formulas.{kind}") for kind in ("css", "js"))
    styles, scripts = (style, katex.style), (katex.script, script)
    data = json.dumps({"token": token, "formulas": formulas, "most": _MOST_SPANS}).replace("<", "\\u003c")
    return "".join(
        (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{page_policy(styles, scripts)}">',
            *(f"<style>{each}</style>" for each in styles),
            '</head><body><div id="formula"></div>',
            f'<script type="application/json" id="formulas">{data}</script>',
            *(f"<script>{each}</script>" for each in scripts),
            "</body></html>",
        )
    )


def parse_drawn(dump: str, token: str, count: int) -> Drawn:
    """Return a browser's result for a page with *count* formulas.

    Raises:
        NotDrawnError: it is not such a page, or its script did not finish.
    """
    before, _, rest = dump.partition(f'<pre id="{token}">')
    try:
        value = json.loads(rest.partition("</pre>")[0])
        drawn = Drawn(tuple(_drawing(each) for each in value["drawn"]), _versions(value))
    except (ValueError, TypeError, KeyError) as error:
        raise NotDrawnError(f"the browser left no drawings, but {(before or 'nothing')[-60:]!r}") from error
    if len(drawn.drawings) != count:
        raise NotDrawnError(f"the browser drew {len(drawn.drawings)} of {count} formulas")
    return drawn


def _versions(value: Any) -> Mapping[str, str]:
    browser = _CHROME.search(str(value["browser"]))
    return {"katex": str(value["katex"]), **({"chromium": browser[1]} if browser else {})}


def _drawing(value: Any) -> Drawing | None:
    if value is None:
        return None
    characters, across, down = [], [], []
    for text, left, top, width, height in value["glyphs"]:
        text = _SPACE.sub("", text)
        for number, character in enumerate(text):
            characters.append(character)
            # Each of several characters in one box counts with an equal share of its width.
            across.append(left + (width * number) / len(text) + width / len(text) / 2)
            down.append(top + height / 2)
    return Drawing(
        _SPACE.sub("", value["mathml"]),
        "".join(characters),
        np.array(across, np.float64),
        np.array(down, np.float64),
    )
