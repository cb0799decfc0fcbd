"""One page: ask, parse, turn, ask again -> PageResult."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from olmocr.backends.config import Guided
from olmocr.errors import AnswerError, InputError
from olmocr.page import (
    MAX_TOTAL_TOKENS,
    PAGE_PROMPT,
    TEMPERATURES,
    Ask,
    FinishReason,
    ModelResponse,
    PageImage,
    PageRequest,
    PageResponse,
    PageResponseError,
    parse_page_response,
    stated_turn,
)
from olmocr.rendering.render import turned

End = FinishReason | Literal["failed", "cancelled"]
"""How an attempt ended: as an answer does, with an error, or because the page ran out of time."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms on which pages are asked.

    *max_attempts* includes the first; *max_tokens* is for one answer. *timeout* is in seconds, for all attempts at a
    page together; *time_limit* is for one answer, from when the model begins it. *is_looping* says whether an answer's
    text ends in a loop.
    """

    max_attempts: int = 8
    max_tokens: int = 8000
    timeout: float | None = None
    time_limit: float | None = None
    prompt: str = PAGE_PROMPT
    guided: Guided = "never"
    is_looping: Callable[[str], bool] = lambda text: False


@dataclass(frozen=True)
class PageResult:
    """The outcome of one page. *page* is None if no answer was good; *rejected* says why each bad one was rejected.

    A *page* whose rotation is not valid is the last complete answer of a model that called the page turned every time.
    *answer* is the accepted one, and *attempts* is how often the model was asked. *rotation* is how far the page was
    turned, counter-clockwise, to be read; *temperature* and *guided* are those of the accepted answer.
    *output_tokens* and *passes* are those of all attempts, and *seconds* is their time. *ends* says how each attempt
    ended: as answers do, or as ``failed`` or ``cancelled``.
    """

    page: PageResponse | None
    answer: ModelResponse | None
    attempts: int
    rejected: tuple[str, ...]
    rotation: int = 0
    temperature: float = 0.0
    guided: bool = False
    output_tokens: int = 0
    seconds: float = 0.0
    passes: int = 0
    ends: tuple[End, ...] = ()


async def ocr_page(image: PageImage, ask: Ask, terms: Terms = Terms(), *, text_layer: str | None = None) -> PageResult:
    """Ask until an answer is complete, valid and upright, as often and as long as *terms* allow.

    A page that the model finds turned is turned back and asked about afresh, greedily at first, since it is a new
    question. This also holds if the answer that says so is bad otherwise. After any other bad answer, the page is asked
    about again at the next temperature. *text_layer*, the file's own text, may make answers faster but never changes
    them.

    If no answer finds the page upright, the last one that is otherwise good is kept, as upstream does, unless it has
    no text and *text_layer* has some.

    Raises:
        ServerError: no server answers, so nothing is known about the page.
    """
    attempts = _Attempts(image, terms, text_layer)
    started = time.monotonic()
    try:
        async with asyncio.timeout(terms.timeout):
            result = await attempts.until_good(ask)
    except TimeoutError:
        attempts.ends.append("cancelled")
        attempts.rejected.append(f"the page took more than {terms.timeout:g} s")
        result = attempts.failure()
    return replace(
        result,
        output_tokens=attempts.output_tokens,
        seconds=round(time.monotonic() - started, 3),
        passes=attempts.passes,
        ends=tuple(attempts.ends),
    )


@dataclass
class _Attempts:
    """The attempts at one page so far."""

    image: PageImage
    terms: Terms
    text_layer: str | None
    rejected: list[str] = field(default_factory=list)
    asked_at: Counter[int] = field(default_factory=Counter)
    rotation: int = 0
    output_tokens: int = 0
    passes: int = 0
    ends: list[End] = field(default_factory=list)
    kept: PageResult | None = None

    async def until_good(self, ask: Ask) -> PageResult:
        while self.asked_at.total() < self.terms.max_attempts:
            request = self._next_request()
            try:
                answer = await ask(request)
            except AnswerError as error:
                self._fail(error)
                continue
            except InputError as error:  # the image itself is refused: asking again would not help
                self._fail(error)
                break
            self.output_tokens += answer.output_tokens
            self.passes += answer.passes
            self.ends.append(answer.finish_reason)
            page, why = _judge(answer, self.terms)
            if page is not None:
                found = self._result(page, answer, request)
                if page.is_rotation_valid:
                    return found
                self._keep(found)
            self._turn(answer, page, why)
        return self.failure()

    def _fail(self, error: Exception) -> None:
        self.rejected.append(str(error))
        self.ends.append("failed")

    def failure(self) -> PageResult:
        """Return the result when no answer was good: one whose only fault is that it calls the page turned, or none."""
        nothing = PageResult(None, None, 0, (), self.rotation)
        return replace(self.kept or nothing, attempts=self.asked_at.total(), rejected=tuple(self.rejected))

    def _result(self, page: PageResponse, answer: ModelResponse, request: PageRequest) -> PageResult:
        attempts, rejected = self.asked_at.total(), tuple(self.rejected)
        return PageResult(page, answer, attempts, rejected, self.rotation, request.temperature, guided=request.guided)

    def _keep(self, found: PageResult) -> None:
        """Keep a complete answer that calls the page turned; one without text only if no text is known at all."""
        text = found.page and found.page.natural_text
        if text or not (self.kept or (self.text_layer and self.text_layer.strip())):
            self.kept = found

    def _turn(self, answer: ModelResponse, page: PageResponse | None, why: str) -> None:
        """Remember why an answer is not accepted, and turn the image as it says."""
        turn = page.rotation_correction if page else stated_turn(answer.text)
        self.rotation = (self.rotation + turn) % 360
        reasons = [why] if why else []
        if turn or page:
            reasons.append(f"the page is turned: correction {turn}")
        self.rejected.append("; ".join(reasons))

    def _next_request(self) -> PageRequest:
        temperature = TEMPERATURES[min(self.asked_at[self.rotation], len(TEMPERATURES) - 1)]
        self.asked_at[self.rotation] += 1
        attempt = self.asked_at.total()
        return PageRequest(
            image=turned(self.image, self.rotation),
            prompt=self.terms.prompt,
            temperature=temperature,
            max_tokens=self.terms.max_tokens,
            seed=attempt,
            guided=self.terms.guided == "always" or (self.terms.guided == "retries" and attempt > 1),
            draft_text=self.text_layer,
            time_limit=self.terms.time_limit,
        )


def _judge(answer: ModelResponse, terms: Terms) -> tuple[PageResponse | None, str]:
    """Return the parsed answer, or None and why it cannot be accepted."""
    if answer.finish_reason == "loop" or terms.is_looping(answer.text):
        return None, f"the answer went round in circles after {answer.output_tokens} tokens"
    if answer.finish_reason == "time":
        return None, f"the answer ran out of time after {answer.output_tokens} tokens"
    if answer.finish_reason != "stop":
        return None, f"finish_reason is {answer.finish_reason!r} after {answer.output_tokens} tokens"
    total = answer.input_tokens + answer.output_tokens
    if total > MAX_TOTAL_TOKENS:
        return None, f"{total} tokens exceed the limit of {MAX_TOTAL_TOKENS}"
    try:
        return parse_page_response(answer.text), ""
    except PageResponseError as error:
        return None, str(error)
