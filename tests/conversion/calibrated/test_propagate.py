"""Blocks that make up for the rounding before them: in which recipes, how much that brings, and that it resumes."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.terms import FEW_BITS
from olmocr.conversion.calibrated.wanted import rounding_before
from olmocr.conversion.write import write_models
from olmocr.validate.weights.check import check_weights
from tests.checkpoints import tiny_checkpoint
from tests.conversion.calibrated.test_calibrate import (
    SPECIAL,
    Interruption,
    assert_same,
    calibrated,
    calibration_of,
    targets_of,
)

LAYERS = {**SPECIAL, "num_hidden_layers": 3}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "source", LAYERS)


@pytest.fixture(scope="module")
def parts(source, tmp_path_factory):
    return calibrated(source, tmp_path_factory.mktemp("parts") / "folder", ("3bit",))


def test_only_the_language_model_of_a_recipe_with_few_bits_depends_on_the_rounding_before(source, parts, tmp_path):
    assert all(key.before for key in parts.by_key if key.tensor.startswith("language_model"))
    assert not any(key.before for key in parts.by_key if key.tensor.startswith("vision_tower"))
    (eight,) = targets_of(source, tmp_path, ("8bit",))
    assert rounding_before(eight.plan, FEW_BITS) == ""


def test_recipes_of_one_command_get_what_each_gets_alone(source, parts, tmp_path):
    both = calibrated(source, tmp_path / "both", ("3bit", "8bit"))
    alone = calibrated(source, tmp_path / "alone", ("8bit",))
    assert both.by_key.keys() == parts.by_key.keys() | alone.by_key.keys()
    for each in (parts, alone):
        assert_same(each, type(both)({key: both.by_key[key] for key in each.by_key}))


@pytest.mark.parametrize(
    "share", [pytest.param(0.3, marks=pytest.mark.slow), 0.5, pytest.param(0.7, marks=pytest.mark.slow), 0.85]
)
def test_a_calibration_that_was_interrupted_resumes_and_makes_the_same_bytes(share, source, parts, tmp_path):
    def interrupt(done):
        if done > share:
            raise Interruption

    with pytest.raises(Interruption):
        calibrated(source, tmp_path / "folder", ("3bit",), on_share=interrupt)
    shares = []
    assert_same(calibrated(source, tmp_path / "folder", ("3bit",), on_share=shares.append), parts)
    assert shares[0] > share - 0.3, "what was complete was made again"


def test_lost_states_are_computed_again_from_the_parts_that_are_there(source, parts, tmp_path):
    def interrupt(done):
        if done > 0.8:
            raise Interruption

    with pytest.raises(Interruption):
        calibrated(source, tmp_path / "folder", ("3bit",), on_share=interrupt)
    for states in (tmp_path / "folder/states").iterdir():
        states.unlink()
    assert_same(calibrated(source, tmp_path / "folder", ("3bit",)), parts)


def test_gradients_count_there_too(source, parts, tmp_path):
    found = calibrated(source, tmp_path / "folder", ("3bit",), by_gradients=True)
    assert found.by_key.keys() == parts.by_key.keys()
    changed = {
        key.tensor.split(".")[0]
        for key, part in parts.by_key.items()
        if any((mine != theirs).any() for mine, theirs in zip(part.arrays, found.by_key[key].arrays, strict=True))
    }
    assert changed == {"language_model"}


def test_embeddings_that_are_the_head_are_rounded_last(tmp_path):
    tied = tiny_checkpoint(tmp_path / "tied", {**LAYERS, "tie_word_embeddings": True})
    found = calibrated(tied, tmp_path / "folder", ("3bit",))
    (key,) = (key for key in found.by_key if "embed_tokens" in key.tensor)
    assert key.before


def test_the_widest_input_may_be_cut_into_slices(tmp_path):
    wider = tiny_checkpoint(tmp_path / "wider", {**LAYERS, "intermediate_size": 256})
    whole, halves = (calibrated(wider, tmp_path / str(each), ("3bit",), down_slices=each) for each in (1, 2))
    assert whole.by_key.keys() == halves.by_key.keys()


def test_the_folder_and_its_report_have_what_was_made(source, parts, tmp_path):
    targets = targets_of(source, tmp_path / "models", ("3bit", "8bit"))
    reports = write_models(targets, calibration=calibration_of(targets))
    assert [report.calibration.propagated for report in reports] == [True, False]
    assert [check_weights(target.output).holds for target in targets] == [True, True]
    stored = mx.load(str(targets[0].output / "model.safetensors"))
    for key, part in parts.by_key.items():
        packed = np.array(stored[key.tensor]).view(np.uint8)
        np.testing.assert_array_equal(packed.reshape(len(packed), -1), part.arrays[0])


def test_one_page_alone_is_enough(source, tmp_path):
    (target,) = targets_of(source, tmp_path / "model", ("3bit",))
    calibration = calibration_of([target])
    write_models([target], calibration=replace(calibration, pages=calibration.pages[:1]))
    assert check_weights(target.output).holds
