"""A workspace -> what it holds, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from olmocr.errors import InputError
from olmocr.files import is_file
from olmocr.workspace.document import Failure, PageRecord
from olmocr.workspace.records import RECORDS_FILE, records_to_read

_LONG_DOCUMENT_TOKENS = 32768

ByServer = dict[str, dict[str, float]]
"""By a server's address: ``pages`` that it answered, their ``output_tokens`` and ``seconds``."""


def add_by_server(counts: ByServer, page: PageRecord) -> None:
    """Count a page with the server that answered it, if one did."""
    if page.server:
        counted = counts.setdefault(page.server, {"pages": 0, "output_tokens": 0, "seconds": 0.0})
        counted["pages"] += 1
        counted["output_tokens"] += page.output_tokens
        counted["seconds"] += page.seconds


@dataclass(frozen=True)
class Stats:
    """Documents and pages by what came of them. *attempts* counts good pages by how often the model was asked.

    *ends* counts attempts by how they ended. *passes_a_token* is how many passes over the weights a token took that
    this process's model wrote, None if it wrote none. *poor_pages* lack much of the file's own text; *askew_pages*
    were called turned by every answer; *long_documents* have more than 32768 tokens. *servers* tells of each model
    server how many pages it answered, with how many tokens, and their seconds: the time from first question to last
    answer, added up.
    """

    documents: dict[str, int]
    pages: dict[str, int]
    poor_pages: int
    askew_pages: int
    attempts: dict[int, int]
    ends: dict[str, int]
    languages: dict[str, int]
    input_tokens: int
    output_tokens: int
    wasted_output_tokens: int
    passes_a_token: float | None
    long_documents: int
    failures: tuple[Failure, ...]
    servers: ByServer = field(default_factory=dict)


def rounded(counts: ByServer) -> ByServer:
    """Return the same in the order of addresses, seconds to the thousandth."""
    return {url: {name: round(number, 3) for name, number in each.items()} for url, each in sorted(counts.items())}


def read_stats(workspace: Path) -> Stats:
    """Count what *workspace* holds.

    Raises:
        InputError: it is no workspace.
        OutputError: its records cannot be opened.
    """
    if not is_file(workspace / RECORDS_FILE):
        raise InputError(f"{workspace} is no workspace: it has no {RECORDS_FILE}; run olmocr with it first")
    states: Counter[str] = Counter()
    pages: Counter[str] = Counter()
    attempts: Counter[int] = Counter()
    ends: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    servers: ByServer = {}
    failures, seen = [], set()
    with records_to_read(workspace) as records:
        for document in records.documents():
            states[document.state] += 1
            if document.state == "failed":
                failures.append(Failure(document.name, document.why or ""))
            if document.sha256 is None or document.sha256 in seen:
                continue
            seen.add(document.sha256)
            written = 0
            for page in records.pages(document.sha256).values():
                pages[page.status] += 1
                tokens["poor"] += page.lacks_text
                tokens["askew"] += page.is_askew
                tokens["input"] += page.input_tokens
                tokens["output"] += page.output_tokens
                tokens["wasted"] += page.total_output_tokens - page.output_tokens
                tokens["passes"] += page.passes
                tokens["passed"] += page.total_output_tokens if page.passes else 0
                ends.update(page.ends)
                add_by_server(servers, page)
                written += page.output_tokens
                if page.status == "valid":
                    attempts[page.attempts] += 1
                    languages[page.response.primary_language or "none"] += 1
            tokens["long"] += written > _LONG_DOCUMENT_TOKENS
    return Stats(
        documents=dict(sorted(states.items())),
        pages=dict(sorted(pages.items())),
        poor_pages=tokens["poor"],
        askew_pages=tokens["askew"],
        attempts=dict(sorted(attempts.items())),
        ends=dict(ends.most_common()),
        languages=dict(languages.most_common()),
        input_tokens=tokens["input"],
        output_tokens=tokens["output"],
        wasted_output_tokens=tokens["wasted"],
        passes_a_token=round(tokens["passes"] / tokens["passed"], 3) if tokens["passed"] else None,
        long_documents=tokens["long"],
        failures=tuple(failures),
        servers=rounded(servers),
    )


def stats_lines(stats: Stats) -> list[str]:
    """Return *stats* as a person reads them."""
    passes = f", {stats.passes_a_token:.2f} passes a token" if stats.passes_a_token is not None else ""
    attempts = ", ".join(f"{count} pages after {number}" for number, count in stats.attempts.items())
    return [
        f"documents: {_counts(stats.documents)}; {stats.long_documents} with more than {_LONG_DOCUMENT_TOKENS} tokens",
        f"pages:     {_counts(stats.pages)}; {stats.poor_pages} perhaps incomplete"
        + (f", {stats.askew_pages} called turned whichever way they were shown" if stats.askew_pages else ""),
        f"attempts:  {attempts or 'none'}; ended by: {_counts(stats.ends)}",
        f"languages: {_counts(stats.languages)}",
        f"tokens:    {stats.input_tokens} read, {stats.output_tokens} written, "
        f"{stats.wasted_output_tokens} written in answers that were not accepted{passes}",
        *server_lines(stats.servers),
        *(f"failed:    {each.source}: {each.why}" for each in stats.failures),
    ]


def server_lines(servers: ByServer) -> list[str]:
    """Return in words what each server answered: one line, or none where there was none."""
    told = (
        f"{url} {counts['pages']:.0f} pages, {counts['seconds'] / counts['pages']:.1f} s each"
        for url, counts in sorted(servers.items())
    )
    return [f"servers:   {'; '.join(told)}"] if servers else []


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
