"""A workspace -> its content in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from olmocr.workspace.document import Failure
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.opening import memory_to_read
from olmocr.workspace.tally import ByServer, Tally, by_server, counts_of

_LONG_DOCUMENT_TOKENS = 32768


@dataclass(frozen=True)
class Stats:
    """Documents and pages by outcome. *attempts* counts good pages by how often the model was asked.

    *ends* counts attempts by how they ended. *passes_a_token* is how many passes over the weights it took to write a
    token with this process's model; it is None if that wrote none. *poor_pages* lack much of the file's own text;
    *askew_pages* were never found upright: every answer called them rotated. *long_documents* have more than 32768
    tokens. *servers* gives for each model server how many pages it answered, with how many tokens, and their total
    seconds from first question to last answer.
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


def read_stats(workspace: Path | StorePlace) -> Stats:
    """Count what *workspace* contains.

    Raises:
        InputError: it is not a workspace.
        OutputError: its records cannot be opened.
    """
    states: Counter[str] = Counter()
    total: Tally = Counter()
    failures, seen, long = [], set(), 0
    with memory_to_read(workspace) as records:
        for document in records.documents():
            states[document.state] += 1
            if document.state == "failed":
                failures.append(Failure(document.name, document.why or ""))
            if document.sha256 is None or document.sha256 in seen:
                continue
            seen.add(document.sha256)
            tally = records.tally(document.sha256)
            total.update(tally)
            long += tally["output"] > _LONG_DOCUMENT_TOKENS
        if others := records.others_done():
            states["done by upstream's olmOCR"] += others
    ends = Counter(counts_of(total, "ends"))
    return Stats(
        documents=dict(sorted(states.items())),
        pages=dict(sorted(counts_of(total, "pages").items())),
        poor_pages=total["poor"],
        askew_pages=total["askew"],
        attempts={int(number): count for number, count in sorted(counts_of(total, "attempts").items(), key=_number)},
        ends=dict(ends.most_common()),
        languages=dict(Counter(counts_of(total, "languages")).most_common()),
        input_tokens=total["input"],
        output_tokens=total["output"],
        wasted_output_tokens=total["wasted"],
        passes_a_token=round(total["passes"] / total["passed"], 3) if total["passed"] else None,
        long_documents=long,
        failures=tuple(failures),
        servers=by_server(total),
    )


def _number(counted: tuple[str, int]) -> int:
    return int(counted[0])


def stats_lines(stats: Stats) -> list[str]:
    """Return *stats* as text for people."""
    passes = f", {stats.passes_a_token:.2f} passes a token" if stats.passes_a_token is not None else ""
    attempts = ", ".join(f"{count} pages after {number}" for number, count in stats.attempts.items())
    return [
        f"documents: {_counts(stats.documents)}; {stats.long_documents} with more than {_LONG_DOCUMENT_TOKENS} tokens",
        f"pages:     {_counts(stats.pages)}; {stats.poor_pages} perhaps incomplete"
        + (f", {stats.askew_pages} never found upright" if stats.askew_pages else ""),
        f"attempts:  {attempts or 'none'}; ended by: {_counts(stats.ends)}",
        f"languages: {_counts(stats.languages)}",
        f"tokens:    {stats.input_tokens} read, {stats.output_tokens} written, "
        f"{stats.wasted_output_tokens} written in answers that were not accepted{passes}",
        *server_lines(stats.servers),
        *(f"failed:    {each.source}: {each.why}" for each in stats.failures),
    ]


def server_lines(servers: ByServer) -> list[str]:
    """Return what each server answered, in words: one line, or none if there were no servers."""
    told = (
        f"{url} {counts['pages']:.0f} pages, {counts['seconds'] / counts['pages']:.1f} s each"
        for url, counts in sorted(servers.items())
    )
    return [f"servers:   {'; '.join(told)}"] if servers else []


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
