"""The probability a model gave each token -> a bounded form stored on disk, and its distance to another model's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from olmocr.reports.fidelity import PositionBin
from olmocr.reports.parts import Interval

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]

TOP_K = 128
"""Tokens whose probability is stored at each position; all others are summed."""

WHOLE_POSITIONS = 8
"""Positions of a page whose complete distribution is stored, to measure the cost of cutting it."""

_RESAMPLES = 2000
_CONFIDENCE = 0.95
_SMALLEST = 1e-38

MOST = 87.5
"""Nats: larger distances count as this, and so does NaN, as from a broken model's logits."""


@dataclass(frozen=True)
class KeptDistributions:
    """What is stored of a page's distributions: logarithms of probabilities.

    *ids* and *likely* (positions, k): the likeliest tokens, the likeliest first, and their logarithms. *tail*
    (positions,): that of all others together. *places* (m,) are the positions whose complete distributions *whole* (m,
    vocabulary) are stored.
    """

    ids: Ids
    likely: Floats
    tail: Doubles
    places: Ids
    whole: Floats

    @property
    def choices(self) -> Ids:
        """The likeliest token at each position."""
        return self.ids[:, 0]


@dataclass(frozen=True)
class PageDivergence:
    """Another model compared with what was stored: *divergence* (positions,) in nats, *choices* its likeliest tokens.

    *given* (positions,) is the logarithm of the probability that it gave to the stored likeliest token.
    *whole* and *cut* (m,) are the divergences of complete and of cut distributions at the places stored completely.
    """

    divergence: Doubles
    choices: Ids
    given: Floats
    whole: Doubles
    cut: Doubles


def keep(
    blocks: Iterable[Floats], count: int, top_k: int = TOP_K, whole_positions: int = WHOLE_POSITIONS
) -> KeptDistributions:
    """Return what to store of one page's *count* distributions, from *blocks* (positions, vocabulary) of logarithms.

    Processes one block at a time and does not keep it in memory.
    """
    places = np.unique(np.linspace(0, count - 1, min(whole_positions, count)).astype(np.int32))
    parts, whole, start = [], [], 0
    for block in blocks:
        parts.append(_likeliest(block, min(top_k, block.shape[1] - 1)))
        whole.append(block[_within(places, start, block)])
        start += len(block)
    return KeptDistributions(
        ids=np.concatenate([ids for ids, _, _ in parts]),
        likely=np.concatenate([likely for _, likely, _ in parts]),
        tail=np.concatenate([tail for _, _, tail in parts]),
        places=places,
        whole=np.concatenate(whole),
    )


def diverge(kept: KeptDistributions, blocks: Iterable[Floats]) -> PageDivergence:
    """Return how far *blocks*, another model's distributions for the same answer, are from the stored ones."""
    divergence, choices, given, other, start = [], [], [], [], 0
    for block in blocks:
        rows = slice(start, start + len(block))
        divergence.append(_cut_divergence(kept.ids[rows], kept.likely[rows], kept.tail[rows], block))
        choices.append(block.argmax(axis=1).astype(np.int32))
        given.append(np.take_along_axis(block, kept.ids[rows, :1], axis=1)[:, 0])
        other.append(block[_within(kept.places, start, block)].astype(np.float64))
        start += len(block)
    every, mine = np.concatenate(divergence), kept.whole.astype(np.float64)
    whole = _bounded((np.exp(mine) * (mine - np.concatenate(other))).sum(axis=1))
    return PageDivergence(every, np.concatenate(choices), np.concatenate(given), whole, every[kept.places])


def mean_interval(pages: Sequence[Doubles]) -> Interval:
    """Return an interval for the mean over all values, if the pages had been others like these.

    Complete pages are drawn, because the positions of one are not independent.
    """
    sums = np.array([page.sum() for page in pages])
    counts = np.array([len(page) for page in pages])
    drawn = np.random.default_rng(0).integers(0, len(pages), (_RESAMPLES, len(pages)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    rest = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(means, [rest, 1 - rest])
    return Interval(float(low), float(high), _CONFIDENCE, _RESAMPLES)


def by_position(pages: Sequence[Doubles]) -> tuple[PositionBin, ...]:
    """Return the mean over all pages' positions 0 to 15, 16 to 31, 32 to 63 and so on, twice as many each time."""
    bins, first, end = [], 0, 16
    longest = max(len(page) for page in pages)
    while first < longest:
        found = np.concatenate([page[first:end] for page in pages])
        bins.append(PositionBin(first, min(end, longest) - 1, len(found), float(found.mean())))
        first, end = end, end * 2
    return tuple(bins)


def _likeliest(block: Floats, top_k: int) -> tuple[Ids, Floats, Doubles]:
    found = np.argpartition(block, -top_k, axis=1)[:, -top_k:]
    order = np.argsort(-np.take_along_axis(block, found, axis=1), axis=1, kind="stable")
    ids: Ids = np.take_along_axis(found, order, axis=1).astype(np.int32)
    return ids, np.take_along_axis(block, ids, axis=1), _log_of_others(block, ids)


def _log_of_others(block: Floats, ids: Ids) -> Doubles:
    """Return the logarithm of the sum over all tokens except *ids*; one minus theirs would be mere rounding error."""
    others = block.copy()
    np.put_along_axis(others, ids.astype(np.int64), -np.inf, axis=1)
    sums: Doubles = np.exp(others).sum(axis=1, dtype=np.float64).clip(_SMALLEST)
    return np.log(sums)


def _cut_divergence(ids: Ids, likely: Floats, tail: Doubles, block: Floats) -> Doubles:
    other = np.take_along_axis(block, ids, axis=1).astype(np.float64)
    mine = likely.astype(np.float64)
    found: Doubles = (np.exp(mine) * (mine - other)).sum(axis=1)
    found += np.exp(tail) * (tail - _log_of_others(block, ids))
    return _bounded(found)


def _bounded(divergence: Doubles) -> Doubles:
    return np.nan_to_num(divergence, nan=MOST, posinf=MOST).clip(0, MOST)


def _within(places: Ids, start: int, block: Floats) -> Ids:
    """Return which rows of *block*, which begins at position *start*, are at *places*."""
    return places[(places >= start) & (places < start + len(block))] - start
