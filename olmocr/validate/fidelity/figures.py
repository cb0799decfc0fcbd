"""Measurements of a model and its source, page by page -> the figures of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from olmocr.reports.fidelity import (
    Cost,
    Distribution,
    FidelityPage,
    FlipClass,
    FreeRunning,
    Parity,
    Structure,
    TextErrors,
    Truncation,
)
from olmocr.reports.parts import ComponentBits
from olmocr.strays import files_in
from olmocr.validate.fidelity.distributions import KeptDistributions, PageDivergence, by_position, mean_interval
from olmocr.validate.fidelity.reading import PageAnswer, PageReading
from olmocr.validate.fidelity.token_classes import TOKEN_CLASSES
from olmocr.validate.fidelity.work import PageMeasurement, PhaseCost
from olmocr.validate.known_pages.page_set import KnownPage
from olmocr.validate.score import (
    character_error_rate,
    exact_cells,
    exact_numbers,
    exact_tables,
    numbers_in,
    tables_in,
    word_error_rate,
)


def distribution(
    kept: Sequence[KeptDistributions], found: Sequence[PageDivergence], classes: Iterable[str]
) -> Distribution:
    """Return how far *found* is from the source's stored distributions *kept*, whose tokens are of *classes*."""
    divergences = [page.divergence for page in found]
    every = np.concatenate(divergences)
    flips_by_page = [page.choices != source.choices for page, source in zip(found, kept, strict=True)]
    flips = np.concatenate(flips_by_page)
    firsts = [int(page.argmax()) for page in flips_by_page if page.any()]
    return Distribution(
        positions=len(every),
        mean_kl=float(every.mean()),
        mean_kl_interval=mean_interval(divergences),
        median_kl=float(np.median(every)),
        p99_kl=float(np.quantile(every, 0.99)),
        top1_agreement=float(1 - flips.mean()),
        pages_without_flip=len(kept) - len(firsts),
        median_first_divergence=float(np.median(firsts)) if firsts else None,
        flips=_flips_by_class(flips, list(classes)),
        by_position=by_position(divergences),
        truncation=_truncation(kept, found),
    )


def _flips_by_class(flips: Iterable[bool], classes: Sequence[str]) -> tuple[FlipClass, ...]:
    positions = Counter(classes)
    flipped = Counter(each for each, is_flip in zip(classes, flips, strict=True) if is_flip)
    return tuple(FlipClass(each, positions[each], flipped[each]) for each in TOKEN_CLASSES if positions[each])


def _truncation(kept: Sequence[KeptDistributions], found: Sequence[PageDivergence]) -> Truncation:
    tails = np.exp(np.concatenate([page.tail for page in kept]))
    whole = np.concatenate([page.whole for page in found])
    cut = np.concatenate([page.cut for page in found])
    return Truncation(
        top_k=kept[0].ids.shape[1],
        mean_tail=float(tails.mean()),
        max_tail=float(tails.max()),
        positions=len(whole),
        whole_mean_kl=float(whole.mean()),
        cut_mean_kl=float(cut.mean()),
    )


def free_running(
    known: Sequence[KnownPage], models: Sequence[PageReading], sources: Sequence[PageReading]
) -> FreeRunning:
    """Return how far a model's own greedy answers are from its source's, and both from the truth."""
    pages = list(zip((each.greedy for each in models), (each.greedy for each in sources), known, strict=True))
    true = [(model, source, page.truth) for model, source, page in pages if page.truth is not None]
    steady = [(model, source) for model, source, _ in pages if not model.looped and not source.looped]
    return FreeRunning(
        pages=len(pages),
        identical_pages=sum(is_same(model, source) for model, source, _ in pages),
        looping_pages=sum(model.looped for model, _, _ in pages),
        against_source=text_errors([(model.natural_text, source.natural_text) for model, source, _ in pages]),
        against_truth=text_errors([(model.natural_text, truth) for model, _, truth in true]) if true else None,
        source_against_truth=text_errors([(source.natural_text, truth) for _, source, truth in true]) if true else None,
        without_loops=(
            text_errors([(model.natural_text, source.natural_text) for model, source in steady]) if steady else None
        ),
    )


def structure(readings: Sequence[PageReading]) -> Structure:
    """Return the results of the pipeline's retries on the pages."""
    attempts = Counter(reading.attempts for reading in readings)
    return Structure(
        pages=len(readings),
        valid_pages=sum(reading.valid for reading in readings),
        valid_first_answers=sum(reading.first_holds for reading in readings),
        stop_reasons=dict(Counter(reading.first_finish_reason for reading in readings)),
        loops=sum(reading.looped for reading in readings),
        mean_attempts=sum(reading.attempts for reading in readings) / len(readings),
        attempts={str(number): attempts[number] for number in sorted(attempts)},
    )


def cost(folder: Path, conversion: Mapping[str, Any], pages: Sequence[PageMeasurement], took: PhaseCost) -> Cost:
    """Return what the model in *folder* takes; *conversion* is its conversion's report, empty without one."""
    prefill = sum(page.prefill_seconds for page in pages)
    writing = sum(max(0.0, page.reading.greedy.seconds - page.prefill_seconds) for page in pages)
    return Cost(
        weight_bytes=sum(path.stat().st_size for path in files_in(folder, ".safetensors")),
        bits_per_weight=conversion.get("bits_per_weight"),
        components=tuple(ComponentBits(**each) for each in conversion.get("components", ())),
        computed_in=took.computed_in,
        load_seconds=took.load_seconds,
        peak_memory=took.peak_memory,
        prefill_rate=_rate(sum(page.prompt_tokens for page in pages), prefill),
        decode_rate=_rate(sum(len(page.reading.greedy.tokens) + 1 for page in pages), writing),
        pages_per_minute=_rate(60 * len(pages), sum(page.reading.seconds for page in pages)),
    )


def _rate(count: float, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 else 0.0


def fidelity_page(
    known: KnownPage, model: PageReading, source: PageReading, kept: KeptDistributions, found: PageDivergence
) -> FidelityPage:
    """Return the figures of one page."""
    flips = found.choices != kept.choices
    text = model.greedy.natural_text
    return FidelityPage(
        document=known.path.name,
        page_number=known.page_number,
        positions=len(flips),
        mean_kl=float(found.divergence.mean()),
        flips=int(flips.sum()),
        first_divergence=int(flips.argmax()) if flips.any() else None,
        identical=is_same(model.greedy, source.greedy),
        looped=model.looped,
        source_looped=source.looped,
        valid=model.valid,
        source_valid=source.valid,
        attempts=model.attempts,
        rejected=model.rejected,
        character_error_rate=character_error_rate(text, source.greedy.natural_text),
        truth_character_error_rate=None if known.truth is None else character_error_rate(text, known.truth),
    )


def parity(
    reference: str,
    kept: Sequence[KeptDistributions],
    found: Sequence[PageDivergence],
    answers: Iterable[tuple[PageAnswer, PageAnswer]],
) -> Parity:
    """Return how far *reference* is from the source in MLX; *answers* are the greedy ones of both."""
    divergence = np.concatenate([page.divergence for page in found])
    pairs = list(zip(kept, found, strict=True))
    apart = np.concatenate([np.abs(page.given - source.likely[:, 0]) for source, page in pairs])
    same = np.concatenate([page.choices == source.choices for source, page in pairs])
    return Parity(
        reference=reference,
        pages=len(pairs),
        positions=len(divergence),
        mean_kl=float(divergence.mean()),
        max_kl=float(divergence.max()),
        max_log_probability_difference=float(apart.max()),
        top1_agreement=float(same.mean()),
        identical_pages=sum(is_same(answer, other) for answer, other in answers),
    )


def text_errors(pairs: Sequence[tuple[str, str]]) -> TextErrors:
    """Return how far texts are from others, given as pairs (text, other text), each page weighted by its length."""
    characters = [max(1, len(other)) for _, other in pairs]
    words = [max(1, len(other.split())) for _, other in pairs]
    wrong_characters = (character_error_rate(*pair) * count for pair, count in zip(pairs, characters, strict=True))
    wrong_words = (word_error_rate(*pair) * count for pair, count in zip(pairs, words, strict=True))
    tables = [(tables_in(text), tables_in(other)) for text, other in pairs]
    return TextErrors(
        pages=len(pairs),
        character_error_rate=sum(wrong_characters) / sum(characters),
        word_error_rate=sum(wrong_words) / sum(words),
        numbers=sum(len(numbers_in(other)) for _, other in pairs),
        exact_numbers=sum(exact_numbers(text, other) for text, other in pairs),
        tables=sum(len(other) for _, other in tables),
        exact_tables=sum(exact_tables(found, other) for found, other in tables),
        cells=sum(len(row) for _, other in tables for table in other for row in table),
        exact_cells=sum(exact_cells(found, other) for found, other in tables),
    )


def is_same(answer: PageAnswer, other: PageAnswer) -> bool:
    """Say whether two answers are the same to the letter, to the page turned alike."""
    return answer.text == other.text and answer.rotation == other.rotation
