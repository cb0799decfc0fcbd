"""One page: ask, parse, turn, ask again -> PageResult."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from olmocr.errors import InputError
from olmocr.page import (
    TEMPERATURES,
    Ask,
    ModelResponse,
    PageImage,
    PageRequest,
    PageResponse,
    PageResponseError,
    parse_page_response,
)
from olmocr.pipeline.render import turned

MAX_TOTAL_TOKENS = 16384
"""The context that olmOCR-2 is served with; a longer exchange is not accepted."""


@dataclass(frozen=True)
class PageResult:
    """What came of one page. *page* is None if no answer was good; *rejected* says why of each that was not.

    *answer* is the accepted one, *attempts* how often the model was asked. *rotation* is how far the page was
    turned, counter-clockwise, to be read; *temperature* is that of the accepted answer.
    """

    page: PageResponse | None
    answer: ModelResponse | None
    attempts: int
    rejected: tuple[str, ...]
    rotation: int = 0
    temperature: float = 0.0


async def ocr_page(image: PageImage, ask: Ask, *, max_attempts: int, max_tokens: int) -> PageResult:
    """Ask until an answer is whole, valid and upright, at most *max_attempts* times.

    A page that the model finds turned is turned back and asked afresh, greedily first: it is a new question.
    Any other bad answer is asked again at the next temperature.
    """
    rejected: list[str] = []
    asked_at: Counter[int] = Counter()
    rotation = 0
    for attempt in range(1, max_attempts + 1):
        temperature = TEMPERATURES[min(asked_at[rotation], len(TEMPERATURES) - 1)]
        asked_at[rotation] += 1
        request = PageRequest(
            image=turned(image, rotation), temperature=temperature, max_tokens=max_tokens, seed=attempt
        )
        try:
            answer = await ask(request)
        except InputError as error:  # the image itself is refused: asking again would not help
            rejected.append(str(error))
            break
        page, why = _judge(answer)
        if page is not None and page.is_rotation_valid:
            return PageResult(page, answer, attempt, tuple(rejected), rotation, temperature)
        if page is not None:
            rotation = (rotation + page.rotation_correction) % 360
            why = f"the page is turned: correction {page.rotation_correction}"
        rejected.append(why)
    return PageResult(None, None, len(rejected), tuple(rejected), rotation)


def _judge(answer: ModelResponse) -> tuple[PageResponse | None, str]:
    """Return the parsed answer, or None and why it cannot be accepted."""
    if answer.finish_reason != "stop":
        return None, f"finish_reason is {answer.finish_reason!r} after {answer.output_tokens} tokens"
    total = answer.input_tokens + answer.output_tokens
    if total > MAX_TOTAL_TOKENS:
        return None, f"{total} tokens are more than {MAX_TOTAL_TOKENS}"
    try:
        return parse_page_response(answer.text), ""
    except PageResponseError as error:
        return None, str(error)
