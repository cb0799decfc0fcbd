"""A variant's row in a card's tables, stored in the repository so that a later push can show it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from olmocr.publish.folder_reports import Reports
from olmocr.reports.fidelity import FidelityReport
from olmocr.reports.parts import ComponentBits, Interval
from olmocr.reports.typed_json import WrongTypeError, parse_as, report_json


@dataclass(frozen=True)
class Measured:
    """How close a variant is to its source: *weight_bytes* are the bytes of its files when it was measured."""

    weight_bytes: int
    mean_kl: float
    mean_kl_interval: Interval
    identical_pages: int
    pages: int


@dataclass(frozen=True)
class CardRow:
    """One variant in a card's tables. *memory* is what it needs to read a page, in bytes; *measured* may be empty."""

    title: str
    weight_bytes: int
    bits_per_weight: float
    memory: int
    components: tuple[ComponentBits, ...]
    measured: Measured | None

    def bits_of(self, component: str) -> str:
        """Return the bits per weight of a component, as a table shows them."""
        found = [part for part in self.components if part.component == component]
        return f"{found[0].bits_per_weight:.2f}" if found else "none"


@dataclass(frozen=True)
class Variants:
    """The rows of the other variants in a card."""

    variants: tuple[CardRow, ...]
    version: int = 1


def row_of(title: str, reports: Reports) -> CardRow:
    """Return the row of the model called *title*."""
    conversion, fidelity = reports.conversion, reports.fidelity
    return CardRow(
        title,
        conversion.weight_bytes,
        conversion.bits_per_weight,
        reports.memory.total,
        conversion.components,
        _measured(fidelity) if fidelity else None,
    )


def _measured(fidelity: FidelityReport) -> Measured:
    distribution, free_running = fidelity.distribution, fidelity.free_running
    return Measured(
        fidelity.cost.weight_bytes,
        distribution.mean_kl,
        distribution.mean_kl_interval,
        free_running.identical_pages,
        free_running.pages,
    )


def write_rows(rows: Sequence[CardRow]) -> str:
    """Return *rows* as the text of a file beside the card."""
    return report_json(Variants(tuple(rows)))


def parse_rows(text: str) -> tuple[CardRow, ...]:
    """Return the rows in such a text, from an untrusted source; none if it is not such a text."""
    try:
        return parse_as(Variants, text).variants
    except WrongTypeError:
        return ()


def with_kept(rows: Sequence[CardRow], earlier: Sequence[CardRow], own: str) -> tuple[CardRow, ...]:
    """Return *rows*, and those *earlier* ones that are not for one of them, nor for the variant *own*."""
    told = {own, *(row.title for row in rows)}
    return (*rows, *(row for row in earlier if row.title not in told))
