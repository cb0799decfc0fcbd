"""What is kept of distributions, what cutting them costs, and which token is of which class."""

import numpy as np
import pytest

from olmocr.validate.fidelity.distributions import MOST, by_position, diverge, keep, mean_interval

VOCABULARY = 500


def distributions(positions, seed=0, sharpness=3.0):
    """Return random logarithms of probabilities (positions, vocabulary)."""
    logits = np.random.default_rng(seed).normal(0, sharpness, (positions, VOCABULARY))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def whole_divergence(mine, other):
    mine, other = mine.astype(np.float64), other.astype(np.float64)
    return (np.exp(mine) * (mine - other)).sum(axis=1)


def test_a_model_does_not_diverge_from_itself():
    mine = distributions(20)
    found = diverge(keep([mine], 20), [mine])
    assert found.divergence.max() < 1e-12
    assert (found.choices == mine.argmax(axis=1)).all()


def test_it_does_not_matter_how_positions_are_cut_into_blocks():
    mine, other = distributions(20), distributions(20, seed=1)
    whole = diverge(keep([mine], 20), [other])
    parts = diverge(keep([mine[:7], mine[7:]], 20), [other[:13], other[13:]])
    for name, value in vars(whole).items():
        assert np.allclose(value, getattr(parts, name), atol=1e-12), name


def test_with_all_tokens_but_one_kept_nothing_is_lost():
    mine, other = distributions(20), distributions(20, seed=1)
    found = diverge(keep([mine], 20, top_k=VOCABULARY - 1), [other])
    assert np.allclose(found.divergence, whole_divergence(mine, other), rtol=1e-5)


def test_what_is_cut_makes_the_divergence_smaller_and_the_loss_is_measured():
    mine, other = distributions(30), distributions(30, seed=1)
    found = diverge(keep([mine], 30, top_k=4, whole_positions=30), [other])
    expected = whole_divergence(mine, other)
    assert np.allclose(found.whole, expected, rtol=1e-5)
    assert (found.cut == found.divergence).all()
    assert (found.cut <= expected + 1e-9).all()
    assert found.cut.sum() < found.whole.sum()


def test_a_distribution_that_is_not_a_number_is_as_far_away_as_possible():
    mine = distributions(4)
    broken = mine.copy()
    broken[1] = np.nan
    broken[2] = -np.inf
    found = diverge(keep([mine], 4, whole_positions=4), [broken])
    assert found.divergence.tolist() == found.whole.tolist() == [0.0, MOST, MOST, 0.0]


def test_an_interval_is_as_wide_as_pages_differ():
    alike = mean_interval([np.full(50, 0.1) for _ in range(10)])
    assert alike.low == pytest.approx(0.1) == alike.high
    differing = mean_interval([np.full(50, value) for value in (0.0, 0.2) * 5])
    assert differing.low < 0.08 < 0.12 < differing.high
    # As many positions, each for itself, would promise ten times more than two kinds of pages can.
    alone = mean_interval([np.array([value]) for value in (0.0, 0.2) * 250])
    assert differing.high - differing.low > 3 * (alone.high - alone.low)


def test_positions_are_put_into_bins_that_double():
    bins = by_position([np.arange(40, dtype=float), np.zeros(20)])
    assert [(each.first, each.last, each.positions) for each in bins] == [(0, 15, 32), (16, 31, 20), (32, 39, 8)]
    assert bins[2].mean_kl == 35.5
