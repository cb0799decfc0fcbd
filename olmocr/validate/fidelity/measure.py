"""Converted folders, their source, and pages -> FidelityReports: how quantization changed the reading of pages.

First the source reads all pages, and its probabilities are stored on disk. Then the converted models follow, one at a
time; no two are in memory together. A later run finds what was measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from olmocr.errors import UsageError
from olmocr.files import temporary_folder, write_whole
from olmocr.model_folder import ModelFolder, read_config, read_json
from olmocr.page import PAGE_PROMPT, PageImage
from olmocr.rendering.render import open_document, turned
from olmocr.reports.fidelity import FIDELITY_REPORT_FILE, FidelityReport, Parity
from olmocr.reports.typed_json import report_json
from olmocr.runtime.device import Device, start_mlx
from olmocr.runtime.facts import machine, versions, weight_hashes
from olmocr.validate.fidelity.distributions import (
    TOP_K,
    WHOLE_POSITIONS,
    KeptDistributions,
    PageDivergence,
    diverge,
    keep,
)
from olmocr.validate.fidelity.token_classes import token_classes
from olmocr.validate.known_pages.built_in_pages import pages_or_built_in
from olmocr.validate.known_pages.page_set import KnownPage, longest_side_for, page_hashes

if TYPE_CHECKING:
    from olmocr.validate.fidelity.reading import PageReading
    from olmocr.validate.fidelity.work import Work

log = logging.getLogger(__name__)

_CONVERSION_REPORT = "conversion_report.json"
_FORMAT = 2  # of what is stored; another format is measured anew

OnPage = Callable[[str, int], None]
"""Called with the name of the model that has just read a page, and the total number of calls."""


@dataclass(frozen=True)
class FidelityTerms:
    """The options for measuring a model.

    *pages* are documents and folders, or empty for the built-in pages. *longest_side* is in pixels, None for what suits
    the source. *work* is where measurements are stored, None for the user's cache. With *reference*, the source in MLX
    is also compared with the same checkpoint there.
    """

    pages: tuple[Path, ...] = ()
    longest_side: int | None = None
    max_tokens: int = 4000
    work: Path | None = None
    reference: Literal["transformers"] | None = None


@dataclass(frozen=True)
class _Question:
    """What both models read."""

    pages: tuple[KnownPage, ...]
    longest_side: int
    max_tokens: int
    models: int

    def report(self, on_page: OnPage, folder: Path) -> None:
        """Report that the model in *folder* has read a page."""
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
class MeasuredModels:
    """Models compared with their source: a report for each, and all their results for each page."""

    reports: tuple[FidelityReport, ...]
    pages: tuple[ReadPage, ...]

    def image(self, page: ReadPage) -> PageImage:
        """Return a page as the source saw it, turned upright; only while the context is open."""
        with open_document(page.known.path, page.known.path.name) as document:
            image = document.render(page.known.page_number, self.reports[0].longest_side)
        return turned(image, page.source.greedy.rotation)


def measure_fidelity(
    folder: Path, source: Path, terms: FidelityTerms = FidelityTerms(), on_page: OnPage = lambda name, total: None
) -> FidelityReport:
    """Measure how far the model in *folder* is from *source*, which it was made from, without writing beside it.

    Raises:
        CheckpointError: one of them is not a loadable model.
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
) -> Iterator[MeasuredModels]:
    """Measure the model in each of *folders*, one after the other; their pages can be drawn until the context ends.

    Raises:
        CheckpointError: one of them is not a loadable model.
        InputError: a page cannot be read.
        MissingDependencyError: MLX, mlx-vlm or rapidfuzz is not installed.
        OutputError: the disk is full.
    """
    for each in (*folders, source):
        read_config(ModelFolder(each))
    device = start_mlx()
    # Imported only now, since they import MLX, which must find its BLAS loaded.
    from olmocr.validate.fidelity import figures
    from olmocr.validate.fidelity.earlier import write_asked
    from olmocr.validate.fidelity.work import Work, default_work

    with temporary_folder() as scratch:
        side = terms.longest_side or longest_side_for(source)
        page_set, pages = pages_or_built_in(terms.pages, scratch, side)
        question = _Question(pages, side, terms.max_tokens, len(folders) + (2 if terms.reference else 1))
        source_hashes, documents = weight_hashes(source), page_hashes(pages)
        key = _key(source_hashes, documents, question, device)
        work = (terms.work or default_work()) / key
        before = Work(work / "source")
        write_asked(work, source_hashes, pages, side)
        _read_pages(source, question, before, None, device, on_page)
        measured = []
        for folder in folders:
            hashes = weight_hashes(folder)
            after = Work(work / _digest(hashes))
            _read_pages(folder, question, after, before, device, on_page)
            measured.append((folder, hashes, after))
        parity = None
        if terms.reference:
            parity = _measure_parity(source, question, before, Work(work / terms.reference), on_page)

        def report(folder: Path, hashes: Mapping[str, str], after: Work) -> FidelityReport:
            numbers = range(len(pages))
            sources, models = before.pages(len(pages)), after.pages(len(pages))
            source_readings, readings = [page.reading for page in sources], [page.reading for page in models]
            kept = [before.arrays(number, KeptDistributions) for number in numbers]
            found = [after.arrays(number, PageDivergence) for number in numbers]
            conversion = _conversion_report(folder)
            return FidelityReport(
                model=folder.resolve().name,
                source=source.resolve().name,
                recipe=conversion.get("recipe", {}).get("name"),
                weights=hashes,
                source_weights=source_hashes,
                page_set=page_set,
                page_hashes=documents,
                longest_side=side,
                max_tokens=terms.max_tokens,
                distribution=figures.distribution(kept, found, [each for page in sources for each in page.classes]),
                free_running=figures.free_running(pages, readings, source_readings),
                structure=figures.structure(readings),
                source_structure=figures.structure(source_readings),
                cost=figures.cost(folder, conversion, models, after.cost()),
                source_cost=figures.cost(source, _conversion_report(source), sources, before.cost()),
                parity=parity,
                gate=None,
                pages=tuple(map(figures.fidelity_page, pages, readings, source_readings, kept, found)),
                device=str(device),
                machine=machine(),
                versions=versions(),
            )

        yield MeasuredModels(
            tuple(report(*each) for each in measured),
            tuple(
                ReadPage(page, read.reading, tuple(after.page(number).reading for _, _, after in measured))
                for number, (page, read) in enumerate(zip(pages, before.pages(len(pages)), strict=True))
            ),
        )


def distinct_folders(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return *folders* with ``~`` expanded.

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
    """Return what identifies a measurement of a source: everything its answers depend on."""
    asked = [[page.path.name, page.page_number] for page in question.pages]
    terms = [_FORMAT, TOP_K, WHOLE_POSITIONS, question.longest_side, question.max_tokens, PAGE_PROMPT, str(device)]
    return _digest({"weights": weights, "documents": documents, "pages": asked, "terms": terms})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def _read_pages(
    folder: Path, question: _Question, work: Work, before: Work | None, device: Device, on_page: OnPage
) -> None:
    """Have the model in *folder* read each page that *work* lacks; load nothing if it lacks none.

    Without *before* it is the source, and everything needed for comparing others is stored; that is their *before*.
    """
    from olmocr.inference.model import load_model
    from olmocr.validate.fidelity.forced import ForcedAnswer, forget_peak, peak_memory
    from olmocr.validate.fidelity.reading import inputs_of, pieces_of, read_page
    from olmocr.validate.fidelity.work import PageMeasurement, PhaseCost

    missing = [number for number in range(len(question.pages)) if not work.knows(number)]
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
        image = question.image(question.pages[number])
        reading = read_page(loaded, image, question.max_tokens)
        answer = (before.page(number).reading if before else reading).greedy
        inputs = inputs_of(loaded, image, answer.rotation)
        forced = ForcedAnswer(loaded, inputs, answer.tokens)
        arrays: KeptDistributions | PageDivergence
        classes: tuple[str, ...] = ()
        if before:
            arrays = diverge(before.arrays(number, KeptDistributions), forced.blocks())
        else:
            arrays = keep(forced.blocks(), len(answer.tokens) + 1)
            classes = token_classes(pieces_of(loaded, answer.tokens))
        page = PageMeasurement(reading, inputs.input_ids.shape[1], forced.prefill_seconds, classes)
        work.keep(number, page, arrays)
        work.keep_cost(PhaseCost(loaded.dtype, round(load_seconds, 3), peak_memory()))
        question.report(on_page, folder)


def _measure_parity(folder: Path, question: _Question, before: Work, work: Work, on_page: OnPage) -> Parity:
    """Have transformers read what the source in MLX read; return how far apart the two are."""
    from olmocr.validate.fidelity import figures
    from olmocr.validate.fidelity.reading import PageReading
    from olmocr.validate.fidelity.reference import Reference
    from olmocr.validate.fidelity.work import PageMeasurement, PhaseCost

    reference = None
    for number, page in enumerate(question.pages):
        if not work.knows(number):
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
    numbers = range(len(question.pages))
    return figures.parity(
        work.cost().computed_in,
        [before.arrays(number, KeptDistributions) for number in numbers],
        [work.arrays(number, PageDivergence) for number in numbers],
        [(before.page(number).reading.greedy, work.page(number).reading.greedy) for number in numbers],
    )


def _conversion_report(folder: Path) -> dict[str, Any]:
    path = folder / _CONVERSION_REPORT
    return read_json(path) if path.is_file() else {}
