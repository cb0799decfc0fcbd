"""A comparison of models with their source -> one self-contained HTML file that shows it page by page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from olmocr.errors import UsageError
from olmocr.files import write_whole
from olmocr.html import asset, page_head, page_template
from olmocr.rendering.picture import Picture, make_picture
from olmocr.reports.fidelity import FidelityPage, FidelityReport
from olmocr.text import printable
from olmocr.validate.fidelity.ladder import (
    COLUMNS,
    broken_limits,
    ladder_rows,
    model_labels,
    position_plot,
    size,
    size_plot,
    steps,
)
from olmocr.validate.fidelity.plots import Series, divergence_by_page
from olmocr.validate.fidelity.word_diff import Stretch, word_diff
from olmocr.validate.score import NUMBER

if TYPE_CHECKING:
    from olmocr.validate.fidelity.measure import MeasuredModels, ReadPage
    from olmocr.validate.fidelity.reading import PageAnswer

FIDELITY_HTML_FILE = "fidelity_report.html"
MOST_PAGES = 100

_HERE = "olmocr.validate.fidelity"
_TAG = re.compile(r"(</?[a-zA-Z][^<>\n]{0,200}>)")
_NUMBER = re.compile(f"({NUMBER.pattern})")
_MOST_NUMBERS = 12


@dataclass(frozen=True)
class _Row:
    """One model's figures for one page."""

    label: str
    page: FidelityPage


@dataclass(frozen=True)
class _ShownAnswer:
    """The same answer, to the letter, from the models in *labels*. *stretches* is None if it is the source's."""

    labels: tuple[str, ...]
    stretches: tuple[Stretch, ...] | None
    turned: str = ""

    @property
    def changes(self) -> list[Stretch]:
        """Where it differs from the source's answer."""
        return [each for each in self.stretches or () if not each.is_same]

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """The numbers that differ, in the source's version and in this one."""
        return [each.numbers for each in self.changes if each.numbers][:_MOST_NUMBERS]


@dataclass(frozen=True)
class _ComparedPage:
    """A page as shown; *number* is its place among them, from 1."""

    number: int
    name: str
    rows: tuple[_Row, ...]
    text: str
    truth: str | None
    answers: tuple[_ShownAnswer, ...]
    picture: Picture

    @property
    def is_same(self) -> bool:
        """Whether all models answered as the source did."""
        return all(answer.stretches is None for answer in self.answers)


def fidelity_html(measured: MeasuredModels, most_pages: int = MOST_PAGES) -> str:
    """Return HTML that shows *measured*, the worst pages first; only *most_pages* of them in full.

    Raises:
        InputError: a page can no longer be rendered.
    """
    measured, order = _by_size(measured), _worst_first(measured)
    labels = model_labels(measured.reports)
    listed = [_rows(measured, labels, number) for number in order]
    template = page_template(_HERE, "fidelity.html", _shown, marked=_marked, changed=_changed, size=size)
    return template.render(
        **page_head([asset(_HERE, "fidelity.css")]),
        reports=measured.reports,
        labels=labels,
        columns=COLUMNS,
        rows=ladder_rows(measured.reports),
        remarks=[*steps(measured.reports), *broken_limits(measured.reports)],
        verdict=_verdict(measured.reports, labels),
        holds=all(report.gate.passed for report in measured.reports if report.gate),
        plots=[Markup(plot) for plot in _plots(measured, order, labels)],  # noqa: S704  # ours, with escaped labels
        listed=listed,
        shown=min(most_pages, len(order)),
        pages=_pages(measured, order[:most_pages], labels),
    )


def html_target(path: Path, folders: Sequence[Path]) -> Path:
    """Return where the HTML requested as *path* goes: a file, or a folder for it.

    Raises:
        UsageError: that is in one of the models' *folders*, which get published, while pages may be private.
    """
    path = path.expanduser()
    target = path / FIDELITY_HTML_FILE if path.is_dir() else path
    for folder in folders:
        if target.resolve().is_relative_to(folder.expanduser().resolve()):
            raise UsageError(
                f"{target} would be in {folder}, a model's folder, and contain the pages' images and text; "
                "name a file outside it"
            )
    return target


def write_fidelity_html(path: Path, measured: MeasuredModels, most_pages: int = MOST_PAGES) -> int:
    """Write what *fidelity_html* returns; return how many bytes it has.

    Raises:
        InputError: a page can no longer be rendered.
        OutputError: it cannot be written.
    """
    write_whole(path, fidelity_html(measured, most_pages))
    return path.stat().st_size


def _by_size(measured: MeasuredModels) -> MeasuredModels:
    reports = measured.reports
    order = sorted(range(len(reports)), key=lambda each: (-reports[each].cost.weight_bytes, reports[each].model))
    pages = tuple(
        dataclasses.replace(page, models=tuple(page.models[each] for each in order)) for page in measured.pages
    )
    return dataclasses.replace(measured, reports=tuple(reports[each] for each in order), pages=pages)


def _worst_first(measured: MeasuredModels) -> list[int]:
    """Return the pages' numbers: those that a model broke, then by wrong characters, then by divergence."""

    def badness(number: int) -> tuple[bool, float, float]:
        pages = [report.pages[number] for report in measured.reports]
        return (
            any(page.source_valid and not page.valid for page in pages),
            max(page.character_error_rate for page in pages),
            max(page.mean_kl for page in pages),
        )

    return sorted(range(len(measured.pages)), key=badness, reverse=True)


def _rows(measured: MeasuredModels, labels: Sequence[str], number: int) -> tuple[_Row, ...]:
    return tuple(_Row(label, report.pages[number]) for label, report in zip(labels, measured.reports, strict=True))


def _verdict(reports: Sequence[FidelityReport], labels: Sequence[str]) -> str:
    """Return the limits' verdict in a sentence; "" without limits."""
    if not all(report.gate for report in reports):
        return ""
    broken = [label for label, report in zip(labels, reports, strict=True) if report.gate and not report.gate.passed]
    if len(reports) == 1:
        return f"{labels[0]} {'breaks limits' if broken else 'meets all limits'} of its recipe."
    if not broken:
        return f"All {len(reports)} models meet the limits of their recipes."
    verb = "breaks" if len(broken) == 1 else "break"
    return f"{len(reports) - len(broken)} of {len(reports)} models meet their limits; {', '.join(broken)} {verb} them."


def _plots(measured: MeasuredModels, order: Sequence[int], labels: Sequence[str]) -> Iterator[str]:
    reports = measured.reports
    if len(reports) > 1:
        yield size_plot(reports, style="")
    yield position_plot(reports, style="")
    names = [measured.pages[number].known.name for number in order]
    series = [
        Series(
            label,
            tuple(report.pages[number].mean_kl for number in order),
            frozenset(place for place, number in enumerate(order) if report.pages[number].identical),
        )
        for label, report in zip(labels, reports, strict=True)
    ]
    yield divergence_by_page(names, series, style="")


def _pages(measured: MeasuredModels, order: Sequence[int], labels: Sequence[str]) -> Iterator[_ComparedPage]:
    """Yield pages one by one, so that only one picture is in memory besides the text."""
    for place, number in enumerate(order, 1):
        page = measured.pages[number]
        yield _ComparedPage(
            number=place,
            name=page.known.name,
            rows=_rows(measured, labels, number),
            text=page.source.greedy.natural_text,
            truth=page.known.truth,
            answers=tuple(_answers(page, labels)),
            picture=make_picture(measured.image(page), quality=55),
        )


def _answers(page: ReadPage, labels: Sequence[str]) -> Iterator[_ShownAnswer]:
    """Yield each different answer once, the largest model's first, with all models that gave it."""
    source = page.source.greedy
    alike: dict[tuple[str, int], list[int]] = {}
    for number, model in enumerate(page.models):
        alike.setdefault((model.greedy.text, model.greedy.rotation), []).append(number)
    for (text, rotation), numbers in alike.items():
        is_same = (text, rotation) == (source.text, source.rotation)
        turned = "" if rotation == source.rotation else f"turned by {rotation} degrees, the source by {source.rotation}"
        stretches = None if is_same else word_diff(*_texts(source, page.models[numbers[0]].greedy))
        yield _ShownAnswer(tuple(labels[number] for number in numbers), stretches, turned)


def _texts(source: PageAnswer, other: PageAnswer) -> tuple[str, str]:
    """Return the texts to compare: complete answers if their front matter differs or is missing."""
    if _front(source) == _front(other):
        return source.natural_text, other.natural_text
    return source.text, other.text


def _front(answer: PageAnswer) -> str:
    text = answer.natural_text
    return answer.text.partition(text)[0] if text else answer.text.rstrip()


def _marked(text: str) -> Markup:
    """Return text as HTML: tags faint, hidden characters by their names."""
    parts = _TAG.split(printable(text))
    return Markup("").join(
        Markup('<span class="tag">{}</span>').format(part) if number % 2 else Markup("{}").format(part)
        for number, part in enumerate(parts)
    )


def _changed(text: str, has_other_numbers: object) -> Markup:
    """Return a part that differs as HTML, with its different numbers marked.

    If it has only spaces and line ends, these are shown.
    """
    if text.strip(" \n"):
        return _with_numbers(text) if has_other_numbers else _marked(text)
    return Markup("{}").format(text.replace(" ", "\u2423").replace("\n", "\u21b5\n"))


def _with_numbers(text: str) -> Markup:
    parts = _NUMBER.split(text)
    return Markup("").join(
        Markup('<b class="number">{}</b>').format(part) if number % 2 else _marked(part)
        for number, part in enumerate(parts)
    )


def _shown(value: object) -> object:
    """Return the values for the template, with hidden characters in others' texts shown."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
