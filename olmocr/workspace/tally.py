"""A document's pages, counted: what ``--stats`` adds up, and what decides whether it is tried again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from olmocr.workspace.document import PageRecord

Tally = Counter[str]
"""Counts by name. ``pages.``, ``attempts.``, ``ends.`` and ``languages.`` are followed by a kind: ``pages.valid``.

``server_pages.``, ``server_tokens.`` and ``server_milliseconds.`` are followed by the server's address.
"""

ByServer = dict[str, dict[str, float]]
"""By a server's address: ``pages`` that it answered, their ``output_tokens`` and ``seconds``."""


def count_server(tally: Tally, page: PageRecord) -> None:
    """Count a page with the server that answered it, if one did."""
    if page.server:
        tally[f"server_pages.{page.server}"] += 1
        tally[f"server_tokens.{page.server}"] += page.output_tokens
        tally[f"server_milliseconds.{page.server}"] += round(1000 * page.seconds)


def by_server(tally: Tally) -> ByServer:
    """Return what each server answered, in the order of addresses."""
    tokens, milliseconds = counts_of(tally, "server_tokens"), counts_of(tally, "server_milliseconds")
    return {
        url: {"pages": count, "output_tokens": tokens.get(url, 0), "seconds": milliseconds.get(url, 0) / 1000}
        for url, count in sorted(counts_of(tally, "server_pages").items())
    }


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
        count_server(found, page)
        if page.status == "valid":
            found[f"attempts.{page.attempts}"] += 1
            found[f"languages.{page.response.primary_language or 'none'}"] += 1
    return Counter({name: count for name, count in found.items() if count})


def counts_of(tally: Tally, kind: str) -> dict[str, int]:
    """Return the counts of one *kind*, by what follows its name."""
    return {name.partition(".")[2]: count for name, count in tally.items() if name.startswith(f"{kind}.")}
