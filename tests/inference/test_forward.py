"""A pass over the weights gives the logits that mlx-vlm's own model gives, whatever the rows that share it."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.inference.cache import BatchCache, RowCache
from olmocr.inference.forward import embed, forward, logits
from olmocr.inference.model import load_model
from olmocr.model_folder import ModelFolder
from tests.conftest import DEVICE
from tests.inference.random_models import random_model

ROWS = ([5, 9, 12, 7, 30], [41, 3], [8, 8, 19])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(ModelFolder(random_model(tmp_path_factory.mktemp("random") / "model")), DEVICE).model


def stock_logits(model, row):
    """Return mlx-vlm's logits of *row*, which is given at once and without a cache."""
    positions = mx.broadcast_to(mx.arange(len(row)), (3, 1, len(row)))
    return np.array(model.language_model(mx.array([row]), position_ids=positions).logits[0])


def passed(model, cache, tokens, positions):
    """Return the logits of *tokens* at *positions* of their rows."""
    places = mx.broadcast_to(mx.array(list(positions)), (3, 1, len(positions)))
    return np.array(logits(model, forward(model, embed(model, mx.array(tokens)), places, cache)))


def new_cache(model):
    return RowCache(len(model.language_model.model.layers))


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_logits_that_mlx_vlm_computes(model, row):
    found = passed(model, new_cache(model), row, range(len(row)))
    np.testing.assert_allclose(found, stock_logits(model, row), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_row_that_comes_in_two_passes_has_the_logits_of_one(model, cut):
    row, cache = ROWS[0], new_cache(model)
    found = [passed(model, cache, row[:cut], range(cut)), passed(model, cache, row[cut:], range(cut, len(row)))]
    np.testing.assert_allclose(np.concatenate(found), stock_logits(model, row), rtol=1e-4, atol=1e-5)


def test_rows_of_any_lengths_share_a_pass_and_do_not_see_each_other(model):
    begun = [new_cache(model) for _ in ROWS]
    for row, cache in zip(ROWS, begun, strict=True):
        passed(model, cache, row[:1], [0])
    batch = BatchCache(len(model.language_model.model.layers))
    batch.arrange([object() for _ in ROWS], begun, 8)
    counts = [len(row) - 1 for row in ROWS]
    batch.expect([1] * len(ROWS), counts)
    tokens = [token for row in ROWS for token in row[1:]]
    found = passed(model, batch, tokens, [at for row in ROWS for at in range(1, len(row))])
    alone = np.concatenate([stock_logits(model, row)[1:] for row in ROWS])
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)
