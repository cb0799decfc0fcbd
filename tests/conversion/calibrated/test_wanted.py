"""Which matrices are calibrated, and what that takes."""

import pytest

from olmocr.conversion.calibrated.wanted import block_of, wanted_matrices, work_of
from olmocr.conversion.plan import make_plan
from olmocr.conversion.recipe import find_recipe
from tests.conversion.calibrated.pages import random_page, random_pages
from tests.conversion.sources import seven_billion

GB = 10**9


@pytest.mark.parametrize(
    ("tensor", "block"),
    [
        ("language_model.model.layers.12.mlp.down_proj.weight", "language_model.model.layers.12"),
        ("vision_tower.blocks.3.attn.qkv.weight", "vision_tower.blocks.3"),
        ("language_model.lm_head.weight", "language_model.lm_head"),
        ("language_model.model.embed_tokens.weight", None),
        ("vision_tower.merger.mlp.0.weight", None),
    ],
)
def test_blocks_and_the_head_are_calibrated_and_nothing_else(tensor, block):
    assert block_of(tensor) == block


def test_embeddings_are_calibrated_where_they_are_the_head():
    tied = make_plan(seven_billion(tie_word_embeddings=True), find_recipe("mixed"), "calibrated")
    blocks = {each.block for each in wanted_matrices([tied])}
    assert "language_model.model.embed_tokens" in blocks
    assert "language_model.lm_head" not in blocks


@pytest.fixture(scope="module")
def plans():
    return {name: make_plan(seven_billion(), find_recipe(name), "calibrated") for name in ("mixed", "4bit", "none")}


def test_a_recipe_that_quantizes_nothing_has_nothing_to_calibrate(plans):
    assert wanted_matrices([plans["none"]]) == ()


def test_recipes_of_one_command_ask_for_each_matrix_once(plans):
    both = wanted_matrices([plans["mixed"], plans["4bit"]])
    assert len({each.module for each in both}) == len(both) == 28 * 7 + 1 + 32 * 5
    assert max(len(each.asked) for each in both) == 2


def test_slices_of_the_widest_input_bring_a_7b_model_onto_a_mac_of_16_gb(plans):
    pages = random_pages({**plans["mixed"].source.config, "image_token_id": 1})
    peaks = [work_of(wanted_matrices([plans["mixed"]]), pages, slices).peak_memory for slices in (1, 2, 4)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < 0.6 * 16 * GB


def test_four_slices_bring_a_7b_model_onto_a_mac_of_8_gb(plans, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    config = {**plans["mixed"].source.config, "image_token_id": 1}
    pages = [random_page(config, rows=80, columns=80, answer=1200)]
    assert 2790 < len(pages[0].token_ids) < 2830
    assert work_of(wanted_matrices([plans["mixed"]]), pages, 4).peak_memory < 3.5 * GB


def test_gradients_take_longer_and_more_memory(plans):
    pages = random_pages({**plans["mixed"].source.config, "image_token_id": 1})
    without, with_them = (
        work_of(wanted_matrices([plans["mixed"]]), pages, 4, by_gradients=each) for each in (False, True)
    )
    assert without.multiply_adds < with_them.multiply_adds
    assert without.peak_memory <= with_them.peak_memory


def test_more_recipes_take_longer_and_more_disk_and_not_more_memory(plans):
    pages = random_pages({**plans["mixed"].source.config, "image_token_id": 1})
    one, two = (work_of(wanted_matrices(of), pages) for of in ([plans["mixed"]], [plans["mixed"], plans["4bit"]]))
    assert one.multiply_adds < two.multiply_adds < 2 * one.multiply_adds
    assert one.part_bytes < two.part_bytes
    assert one.peak_memory == two.peak_memory
