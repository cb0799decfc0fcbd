"""The page at ``/``: a person drops a document, and its pages appear as they are read."""

from __future__ import annotations

import functools

from olmocr.html import asset, page_head, page_template

_HERE = "olmocr.serving"


@functools.cache
def start_page() -> str:
    """Return the page as HTML. It is the same for everybody: its script requests everything else, with the key."""
    head = page_head([asset(_HERE, "start.css")], [asset(_HERE, "start.js")], asks_its_server=True)
    return page_template(_HERE, "start.html").render(**head)
