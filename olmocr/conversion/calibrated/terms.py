"""The settings of a calibration, as data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from olmocr.conversion.calibrated.passes.samples import CalibrationPage

FEW_BITS = 3
"""Where no matrix of the language model's blocks has more bits, they make up for the rounding before them.

Where bits are mixed it gained little on the demo's harder pages, or lost, at four times the time (docs/calibration.md).
"""

ALL_BITS = 8
"""For every recipe."""

HELD_OUT_SEED = 1
"""Selects the quarter of the pages that is held out to judge whether calibration is better than ``fit``."""

OnShare = Callable[[float], object]
"""Called with the finished share of a calibration, from 0 to 1."""


@dataclass(frozen=True)
class Calibration:
    """A calibration's *pages*, and the number of *down_slices* into which the widest input's columns are cut.

    *on_share* is called as it proceeds. *are_drawn* means that the pages are the ones that this package draws. With
    *by_gradients*, a token of the language model counts by how much an error there would change the output, which takes
    a forward and backward pass before. Without, it counts by its kind. Where no matrix of the language
    model's blocks has more than *propagated_bits*, each block makes up for the rounding before it.
    """

    pages: tuple[CalibrationPage, ...]
    down_slices: int = 1
    are_drawn: bool = True
    on_share: OnShare = lambda share: None
    by_gradients: bool = False
    propagated_bits: int = FEW_BITS

    @property
    def fingerprint(self) -> str:
        """What identifies its result among all with the same source."""
        pages = sorted(page.sha256 for page in self.pages)
        terms = (pages, self.down_slices, HELD_OUT_SEED, self.by_gradients, self.propagated_bits)
        return hashlib.sha256(repr(terms).encode()).hexdigest()
