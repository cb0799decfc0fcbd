"""A pass over the weights gives the logits that mlx-vlm's own model gives, whatever the rows that share it."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.inference.blas import NumpyBlas
from olmocr.inference.model import load_model
from olmocr.inference.passes.cache import BatchCache
from olmocr.inference.passes.cpu_forward import CpuLanguage
from olmocr.inference.passes.forward import Language, embed, forward, logits, read
from olmocr.model_folder import ModelFolder
from tests.conftest import DEVICE
from tests.inference.random_models import random_model

ROWS = ([5, 9, 12, 7, 30], [41, 3], [8, 8, 19])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(ModelFolder(random_model(tmp_path_factory.mktemp("random") / "model")), DEVICE)


WAYS = {
    "by angles": lambda model: Language(model, has_kernels=False),
    "by MLX's kernel": lambda model: Language(model, has_kernels=True),
    "by numpy": CpuLanguage,
    "by numpy alone": lambda model: CpuLanguage(model, NumpyBlas()),
}


@pytest.fixture(scope="module", params=WAYS)
def language(loaded, request):
    return WAYS[request.param](loaded.model)


def stock_logits(loaded, row):
    """Return mlx-vlm's logits of *row*, which is given at once and without a cache."""
    positions = mx.broadcast_to(mx.arange(len(row)), (3, 1, len(row)))
    return np.array(loaded.model.language_model(mx.array([row]), position_ids=positions).logits[0])


def passed(language, cache, tokens, positions, *, is_text=True):
    """Return the logits of *tokens* at *positions* of their rows."""
    places = mx.array(list(positions), dtype=mx.int32)
    places = places if is_text else mx.broadcast_to(places, (3, 1, len(places)))
    return np.array(logits(language, forward(language, embed(language, mx.array(tokens)), places, cache)))


@pytest.mark.parametrize("is_text", [True, False])
@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_logits_that_mlx_vlm_computes(loaded, language, row, is_text):
    found = passed(language, language.row_cache(), row, range(len(row)), is_text=is_text)
    np.testing.assert_allclose(found, stock_logits(loaded, row), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_row_that_comes_in_two_passes_has_the_logits_of_one(loaded, language, cut):
    row, cache = ROWS[0], language.row_cache()
    found = [passed(language, cache, row[:cut], range(cut)), passed(language, cache, row[cut:], range(cut, len(row)))]
    np.testing.assert_allclose(np.concatenate(found), stock_logits(loaded, row), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ways", [{}, {"has_plans": True}, {"is_slow_behind_masks": True}])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[2:], [row[:2] for row in ROWS]])
def test_rows_of_any_lengths_share_a_pass_and_do_not_see_each_other(loaded, language, rows, ways):
    begun = [language.row_cache() for _ in rows]
    for row, cache in zip(rows, begun, strict=True):
        passed(language, cache, row[:1], [0])
    batch = BatchCache(len(language.blocks), **ways) if isinstance(language, Language) else language.batch_cache(DEVICE)
    batch.arrange([object() for _ in rows], begun, 8)
    counts = [len(row) - 1 for row in rows]
    batch.expect([1] * len(rows), counts)
    tokens = [token for row in rows for token in row[1:]]
    found = passed(language, batch, tokens, [at for row in rows for at in range(1, len(row))])
    alone = np.concatenate([stock_logits(loaded, row)[1:] for row in rows])
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


def test_a_row_that_is_only_read_has_the_keys_and_values_of_one_whose_hidden_states_are_computed(loaded, language):
    row, cache = ROWS[0], language.row_cache()
    read(language, embed(language, mx.array(row[:3])), mx.arange(3, dtype=mx.int32), cache)
    assert cache.length == 3
    found = passed(language, cache, row[3:], range(3, len(row)))
    np.testing.assert_allclose(found, stock_logits(loaded, row)[3:], rtol=1e-4, atol=1e-5)


def test_what_is_kept_of_a_row_continues_it_and_is_not_changed_by_that(loaded, language):
    row, cache = ROWS[0], language.row_cache()
    passed(language, cache, row, range(len(row)))
    kept = cache.beginning(2)
    for _ in range(2):
        found = passed(language, language.row_cache(kept), row[2:], range(2, len(row)))
        np.testing.assert_allclose(found, stock_logits(loaded, row)[2:], rtol=1e-4, atol=1e-5)


def test_positions_that_were_dropped_are_written_anew(loaded, language):
    row, cache = ROWS[0], language.row_cache()
    passed(language, cache, [*row[:2], 77, 78], range(4))
    cache.drop_last(2)
    found = passed(language, cache, row[2:], range(2, len(row)))
    np.testing.assert_allclose(found, stock_logits(loaded, row)[2:], rtol=1e-4, atol=1e-5)
