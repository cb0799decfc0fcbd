"""A model whose bits were allocated -> whether its distance from its source is as predicted, on other pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from olmocr.calibration.drawn_pages import SEED
from olmocr.calibration.gather import CalibrationTerms, gather
from olmocr.calibration.sensitivities import MOST_PAGES, evenly
from olmocr.conversion.calibrated.allocation.bits import require_agreement
from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.conversion.plan import ConversionPlan
from olmocr.conversion.write import Measure
from olmocr.files import temporary_folder
from olmocr.model_folder import ModelFolder
from olmocr.reports.conversion import DivergenceReport
from olmocr.runtime.device import start_mlx

HELD_OUT = SEED + 1
"""Draws pages with the same looks but other texts, used neither for calibration nor for sensitivities."""

OnBlock = Callable[[int, int], None]
"""Called with the number of blocks of both models done, and the total."""

PagesOf = Callable[[ModelFolder], Sequence[CalibrationPage]]
"""Finds the pages on which to measure a conversion of a source."""


def held_out_pages(source: ModelFolder) -> tuple[CalibrationPage, ...]:
    """Return the pages on which to measure a conversion of *source*.

    Raises:
        OlmocrError: as in `gather`.
    """
    return evenly(gather(source, CalibrationTerms(seed=HELD_OUT)).pages, MOST_PAGES)


def measuring(pages_of: PagesOf = held_out_pages, on_block: OnBlock = lambda done, total: None) -> Measure:
    """Return a function that measures a conversion against its source, in a new folder beside its shards."""

    def measure(plan: ConversionPlan, folder: Path) -> DivergenceReport:
        start_mlx()
        from olmocr.conversion.calibrated.passes.divergence import measured_divergence

        pages = pages_of(plan.source.folder)
        with temporary_folder(folder.parent) as scratch:
            measured = measured_divergence(plan, folder, pages, scratch, on_block)
        tokens = sum(len(page.token_ids) - page.answer_start for page in pages)
        return DivergenceReport(_rounded(plan.predicted_nats or 0.0), _rounded(measured), len(pages), tokens)

    return measure


def require_as_predicted(divergence: DivergenceReport | None) -> None:
    """Refuse a model that is far from the prediction; one that was not measured passes.

    Raises:
        DisagreementError: the model is far from the prediction.
    """
    if divergence:
        require_agreement(divergence.predicted_nats, divergence.measured_nats)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
