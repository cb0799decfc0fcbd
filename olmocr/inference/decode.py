"""Pages that are asked -> their answers, many at once: pages join a running batch and leave it, at any step."""

from __future__ import annotations

import math
import operator
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import mlx.core as mx
import numpy as np

from olmocr.errors import AnswerError, InputError, OlmocrError, UsageError, reason_of
from olmocr.inference.byte_cache import Kept
from olmocr.inference.cache import BatchCache, Layers
from olmocr.inference.costs import measure_costs
from olmocr.inference.draft import Costs, Drafter, Source
from olmocr.inference.forward import embed, forward, logits
from olmocr.inference.guided import FrontMatter, Guide
from olmocr.inference.model import LoadedModel
from olmocr.inference.prompt import PageInputs, make_inputs
from olmocr.inference.prompt_reader import Reader, Reading
from olmocr.inference.row import Answer, Asked, GrowingText, Row
from olmocr.inference.sampling import choose
from olmocr.memory import shown_size
from olmocr.page import PageRequest

_ROOM = 256
"""Tokens by which a cache grows."""

_BODY_BYTES = 4 << 20
"""How much of earlier answers is kept, as drafts: some hundred pages."""


@dataclass(frozen=True)
class Limits:
    """How much a batch may hold: pages, bytes of keys and values, and tokens of a prompt between two steps.

    Where more than *drafted_pages* are written at once, there are no drafts. *costs* say how long drafts may be; they
    are measured before the first one, where they are None. A page joins when there is memory for *expected_tokens* of
    its answer; few have more.
    """

    pages: int
    kv_bytes: int
    prompt_step: int
    drafted_pages: int
    costs: Costs | None = None
    expected_tokens: int = 1024


@dataclass
class Counts:
    """What has been done. A row step is one answer's part in a step: it gives a token, and what fits of a draft.

    *ended_stop* to *failed* count pages by how they ended, *sent_back* how often one had to wait again for memory.
    """

    prompt_tokens: int = 0
    steps: int = 0
    row_steps: int = 0
    tokens: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    sent_back: int = 0
    ended_stop: int = 0
    ended_length: int = 0
    ended_loop: int = 0
    ended_time: int = 0
    cancelled: int = 0
    failed: int = 0

    @property
    def steps_a_token(self) -> float:
        """Passes over the weights that an answer took for each of its tokens; below 1 by drafts and forced tokens."""
        return self.row_steps / max(1, self.tokens)

    @property
    def accepted_a_draft(self) -> float:
        """Tokens of a draft that the model would have written itself, on average."""
        return self.accepted / max(1, self.drafts)

    def count_end(self, answer: Future[Answer]) -> None:
        """Count a page whose answer is there, or will not come."""
        if answer.cancelled():
            self.cancelled += 1
        elif answer.exception():
            self.failed += 1
        else:
            name = f"ended_{answer.result().finish_reason}"
            setattr(self, name, getattr(self, name) + 1)


@dataclass(frozen=True)
class _Step:
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


@dataclass(frozen=True)
class _Prepared:
    asked: Asked
    inputs: PageInputs
    most_tokens: int

    @property
    def prompt_length(self) -> int:
        return int(self.inputs.input_ids.shape[1])


class Batch:
    """The answers in the making, of one model, and the pages that wait. It belongs to the thread that owns MLX."""

    def __init__(
        self,
        loaded: LoadedModel,
        limits: Limits,
        is_looping: Callable[[str], bool] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loaded = loaded
        self._clock = clock
        self._limits = limits
        self._is_looping = is_looping
        self._reader = Reader(loaded, step=limits.prompt_step, most_bytes=limits.kv_bytes // 2, most=2 * limits.pages)
        self._waiting: deque[Asked] = deque()
        self._prepared: _Prepared | None = None
        self._joining: tuple[_Prepared, Reading, float] | None = None
        self._rows: list[Row] = []
        self._cache = BatchCache(len(loaded.model.language_model.layers))
        self._flying: _Step | None = None
        self._bodies: Kept[str] = Kept(_BODY_BYTES)
        self.counts = Counts()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._prepared or self._joining or self._rows)

    def add(self, asked: Asked) -> None:
        """Let a page wait until there is room for it."""
        self._waiting.append(asked)

    def require_room(self, request: PageRequest) -> None:
        """See that a page, and an answer of usual length, would fit.

        Raises:
            UsageError: they would not, whatever else there is.
        """
        length = int(make_inputs(self._loaded.processor, request).input_ids.shape[1])
        if _rounded(length + self._limits.expected_tokens) > self._most_tokens:
            raise UsageError(
                f"{shown_size(self._limits.kv_bytes)} have room for keys and values of {self._most_tokens} tokens, "
                f"and a page of {max(request.image.pixels.size)} pixels has {length}, its answer usually up to "
                f"{self._limits.expected_tokens} more; give {self._enough_for(length)}"
            )

    def _enough_for(self, length: int) -> str:
        needed = _rounded(length + self._limits.expected_tokens) * self._token_bytes
        return f"--kv-budget {shown_size(needed)} or more"

    def advance(self) -> None:
        """Do a bounded piece of work: at most one step of one image or prompt, and one of all answers."""
        self._drop_unwanted()
        self._end_overdue()
        self._admit()
        self._read()
        self._write()
        if self.is_idle:
            mx.clear_cache()

    def _end_overdue(self) -> None:
        """Give the answers whose time is over as far as they came."""
        now = self._clock()
        for row in [row for row in self._rows if row.ends_at <= now]:
            row.finish_reason = "time"
            self._let_go_if_finished(row)
        if self._joining and self._joining[2] <= now:
            prepared, self._joining = self._joining[0], None
            _give(prepared.asked, Answer("", (), "time", prepared.prompt_length))

    def _drop_unwanted(self) -> None:
        self._waiting = deque(asked for asked in self._waiting if not asked.answer.cancelled())
        if self._prepared and self._prepared.asked.answer.cancelled():
            self._prepared = None
        if self._joining and self._joining[0].asked.answer.cancelled():
            self._joining = None
        self._rows = [row for row in self._rows if not row.asked.answer.cancelled()]

    def _admit(self) -> None:
        """Begin with the next page's prompt, if there is room for it and its answer."""
        while self._prepared is None and self._waiting:
            asked = self._waiting.popleft()
            with _failing(asked):
                self._prepared = self._prepare(asked)
        if self._prepared and self._joining is None and self._has_room(self._prepared):
            prepared, self._prepared = self._prepared, None
            with _failing(prepared.asked):
                limit = prepared.asked.request.time_limit
                ends_at = self._clock() + limit if limit is not None else math.inf
                self._joining = prepared, self._reader.begin(prepared.inputs), ends_at

    def _prepare(self, asked: Asked) -> _Prepared:
        inputs = make_inputs(self._loaded.processor, asked.request)
        length = int(inputs.input_ids.shape[1])
        context = self._loaded.model.config.text_config.max_position_embeddings
        if length >= context:
            raise InputError(
                f"this page's question has {length} tokens, and the model has room for {context}; "
                "render the page smaller"
            )
        if length >= self._most_tokens:
            raise InputError(
                f"this page's question has {length} tokens, and the model has room for {self._most_tokens}; "
                f"render the page smaller, or give {self._enough_for(length)}"
            )
        return _Prepared(asked, inputs, min(asked.request.max_tokens, context - length, self._most_tokens - length))

    def _has_room(self, prepared: _Prepared) -> bool:
        """Say whether a page may join; what was only kept makes way for it."""
        if len(self._rows) >= self._limits.pages:
            return False
        needed = _rounded(prepared.prompt_length + min(prepared.most_tokens, self._limits.expected_tokens))
        widest = max([needed, *map(self._promised, self._rows)])
        free = self._most_tokens - (len(self._rows) + 1) * widest
        if free >= 0:
            self._reader.read.shrink(free * self._token_bytes)
        return free >= 0 or not self._rows

    def _promised(self, row: Row) -> int:
        return max(_grown(row), _rounded(row.prompt_length + min(row.most_tokens, self._limits.expected_tokens)))

    def _read(self) -> None:
        """Read a piece of the image or prompt of the page that joins; when it is read, its answer begins."""
        if self._joining is None:
            return
        prepared, reading, ends_at = self._joining
        with _failing(prepared.asked):
            self.counts.prompt_tokens += self._reader.advance(reading)
            if not reading.is_done:
                return
            self._rows.append(self._begin(prepared, reading, ends_at))
            self.counts.tokens += self._rows[-1].written  # those that are forced
            self._let_go_if_finished(self._rows[-1])  # its forced tokens may be all that it may have
        self._joining = None

    def _begin(self, prepared: _Prepared, reading: Reading, ends_at: float) -> Row:
        request = prepared.asked.request
        return Row(
            prepared.asked,
            reading,
            most_tokens=prepared.most_tokens,
            stop_tokens=self._loaded.stop_tokens,
            text=GrowingText(self._loaded.processor.tokenizer),
            guide=self._front_matter.begin() if request.guided else None,
            drafter=self._drafter(request, reading.key) if self._limits.drafted_pages else None,
            is_looping=self._is_looping,
            ends_at=ends_at,
        )

    def _drafter(self, request: PageRequest, key: tuple[bytes, bytes]) -> Drafter:
        sources = [Source(earlier, is_exact=True)] if (earlier := self._bodies.get(key)) else []
        sources += [Source(request.draft_text, is_exact=False)] if request.draft_text else []
        return Drafter(self._loaded.processor.tokenizer, self._costs, sources)

    @cached_property
    def _costs(self) -> Costs:
        return self._limits.costs or measure_costs(self._loaded)

    @cached_property
    def _front_matter(self) -> FrontMatter:
        return FrontMatter(self._loaded.processor.tokenizer, sorted(self._loaded.stop_tokens))

    def _write(self) -> None:
        """Write the next tokens of all answers.

        Where no answer has to wait for its last token's value, the next step is queued before that is looked at,
        so that the device never waits for Python.
        """
        flying, self._flying = self._flying, None
        try:
            if flying and not (flying.is_plain and not any(map(self._waits, self._rows))):
                self._settle(flying)
                flying = None
            self._make_room()
            if self._rows:
                self._flying = self._step(self._rows, flying)
            if flying:
                self._settle(flying)
            if not self._rows:
                self._flying = None  # it would hold on to the cache
                self._cache.clear()
        except Exception as error:  # out of memory, for one: whatever it was, the caches cannot be trusted any more
            self._fail_rows(error)

    def _waits(self, row: Row) -> bool:
        """Say whether a row's next step cannot begin before the token of the last one is known."""
        return row.guide is not None or (self._may_draft and row.is_drafting)

    @property
    def _may_draft(self) -> bool:
        return len(self._rows) <= self._limits.drafted_pages

    def _step(self, rows: Sequence[Row], before: _Step | None) -> _Step:
        """Queue a pass over the weights that gives each row its next token, and what fits of its draft."""
        model = self._loaded.model
        unseen = [before.token_of(row) if before else None for row in rows]
        drafts = [row.propose(len(rows)) if self._may_draft else [] for row in rows]
        parts = [
            mx.array(row.unread + draft, dtype=mx.int32) if token is None else token
            for row, token, draft in zip(rows, unseen, drafts, strict=True)
        ]
        counts = [part.shape[0] for part in parts]
        self._arrange(rows, counts)
        hidden = forward(model, embed(model, mx.concatenate(parts)), _positions(rows, counts), self._cache)
        for row, count in zip(rows, counts, strict=True):
            row.given += count
        wanted = [len(draft) + 1 for draft in drafts]
        scores = logits(model, _last(hidden, counts, wanted))
        draws = [
            # A row whose last token is not seen yet has written one more than it knows of.
            row.draw(int(token is not None) + ahead)
            for row, token, count in zip(rows, unseen, wanted, strict=True)
            for ahead in range(count)
        ]
        tokens = choose(scores, draws, _allowed([row.guide for row in rows], wanted, scores.shape[1]))
        mx.async_eval(tokens)  # type: ignore[no-untyped-call]
        self.counts.steps += 1
        return _Step(tuple(rows), drafts, tokens)

    def _arrange(self, rows: Sequence[Row], counts: Sequence[int]) -> None:
        """Have the cache hold just *rows*, and expect so many tokens of each."""
        new = [row.prompt_cache for row in rows if row.prompt_cache]
        lengths = [row.given for row in rows]
        self._cache.arrange(rows, new, _rounded(max(map(operator.add, lengths, counts))))
        for row in rows:
            row.prompt_cache = None
        self._cache.expect(lengths, counts)

    def _settle(self, step: _Step) -> None:
        """Look at the tokens of a step, and let rows go that are finished."""
        tokens = cast(list[int], step.tokens.tolist())
        for row, draft in zip(step.rows, step.drafts, strict=True):
            chosen, tokens = tokens[: len(draft) + 1], tokens[len(draft) + 1 :]
            if row in self._rows:
                self._take(row, chosen, draft, len(step.rows))

    def _take(self, row: Row, chosen: list[int], draft: list[int], rows: int) -> None:
        before = row.written
        with _failing(row.asked) as failed:
            row.passes += 1
            accepted = row.take_all(chosen, draft, rows)
            self.counts.drafts += bool(draft)
            self.counts.drafted += len(draft)
            self.counts.accepted += accepted
            row.tell()
        self.counts.row_steps += 1
        self.counts.tokens += row.written - before
        if failed:
            self._rows.remove(row)
        else:
            self._let_go_if_finished(row)

    def _let_go_if_finished(self, row: Row) -> None:
        if row.finish_reason:
            self._rows.remove(row)
            self._keep(row)
            _give(row.asked, row.result())

    def _keep(self, row: Row) -> None:
        """Keep what helps if the same page is asked again: its prompt, as read, and its answer, as a draft."""
        if row.given >= row.prompt_length - 1:
            self._reader.keep(row.key, lambda: self._prompt_of(row), row.rope_delta)
        self._bodies.put(row.key, row.body, 4 * len(row.body))

    def _prompt_of(self, row: Row) -> Layers:
        count = row.prompt_length - 1
        return row.prompt_cache.beginning(count) if row.prompt_cache else self._cache.beginning(row, count)

    def _make_room(self) -> None:
        """Send the pages that came last back to wait, while the answers would grow past the memory."""
        if self._joining and self._rows and self._taken > self._most_tokens:
            self._send_back(self._joining[0].asked)
            self._joining = None
        while len(self._rows) > 1 and self._taken > self._most_tokens:
            row = self._rows.pop()
            self._bodies.put(row.key, row.body, 4 * len(row.body))  # then it comes as far again in a few steps
            self._send_back(row.asked)
        self._reader.read.shrink(max(0, self._most_tokens - self._taken) * self._token_bytes)

    @property
    def _taken(self) -> int:
        """How many tokens' memory the pages in work have after the next step."""
        joining = _rounded(len(self._joining[1].ids)) if self._joining else 0
        return joining + len(self._rows) * max(map(_grown, self._rows), default=0)

    def _send_back(self, asked: Asked) -> None:
        self._waiting.appendleft(asked)
        self.counts.sent_back += 1

    def refuse_all(self, error: OlmocrError) -> None:
        """Answer all pages with *error*."""
        pages = [*self._waiting, *(row.asked for row in self._rows)]
        pages += [each.asked for each in (self._prepared, self._joining and self._joining[0]) if each]
        for asked in pages:
            _give(asked, error)
        self._waiting.clear()
        self._prepared = self._joining = self._flying = None
        self._rows = []

    def _fail_rows(self, error: Exception) -> None:
        for row in self._rows:
            _give(row.asked, AnswerError(f"the model failed at this page and those read beside it: {reason_of(error)}"))
        self._rows, self._flying = [], None
        self._cache.clear()

    @cached_property
    def _token_bytes(self) -> int:
        """What keys and values of one token take."""
        language = self._loaded.model.language_model
        itemsize = language.model.norm.weight.dtype.size
        return int(2 * len(language.layers) * language.n_kv_heads * language.head_dim * itemsize)

    @property
    def _most_tokens(self) -> int:
        return self._limits.kv_bytes // self._token_bytes // _ROOM * _ROOM


def decode(loaded: LoadedModel, request: PageRequest) -> Answer:
    """Answer one page alone.

    Raises:
        InputError: the page cannot be read.
    """
    batch = Batch(loaded, Limits(pages=1, kv_bytes=1 << 40, prompt_step=512, drafted_pages=0), None)
    asked = Asked(request, Future())
    batch.add(asked)
    while not batch.is_idle:
        batch.advance()
    return asked.answer.result()


def _positions(rows: Sequence[Row], counts: Sequence[int]) -> mx.array:
    """Return the position ids (3, 1, tokens) of text that goes on behind what the model was given of each row."""
    places = [row.given + row.rope_delta + np.arange(count) for row, count in zip(rows, counts, strict=True)]
    together = np.concatenate(places).astype(np.int32)
    return mx.array(np.broadcast_to(together, (3, 1, len(together))))


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


@contextmanager
def _failing(asked: Asked) -> Iterator[list[Exception]]:
    """Give what goes wrong in the block to the page that it is about, and to no other."""
    failed: list[Exception] = []
    try:
        yield failed
    except OlmocrError as error:
        failed.append(error)
        _give(asked, error)
    except ValueError as error:  # from the processor, the vision tower or a guide: what this page has does not fit
        failed.append(error)
        _give(asked, InputError(f"the model cannot read this page: {reason_of(error)}"))
    except Exception as error:  # no memory left, for one, which may be over next time
        failed.append(error)
        _give(asked, AnswerError(f"the model failed at this page: {reason_of(error)}"))


def _give(asked: Asked, result: Answer | Exception) -> None:
    if not asked.answer.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        asked.answer.set_exception(result)
    else:
        asked.answer.set_result(result)


def _rounded(tokens: int) -> int:
    return -(-tokens // _ROOM) * _ROOM


def _grown(row: Row) -> int:
    """Return for how many tokens a row needs memory after its next step."""
    return _rounded(len(row.ids) + 1)
