"""The outcome of a page -> PageRecord: an answer, a blank page, or a page that could not be rendered."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from olmocr.backends.config import Guided
from olmocr.page import PageResponse
from olmocr.pipeline.coverage import coverage
from olmocr.pipeline.ocr_page import PageResult
from olmocr.workspace.document import PageRecord

_LONGEST_REASON = 2000
"""Characters kept of the reason why an answer was not accepted, whatever its source."""


def record_of(number: int, result: PageResult, text_layer: str | None, model: str) -> PageRecord:
    """Return the record of a page that the model was asked about; without a good answer, it holds *text_layer*."""
    answer = result.answer
    record = PageRecord(
        page_number=number,
        status="valid" if result.page else "fallback",
        response=result.page or _holding(text_layer),
        model=model,
        attempts=result.attempts,
        rejected=tuple(why[:_LONGEST_REASON] for why in result.rejected),
        rotation=result.rotation,
        temperature=result.temperature,
        guided=result.guided,
        total_output_tokens=result.output_tokens,
        seconds=result.seconds,
        ends=result.ends,
        passes=result.passes,
    )
    if answer is None or result.page is None:
        return record
    return replace(
        record,
        finish_reason=answer.finish_reason,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        server=answer.server,
        coverage=_rounded(coverage(text_layer, result.page.natural_text)),
    )


def how_asked(prompt: str, longest_side: int, guided: Guided) -> str:
    """Return in words how a model is asked for a page, as far as the page's text may depend on it."""
    forced = {"never": "", "retries": "", "always": ", its form forced"}[guided]
    return f"{longest_side} pixels, prompt {hashlib.sha256(prompt.encode()).hexdigest()[:8]}{forced}"


def blank_record(number: int) -> PageRecord:
    """Return the record of a blank page. No model is asked about it, since it might make something up."""
    return PageRecord(number, "blank", _holding(None))


def unrendered_record(number: int, why: str) -> PageRecord:
    """Return the record of a page that could not be rendered."""
    return PageRecord(number, "fallback", _holding(None), rejected=(why[:_LONGEST_REASON],))


def _holding(text: str | None) -> PageResponse:
    return PageResponse(None, True, 0, False, False, text)


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
