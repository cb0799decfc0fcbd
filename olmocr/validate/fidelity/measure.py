"""Converted folders, their source, and pages -> FidelityReports: what quantization did to how pages are read.

First the source reads all pages and what it found likely is kept on disk, then one converted model after another; no
two are in memory together. What was measured is found again by a later run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from olmocr.device import Device, start_mlx
from olmocr.errors import UsageError
from olmocr.files import write_whole
from olmocr.model_folder import ModelFolder, read_config, read_json
from olmocr.page import PAGE_PROMPT, PageImage
from olmocr.rendering.render import open_document, turned
from olmocr.reports.fidelity import (
    FIDELITY_REPORT_FILE,
    Cost,
    Distribution,
    FidelityPage,
    FidelityReport,
    FlipClass,
    FreeRunning,
    Parity,
    Structure,
    TextErrors,
    Truncation,
)
from olmocr.reports.parts import ComponentBits
from olmocr.reports.typed_json import report_json
from olmocr.runtime.facts import machine, versions, weight_hashes
from olmocr.validate.fidelity.distributions import (
    TOP_K,
    WHOLE_POSITIONS,
    KeptDistributions,
    PageDivergence,
    by_position,
    diverge,
    keep,
    mean_interval,
)
from olmocr.validate.fidelity.token_classes import TOKEN_CLASSES, token_classes
from olmocr.validate.known_pages.built_in_pages import BUILT_IN, draw_built_in_pages
from olmocr.validate.known_pages.page_set import KnownPage, longest_side_for, page_hashes, read_page_set
from olmocr.validate.score import (
    character_error_rate,
    exact_cells,
    exact_numbers,
    exact_tables,
    numbers_in,
    tables_in,
    word_error_rate,
)

if TYPE_CHECKING:
    from olmocr.validate.fidelity.reading import PageReading

log = logging.getLogger(__name__)

_CONVERSION_REPORT = "conversion_report.json"
_FORMAT = 2  # of what is kept; another one is measured anew

OnPage = Callable[[str, int], None]
"""Called with the name of the model that has just read a page, and how often it will be called in all."""


@dataclass(frozen=True)
class FidelityTerms:
    """On which terms a model is measured.

    *pages* are documents and folders, none for the built-in pages; *longest_side* is in pixels, None for what suits the
    source; *work* is where measurements are kept, None for the user's cache. *reference* asks to compare the source in
    MLX with the same checkpoint there, too.
    """

    pages: tuple[Path, ...] = ()
    longest_side: int | None = None
    max_tokens: int = 4000
    work: Path | None = None
    reference: Literal["transformers"] | None = None


@dataclass(frozen=True)
class _Question:
    """What both models are asked."""

    pages: tuple[KnownPage, ...]
    longest_side: int
    max_tokens: int
    models: int

    def report(self, on_page: OnPage, folder: Path) -> None:
        """Say that the model in *folder* has read a page."""
        on_page(folder.resolve().name, self.models * len(self.pages))

    def image(self, page: KnownPage) -> PageImage:
        with open_document(page.path, page.path.name) as document:
            return document.render(page.page_number, self.longest_side)


@dataclass(frozen=True)
class ReadPage:
    """A page, how the source read it, and how each model did, in the order of the reports."""

    known: KnownPage
    source: PageReading
    models: tuple[PageReading, ...]


@dataclass(frozen=True)
class Comparison:
    """Models beside their source: a report of each, and what all of them made of each page."""

    reports: tuple[FidelityReport, ...]
    pages: tuple[ReadPage, ...]

    def image(self, page: ReadPage) -> PageImage:
        """Return a page as the source was asked it, turned upright; only while the comparison is open."""
        with open_document(page.known.path, page.known.path.name) as document:
            image = document.render(page.known.page_number, self.reports[0].longest_side)
        return turned(image, page.source.greedy.rotation)


def measure_fidelity(
    folder: Path, source: Path, terms: FidelityTerms = FidelityTerms(), on_page: OnPage = lambda name, total: None
) -> FidelityReport:
    """Measure how far the model in *folder* is from *source*, which it was made from; write nothing beside it.

    Raises:
        CheckpointError: one of them is no model that can be loaded.
        InputError: a page cannot be read.
        MissingDependencyError: MLX, mlx-vlm or rapidfuzz is not installed.
        OutputError: the disk is full.
    """
    with compare((folder,), source, terms, on_page) as comparison:
        return comparison.reports[0]


@contextlib.contextmanager
def compare(
    folders: Sequence[Path],
    source: Path,
    terms: FidelityTerms = FidelityTerms(),
    on_page: OnPage = lambda name, total: None,
) -> Iterator[Comparison]:
    """Measure the model in each of *folders*, one after the other; their pages can be drawn until the context ends.

    Raises:
        CheckpointError: one of them is no model that can be loaded.
        InputError: a page cannot be read.
        MissingDependencyError: MLX, mlx-vlm or rapidfuzz is not installed.
        OutputError: the disk is full.
    """
    for each in (*folders, source):
        read_config(ModelFolder(each))
    device = start_mlx()
    # Only now, since they import MLX, which must find its BLAS loaded.
    from olmocr.validate.fidelity.work import Work, default_work

    with tempfile.TemporaryDirectory(prefix="olmocr-fidelity-") as scratch:
        side = terms.longest_side or longest_side_for(source)
        pages = read_page_set(terms.pages) if terms.pages else draw_built_in_pages(Path(scratch), side)
        question = _Question(pages, side, terms.max_tokens, len(folders) + (2 if terms.reference else 1))
        source_hashes, documents = weight_hashes(source), page_hashes(pages)
        key = _key(source_hashes, documents, question, device)
        work = (terms.work or default_work()) / key
        before = Work(work / "source")
        _measure_source(source, question, before, device, on_page)
        measured = []
        for folder in folders:
            hashes = weight_hashes(folder)
            after = Work(work / _digest(hashes))
            _measure_model(folder, question, before, after, device, on_page)
            measured.append((folder, hashes, after))
        parity = None
        if terms.reference:
            parity = _measure_parity(source, question, before, Work(work / terms.reference), on_page)

        def report(folder: Path, hashes: Mapping[str, str], after: Work) -> FidelityReport:
            found = _Measured(question, before, after)
            return FidelityReport(
                model=folder.resolve().name,
                source=source.resolve().name,
                recipe=_conversion_report(folder).get("recipe", {}).get("name"),
                weights=hashes,
                source_weights=source_hashes,
                page_set=" and ".join(path.resolve().name for path in terms.pages) or BUILT_IN,
                page_hashes=documents,
                longest_side=side,
                max_tokens=terms.max_tokens,
                distribution=found.distribution(),
                free_running=found.free_running(),
                structure=found.structure(of_source=False),
                source_structure=found.structure(of_source=True),
                cost=found.cost(folder, of_source=False),
                source_cost=found.cost(source, of_source=True),
                parity=parity,
                gate=None,
                pages=found.pages(),
                device=str(device),
                machine=machine(),
                versions=versions(),
            )

        yield Comparison(
            tuple(report(*each) for each in measured),
            tuple(
                ReadPage(page, _reading(before, number), tuple(_reading(after, number) for _, _, after in measured))
                for number, page in enumerate(pages)
            ),
        )


def distinct_folders(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return *folders* with ``~`` read.

    Raises:
        UsageError: one of them is given twice.
    """
    found = tuple(folder.expanduser() for folder in folders)
    for number, folder in enumerate(found):
        if folder.resolve() in {other.resolve() for other in found[:number]}:
            raise UsageError(f"{folder} is given twice; give each model once")
    return found


def write_fidelity_report(folder: Path, report: FidelityReport) -> None:
    """Write fidelity_report.json beside the weights in *folder*.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(folder / FIDELITY_REPORT_FILE, report_json(report))


def _key(weights: Mapping[str, str], documents: Mapping[str, str], question: _Question, device: Device) -> str:
    """Return what tells measurements of a source apart: all that its answers depend on."""
    asked = [[page.path.name, page.page_number] for page in question.pages]
    terms = [_FORMAT, TOP_K, WHOLE_POSITIONS, question.longest_side, question.max_tokens, PAGE_PROMPT, str(device)]
    return _digest({"weights": weights, "documents": documents, "pages": asked, "terms": terms})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def _measure_source(folder: Path, question: _Question, work: Any, device: Device, on_page: OnPage) -> None:
    from olmocr.validate.fidelity.forced import ForcedAnswer
    from olmocr.validate.fidelity.reading import inputs_of, pieces_of, read_page
    from olmocr.validate.fidelity.work import PageMeasurement

    def measure(loaded: Any, image: PageImage, number: int) -> None:
        reading = read_page(loaded, image, question.max_tokens)
        tokens = reading.greedy.tokens
        inputs = inputs_of(loaded, image, reading.greedy.rotation)
        forced = ForcedAnswer(loaded, inputs, tokens)
        kept = keep(forced.blocks(), len(tokens) + 1)
        classes = token_classes(pieces_of(loaded, tokens))
        work.keep(number, PageMeasurement(reading, inputs.input_ids.shape[1], forced.prefill_seconds, classes), kept)

    _measure(folder, question, work, device, measure, on_page)


def _measure_model(folder: Path, question: _Question, before: Any, work: Any, device: Device, on_page: OnPage) -> None:
    from olmocr.validate.fidelity.forced import ForcedAnswer
    from olmocr.validate.fidelity.reading import inputs_of, read_page
    from olmocr.validate.fidelity.work import PageMeasurement

    def measure(loaded: Any, image: PageImage, number: int) -> None:
        reading = read_page(loaded, image, question.max_tokens)
        answer = before.page(number).reading.greedy
        inputs = inputs_of(loaded, image, answer.rotation)
        forced = ForcedAnswer(loaded, inputs, answer.tokens)
        found = diverge(before.arrays(number, KeptDistributions), forced.blocks())
        work.keep(number, PageMeasurement(reading, inputs.input_ids.shape[1], forced.prefill_seconds), found)

    _measure(folder, question, work, device, measure, on_page)


def _measure(
    folder: Path,
    question: _Question,
    work: Any,
    device: Device,
    measure: Callable[[Any, PageImage, int], None],
    on_page: OnPage,
) -> None:
    """Load the model of *folder* and *measure* each page that *work* does not know; load nothing if it knows all."""
    from olmocr.inference.model import load_model
    from olmocr.validate.fidelity.forced import forget_peak, peak_memory
    from olmocr.validate.fidelity.work import PhaseCost

    missing = [number for number in range(len(question.pages)) if work.page(number) is None]
    for _ in range(len(question.pages) - len(missing)):
        question.report(on_page, folder)
    if not missing:
        return
    forget_peak()
    started = time.monotonic()
    loaded = load_model(ModelFolder(folder), device)
    load_seconds = time.monotonic() - started
    log.info("%s: %s", folder.resolve().name, loaded)
    for number in missing:
        measure(loaded, question.image(question.pages[number]), number)
        work.keep_cost(PhaseCost(loaded.dtype, round(load_seconds, 3), peak_memory()))
        question.report(on_page, folder)


def _measure_parity(folder: Path, question: _Question, before: Any, work: Any, on_page: OnPage) -> Parity:
    """Have transformers read what the source in MLX read; return how far the one is from the other."""
    from olmocr.validate.fidelity.reading import PageReading
    from olmocr.validate.fidelity.reference import Reference
    from olmocr.validate.fidelity.work import PageMeasurement, PhaseCost

    reference = None
    for number, page in enumerate(question.pages):
        if work.page(number) is None:
            reference = reference or Reference(folder)
            work.keep_cost(PhaseCost(reference.name, reference.load_seconds, 0))
            asked = before.page(number).reading.greedy
            image = turned(question.image(page), asked.rotation)
            found = diverge(before.arrays(number, KeptDistributions), reference.blocks(image, asked.tokens))
            answer = reference.answer(image, question.max_tokens)
            reading = PageReading(
                answer, answer.holds, answer.finish_reason, answer.holds, 1, (), answer.looped, answer.seconds
            )
            work.keep(number, PageMeasurement(reading, 0, 0.0), found)
        question.report(on_page, folder)
    return _parity(len(question.pages), before, work)


def _parity(count: int, before: Any, work: Any) -> Parity:
    pairs = [(before.arrays(each, KeptDistributions), work.arrays(each, PageDivergence)) for each in range(count)]
    answers = [(before.page(each).reading.greedy, work.page(each).reading.greedy) for each in range(count)]
    divergence = np.concatenate([found.divergence for _, found in pairs])
    apart = np.concatenate([np.abs(found.given - kept.likely[:, 0]) for kept, found in pairs])
    same = np.concatenate([found.choices == kept.choices for kept, found in pairs])
    return Parity(
        reference=work.cost().computed_in,
        pages=count,
        positions=len(divergence),
        mean_kl=float(divergence.mean()),
        max_kl=float(divergence.max()),
        max_log_probability_difference=float(apart.max()),
        top1_agreement=float(same.mean()),
        identical_pages=sum(_is_same(answer, other) for answer, other in answers),
    )


def _conversion_report(folder: Path) -> dict[str, Any]:
    path = folder / _CONVERSION_REPORT
    return read_json(path) if path.is_file() else {}


class _Measured:
    """What was measured of both models -> the parts of the report."""

    def __init__(self, question: _Question, before: Any, after: Any) -> None:
        numbers = range(len(question.pages))
        self._pages = question.pages
        self._works = {True: before, False: after}
        self._sources = [before.page(number) for number in numbers]
        self._models = [after.page(number) for number in numbers]
        self._divergences = [after.arrays(number, PageDivergence) for number in numbers]
        self._kept = [before.arrays(number, KeptDistributions) for number in numbers]
        self._flips = [found.choices != kept.choices for found, kept in zip(self._divergences, self._kept, strict=True)]

    def distribution(self) -> Distribution:
        every = np.concatenate([found.divergence for found in self._divergences])
        flips = np.concatenate(self._flips)
        firsts = [int(page.argmax()) for page in self._flips if page.any()]
        return Distribution(
            positions=len(every),
            mean_kl=float(every.mean()),
            mean_kl_interval=mean_interval([found.divergence for found in self._divergences]),
            median_kl=float(np.median(every)),
            p99_kl=float(np.quantile(every, 0.99)),
            top1_agreement=float(1 - flips.mean()),
            pages_without_flip=sum(not page.any() for page in self._flips),
            median_first_divergence=float(np.median(firsts)) if firsts else None,
            flips=self._flips_by_class(flips),
            by_position=by_position([found.divergence for found in self._divergences]),
            truncation=self._truncation(),
        )

    def _flips_by_class(self, flips: Any) -> tuple[FlipClass, ...]:
        classes = [each for page in self._sources for each in page.classes]
        positions = Counter(classes)
        flipped = Counter(each for each, is_flip in zip(classes, flips, strict=True) if is_flip)
        return tuple(FlipClass(each, positions[each], flipped[each]) for each in TOKEN_CLASSES if positions[each])

    def _truncation(self) -> Truncation:
        tails = np.exp(np.concatenate([kept.tail for kept in self._kept]))
        whole = np.concatenate([found.whole for found in self._divergences])
        cut = np.concatenate([found.cut for found in self._divergences])
        return Truncation(
            top_k=self._kept[0].ids.shape[1],
            mean_tail=float(tails.mean()),
            max_tail=float(tails.max()),
            positions=len(whole),
            whole_mean_kl=float(whole.mean()),
            cut_mean_kl=float(cut.mean()),
        )

    def free_running(self) -> FreeRunning:
        pairs = [
            (model.reading.greedy, source.reading.greedy)
            for model, source in zip(self._models, self._sources, strict=True)
        ]
        known = [
            (model, source, page.truth)
            for (model, source), page in zip(pairs, self._pages, strict=True)
            if page.truth is not None
        ]
        steady = [(model, source) for model, source in pairs if not model.looped and not source.looped]
        return FreeRunning(
            pages=len(pairs),
            identical_pages=sum(_is_same(model, source) for model, source in pairs),
            looping_pages=sum(model.looped for model, _ in pairs),
            against_source=text_errors([(model.natural_text, source.natural_text) for model, source in pairs]),
            against_truth=text_errors([(model.natural_text, truth) for model, _, truth in known]) if known else None,
            source_against_truth=(
                text_errors([(source.natural_text, truth) for _, source, truth in known]) if known else None
            ),
            without_loops=(
                text_errors([(model.natural_text, source.natural_text) for model, source in steady]) if steady else None
            ),
        )

    def structure(self, *, of_source: bool) -> Structure:
        readings = [page.reading for page in (self._sources if of_source else self._models)]
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

    def cost(self, folder: Path, *, of_source: bool) -> Cost:
        pages, took = self._sources if of_source else self._models, self._works[of_source].cost()
        report = _conversion_report(folder)
        prefill = sum(page.prefill_seconds for page in pages)
        writing = sum(max(0.0, page.reading.greedy.seconds - page.prefill_seconds) for page in pages)
        seconds = sum(page.reading.seconds for page in pages)
        return Cost(
            weight_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
            bits_per_weight=report.get("bits_per_weight"),
            components=tuple(ComponentBits(**each) for each in report.get("components", ())),
            computed_in=took.computed_in,
            load_seconds=took.load_seconds,
            peak_memory=took.peak_memory,
            prefill_rate=_rate(sum(page.prompt_tokens for page in pages), prefill),
            decode_rate=_rate(sum(len(page.reading.greedy.tokens) + 1 for page in pages), writing),
            pages_per_minute=_rate(60 * len(pages), seconds),
        )

    def pages(self) -> tuple[FidelityPage, ...]:
        return tuple(self._page(number) for number in range(len(self._pages)))

    def _page(self, number: int) -> FidelityPage:
        known, flips = self._pages[number], self._flips[number]
        model, source = self._models[number].reading, self._sources[number].reading
        text = model.greedy.natural_text
        return FidelityPage(
            document=known.path.name,
            page_number=known.page_number,
            positions=len(flips),
            mean_kl=float(self._divergences[number].divergence.mean()),
            flips=int(flips.sum()),
            first_divergence=int(flips.argmax()) if flips.any() else None,
            identical=_is_same(model.greedy, source.greedy),
            looped=model.looped,
            source_looped=source.looped,
            valid=model.valid,
            source_valid=source.valid,
            attempts=model.attempts,
            rejected=model.rejected,
            character_error_rate=character_error_rate(text, source.greedy.natural_text),
            truth_character_error_rate=None if known.truth is None else character_error_rate(text, known.truth),
        )


def text_errors(pairs: Sequence[tuple[str, str]]) -> TextErrors:
    """Return how far texts are from others, both given as (text, other text), each page counted by its length."""
    characters = sum(max(1, len(other)) for _, other in pairs)
    words = sum(max(1, len(other.split())) for _, other in pairs)
    tables = [(tables_in(text), tables_in(other)) for text, other in pairs]
    return TextErrors(
        pages=len(pairs),
        character_error_rate=sum(character_error_rate(text, other) * max(1, len(other)) for text, other in pairs)
        / characters,
        word_error_rate=sum(word_error_rate(text, other) * max(1, len(other.split())) for text, other in pairs) / words,
        numbers=sum(len(numbers_in(other)) for _, other in pairs),
        exact_numbers=sum(exact_numbers(text, other) for text, other in pairs),
        tables=sum(len(other) for _, other in tables),
        exact_tables=sum(exact_tables(found, other) for found, other in tables),
        cells=sum(len(row) for _, other in tables for table in other for row in table),
        exact_cells=sum(exact_cells(found, other) for found, other in tables),
    )


def _reading(work: Any, number: int) -> PageReading:
    reading: PageReading = work.page(number).reading
    return reading


def _is_same(answer: Any, other: Any) -> bool:
    return bool(answer.text == other.text and answer.rotation == other.rotation)


def _rate(count: float, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 else 0.0
