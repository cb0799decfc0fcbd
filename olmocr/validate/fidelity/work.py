"""What is known about a model's pages so far -> a folder from which a later run resumes, page by page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from olmocr.files import cache_folder, whole_file, write_whole
from olmocr.reports.typed_json import parse_as
from olmocr.validate.fidelity.distributions import KeptDistributions, PageDivergence
from olmocr.validate.fidelity.reading import PageReading

Arrays = TypeVar("Arrays", KeptDistributions, PageDivergence)
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class PageMeasurement:
    """A page as one model read it. *classes* are of the source's tokens, and empty for another model."""

    reading: PageReading
    prompt_tokens: int
    prefill_seconds: float
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhaseCost:
    """What one model took: the time to load it, and the most bytes that MLX had allocated."""

    computed_in: str
    load_seconds: float
    peak_memory: int


@dataclass(frozen=True)
class Work:
    """A folder with what is known about one model's pages, each by its number among them."""

    folder: Path

    def knows(self, number: int) -> bool:
        """Whether a page is there and readable."""
        try:
            self.page(number)
        except (OSError, ValueError):
            return False
        return True

    def page(self, number: int) -> PageMeasurement:
        """Return a measured page."""
        return _read(self.folder / f"{number:04}.json", PageMeasurement)

    def pages(self, count: int) -> list[PageMeasurement]:
        """Return the first *count* pages, which must all be measured."""
        return [self.page(number) for number in range(count)]

    def arrays(self, number: int, kind: type[Arrays]) -> Arrays:
        """Return a page's arrays."""
        with np.load(self.folder / f"{number:04}.npz") as stored:
            return kind(**{field.name: stored[field.name] for field in dataclasses.fields(kind)})

    def keep(self, number: int, page: PageMeasurement, arrays: KeptDistributions | PageDivergence) -> None:
        """Write a page; it counts as known once complete.

        Raises:
            OutputError: it cannot be written.
        """
        with whole_file(self.folder / f"{number:04}.npz") as file:
            np.savez(file, **vars(arrays))
        write_whole(self.folder / f"{number:04}.json", json.dumps(dataclasses.asdict(page)))

    def cost(self) -> PhaseCost:
        """Return what the model took so far; at least one of its pages must be known."""
        return _read(self.folder / "cost.json", PhaseCost)

    def keep_cost(self, cost: PhaseCost) -> None:
        """Write what the model took; of several runs, the highest peak counts.

        Raises:
            OutputError: it cannot be written.
        """
        with contextlib.suppress(OSError, ValueError, TypeError):
            cost = dataclasses.replace(cost, peak_memory=max(cost.peak_memory, self.cost().peak_memory))
        write_whole(self.folder / "cost.json", json.dumps(vars(cost)))


def default_work() -> Path:
    """Return the default folder for measurements, in the user's cache."""
    return cache_folder("fidelity")


def _read(path: Path, kind: type[Kept]) -> Kept:
    return parse_as(kind, path.read_text(encoding="utf-8"))
