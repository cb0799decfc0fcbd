"""A converted folder, and the demo's pages through the complete pipeline -> how far their texts are from the truth."""

from __future__ import annotations

import hashlib
import statistics
import time
from pathlib import Path

from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import run_pipeline_sync
from olmocr.reports.machine import MeasuredAnswers, MeasuredPage
from olmocr.validate.known_pages.page_set import KnownPage, read_page_set
from olmocr.validate.score import character_error_rate
from olmocr.workspace.document import PageRecord

MOST_ERRORS = 0.15
"""The character error rate above which a page counts as not read, as in a smoke test."""


def read_demo(model: Path, pages: Path, longest_side: int, workspace: Path, most: int | None) -> MeasuredAnswers:
    """Read the first *most* documents in *pages*, or all, as the command does, and compare them with the truth."""
    known = read_page_set([pages])
    documents = tuple(dict.fromkeys(str(page.path) for page in known))[:most]
    known = tuple(page for page in known if str(page.path) in documents)
    found: dict[tuple[str, int], PageRecord] = {}
    started: list[float] = []

    def keep(source: object, record: PageRecord) -> None:
        found[str(getattr(source, "name", "")), record.page_number] = record
        started.append(time.perf_counter() - record.seconds)  # of the first page: the model is loaded by then

    run_pipeline_sync(config_for(model, documents, longest_side, workspace), on_page=keep)
    seconds = time.perf_counter() - min(started, default=time.perf_counter())
    judged = tuple(judge(page, found.get((str(page.path), page.page_number))) for page in known)
    rates = [page.character_error_rate for page in judged]
    valid = sum(page.status in ("valid", "blank") for page in judged)
    return MeasuredAnswers(longest_side, round(seconds, 2), valid, statistics.mean(rates), judged)


def config_for(model: Path, documents: tuple[str, ...], longest_side: int, workspace: Path) -> PipelineConfig:
    """Return a run that reads *documents* with the model in the folder *model*."""
    return PipelineConfig(
        workspace=workspace, pdfs=documents, model=str(model), target_longest_image_dim=longest_side, max_tokens=3000
    )


def judge(page: KnownPage, record: PageRecord | None) -> MeasuredPage:
    """Return the result of a page. A fallback counts as empty, since its text is the file's own, not the model's."""
    text = "" if record is None or record.is_fallback else record.text
    rate = round(character_error_rate(text, page.truth or ""), 4)
    return MeasuredPage(
        document=page.path.name,
        page_number=page.page_number,
        status="missing" if record is None else record.status,
        attempts=record.attempts if record else 0,
        character_error_rate=rate,
        output_tokens=record.total_output_tokens if record else 0,
        text_sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    )
