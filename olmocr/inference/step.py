"""Rows -> the next token of each, and the tokens of its draft that fit: one pass over the weights."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np

from olmocr.inference.draft import Beside, longest_padded
from olmocr.inference.guided import Guide
from olmocr.inference.model import LoadedModel
from olmocr.inference.passes.cache import AnswersCache, Layers
from olmocr.inference.passes.forward import embed, forward, logits
from olmocr.inference.room import rounded
from olmocr.inference.row import Row
from olmocr.inference.sampling import choose, choose_now


@dataclass(frozen=True)
class Step:
    """A queued pass over the weights.

    ``tokens`` are the chosen tokens: for each row, in this order, one, and one more for each token of its draft.
    """

    rows: Sequence[Row]
    drafts: Sequence[list[int]]
    tokens: mx.array

    @property
    def is_plain(self) -> bool:
        """Whether each row has only one token in it, so that the next step may begin with it before it is read."""
        return not any(self.drafts)

    def token_of(self, row: Row) -> mx.array | None:
        """Return a row's only token (1,), which is not read yet."""
        if row not in self.rows:
            return None
        place = self.rows.index(row)
        return self.tokens[place : place + 1]

    def settle(self) -> Iterator[tuple[Row, list[int], list[int]]]:
        """Read the tokens: yield each row, the tokens chosen for it, and its draft."""
        tokens = cast(list[int], self.tokens.tolist())
        for row, draft in zip(self.rows, self.drafts, strict=True):
            chosen, tokens = tokens[: len(draft) + 1], tokens[len(draft) + 1 :]
            yield row, chosen, draft


class ModelRunner:
    """The passes of one model, and the KV cache of all rows. The last pass may still run, with its tokens unread.

    With more than *drafted_pages* answers at once, there are no drafts.
    """

    def __init__(self, loaded: LoadedModel, drafted_pages: int) -> None:
        self._language = loaded.language
        self._is_padded = loaded.device.kind == "cuda"
        self._may_queue = not loaded.language.is_eager
        self._drafted_pages = drafted_pages
        self._cache: AnswersCache = loaded.language.batch_cache(loaded.device)
        self._flying: Step | None = None

    def due(self, rows: Sequence[Row]) -> Step | None:
        """Return the running pass if the next one, of *rows*, cannot begin before its tokens are known."""
        flying = self._flying
        if flying is None or (
            self._may_queue and flying.is_plain and not any(self._waits(row, len(rows)) for row in rows)
        ):
            return None
        self._flying = None
        return flying

    def queue(self, rows: Sequence[Row]) -> Step | None:
        """Queue a pass that gives each of *rows* its next tokens; return the one before if it is not settled yet.

        The next pass is queued before the one before is read, so that the device never waits for Python.
        """
        before, self._flying = self._flying, None
        if rows:
            self._flying = self._step(rows, before)
        return before

    def clear(self) -> None:
        """Drop everything, including a running pass, which would keep the cache alive."""
        self._flying = None
        self._cache.clear()

    def prompt_of(self, row: Row) -> Layers:
        """Return a copy of the keys and values of a row's prompt, without its last token."""
        count = row.prompt_length - 1
        return row.prompt_cache.beginning(count) if row.prompt_cache else self._cache.beginning(row, count)

    def _waits(self, row: Row, rows: int) -> bool:
        return row.guide is not None or (rows <= self._drafted_pages and row.is_drafting)

    def _step(self, rows: Sequence[Row], before: Step | None) -> Step:
        unseen = [before.token_of(row) if before else None for row in rows]
        drafts = proposals(rows, self._is_padded) if len(rows) <= self._drafted_pages else [[] for _ in rows]
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
            # A row whose last token is unread has written one token more than it knows of.
            row.draw(int(token is not None) + ahead)
            for row, token, count in zip(rows, unseen, wanted, strict=True)
            for ahead in range(count)
        ]
        tokens = (choose if self._may_queue else choose_now)(
            scores, draws, _allowed([row.guide for row in rows], wanted, scores.shape[1])
        )
        mx.async_eval(tokens)  # type: ignore[no-untyped-call]
        return Step(tuple(rows), drafts, tokens)

    def _arrange(self, rows: Sequence[Row], counts: Sequence[int]) -> None:
        """Make the cache contain exactly *rows*, and expect *counts* tokens of each."""
        new = [row.prompt_cache for row in rows if row.prompt_cache]
        lengths = [row.given for row in rows]
        self._cache.arrange(rows, new, rounded(max(map(operator.add, lengths, counts))))
        for row in rows:
            row.prompt_cache = None
        self._cache.expect(lengths, counts)


def proposals(rows: Sequence[Row], is_padded: bool = False) -> list[list[int]]:
    """Return the tokens proposed for each of *rows*; rows whose drafts were right most often come first.

    Each draft is as long as pays, given what is already in the pass, so that all together are not too much for the
    device. If each row *is_padded* to the longest, a draft is no longer than what pays for all rows.
    """
    drafts: list[list[int]] = [[] for _ in rows]
    most = math.inf
    if is_padded and len(rows) > 1:
        most = longest_padded([drafter for row in rows if (drafter := row.drafter)], len(rows))
    beside = Beside(len(rows) - 1, len(rows) - 1)
    for place in sorted(range(len(rows)), key=lambda place: -rows[place].confidence):
        drafts[place] = rows[place].propose(beside, most)
        count = len(drafts[place])
        beside = Beside(beside.tokens + count, beside.expected + rows[place].expected(count))
    return drafts


def _positions(rows: Sequence[Row], counts: Sequence[int]) -> mx.array:
    """Return the positions (tokens,) of text that follows the tokens that the model was given of each row."""
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
    """Return which of *size* tokens are allowed at each place (places, size); None if all are allowed everywhere."""
    if not any(guides):
        return None
    rows = [
        guide.allowed(size)[None] if guide else np.ones((count, size), dtype=np.bool_)
        for guide, count in zip(guides, wanted, strict=True)
    ]
    return mx.array(np.concatenate(rows))
