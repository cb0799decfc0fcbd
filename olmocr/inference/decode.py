"""Requested pages -> their answers, many at once: pages join a running batch and leave it at any step."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property, partial

import mlx.core as mx

from olmocr.errors import AnswerError, InputError, OlmocrError, UsageError, reason_of
from olmocr.inference.ahead import Ahead
from olmocr.inference.byte_cache import Kept
from olmocr.inference.costs import measure_costs
from olmocr.inference.draft import SIZES, Costs, Drafter, DraftSource
from olmocr.inference.guided import FrontMatter
from olmocr.inference.model import LoadedModel
from olmocr.inference.prompt import PageInputs, cut_image, make_inputs
from olmocr.inference.prompt_reader import Prefill, PromptReader
from olmocr.inference.room import Room
from olmocr.inference.row import Asked, Generation, GrowingText, Row
from olmocr.inference.step import ModelRunner, Step
from olmocr.page import PageRequest
from olmocr.runtime.memory import shown_size

_LONGEST_JOINING = 0.25
"""The seconds for pieces of images and prompts before the answers get a step; a slow device does one piece."""

_BODY_BYTES = 4 << 20
"""How many bytes of earlier answers to keep as drafts: several hundred pages."""


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a batch: pages, bytes of keys and values, and tokens of a prompt between two steps.

    With more than *drafted_pages* answers at once, there are no drafts. *costs* limit the length of drafts; if None,
    they are measured before the first draft. A page joins when there is memory for *expected_tokens* of its answer; few
    answers have more.
    """

    pages: int
    kv_bytes: int
    prompt_step: int
    drafted_pages: int
    costs: Costs | None = None
    expected_tokens: int = 1024


@dataclass
class Counts:
    """Counters. A row step is one answer's part in a step: it yields a token, and the tokens of a draft that fit.

    *ended_stop* to *failed* count pages by how they ended; *sent_back* counts how often a page had to wait again for
    memory.
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
        """Passes over the weights per token of an answer; drafts and forced tokens bring it below 1."""
        return self.row_steps / max(1, self.tokens)

    @property
    def accepted_a_draft(self) -> float:
        """Tokens per draft that the model would have written itself."""
        return self.accepted / max(1, self.drafts)

    def count_end(self, answer: Future[Generation]) -> None:
        """Count a page whose answer has come, or will not come."""
        if answer.cancelled():
            self.cancelled += 1
        elif answer.exception():
            self.failed += 1
        else:
            name = f"ended_{answer.result().finish_reason}"
            setattr(self, name, getattr(self, name) + 1)


@dataclass(frozen=True)
class _Prepared:
    asked: Asked
    inputs: PageInputs
    most_tokens: int

    @property
    def prompt_length(self) -> int:
        return _length(self.inputs)

    @property
    def length(self) -> int:
        """The tokens of the prompt, and those written before the page had to wait again, as in a row."""
        return self.prompt_length + len(self.asked.written)


@dataclass(frozen=True)
class _Joining:
    """A page whose prompt is being read, and the deadline of its answer."""

    page: _Prepared
    prefill: Prefill
    ends_at: float


class Scheduler:
    """Decides which waiting page is next, and which pages join and leave the unfinished answers.

    It belongs to the thread that owns MLX.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        limits: BatchLimits,
        is_looping: Callable[[str], bool] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loaded = loaded
        self._clock = clock
        self._limits = limits
        self._is_looping = is_looping
        self._runner = ModelRunner(loaded, limits.drafted_pages)
        self._room = Room(limits.kv_bytes, token_bytes(loaded), limits.expected_tokens, self._runner.allocated)
        self._reader = PromptReader(
            loaded, step=limits.prompt_step, most_bytes=limits.kv_bytes // 2, most=2 * limits.pages
        )
        self._ahead = Ahead(partial(cut_image, loaded.processor), limits.pages)
        self._waiting: deque[Asked] = deque()
        self._prepared: _Prepared | None = None
        self._joining: _Joining | None = None
        self._rows: list[Row] = []
        self._bodies: Kept[str] = Kept(_BODY_BYTES)
        self.counts = Counts()

    @property
    def most_pages(self) -> int:
        """How many answers may be written at once."""
        return self._limits.pages

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._prepared or self._joining or self._rows)

    @property
    def _joining_page(self) -> _Prepared | None:
        return self._joining.page if self._joining else None

    def add(self, asked: Asked) -> None:
        """Add a page, which waits until there is room for it."""
        self._waiting.append(asked)

    def require_room(self, request: PageRequest) -> None:
        """Check that a page and an answer of usual length fit.

        Raises:
            UsageError: they do not fit, even alone.
        """
        length = _length(make_inputs(self._loaded.processor, request))
        if self._room.usual(length) > self._room.tokens:
            raise UsageError(
                f"{shown_size(self._limits.kv_bytes)} have room for keys and values of {self._room.tokens} tokens, "
                f"but a page of {max(request.image.pixels.size)} pixels has {length}, and its answer usually up to "
                f"{self._limits.expected_tokens} more; give {self._enough_for(length)}"
            )

    def _enough_for(self, length: int) -> str:
        return f"`kv_budget` {shown_size(self._room.usual(length) * self._room.token_bytes)} or more"

    def advance(self) -> None:
        """Do a bounded piece of work: some steps of images and prompts, and one step of all answers."""
        self._drop_unwanted()
        self._end_overdue()
        self._join()
        self._write()
        if self.is_idle:
            self._reader.let_go()
            mx.clear_cache()

    def _end_overdue(self) -> None:
        """End the answers whose time is over, and give what they have so far."""
        now = self._clock()
        for row in [row for row in self._rows if row.ends_at <= now]:
            row.finish_reason = "time"
            self._let_go_if_finished(row)
        if self._joining and self._joining.ends_at <= now:
            page, self._joining = self._joining.page, None
            page.asked.give(Generation("", (), "time", page.prompt_length))

    def _drop_unwanted(self) -> None:
        self._waiting = deque(asked for asked in self._waiting if not asked.answer.cancelled())
        if self._prepared and self._prepared.asked.answer.cancelled():
            self._prepared = None
        if self._joining_page and self._joining_page.asked.answer.cancelled():
            self._joining = None
        self._rows = [row for row in self._rows if not row.asked.answer.cancelled()]

    def _join(self) -> None:
        """Read pieces of joining pages; the fewer answers there are, the more pieces."""
        until: float | None = None
        for _ in range(pieces(self._limits.pages, len(self._rows))):
            if until is not None and self._clock() >= until:
                break
            self._ahead.begin(self._waiting)
            self._admit()
            if self._joining is None:
                break
            until = until or self._clock() + _LONGEST_JOINING
            self._read()

    def _admit(self) -> None:
        """Begin with the next page's prompt, if there is room for it and its answer."""
        while self._prepared is None and self._waiting:
            asked = self._waiting.popleft()
            with asked.failing():
                self._prepared = self._prepare(asked)
        if self._prepared and self._joining is None and self._may_join(self._prepared):
            page, self._prepared = self._prepared, None
            with page.asked.failing():
                limit = page.asked.request.time_limit
                ends_at = self._clock() + limit if limit is not None else math.inf
                self._joining = _Joining(page, self._reader.begin(page.inputs, page.asked.written), ends_at)

    def _prepare(self, asked: Asked) -> _Prepared:
        inputs = make_inputs(self._loaded.processor, asked.request, self._ahead.take(asked))
        self._ahead.begin(self._waiting)
        length = _length(inputs)
        context = self._loaded.model.config.text_config.max_position_embeddings
        if length >= context:
            raise InputError(
                f"this page's prompt has {length} tokens, but the model has room for {context}; render the page smaller"
            )
        if length >= self._room.tokens:
            raise InputError(
                f"this page's prompt has {length} tokens, but the model has room for {self._room.tokens}; "
                f"render the page smaller, or give {self._enough_for(length)}"
            )
        return _Prepared(asked, inputs, min(asked.request.max_tokens, context - length, self._room.tokens - length))

    def _may_join(self, page: _Prepared) -> bool:
        """Return whether a page may join, and if so, drop cached prompts to make room for it."""
        if len(self._rows) >= self._limits.pages or not self._room.fits(self._rows, page):
            return False
        if (left := self._room.left(self._rows, page)) >= 0:
            self._reader.read.shrink(left)
        return True

    def _read(self) -> None:
        """Read a piece of the joining page's image or prompt; when all are read, its answer begins."""
        if self._joining is None:
            return
        with self._joining.page.asked.failing():
            self.counts.prompt_tokens += self._reader.advance(self._joining.prefill)
            if not self._joining.prefill.is_done:
                return
            self._rows.append(self._begin(self._joining))
            already = len(self._joining.page.asked.written)
            self.counts.tokens += self._rows[-1].written - already  # the forced tokens
            self._let_go_if_finished(self._rows[-1])  # its forced tokens may already reach its limit
        self._joining = None

    def _begin(self, joining: _Joining) -> Row:
        request = joining.page.asked.request
        return Row(
            joining.page.asked,
            joining.prefill,
            most_tokens=joining.page.most_tokens,
            stop_tokens=self._loaded.stop_tokens,
            text=GrowingText(self._loaded.processor.tokenizer),
            guide=self._front_matter.begin() if request.guided else None,
            drafter=self._drafter(request, joining.prefill.key) if self._limits.drafted_pages else None,
            is_looping=self._is_looping,
            ends_at=joining.ends_at,
        )

    def _drafter(self, request: PageRequest, key: tuple[bytes, bytes]) -> Drafter:
        sources = [DraftSource(earlier, is_exact=True)] if (earlier := self._bodies.get(key)) else []
        sources += [DraftSource(request.draft_text, is_exact=False)] if request.draft_text else []
        sizes = SIZES[self._loaded.device.kind]
        return Drafter(self._loaded.processor.tokenizer, self._costs, sources, sizes)

    @cached_property
    def _costs(self) -> Costs:
        return self._limits.costs or measure_costs(self._loaded)

    @cached_property
    def _front_matter(self) -> FrontMatter:
        return FrontMatter(self._loaded.processor.tokenizer, sorted(self._loaded.stop_tokens))

    def _write(self) -> None:
        """Write the next tokens of all answers."""
        try:
            if due := self._runner.due(self._rows):
                self._settle(due)
            self._make_room()
            before = self._runner.queue(self._rows)
            self.counts.steps += bool(self._rows)
            if before:
                self._settle(before)
            if not self._rows:
                self._runner.clear()
        except Exception as error:  # for example out of memory; after any error, the caches are no longer reliable
            self._fail_rows(error)

    def _settle(self, step: Step) -> None:
        """Give each row its tokens of a step, and release the finished rows."""
        for row, chosen, draft in step.settle():
            if row in self._rows:
                self._take(row, chosen, draft, len(step.rows))

    def _take(self, row: Row, chosen: list[int], draft: list[int], rows: int) -> None:
        before = row.written
        with row.asked.failing() as failed:
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
            row.asked.give(row.result())

    def _keep(self, row: Row) -> None:
        """Keep what helps if the same page is requested again: its prompt, as read, and its answer, as a draft."""
        if row.given >= row.prompt_length - 1:
            self._reader.keep(row.key, lambda: self._runner.prompt_of(row), row.rope_delta)
        self._bodies.put(row.key, row.body, 4 * len(row.body))

    def _make_room(self) -> None:
        """Send the newest pages back to wait, as long as the answers would outgrow the memory."""
        for page in self._room.sent_back(self._rows, self._joining_page):
            if isinstance(page, Row):
                self._rows.remove(page)
                written = tuple(page.ids[page.prompt_length :])
                self._send_back(replace(page.asked, written=written))
            else:
                self._joining = None
                self._send_back(page.asked)
        self._reader.read.shrink(self._room.spare(self._rows, self._joining_page))

    def _send_back(self, asked: Asked) -> None:
        self._waiting.appendleft(asked)
        self.counts.sent_back += 1

    def refuse_all(self, error: OlmocrError) -> None:
        """Answer all pages with *error*."""
        pages = [*self._waiting, *(row.asked for row in self._rows)]
        pages += [page.asked for page in (self._prepared, self._joining_page) if page]
        for asked in pages:
            asked.give(error)
        self._waiting.clear()
        self._prepared = self._joining = None
        self._rows = []
        self._runner.clear()

    def _fail_rows(self, error: Exception) -> None:
        for row in self._rows:
            row.asked.give(AnswerError(f"the model failed at this page and those read with it: {reason_of(error)}"))
        self._rows = []
        self._runner.clear()


def pieces(most: int, rows: int) -> int:
    """Return how many pieces of images and prompts to read before the next step of *rows* rows, of at most *most*.

    A step of few rows takes about as long as one of many, so waiting pages should join soon. When a row has just left,
    the next page should join before others leave, too. So the result is twice *most* / *rows* (rounded up), or 1 if
    there is no room.
    """
    return 1 if rows >= most else 2 * math.ceil(most / max(1, rows))


def decode(loaded: LoadedModel, request: PageRequest) -> Generation:
    """Answer one page alone.

    Raises:
        InputError: the page cannot be read.
    """
    scheduler = Scheduler(loaded, BatchLimits(pages=1, kv_bytes=1 << 40, prompt_step=512, drafted_pages=0), None)
    asked = Asked(request, Future())
    scheduler.add(asked)
    while not scheduler.is_idle:
        scheduler.advance()
    return asked.answer.result()


def _length(inputs: PageInputs) -> int:
    return int(inputs.input_ids.shape[1])


def token_bytes(loaded: LoadedModel) -> int:
    """Return the bytes of one token's keys and values."""
    language = loaded.model.language_model
    itemsize = language.model.norm.weight.dtype.size
    return int(2 * len(language.layers) * language.n_kv_heads * language.head_dim * itemsize)
