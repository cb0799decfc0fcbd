"""Rows -> the next token of each, and what fits of its draft: one pass over the weights."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np

from olmocr.inference.draft import Beside
from olmocr.inference.guided import Guide
from olmocr.inference.model import LoadedModel
from olmocr.inference.passes.cache import Layers, cache_for
from olmocr.inference.passes.forward import embed, forward, logits
from olmocr.inference.room import rounded
from olmocr.inference.row import Row
from olmocr.inference.sampling import choose


@dataclass(frozen=True)
class Step:
    """A pass over the weights that has been queued.

    ``tokens`` are those chosen: for each row, in this order, one, and one more for each token of its draft.
    """

    rows: Sequence[Row]
    drafts: Sequence[list[int]]
    tokens: mx.array

    @property
    def is_plain(self) -> bool:
        """Whether each row has just one token in it, so that the next step may begin with it, still unseen."""
        return not any(self.drafts)

    def token_of(self, row: Row) -> mx.array | None:
        """Return a row's one token (1,), still unseen."""
        if row not in self.rows:
            return None
        place = self.rows.index(row)
        return self.tokens[place : place + 1]

    def settle(self) -> Iterator[tuple[Row, list[int], list[int]]]:
        """Look at the tokens: yield each row, what was chosen for it, and its draft."""
        tokens = cast(list[int], self.tokens.tolist())
        for row, draft in zip(self.rows, self.drafts, strict=True):
            chosen, tokens = tokens[: len(draft) + 1], tokens[len(draft) + 1 :]
            yield row, chosen, draft


class ModelRunner:
    """The passes of one model, and the KV cache of all rows. The last pass may be under way, its tokens unseen.

    Where more than *drafted_pages* are written at once, there are no drafts.
    """

    def __init__(self, loaded: LoadedModel, drafted_pages: int) -> None:
        self._language = loaded.language
        self._drafted_pages = drafted_pages
        self._cache = cache_for(loaded.device, len(loaded.language.blocks))
        self._flying: Step | None = None

    def due(self, rows: Sequence[Row]) -> Step | None:
        """Return the pass under way if the next one of *rows* cannot begin before its tokens are known."""
        flying = self._flying
        if flying is None or (flying.is_plain and not any(self._waits(row, len(rows)) for row in rows)):
            return None
        self._flying = None
        return flying

    def queue(self, rows: Sequence[Row]) -> Step | None:
        """Queue a pass that gives each of *rows* its next tokens; return the one before if it is still to be settled.

        The next one is queued before that is looked at, so that the device never waits for Python.
        """
        before, self._flying = self._flying, None
        if rows:
            self._flying = self._step(rows, before)
        return before

    def clear(self) -> None:
        """Hold nothing; a pass under way would hold on to the cache."""
        self._flying = None
        self._cache.clear()

    def prompt_of(self, row: Row) -> Layers:
        """Return a copy of what the model made of a row's prompt, without its last token."""
        count = row.prompt_length - 1
        return row.prompt_cache.beginning(count) if row.prompt_cache else self._cache.beginning(row, count)

    def _waits(self, row: Row, rows: int) -> bool:
        return row.guide is not None or (rows <= self._drafted_pages and row.is_drafting)

    def _step(self, rows: Sequence[Row], before: Step | None) -> Step:
        unseen = [before.token_of(row) if before else None for row in rows]
        drafts = proposals(rows) if len(rows) <= self._drafted_pages else [[] for _ in rows]
        parts = [
            mx.array(row.unread + draft, dtype=mx.int32) if token is None else token
            for row, token, draft in zip(rows, unseen, drafts, strict=True)
        ]
        counts = [part.shape[0] for part in parts]
        self._arrange(rows, counts)
        embeddings = embed(self._language, mx.concatenate(parts))
        hidden = forward(self._language, embeddings, _positions(rows, counts), self._cache)
        for row, count in zip(rows, counts, strict=True):
            row.given += count
        wanted = [len(draft) + 1 for draft in drafts]
        scores = logits(self._language, _last(hidden, counts, wanted))
        draws = [
            # A row whose last token is not seen yet has written one more than it knows of.
            row.draw(int(token is not None) + ahead)
            for row, token, count in zip(rows, unseen, wanted, strict=True)
            for ahead in range(count)
        ]
        tokens = choose(scores, draws, _allowed([row.guide for row in rows], wanted, scores.shape[1]))
        mx.async_eval(tokens)  # type: ignore[no-untyped-call]
        return Step(tuple(rows), drafts, tokens)

    def _arrange(self, rows: Sequence[Row], counts: Sequence[int]) -> None:
        """Have the cache hold just *rows*, and expect so many tokens of each."""
        new = [row.prompt_cache for row in rows if row.prompt_cache]
        lengths = [row.given for row in rows]
        self._cache.arrange(rows, new, rounded(max(map(operator.add, lengths, counts))))
        for row in rows:
            row.prompt_cache = None
        self._cache.expect(lengths, counts)


def proposals(rows: Sequence[Row]) -> list[list[int]]:
    """Return the tokens proposed for each of *rows*: first for those whose drafts were right most often.

    Each is as long as pays beside what is in the pass already, so that all together are no more than the device takes.
    """
    drafts: list[list[int]] = [[] for _ in rows]
    beside = Beside(len(rows) - 1, len(rows) - 1)
    for place in sorted(range(len(rows)), key=lambda place: -rows[place].confidence):
        drafts[place] = rows[place].propose(beside)
        count = len(drafts[place])
        beside = Beside(beside.tokens + count, beside.expected + rows[place].expected(count))
    return drafts


def _positions(rows: Sequence[Row], counts: Sequence[int]) -> mx.array:
    """Return the positions (tokens,) of text that goes on behind what the model was given of each row."""
    places = [row.given + row.rope_delta + np.arange(count) for row, count in zip(rows, counts, strict=True)]
    return mx.array(np.concatenate(places).astype(np.int32))


def _last(hidden: mx.array, counts: Sequence[int], wanted: Sequence[int]) -> mx.array:
    """Return the hidden states of the last *wanted* of each row's tokens."""
    if list(counts) == list(wanted):
        return hidden
    ends = np.cumsum(counts)
    places = [np.arange(end - count, end) for end, count in zip(ends, wanted, strict=True)]
    return hidden[:, mx.array(np.concatenate(places))]


def _allowed(guides: Sequence[Guide | None], wanted: Sequence[int], size: int) -> mx.array | None:
    """Return which of *size* tokens may come at each place (places, size); None if any may come at all of them."""
    if not any(guides):
        return None
    rows = [
        guide.allowed(size)[None] if guide else np.ones((count, size), dtype=np.bool_)
        for guide, count in zip(guides, wanted, strict=True)
    ]
    return mx.array(np.concatenate(rows))
