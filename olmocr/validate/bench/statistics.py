"""Outcomes of checks -> scores with intervals, and whether two models differ significantly.

Documents are drawn, never single checks, because those of one page succeed or fail together. Each draw takes as many
documents of each category as it has, so that no category is ever empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from olmocr.reports.bench import Outcome
from olmocr.reports.parts import Interval

CONFIDENCE = 0.95
RESAMPLES = 2000

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CheckCounts:
    """Scored checks by document and category: *passed* and *counts* are (documents, categories)."""

    categories: tuple[str, ...]
    documents: tuple[str, ...]
    passed: Doubles
    counts: Doubles

    def scores(self, weights: Doubles) -> Doubles:
        """Return (draws, categories): the share passed, where *weights* (draws, documents) count each document."""
        counts = weights @ self.counts
        return np.divide(weights @ self.passed, counts, out=np.full_like(counts, np.nan), where=counts > 0)

    def overall(self) -> float:
        """Return the mean over categories of the share passed."""
        return float(overall(self.scores(np.ones((1, len(self.documents)))))[0])

    def draws(self) -> Doubles:
        """Return (draws, documents): how often each document was drawn, with fixed numbers per category."""
        random = np.random.default_rng(0)
        home = self.counts.argmax(axis=1)  # the first category with most of its checks
        drawn = np.zeros((RESAMPLES, len(self.documents)))
        for category in range(len(self.categories)):
            (members,) = np.nonzero(home == category)
            if len(members):
                drawn[:, members] = random.multinomial(len(members), [1 / len(members)] * len(members), RESAMPLES)
        return drawn


@dataclass(frozen=True)
class ScoreDifference:
    """How far one model's overall score is above another's, and the probability of that if they were alike."""

    score: float
    other_score: float
    interval: Interval
    p_value: float

    @property
    def difference(self) -> float:
        """Above zero if the first is better."""
        return self.score - self.other_score


def tally(outcomes: Sequence[Outcome]) -> CheckCounts:
    """Return counts of the scored checks among *outcomes*."""
    scored = [outcome for outcome in outcomes if outcome.passed is not None]
    categories = tuple(sorted({outcome.category for outcome in scored}))
    documents = tuple(sorted({outcome.document for outcome in scored}))
    column = {name: number for number, name in enumerate(categories)}
    row = {name: number for number, name in enumerate(documents)}
    counts, passed = np.zeros((2, len(documents), len(categories)))
    for outcome in scored:
        place = row[outcome.document], column[outcome.category]
        counts[place] += 1
        passed[place] += bool(outcome.passed)
    return CheckCounts(categories, documents, passed, counts)


def overall(scores: Doubles) -> Doubles:
    """Return the mean over categories, as in the benchmark: each counts the same, however many checks it has."""
    means: Doubles = np.nanmean(scores, axis=-1)
    return means


def interval(values: Doubles) -> Interval:
    """Return the central interval of *values*, one for each draw."""
    rest = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values, [rest, 1 - rest])
    return Interval(float(low), float(high), CONFIDENCE, RESAMPLES)


def compare(ours: CheckCounts, theirs: CheckCounts) -> ScoreDifference:
    """Return how far *ours* is above *theirs*, a tally of the same checks, document by document."""
    draws = ours.draws()
    drawn = overall(ours.scores(draws)) - overall(theirs.scores(draws))
    return ScoreDifference(ours.overall(), theirs.overall(), interval(drawn), _p_value(ours, theirs))


def _p_value(ours: CheckCounts, theirs: CheckCounts) -> float:
    """Return how often the difference is as large with the two models' names swapped at random documents."""
    shares = (ours.passed - theirs.passed) / ours.counts.sum(axis=0)
    by_document: Doubles = shares.mean(axis=1)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (RESAMPLES, len(by_document)))
    as_large = np.abs(signs @ by_document) >= abs(by_document.sum()) - 1e-12
    return float(1 + as_large.sum()) / (1 + RESAMPLES)


def mcnemar(only_this: int, only_other: int) -> float:
    """Return the exact probability that checks passed by only one of two models are shared this unevenly, or more."""
    count = only_this + only_other
    tail = sum(math.comb(count, few) for few in range(min(only_this, only_other) + 1))
    return min(1.0, float(2 * tail / 2**count)) if count < 1000 else _mcnemar_normal(only_this, only_other)


def _mcnemar_normal(only_this: int, only_other: int) -> float:
    distance = max(0, abs(only_this - only_other) - 1) / math.sqrt(only_this + only_other)
    return math.erfc(distance / math.sqrt(2))
