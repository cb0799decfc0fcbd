"""A document's pages, counted: what ``--stats`` adds up, and what says whether it is to be tried again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from olmocr.workspace.document import PageRecord

Tally = Counter[str]
"""Counts by name. ``pages.``, ``attempts.``, ``ends.`` and ``languages.`` are followed by which: ``pages.valid``.

So are ``server_pages.``, ``server_tokens.`` and ``server_milliseconds.``, by the server's address.
"""

ByServer = dict[str, dict[str, float]]
"""By a server's address: ``pages`` that it answered, their ``output_tokens`` and ``seconds``."""


def add_by_server(counts: ByServer, page: PageRecord) -> None:
    """Count a page with the server that answered it, if one did."""
    if page.server:
        counted = counts.setdefault(page.server, {"pages": 0, "output_tokens": 0, "seconds": 0.0})
        counted["pages"] += 1
        counted["output_tokens"] += page.output_tokens
        counted["seconds"] += page.seconds


def rounded(counts: ByServer) -> ByServer:
    """Return the same in the order of addresses, seconds to the thousandth."""
    return {url: {name: round(number, 3) for name, number in each.items()} for url, each in sorted(counts.items())}


def tally_of(pages: Iterable[PageRecord]) -> Tally:
    """Return *pages*, counted."""
    found: Tally = Counter()
    for page in pages:
        found[f"pages.{page.status}"] += 1
        found["poor"] += page.lacks_text
        found["askew"] += page.is_askew
        found["flagged"] += page.is_flagged
        found["input"] += page.input_tokens
        found["output"] += page.output_tokens
        found["wasted"] += page.total_output_tokens - page.output_tokens
        found["passes"] += page.passes
        found["passed"] += page.total_output_tokens if page.passes else 0
        found.update(f"ends.{end}" for end in page.ends)
        if page.server:
            found[f"server_pages.{page.server}"] += 1
            found[f"server_tokens.{page.server}"] += page.output_tokens
            found[f"server_milliseconds.{page.server}"] += round(1000 * page.seconds)
        if page.status == "valid":
            found[f"attempts.{page.attempts}"] += 1
            found[f"languages.{page.response.primary_language or 'none'}"] += 1
    return Counter({name: count for name, count in found.items() if count})


def counts_of(tally: Tally, kind: str) -> dict[str, int]:
    """Return the counts of one *kind*, by what follows its name."""
    return {name.partition(".")[2]: count for name, count in tally.items() if name.startswith(f"{kind}.")}
