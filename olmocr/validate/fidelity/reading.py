"""A loaded model and a page's image -> its greedy answer, and the pipeline's result from it.

Import it after ``start_mlx``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from olmocr.errors import InputError
from olmocr.inference.decode import decode
from olmocr.inference.prompt import PageInputs, make_inputs
from olmocr.page import (
    FinishReason,
    ModelResponse,
    PageImage,
    PageRequest,
    PageResponseError,
    parse_page_response,
)
from olmocr.pipeline.ocr_page import Terms, ocr_page
from olmocr.pipeline.repetition import has_looped
from olmocr.rendering.render import turned


@dataclass(frozen=True)
class PageAnswer:
    """An answer to a page turned counter-clockwise by *rotation* degrees; *tokens* end before the stop token."""

    tokens: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    rotation: int
    looped: bool
    seconds: float

    @property
    def natural_text(self) -> str:
        """The text under the front matter; all text if that is broken."""
        try:
            return parse_page_response(self.text).natural_text or ""
        except PageResponseError:
            return self.text

    @property
    def holds(self) -> bool:
        """Whether it is complete and in olmOCR's format."""
        try:
            parse_page_response(self.text)
        except PageResponseError:
            return False
        return self.finish_reason == "stop" and not self.looped


@dataclass(frozen=True)
class PageReading:
    """A page as the pipeline reads it. *greedy* is the answer to the last greedy question: the page turned upright.

    *first* is the answer to the first one; *looped* says whether any answer did. *seconds* are those of all attempts.
    """

    greedy: PageAnswer
    first_holds: bool
    first_finish_reason: FinishReason
    valid: bool
    attempts: int
    rejected: tuple[str, ...]
    looped: bool
    seconds: float


def read_page(loaded: Any, image: PageImage, max_tokens: int) -> PageReading:
    """Ask *loaded* about a page as often as the pipeline would.

    Raises:
        InputError: the model cannot take the image.
    """
    answers: list[tuple[float, PageAnswer]] = []

    async def ask(request: PageRequest) -> ModelResponse:
        answer = _answer(loaded, request)
        answers.append((request.temperature, answer))
        count = len(answer.tokens) + (answer.finish_reason == "stop")
        return ModelResponse(answer.text, answer.finish_reason, 0, count)

    result = asyncio.run(ocr_page(image, ask, Terms(max_tokens=max_tokens, is_looping=has_looped)))
    if not answers:
        raise InputError(result.rejected[-1])
    _, first = answers[0]
    return PageReading(
        greedy=[answer for temperature, answer in answers if temperature == 0][-1],
        first_holds=first.holds,
        first_finish_reason=first.finish_reason,
        valid=result.page is not None and result.page.is_rotation_valid,
        attempts=result.attempts,
        rejected=result.rejected,
        looped=any(answer.looped for _, answer in answers),
        seconds=result.seconds,
    )


def inputs_of(loaded: Any, image: PageImage, rotation: int) -> PageInputs:
    """Return the model's input for the answer at *rotation*."""
    return make_inputs(loaded.processor, PageRequest(turned(image, rotation)))


def pieces_of(loaded: Any, tokens: tuple[int, ...]) -> list[str]:
    """Return each token's text."""
    return [loaded.processor.tokenizer.decode([token]) for token in tokens]


def _answer(loaded: Any, request: PageRequest) -> PageAnswer:
    started = time.monotonic()
    decoded = decode(loaded, request)
    looped = decoded.finish_reason == "loop" or has_looped(decoded.text)
    seconds = time.monotonic() - started
    return PageAnswer(decoded.tokens, decoded.text, decoded.finish_reason, request.image.rotation, looped, seconds)
