"""What a card's tables tell of a variant, kept in the repository so that a later push tells it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from olmocr.publish.folder_reports import Reports
from olmocr.reports.fidelity import FidelityReport
from olmocr.reports.parts import ComponentBits, Interval
from olmocr.reports.typed_json import WrongTypeError, parse_as, report_json


@dataclass(frozen=True)
class Measured:
    """How close a variant is to its source: *weight_bytes* are those of its files, as the measurement counted them."""

    weight_bytes: int
    mean_kl: float
    mean_kl_interval: Interval
    identical_pages: int
    pages: int


@dataclass(frozen=True)
class CardRow:
    """One variant in a card's tables. *memory* is what it needs to read a page, in bytes; *measured* may be nothing."""

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
    """The rows of the variants that a card tells of beside its own."""

    variants: tuple[CardRow, ...]
    version: int = 1


def row_of(title: str, reports: Reports) -> CardRow:
    """Return what the tables tell of the model that is called *title*."""
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
    """Return the rows of such a text, which came from anywhere; none where it is no such text."""
    try:
        return parse_as(Variants, text).variants
    except WrongTypeError:
        return ()


def with_kept(rows: Sequence[CardRow], earlier: Sequence[CardRow], own: str) -> tuple[CardRow, ...]:
    """Return *rows*, and those of the *earlier* ones that tell of neither one of them nor of the variant *own*."""
    told = {own, *(row.title for row in rows)}
    return (*rows, *(row for row in earlier if row.title not in told))
