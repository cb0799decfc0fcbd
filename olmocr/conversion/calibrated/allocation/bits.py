"""What each matrix costs at each number of bits -> the choice that costs least within a target. Pure.

Bytes and nats are two prices of the same choice, and one algorithm serves both targets. It begins with the choice that
takes least of the limited price (bytes, say). Then, of all steps of one matrix that still fit, it repeatedly takes the
one that gains most of the other price for what it takes. As long as every step fits, this is the Lagrangian: each state
has the least ``nats + mu * bytes`` for some multiplier mu, and bisecting mu could not find others. When a step no
longer fits, the same rule spends what is left.

The guarantee, with g the best gain per byte of all steps that did not fit and r the bytes left: the choice costs at
most g * r more than the best one, and a larger target never makes it cost more.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from olmocr.errors import ExitCode, OlmocrError, PlanError

AGREEMENT = (0.6, 1.6)
"""The range of measured / predicted KL in which the sum over matrices is valid; on the demo model it is about 1."""


@dataclass(frozen=True)
class PricedMatrix:
    """What a matrix takes at each number of bits it may get: *nbytes* of data, *nats* of KL an output token."""

    module: str
    nbytes: Mapping[int, int]
    nats: Mapping[int, float]

    @property
    def bits(self) -> tuple[int, ...]:
        """The numbers of bits with both prices, ascending."""
        return tuple(sorted(self.nbytes.keys() & self.nats.keys()))


Choice = dict[str, int]
"""Module -> bits."""


class DisagreementError(OlmocrError):
    """A model's measured KL is not what its allocation predicted."""

    exit_code = ExitCode.GATE_FAILED


def least_nats(
    matrices: Sequence[PricedMatrix], target: int, overhead: Callable[[Choice], int] = lambda choice: 0
) -> Choice:
    """Return the choice with few nats whose bytes, with ``overhead(choice)``, are at most *target*.

    *overhead* returns the bytes of everything that is not a matrix's data, like kept tensors and headers. These depend
    on the choice only by a few digits. A choice that they push over the target is made again with less.

    Raises:
        PlanError: even the fewest bits take more than *target*.
    """
    fewest = {each.module: min(each.bits, key=each.nbytes.__getitem__) for each in matrices}
    least = total_bytes(matrices, fewest) + overhead(fewest)
    if least > target:
        raise PlanError(
            f"the target is {target:,} bytes, and the fewest bits for every matrix that may have few take {least:,}; "
            "give a target of at least that"
        )
    options = [[(each.nbytes[bits], each.nats[bits]) for bits in each.bits] for each in matrices]
    room = target - overhead(fewest)
    while room >= total_bytes(matrices, fewest):
        choice = _chosen(matrices, _spend(options, room))
        excess = total_bytes(matrices, choice) + overhead(choice) - target
        if excess <= 0:
            return choice
        room -= excess
    return fewest


def least_bytes(matrices: Sequence[PricedMatrix], max_nats: float) -> Choice:
    """Return the choice with few bytes whose nats are at most *max_nats*.

    Raises:
        PlanError: even the best choice costs more than *max_nats*.
    """
    best = {each.module: min(each.bits, key=each.nats.__getitem__) for each in matrices}
    least = total_nats(matrices, best)
    if least > max_nats:
        raise PlanError(
            f"`max_kl` is {max_nats:g} nats, and the most bits for every matrix still cost {least:.3g}; "
            "give a value of at least that"
        )
    options = [[(each.nats[bits], each.nbytes[bits]) for bits in each.bits] for each in matrices]
    # A sum of floats reduced bit by bit may be off in its last digits: these are not spent.
    choice = _chosen(matrices, _spend(options, max_nats - 1e-12 * (max_nats + least)))
    return choice if total_nats(matrices, choice) <= max_nats else best


def total_bytes(matrices: Sequence[PricedMatrix], choice: Mapping[str, int]) -> int:
    """Return the bytes of all *matrices*' data."""
    return sum(each.nbytes[choice[each.module]] for each in matrices)


def total_nats(matrices: Sequence[PricedMatrix], choice: Mapping[str, int]) -> float:
    """Return the predicted KL divergence of *choice*, in nats an output token: the sum over all matrices."""
    return math.fsum(each.nats[choice[each.module]] for each in matrices)


def require_agreement(predicted: float, measured: float) -> None:
    """Refuse a model whose *measured* KL, in nats on pages like the prediction's, is far from the *predicted* one.

    Raises:
        DisagreementError: their quotient is outside ``AGREEMENT``.
    """
    low, high = AGREEMENT
    if not low * predicted <= measured <= high * predicted:
        raise DisagreementError(
            f"the allocation predicted a KL of {predicted:.3g} nats, but {measured:.3g} were measured on other "
            f"pages of the same kinds, outside {low:g} to {high:g} times that; make the sensitivities again, or use a "
            "recipe of the package"
        )


def _chosen(matrices: Sequence[PricedMatrix], places: Sequence[int]) -> Choice:
    return {each.module: each.bits[place] for each, place in zip(matrices, places, strict=True)}


# What one option of a matrix takes of the limited price and of the other one.
_Option = tuple[float, float]


def _spend(options: Sequence[Sequence[_Option]], room: float) -> list[int]:
    """Return for each matrix the index of its option; all together take at most *room* of the limited price.

    A heap holds the best step of each matrix that fitted when it was added. Room only shrinks, so a step that still
    fits when it comes out is the best of all.
    """
    places = [min(range(len(each)), key=lambda place, each=each: each[place]) for each in options]  # type: ignore[misc]
    room -= math.fsum(each[place][0] for each, place in zip(options, places, strict=True))
    heap: list[tuple[float, int, int]] = []

    def put_best_step(matrix: int) -> None:
        step = _best_step(options[matrix], places[matrix], room)
        if step is not None:
            heapq.heappush(heap, (-step[0], matrix, step[1]))

    for matrix in range(len(options)):
        put_best_step(matrix)
    while heap:
        _, matrix, place = heapq.heappop(heap)
        taken = options[matrix][place][0] - options[matrix][places[matrix]][0]
        if taken <= room:
            room -= taken
            places[matrix] = place
        put_best_step(matrix)
    return places


def _best_step(options: Sequence[_Option], now: int, room: float) -> tuple[float, int] | None:
    """Return the gain per price, and the index, of the best step from *now* that fits; None if none gains."""
    best = None
    for place, (limited, other) in enumerate(options):
        taken, gained = limited - options[now][0], options[now][1] - other
        if 0 < taken <= room and gained > 0 and (best is None or gained / taken > best[0]):
            best = gained / taken, place
    return best
