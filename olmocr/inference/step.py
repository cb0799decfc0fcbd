"""Rows -> the next token of each, and the tokens of its draft that fit: one pass over the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from olmocr.inference.sampling import Draw, choose, choose_now


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


@dataclass(frozen=True)
class _Part:
    """A row's part in a pass: its tokens that the model has not been given, and the *draft* of what follows them.

    ``unseen`` (1,) is its last token, if that is chosen but not read yet.
    """

    row: Row
    unseen: mx.array | None
    draft: list[int]

    @cached_property
    def tokens(self) -> mx.array:
        """What the model is given, (count,)."""
        return mx.array(self.row.unread + self.draft, dtype=mx.int32) if self.unseen is None else self.unseen

    @property
    def count(self) -> int:
        return len(self.tokens)

    def draws(self) -> list[Draw]:
        """Return how to choose the next token, and one after each token of the draft."""
        # A row whose last token is unread has written one token more than it knows of.
        written = int(self.unseen is not None)
        return [self.row.draw(written + ahead) for ahead in range(len(self.draft) + 1)]


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

    def allocated(self, rows: int, capacity: int) -> int:
        """Return for how many tokens there is memory once there are so many *rows*, the longest with *capacity*."""
        return self._cache.allocated(rows, capacity)

    def prompt_of(self, row: Row) -> Layers:
        """Return a copy of the keys and values of a row's prompt, without its last token."""
        count = row.prompt_length - 1
        return row.prompt_cache.beginning(count) if row.prompt_cache else self._cache.beginning(row, count)

    def _waits(self, row: Row, rows: int) -> bool:
        return row.guide is not None or (rows <= self._drafted_pages and row.is_drafting)

    def _step(self, rows: Sequence[Row], before: Step | None) -> Step:
        drafts = proposals(rows, self._is_padded) if len(rows) <= self._drafted_pages else [[] for _ in rows]
        parts = [
            _Part(row, before.token_of(row) if before else None, draft) for row, draft in zip(rows, drafts, strict=True)
        ]
        parts = self._arrange(parts)
        counts = [part.count for part in parts]
        embeddings = embed(self._language, mx.concatenate([part.tokens for part in parts]))
        hidden = forward(self._language, embeddings, _positions(parts), self._cache)
        for part in parts:
            part.row.given += part.count
        wanted = [len(part.draft) + 1 for part in parts]
        scores = logits(self._language, _last(hidden, counts, wanted))
        draws = [draw for part in parts for draw in part.draws()]
        tokens = (choose if self._may_queue else choose_now)(
            scores, draws, _allowed([part.row.guide for part in parts], wanted, scores.shape[1])
        )
        mx.async_eval(tokens)  # type: ignore[no-untyped-call]
        return Step([part.row for part in parts], [part.draft for part in parts], tokens)

    def _arrange(self, parts: Sequence[_Part]) -> list[_Part]:
        """Make the cache contain exactly the rows of *parts* and expect their tokens; return *parts* in its order."""
        rows = [part.row for part in parts]
        new = [row.prompt_cache for row in rows if row.prompt_cache]
        capacity = rounded(max(part.row.given + part.count for part in parts))
        ordered = [parts[number] for number in self._cache.arrange(rows, new, capacity)]
        for row in rows:
            row.prompt_cache = None
        self._cache.expect([part.row.given for part in ordered], [part.count for part in ordered])
        return ordered


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


def _positions(parts: Sequence[_Part]) -> mx.array:
    """Return the positions (tokens,) of text that follows the tokens that the model was given of each row."""
    places = [part.row.given + part.row.rope_delta + np.arange(part.count) for part in parts]
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
