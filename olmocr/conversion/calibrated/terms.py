"""What a calibration is made with, as data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from olmocr.conversion.calibrated.passes.samples import CalibrationPage

HELD_OUT_SEED = 1
"""Which quarter of the pages is held out, to judge on it whether what was calibrated is better than ``fit``."""

OnShare = Callable[[float], object]
"""Called with the share of a calibration that is done, from 0 to 1."""


@dataclass(frozen=True)
class Calibration:
    """What a calibration is made with: *pages*, and into how many *down_slices* the widest input's columns are cut.

    *on_share* is called as it proceeds. *are_drawn* says that the pages are those that this package draws. With
    *by_gradients* a token of the language model counts by how much an error there would change what the model says,
    which takes one pass there and back before; without, by what kind of token it is.
    """

    pages: tuple[CalibrationPage, ...]
    down_slices: int = 1
    are_drawn: bool = True
    on_share: OnShare = lambda share: None
    by_gradients: bool = False

    @property
    def fingerprint(self) -> str:
        """What tells its result from that of every other one with the same source."""
        pages = sorted(page.sha256 for page in self.pages)
        return hashlib.sha256(repr((pages, self.down_slices, HELD_OUT_SEED, self.by_gradients)).encode()).hexdigest()
