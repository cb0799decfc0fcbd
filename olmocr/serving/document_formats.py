"""An Accept header -> the format for a document's pages; and these as plain markdown, in order."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Literal

_PIECE = 48 << 10  # bytes: three become four characters

DocumentFormat = Literal["application/x-ndjson", "text/event-stream", "text/markdown"]

LINES, EVENTS, MARKDOWN = "application/x-ndjson", "text/event-stream", "text/markdown"

# If a client names several with the same weight, the first of these is used; if it takes anything, lines are.
_NAMES: Mapping[DocumentFormat, tuple[str, ...]] = {
    "text/markdown": (MARKDOWN,),
    "text/event-stream": (EVENTS,),
    "application/x-ndjson": (LINES, "application/ndjson", "application/jsonl", "application/json"),
}

_RANGE = re.compile(r"\s*([^\s;,/]+/[^\s;,]+)\s*((?:;[^;]*)*)")

_WEIGHT = re.compile(r";\s*q\s*=\s*(0(?:\.\d*)?|1(?:\.0*)?)\s*(?:;|$)", re.IGNORECASE)


def wanted_format(accept: str) -> DocumentFormat:
    """Return the format that an ``Accept`` header requests, by its media types and their q-values (RFC 9110, 12.5.1).

    It is lines of JSON if the header is empty, takes anything, or names none of the formats.
    """
    weights = _weights(accept)
    best: DocumentFormat = "application/x-ndjson"
    best_weight, best_closeness = 0.0, 0
    for each, names in _NAMES.items():
        weight, closeness = max(_weight(name, weights) for name in names)
        if weight and closeness and (weight, closeness) > (best_weight, best_closeness):
            best, best_weight, best_closeness = each, weight, closeness
    return "application/x-ndjson" if weights.get("*/*", 0.0) > best_weight else best


def _weights(accept: str) -> dict[str, float]:
    """Return the weight of each range of media types; one that cannot be read is left out."""
    weights: dict[str, float] = {}
    for each in accept.lower().split(","):
        if found := _RANGE.fullmatch(each):
            weight = _WEIGHT.search(found[2])
            if weight or not re.search(r";\s*q\s*=", found[2]):
                weights[found[1]] = float(weight[1]) if weight else 1.0
    return weights


def _weight(name: str, weights: Mapping[str, float]) -> tuple[float, int]:
    """Return the weight of a media type, and how closely it is named: 2 by its name, 1 by its kind, 0 not at all."""
    for closeness, known in ((2, name), (1, f"{name.partition('/')[0]}/*")):
        if known in weights:
            return weights[known], closeness
    return 0.0, 0


def line_pieces(line: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield a line of ``DocumentReader.read`` as JSON with a line end: all at once, except a file as it is read."""
    return _framed(b"", line, b"\n")


def event_pieces(line: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the same as a server-sent event, named for the line's type."""
    return _framed(f"event: {line['type']}\ndata: ".encode(), line, b"\n\n")


def _framed(head: bytes, line: Mapping[str, Any], tail: bytes) -> Iterator[bytes]:
    if line["type"] != "file":
        yield head + json.dumps(line).encode() + tail
        return
    about = {name: value for name, value in line.items() if name != "content"}
    with line["content"].open() as file:
        yield head + json.dumps(about)[:-1].encode() + b', "base64": "'
        while piece := file.read(_PIECE):
            yield base64.b64encode(piece)
    yield b'"}' + tail


async def as_markdown(lines: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[bytes]:
    """Yield a document's text, page by page in order: each page once all before it are read.

    *lines* are those of ``DocumentReader.read``. Joined, the pieces are the ``markdown`` of the last line.
    """
    left: list[int] = []
    read: dict[int, str | None] = {}
    async with contextlib.aclosing(lines):
        async for line in lines:
            if line["type"] == "document":
                left = line["pages"][::-1]
            elif line["type"] == "page":
                read[line["page_number"]] = line["text"]
            while left and left[-1] in read:
                text = read.pop(left.pop())
                if text is not None:
                    yield (text + "\n" if left else text).encode()
