"""Pages that are asked -> their answers, many at once: pages join a running batch and leave it, at any step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import mlx.core as mx
import numpy as np

from olmocr.errors import AnswerError, InputError, OlmocrError
from olmocr.inference.forward import Piece, embed, forward, logits
from olmocr.inference.guided import FrontMatter, Guide
from olmocr.inference.model import LoadedModel
from olmocr.inference.prompt import PageInputs, make_inputs
from olmocr.inference.reading import Reader, Reading
from olmocr.inference.row import Answer, Asked, GrowingText, Row
from olmocr.inference.sampling import choose
from olmocr.page import PageRequest

_EXPECTED_TOKENS = 1024
"""Tokens of an answer for which there must be memory before its page joins; few pages have more."""

_ROOM = 256
"""Tokens by which a cache grows."""


@dataclass(frozen=True)
class Limits:
    """How much a batch may hold: rows, bytes of keys and values, and tokens of a prompt between two steps."""

    pages: int
    kv_bytes: int
    prompt_step: int


@dataclass(frozen=True)
class _Step:
    """A pass over the weights that has been queued.

    ``tokens`` (positions,) are those chosen, one for each row, in this order.
    """

    rows: Sequence[Row]
    tokens: mx.array

    def place_of(self, row: Row) -> int | None:
        return self.rows.index(row) if row in self.rows else None


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

    def __init__(self, loaded: LoadedModel, limits: Limits, is_looping: Callable[[str], bool]) -> None:
        self._loaded = loaded
        self._limits = limits
        self._is_looping = is_looping
        self._reader = Reader(loaded, step=limits.prompt_step, most_bytes=limits.kv_bytes // 2)
        self._waiting: deque[Asked] = deque()
        self._prepared: _Prepared | None = None
        self._joining: tuple[_Prepared, Reading] | None = None
        self._rows: list[Row] = []
        self._flying: _Step | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._prepared or self._joining or self._rows)

    def add(self, asked: Asked) -> None:
        """Let a page wait until there is room for it."""
        self._waiting.append(asked)

    def advance(self) -> None:
        """Do a bounded piece of work: at most one step of one prompt, and one of all answers."""
        self._drop_unwanted()
        self._admit()
        self._read()
        self._write()
        if self.is_idle:
            mx.clear_cache()

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
                self._joining = prepared, self._reader.begin(prepared.inputs)

    def _prepare(self, asked: Asked) -> _Prepared:
        inputs = make_inputs(self._loaded.processor, asked.request)
        length = int(inputs.input_ids.shape[1])
        context = self._loaded.model.config.text_config.max_position_embeddings
        if length >= min(context, self._most_tokens):
            raise InputError(
                f"this page's question has {length} tokens, and the model has room for "
                f"{min(context, self._most_tokens)}; render the page smaller, or give more memory"
            )
        return _Prepared(asked, inputs, min(asked.request.max_tokens, context - length, self._most_tokens - length))

    def _has_room(self, prepared: _Prepared) -> bool:
        """Say whether a page may join; what was only kept makes way for it."""
        if len(self._rows) >= self._limits.pages:
            return False
        needed = _rounded(prepared.prompt_length + min(prepared.most_tokens, _EXPECTED_TOKENS))
        free = self._most_tokens - sum(map(self._promised, self._rows)) - needed
        if free >= 0:
            self._reader.read.shrink(free * self._token_bytes)
        return free >= 0 or not self._rows

    def _promised(self, row: Row) -> int:
        return max(row.cache.capacity, _rounded(row.prompt_length + min(row.most_tokens, _EXPECTED_TOKENS)))

    def _read(self) -> None:
        """Read a piece of the prompt of the page that joins; when it is read, its answer begins."""
        if self._joining is None:
            return
        prepared, reading = self._joining
        with _failing(prepared.asked):
            self._reader.advance(reading)
            if not reading.is_done:
                return
            self._rows.append(self._begin(prepared, reading))
            self._let_go_if_finished(self._rows[-1])  # its forced tokens may be all that it may have
        self._joining = None

    def _begin(self, prepared: _Prepared, reading: Reading) -> Row:
        return Row(
            prepared.asked,
            reading,
            most_tokens=prepared.most_tokens,
            stop_tokens=self._loaded.stop_tokens,
            text=GrowingText(self._loaded.processor.tokenizer),
            guide=self._front_matter.begin() if prepared.asked.request.guided else None,
            is_looping=self._is_looping,
        )

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
            if flying and any(row.waits for row in self._rows):
                self._settle(flying)
                flying = None
            self._make_room()
            if self._rows:
                self._flying = self._step(self._rows, flying)
            if flying:
                self._settle(flying)
            if not self._rows:
                self._flying = None  # it would hold on to their caches
        except Exception as error:  # out of memory, for one: whatever it was, the caches cannot be trusted any more
            self._fail_rows(error)

    def _step(self, rows: Sequence[Row], before: _Step | None) -> _Step:
        """Queue a pass over the weights that gives each row its next token."""
        model = self._loaded.model
        places = [before.place_of(row) if before else None for row in rows]
        parts = [
            mx.array(row.unread, dtype=mx.int32) if place is None or before is None else before.tokens[place][None]
            for row, place in zip(rows, places, strict=True)
        ]
        counts = [part.shape[0] for part in parts]
        positions = np.concatenate(
            [row.cache.length + row.rope_delta + np.arange(count) for row, count in zip(rows, counts, strict=True)]
        )
        hidden = forward(
            model,
            embed(model, mx.concatenate(parts)),
            mx.array(np.broadcast_to(positions.astype(np.int32), (3, 1, len(positions)))),
            [Piece(row.cache, count) for row, count in zip(rows, counts, strict=True)],
        )
        if len(positions) > len(rows):
            hidden = hidden[:, mx.array(np.cumsum(counts) - 1)]
        # A row whose last token is not known yet has written one more than it knows of.
        draws = [row.draw(ahead=int(place is not None)) for row, place in zip(rows, places, strict=True)]
        scores = logits(model, hidden)
        tokens = choose(scores, draws, _allowed([row.guide for row in rows], scores.shape[1]))
        mx.async_eval(tokens)  # type: ignore[no-untyped-call]
        return _Step(tuple(rows), tokens)

    def _settle(self, step: _Step) -> None:
        """Look at the tokens of a step, and let rows go that are finished."""
        tokens = cast(list[int], step.tokens.tolist())
        for row, token in zip(step.rows, tokens, strict=True):
            if row in self._rows:
                self._take(row, token)

    def _take(self, row: Row, token: int) -> None:
        with _failing(row.asked) as failed:
            row.take(token)
        if failed:
            self._rows.remove(row)
        else:
            self._let_go_if_finished(row)

    def _let_go_if_finished(self, row: Row) -> None:
        if row.finish_reason:
            self._rows.remove(row)
            self._reader.keep(row.key, row.cache, row.prompt_length, row.rope_delta)
            _give(row.asked, row.result())

    def _make_room(self) -> None:
        """Send the pages that came last back to wait, while the answers would grow past the memory."""
        while len(self._rows) > 1 and sum(map(_grown, self._rows)) > self._most_tokens:
            self._waiting.appendleft(self._rows.pop().asked)
        free = self._most_tokens - sum(map(_grown, self._rows))
        self._reader.read.shrink(max(0, free) * self._token_bytes)

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
            _give(row.asked, AnswerError(f"the model failed at this page and those read beside it: {_reason(error)}"))
        self._rows, self._flying = [], None

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
    batch = Batch(loaded, Limits(pages=1, kv_bytes=1 << 40, prompt_step=512), lambda text: False)
    asked = Asked(request, Future())
    batch.add(asked)
    while not batch.is_idle:
        batch.advance()
    return asked.answer.result()


def _allowed(guides: Sequence[Guide | None], size: int) -> mx.array | None:
    """Return which of *size* tokens each row may go on with (rows, size); None if all may go on with any."""
    if not any(guides):
        return None
    rows = [guide.allowed(size) if guide else np.ones(size, dtype=np.bool_) for guide in guides]
    return mx.array(np.stack(rows))


@contextmanager
def _failing(asked: Asked) -> Iterator[list[Exception]]:
    """Give what goes wrong in the block to the page that it is about, and to no other."""
    failed: list[Exception] = []
    try:
        yield failed
    except OlmocrError as error:
        failed.append(error)
        _give(asked, error)
    except Exception as error:  # from the processor, the vision tower or a guide: it is about this page alone
        failed.append(error)
        _give(asked, InputError(f"the model cannot read this page: {_reason(error)}"))


def _give(asked: Asked, result: Answer | Exception) -> None:
    if not asked.answer.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        asked.answer.set_exception(result)
    else:
        asked.answer.set_result(result)


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _rounded(tokens: int) -> int:
    return -(-tokens // _ROOM) * _ROOM


def _grown(row: Row) -> int:
    """Return the capacity of a row's cache after its next step."""
    return max(row.cache.capacity, _rounded(len(row.ids) + 1))
