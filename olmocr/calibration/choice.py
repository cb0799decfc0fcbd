"""A conversion's options, and this machine -> whether it is calibrated, on which pages, and how long that takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.conversion.calibrated.terms import ALL_BITS, FEW_BITS, Calibration
from olmocr.conversion.calibrated.wanted import CalibrationCost, wanted_matrices, work_of
from olmocr.conversion.recipe import Method
from olmocr.conversion.write import Target
from olmocr.errors import OlmocrError, PlanError, UsageError
from olmocr.model_folder import ModelFolder
from olmocr.runtime.device import start_mlx
from olmocr.runtime.memory import physical_memory, shown_size
from olmocr.terminal.command import in_this_commands_words

LONG = 600
"""If an optional calibration takes longer than this many seconds, the user is asked first."""

_SLICES = (1, 2, 4)
_SIDE = 1024
_USABLE = 0.6  # of a machine's memory: the rest is for the system and other programs

_log = logging.getLogger(__name__)

Confirm = Callable[[str], bool]
"""Asks the user at the terminal."""

OnPage = Callable[[int, int], None]
"""Called with the number of pages found for calibration, and the total."""


@dataclass(frozen=True)
class Wish:
    """A user's options: a *method*, or None for each recipe's own; their own *pages* to calibrate on.

    *tokens* is the number of answer tokens that suffices; *answering* is a conversion of the same source that answers
    pages. With *low_disk*, the source's weights are fetched one by one and not kept, so they cannot be read before.
    *by_gradients* weights tokens by their gradients. *propagation* says whether blocks make up for the rounding before
    them, or None for the recipe's own way (see `Calibration`).
    """

    method: Method | None = None
    pages: tuple[Path, ...] = ()
    tokens: int | None = None
    answering: Path | None = None
    low_disk: bool = False
    by_gradients: bool = False
    propagation: bool | None = None

    @property
    def is_about_calibration(self) -> bool:
        """Whether any option is set that only calibration uses."""
        return bool(self.pages or self.tokens or self.answering or self.by_gradients) or self.propagation is not None


PagesOf = Callable[[ModelFolder, Wish], tuple[CalibrationPage, ...]]
"""Finds the pages that a source is calibrated on."""


def settle(
    targets: Sequence[Target],
    wish: Wish,
    confirm: Confirm | None = None,
    pages_of: PagesOf | None = None,
    memory: int | None = None,
    rates: Callable[[], tuple[float, float]] | None = None,
) -> tuple[list[Target], Calibration | None]:
    """Return *targets* as they will be made, and their calibration, or None if nothing is calibrated.

    A recipe whose own method is ``calibrated`` falls back to ``fit``, with a log line, in three cases: pages cannot be
    had; *memory* (in bytes, by default this machine's) is short; or it takes more than ``LONG`` seconds and *confirm*
    returns False or is missing. What *wish* names is done, or refused. *rates* are multiply-adds a second, by default
    this machine's.

    Raises:
        OlmocrError: *wish* names ``calibrated``, and it is impossible.
        UsageError: *wish* has pages or tokens, but nothing is calibrated.
    """
    targets = [_with_fit(target) if _has_nothing_to_calibrate(target) else target for target in targets]
    if all(target.plan.method != "calibrated" for target in targets):
        if wish.is_about_calibration:
            raise UsageError(
                "`calibrate_on`, `calibration_tokens`, `calibration_answers`, `calibration_gradients` and "
                "`calibration_propagation` need `method='calibrated'`"
            )
        return targets, None
    is_named = wish.method == "calibrated" or wish.is_about_calibration
    try:
        ways = _ways(targets, wish, memory or physical_memory(), pages_of or found_pages)
    except OlmocrError as error:
        if is_named:
            raise
        return _all_with_fit(targets, str(error)), None
    single, double = (rates or measured_rates)()
    seconds = [way.cost.seconds(single, double) for way in ways]
    for way, its in zip(ways, seconds, strict=True):
        _log.info("%s", way.shown(its))
        if its <= LONG or is_named or (confirm and confirm("Calibrate so? No means a quicker way, or fit.")):
            return targets, way.calibration
    why = f"calibrating takes about {_shown(seconds[-1])}; choose it with `method='calibrated'`"
    return _all_with_fit(targets, why), None


@dataclass(frozen=True)
class _Way:
    """One way to calibrate, and its cost."""

    calibration: Calibration
    cost: CalibrationCost

    def shown(self, seconds: float) -> str:
        """Return what the log says about it."""
        return (
            f"calibrating on {len(self.calibration.pages)} pages takes about {_shown(seconds)} and "
            f"{shown_size(self.cost.peak_memory)} of memory; tokens count by their "
            f"{'gradients' if self.calibration.by_gradients else 'kind'}"
            f"{', and blocks make up for the rounding before them' if self.cost.propagates else ''}"
        )


def found_pages(
    source: ModelFolder, wish: Wish, on_page: OnPage = lambda done, total: None
) -> tuple[CalibrationPage, ...]:
    """Return the pages that *wish* names, or the drawn ones; the log names each page that cannot be used.

    Raises:
        OlmocrError: as in `gather`.
    """
    # Imported here, since a conversion without calibration does not need to draw or render pages.
    from olmocr.calibration.gather import MOST_ANSWER_TOKENS, CalibrationTerms, gather

    terms = CalibrationTerms(wish.pages, most_answer_tokens=wish.tokens or MOST_ANSWER_TOKENS, answering=wish.answering)
    gathered = gather(source, terms, on_page=on_page)
    for left_out in gathered.left_out:
        _log.warning("%s is not used for calibration: %s", left_out.name, left_out.why)
    if gathered.unused:
        _log.info("%d pages are left out: the others have enough tokens", gathered.unused)
    return gathered.pages


def _ways(targets: Sequence[Target], wish: Wish, memory: int, pages_of: PagesOf) -> list[_Way]:
    """Return how *targets* can be calibrated in *memory* bytes: nearest to the source first, then a quicker way."""
    if wish.low_disk and targets[0].plan.source.folder.remote_weights:
        raise UsageError(
            "calibrating reads the weights before they are converted, but `low_disk=True` does not keep them; leave it "
            "out, or use `method='fit'`"
        )
    pages = pages_of(targets[0].plan.source.folder, wish)
    found, least = [], 0
    for bits in (FEW_BITS, 0) if wish.propagation is None else (ALL_BITS * wish.propagation,):
        wanted = wanted_matrices((target.plan for target in targets), bits)
        for slices in _SLICES:
            calibration = Calibration(
                pages, slices, are_drawn=not wish.pages, by_gradients=wish.by_gradients, propagated_bits=bits
            )
            cost = work_of(wanted, pages, slices, by_gradients=wish.by_gradients)
            if cost.peak_memory <= _USABLE * memory:
                found.append(_Way(calibration, cost))
                break
            least = cost.peak_memory
    if not found:
        raise PlanError(
            f"calibrating needs {shown_size(least)} of memory, and this machine has {shown_size(memory)}; "
            "use `method='fit'`"
        )
    return [way for number, way in enumerate(found) if not number or found[0].cost.propagates]


def _all_with_fit(targets: Sequence[Target], why: str) -> list[Target]:
    _log.warning("made with fit instead of calibrated: %s", in_this_commands_words(why))
    return [_with_fit(target) if target.plan.method == "calibrated" else target for target in targets]


def _with_fit(target: Target) -> Target:
    return replace(target, plan=replace(target.plan, method="fit"))


def _has_nothing_to_calibrate(target: Target) -> bool:
    """Say whether a recipe quantizes no block, or has only formats without scales to choose."""
    return target.plan.method == "calibrated" and not wanted_matrices([target.plan])


def measured_rates(clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Return how many multiply-adds a second this machine does in matrix products, in float32 and in float64.

    Float32 is measured with MLX, on a GPU if there is one; float64 with LAPACK, on the CPU.
    """
    start_mlx()
    import mlx.core as mx

    single, double = mx.ones((_SIDE, _SIDE)), np.ones((_SIDE, _SIDE))
    return _rate(lambda: mx.eval(single @ single), clock), _rate(lambda: double @ double, clock)


def _rate(multiply: Callable[[], object], clock: Callable[[], float]) -> float:
    multiply()  # the first one also wakes threads, or compiles
    started = clock()
    multiply()
    return _SIDE**3 / max(clock() - started, 1e-9)


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
