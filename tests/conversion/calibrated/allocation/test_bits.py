import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.calibrated.allocation.bits import (
    DisagreementError,
    PricedMatrix,
    least_bytes,
    least_nats,
    require_agreement,
    total_bytes,
    total_nats,
)
from olmocr.errors import PlanError

BITS = (3, 4, 5, 6, 8)


@st.composite
def priced(draw, most=4):
    """Return a few matrices; more bits take more bytes, and cost what they cost, which noise may make more."""
    matrices = []
    for number in range(draw(st.integers(1, most))):
        bits = draw(st.lists(st.sampled_from(BITS), min_size=1, max_size=4, unique=True))
        weights = draw(st.integers(1, 50))
        nats = {each: draw(st.floats(0, 1, allow_subnormal=False)) for each in bits}
        matrices.append(PricedMatrix(f"m{number}", {each: weights * each for each in bits}, nats))
    return matrices


def all_choices(matrices):
    names = [each.module for each in matrices]
    return [dict(zip(names, bits, strict=True)) for bits in itertools.product(*(each.bits for each in matrices))]


def prices(matrices):
    return [(total_bytes(matrices, choice), total_nats(matrices, choice)) for choice in all_choices(matrices)]


def bound(matrices, room):
    """Return how much the choice may cost above the best: nats that the bytes left could gain at the best rate."""
    rates = [
        (each.nats[a] - each.nats[b]) / (each.nbytes[b] - each.nbytes[a])
        for each in matrices
        for a, b in itertools.permutations(each.bits, 2)
        if each.nbytes[b] > each.nbytes[a]
    ]
    return max([0.0, *rates]) * room


@given(priced(), st.integers(0, 900))
def test_a_choice_is_never_over_the_target_and_costs_little_more_than_the_best(matrices, target):
    fitting = [nats for nbytes, nats in prices(matrices) if nbytes <= target]
    if not fitting:
        with pytest.raises(PlanError, match=r"the target is .* bytes, and the fewest bits .* take .*; give a target"):
            least_nats(matrices, target)
        return
    choice = least_nats(matrices, target)
    nbytes, nats = total_bytes(matrices, choice), total_nats(matrices, choice)
    assert nbytes <= target
    assert min(fitting) <= nats <= min(fitting) + bound(matrices, target - nbytes) + 1e-9


@given(priced(), st.floats(0, 4))
def test_the_fewest_bytes_are_never_over_the_nats_and_no_choice_is_better_in_both(matrices, most):
    fitting = [(nbytes, nats) for nbytes, nats in prices(matrices) if nats <= most]
    if not fitting:
        with pytest.raises(PlanError, match=r"`max_kl` is .* nats, and the most bits .* still cost"):
            least_bytes(matrices, most)
        return
    choice = least_bytes(matrices, most)
    assert total_nats(matrices, choice) <= most
    # One step of one matrix would have fitted: there is none that saves bytes and stays within the nats.
    for each in matrices:
        for bits in each.bits:
            other = choice | {each.module: bits}
            if total_bytes(matrices, other) < total_bytes(matrices, choice):
                assert total_nats(matrices, other) > most * (1 - 1e-11) - 1e-11


@given(priced(), st.integers(0, 900), st.integers(0, 300))
def test_a_larger_target_never_costs_more(matrices, target, more):
    least = min(nbytes for nbytes, _ in prices(matrices))
    smaller, larger = (least_nats(matrices, least + room) for room in (target, target + more))
    assert total_nats(matrices, larger) <= total_nats(matrices, smaller) + 1e-9


@given(priced(), st.floats(0, 2), st.floats(0, 2))
def test_more_nats_never_take_more_bytes(matrices, room, more):
    least = min(nats for _, nats in prices(matrices)) + 1e-6
    smaller, larger = (least_bytes(matrices, least + nats) for nats in (room, room + more))
    assert total_bytes(matrices, larger) <= total_bytes(matrices, smaller)


@given(priced(), st.floats(1e-6, 1e2))
def test_where_every_step_fits_the_choice_is_the_lagrangian(matrices, multiplier):
    """A choice with the least ``nats + mu * bytes`` is the best of its size, and is found at exactly that size."""
    nbytes, nats = min(prices(matrices), key=lambda each: (each[1] + multiplier * each[0], each[0]))
    assert total_nats(matrices, least_nats(matrices, nbytes)) <= nats + 1e-9


@given(priced(), st.integers(0, 900))
def test_what_is_left_would_pay_for_no_other_step_that_gains(matrices, room):
    target = min(nbytes for nbytes, _ in prices(matrices)) + room
    choice = least_nats(matrices, target)
    for each in matrices:
        for bits in each.bits:
            other = choice | {each.module: bits}
            more = total_bytes(matrices, other) > total_bytes(matrices, choice)
            if more and total_bytes(matrices, other) <= target:
                assert each.nats[bits] >= each.nats[choice[each.module]]


def test_what_is_not_a_matrix_counts_however_its_bytes_depend_on_the_choice():
    matrices = [PricedMatrix(name, {3: 30, 4: 40, 8: 80}, {3: 1.0, 4: 0.3, 8: 0.01}) for name in "ab"]

    def overhead(choice):
        return 100 + 7 * sum(bits > 3 for bits in choice.values())

    for target in range(160, 300):
        choice = least_nats(matrices, target, overhead)
        assert total_bytes(matrices, choice) + overhead(choice) <= target
    assert least_nats(matrices, 274, overhead) == {"a": 8, "b": 8}
    assert least_nats(matrices, 273, overhead) == {"a": 8, "b": 4}
    with pytest.raises(PlanError, match=r"the target is 159 bytes, and the fewest bits .* take 160"):
        least_nats(matrices, 159, overhead)


def test_more_bits_that_cost_more_are_never_bought():
    matrices = [PricedMatrix("a", {3: 3, 4: 4, 8: 8}, {3: 0.1, 4: 0.2, 8: 0.15})]
    assert least_nats(matrices, 100) == {"a": 3}
    assert least_bytes(matrices, 1.0) == {"a": 3}


def test_equal_matrices_get_their_bits_in_the_order_in_which_they_are_given():
    matrices = [PricedMatrix(name, {3: 3, 4: 4}, {3: 0.2, 4: 0.1}) for name in "ba"]
    assert least_nats(matrices, 7) == {"b": 4, "a": 3}


def test_two_hundred_matrices_take_a_few_thousand_steps(monkeypatch):
    drawn = random.Random(1)
    matrices = []
    for number in range(200):
        weights, scale, ratio = drawn.choice([512, 3584, 18944]) * 3584, drawn.random() ** 4, drawn.uniform(2.5, 6)
        nbytes = {bits: weights * bits // 8 + weights // 16 for bits in BITS}
        matrices.append(PricedMatrix(f"m{number}", nbytes, {bits: scale * ratio ** (3 - bits) for bits in BITS}))
    least, most = (sum(each.nbytes[bits] for each in matrices) for bits in (3, 8))
    from olmocr.conversion.calibrated.allocation import bits as allocation

    steps = []
    real = allocation._best_step
    monkeypatch.setattr(allocation, "_best_step", lambda *of: steps.append(1) or real(*of))
    choice = least_nats(matrices, (least + most) // 2)
    assert total_bytes(matrices, choice) <= (least + most) // 2
    assert (least + most) // 2 - total_bytes(matrices, choice) < 3584 * 512 // 8
    assert len(steps) < 200 * 10


@pytest.mark.parametrize("measured", [0.0059, 0.0161, 0.0, float("nan")])
def test_a_measured_kl_far_from_the_predicted_one_is_refused(measured):
    with pytest.raises(
        DisagreementError, match=r"predicted a KL of 0\.01 nats, but .* measured .*outside 0\.6 to 1\.6"
    ):
        require_agreement(0.01, measured)


@pytest.mark.parametrize("measured", [0.0061, 0.01, 0.0159])
def test_a_measured_kl_near_the_predicted_one_is_taken(measured):
    require_agreement(0.01, measured)
