"""Pages and plans -> parts of every matrix that is calibrated, and the folder that is made of them."""

import dataclasses
import json

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.calibrate import calibrate
from olmocr.conversion.calibrated.store import CalibrationFolder
from olmocr.conversion.calibrated.terms import Calibration
from olmocr.conversion.calibrated.wanted import wanted_matrices
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.recipe import changed, find_recipe
from olmocr.conversion.write import write_models
from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder
from olmocr.validate.weights.check import check_weights
from tests.checkpoints import TINY, tiny_checkpoint
from tests.conversion.calibrated.pages import random_pages

SPECIAL = {
    "vocab_size": 4126,  # random_page draws none of the last 40 as text
    "image_token_id": 4086,
    "num_hidden_layers": 2,
    "vision_config": {**TINY["vision_config"], "hidden_size": 64, "intermediate_size": 100},
}


class Interruption(BaseException):
    """Ends a calibration in its middle, as Ctrl-C does."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "source", SPECIAL)


def targets_of(source, output, recipes=("mixed",), method="calibrated"):
    return plan_targets(ModelFolder(source), [find_recipe(each) for each in recipes], method, output)


def calibration_of(targets, **terms):
    return Calibration(tuple(random_pages(targets[0].plan.source.config)), **terms)


def calibrated(source, folder, recipes=("mixed",), threads=1, **terms):
    """Calibrate into *folder*; return the parts."""
    targets = targets_of(source, folder, recipes)
    kept = CalibrationFolder(folder, "same")
    kept.resume()
    plans = [target.plan for target in targets]
    return calibrate(plans, calibration_of(targets, **terms), kept, find_processor(), threads)


def assert_same(one, other):
    assert one.by_key.keys() == other.by_key.keys()
    for key, part in one.by_key.items():
        for mine, theirs in zip(part.arrays, other.by_key[key].arrays, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def parts(source, tmp_path_factory):
    return calibrated(source, tmp_path_factory.mktemp("parts") / "folder")


def test_every_matrix_of_a_block_and_the_head_get_a_part_and_no_other(source, parts, tmp_path):
    modules = {key.tensor.removesuffix(".weight").split(".", 1)[1] for key in parts.by_key}
    layer = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    vision = ["attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    expected = {f"model.layers.{number}.{name}" for number in range(2) for name in layer}
    assert modules == expected | {f"blocks.0.{name}" for name in vision} | {"lm_head"}


def test_embeddings_that_are_the_head_are_calibrated_as_the_head(tmp_path):
    tied = tiny_checkpoint(tmp_path / "tied", {**SPECIAL, "tie_word_embeddings": True})
    found = calibrated(tied, tmp_path / "folder")
    (loss,) = (part.loss for key, part in found.by_key.items() if "embed_tokens" in key.tensor)
    assert loss.stored <= loss.fit * 1.1
    assert loss.rows > loss.rows_of_fit


def test_no_matrix_is_further_from_the_source_than_fit_makes_it_unless_held_out_pages_say_so(parts):
    assert all(part.loss.stored <= part.loss.fit * 1.1 for part in parts.by_key.values())
    # The head sees answers only, and four pages have too few tokens for it.
    losses = [part.loss for key, part in parts.by_key.items() if "lm_head" not in key.tensor]
    assert sum(loss.stored for loss in losses) < 0.8 * sum(loss.fit for loss in losses)


def test_the_widest_input_is_rounded_slice_by_slice(tmp_path):
    wider = tiny_checkpoint(tmp_path / "wider", {**SPECIAL, "intermediate_size": 256})
    whole, halves = (
        calibrated(wider, tmp_path / str(slices), threads=1, down_slices=slices).by_key for slices in (1, 2)
    )
    changed_modules = {
        key.tensor.rpartition("mlp.")[2]
        for key, part in whole.items()
        if any((mine != theirs).any() for mine, theirs in zip(part.arrays, halves[key].arrays, strict=True))
    }
    assert changed_modules == {"down_proj.weight"}
    down = next(key for key in whole if "layers.0.mlp.down_proj" in key.tensor)
    assert halves[down].loss.rows == 2 * whole[down].loss.rows
    # As if each half were a matrix of its own, given its half of the input: no worse than `fit`, and no better than
    # where errors of both halves are set off against each other.
    assert halves[down].loss.stored < halves[down].loss.fit
    assert [part.shape for part in halves[down].arrays] == [part.shape for part in whole[down].arrays]


@pytest.fixture(scope="module")
def by_gradients(source, tmp_path_factory):
    return calibrated(source, tmp_path_factory.mktemp("gradients") / "folder", by_gradients=True)


def test_gradients_change_the_codes_of_the_language_models_blocks_alone(parts, by_gradients):
    assert by_gradients.by_key.keys() == parts.by_key.keys()
    changed_blocks = {
        key.tensor.rpartition(".layers.")[0]
        for key, part in parts.by_key.items()
        if any(
            (mine != theirs).any() for mine, theirs in zip(part.arrays, by_gradients.by_key[key].arrays, strict=True)
        )
    }
    assert changed_blocks == {"language_model.model"}


@pytest.mark.parametrize("share", [0.02, 0.12, 0.17, 0.3, 0.49, 0.7, 0.9])
def test_a_calibration_by_gradients_resumes_wherever_it_was_interrupted(source, by_gradients, tmp_path, share):
    def interrupt(done):
        if done > share:
            raise Interruption

    with pytest.raises(Interruption):
        calibrated(source, tmp_path / "folder", by_gradients=True, on_share=interrupt)
    shares = []
    again = calibrated(source, tmp_path / "folder", by_gradients=True, on_share=shares.append)
    assert_same(again, by_gradients)
    assert shares[0] > (0.5 if share > 0.5 else 0.2 if share > 0.2 else 0)


def test_two_recipes_share_what_they_ask_alike(source, tmp_path):
    both = calibrated(source, tmp_path / "folder", ("mixed", "mixed-large"))
    asked = [wanted_matrices([target.plan]) for target in targets_of(source, tmp_path, ("mixed", "mixed-large"))]
    keys = [{key for each in wanted for key in each.asked} for wanted in asked]
    assert both.by_key.keys() == keys[0] | keys[1]
    assert keys[0] & keys[1]


def test_recipes_that_widen_a_matrix_by_different_zeros_get_one_part_each(source, tmp_path):
    recipes = [find_recipe("mixed"), changed(find_recipe("mixed"), group_size=32)]
    wider = dataclasses.replace(recipes[1], name="wider", vision_mlp_multiple=160)
    targets = plan_targets(ModelFolder(source), [recipes[0], wider], "calibrated", tmp_path / "models")
    reports = write_models(targets, calibration=calibration_of(targets))
    assert [check_weights(target.output).holds for target in targets] == [True, True]
    assert [len(report.calibration.matrices) for report in reports] == [20, 20]


def test_the_number_of_threads_changes_no_byte(source, parts, tmp_path):
    assert_same(calibrated(source, tmp_path / "folder", threads=3), parts)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.8])
def test_a_calibration_that_was_interrupted_resumes_and_makes_the_same_bytes(share, source, parts, tmp_path):
    def interrupt(done):
        if done > share:
            raise Interruption

    with pytest.raises(Interruption):
        calibrated(source, tmp_path / "folder", on_share=interrupt)
    shares = []
    assert_same(calibrated(source, tmp_path / "folder", on_share=shares.append), parts)
    assert shares[0] > share - 0.3, "what was complete was made again"


def test_what_a_complete_calibration_left_is_taken_without_a_walk(source, parts, tmp_path):
    calibrated(source, tmp_path / "folder")
    shares = []
    assert_same(calibrated(source, tmp_path / "folder", on_share=shares.append), parts)
    assert shares == []


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """The target and report of a folder that was calibrated."""
    targets = targets_of(source, tmp_path_factory.mktemp("made") / "model")
    return targets[0], write_models(targets, calibration=calibration_of(targets))[0]


def test_the_shards_hold_what_calibration_made(made, parts):
    target, _ = made
    stored = mx.load(str(target.output / "model.safetensors"))
    for key, part in parts.by_key.items():
        packed = np.array(stored[key.tensor]).view(np.uint8)
        np.testing.assert_array_equal(packed.reshape(len(packed), -1), part.arrays[0])


def test_a_calibrated_folder_has_the_bytes_of_any_other_and_passes_its_check(made, source, tmp_path):
    target, report = made
    (plain,) = write_models(targets_of(source, tmp_path / "fit", method="fit"))
    assert [file.nbytes for file in report.files] == [file.nbytes for file in plain.files]
    assert check_weights(target.output).holds


def test_the_report_names_the_pages_and_every_matrix(made):
    target, report = made
    told = report.calibration
    assert report.method == "calibrated"
    assert [page.name for page in told.pages] == [
        page.name for page in sorted(calibration_of([target]).pages, key=lambda p: p.sha256)
    ]
    assert told.tokens == sum(page.tokens for page in told.pages)
    assert 0 < told.answer_tokens < told.tokens
    assert {each.tensor for each in told.matrices} == {
        key.tensor for each in wanted_matrices([target.plan]) for key in each.asked
    }
    assert json.loads((target.output / "conversion_report.json").read_text())["calibration"]["drawn"] is True


def test_nothing_is_left_beside_a_complete_folder(made):
    target, _ = made
    assert [path.name for path in target.output.parent.iterdir()] == ["model"]


def test_a_conversion_that_fails_after_its_calibration_does_not_calibrate_again(source, tmp_path):
    targets = targets_of(source, tmp_path / "model")

    def fail(nbytes):
        raise Interruption

    with pytest.raises(Interruption):
        write_models(targets, fail, calibration=calibration_of(targets))
    shares = []
    write_models(targets, calibration=calibration_of(targets, on_share=shares.append))
    assert shares == []
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_pages_begin_anew(source, tmp_path):
    targets = targets_of(source, tmp_path / "model")
    calibration = calibration_of(targets)

    def fail(nbytes):
        raise Interruption

    with pytest.raises(Interruption):
        write_models(targets, fail, calibration=calibration)
    shares = []
    other = dataclasses.replace(calibration, pages=calibration.pages[1:], on_share=shares.append)
    (report,) = write_models(targets, calibration=other)
    assert shares[0] < 0.5
    assert len(report.calibration.pages) == len(calibration.pages) - 1


def test_a_source_with_a_value_that_is_not_a_number_is_refused_and_nothing_is_left(tmp_path):
    def spoil(tensors):
        dtype, shape, data = tensors["lm_head.weight"]
        return tensors | {"lm_head.weight": (dtype, shape, b"\xc0\x7f" + data[2:])}

    source = tiny_checkpoint(tmp_path / "source", SPECIAL, spoil)
    targets = targets_of(source, tmp_path / "model")
    with pytest.raises(CheckpointError, match="infinite values or NaN"):
        write_models(targets, calibration=calibration_of(targets))
    assert not (tmp_path / "model").exists()
