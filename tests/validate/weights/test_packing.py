"""Packed modules: their parts, their settings and the config that names them."""

import shutil

import pytest
from mlx_vlm.convert import convert as stock_convert

from olmocr.validate.weights.check import check_weights
from tests.conftest import CHECKPOINT
from tests.validate.weights.folders import edit_config, edit_quantization, problems, rewrite

HEAD = "language_model.lm_head"


def test_modules_with_bits_of_their_own_are_whole(tmp_path):
    stock_convert(str(CHECKPOINT), str(tmp_path / "out"), quantize=True, quant_predicate="mixed_4_6")
    report = check_weights(tmp_path / "out", CHECKPOINT)
    assert report.holds
    assert {error.bits for error in report.errors} == {16, 4, 6}


def test_a_settings_path_without_the_wrappers_prefix_means_the_module_all_the_same(folder):
    edit_quantization(folder, lambda each: each.update({"lm_head": {"bits": 4, "group_size": 64}}))
    assert check_weights(folder).holds


def test_a_packed_tensor_of_another_shape_is_named(folder):
    edit_config(folder, lambda config: config.update(vocab_size=97))
    assert f"{HEAD}.weight has shape (96, 64), config.json requires (97, 64)" in problems(folder, "tensors")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda each: each.update(bits=8), "which is not affine with 8 bits in groups of 64"),
        (lambda each: each.update(group_size=32), "which is not affine with 4 bits in groups of 32"),
        (lambda each: each.update(mode="mxfp4", group_size=32), "has biases, but mxfp4 has none"),
        (lambda each: each.update(mode="magic"), "has mode 'magic' in config.json, not one of"),
        (lambda each: each.update(mode=["affine"]), "has mode ['affine'] in config.json, not one of"),
        (
            lambda each: each.update(bits="4"),
            "has '4' bits in groups of 64 in config.json, which affine does not support",
        ),
        (
            lambda each: each.update(group_size=8),
            "has 4 bits in groups of 8 in config.json, which affine does not support",
        ),
        (lambda each: each.update(bits=7), "has 7 bits in groups of 64 in config.json, which affine does not support"),
        (lambda each: each.update({HEAD: {"bits": 8, "group_size": 64}}), f"{HEAD} has a weight of shape (96, 8) and"),
        (lambda each: each.update({HEAD: False}), f"{HEAD} has scales, but config.json says that it is not quantized"),
        (lambda each: each.update({"a.ghost": {"bits": 4}}), "config.json names a.ghost in its quantization, but"),
        (
            lambda each: each.update({"vision_tower.merger.mlp.0": {"bits": 4, "group_size": 64}}),
            "config.json says that vision_tower.merger.mlp.0 is quantized, but it has no scales",
        ),
        (lambda each: each.clear(), "has scales, but config.json does not name a quantization"),
    ],
)
def test_a_config_that_does_not_fit_the_packing_is_broken(change, problem, folder):
    edit_quantization(folder, change)
    assert any(problem in each for each in problems(folder, "packing"))


def test_a_quantization_that_is_said_twice_must_be_the_same(folder):
    edit_config(folder, lambda config: config["quantization"].update({HEAD: {"bits": 4, "group_size": 64}}))
    assert problems(folder, "packing") == [f"config.json's quantization and quantization_config differ in {HEAD}"]


def test_a_quantization_that_is_not_a_group_of_settings_is_broken(folder):
    edit_config(folder, lambda config: config.update(quantization=4))
    assert problems(folder, "packing") == ["config.json has a quantization that is not a group of settings"]


def test_a_config_that_quantizes_nothing_is_broken(converted, tmp_path):
    folder = shutil.copytree(converted("none"), tmp_path / "model")
    edit_config(folder, lambda config: config.update(quantization={"bits": 4, "group_size": 64}))
    assert problems(folder, "packing") == ["config.json says that the model is quantized, but no module has scales"]


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ("biases", f"{HEAD} has scales but no biases"),
        ("weight", f"{HEAD} has scales but no weight"),
        ("scales", f"{HEAD}.weight is packed (U32) but has no scales"),
    ],
)
def test_a_part_of_a_packed_module_that_is_missing_is_named(part, problem, folder):
    rewrite(folder, lambda tensors: {name: each for name, each in tensors.items() if name != f"{HEAD}.{part}"})
    assert problem in problems(folder, "packing")


@pytest.mark.parametrize(
    ("part", "entry", "problem"),
    [
        ("weight", ("F32", [96, 8], bytes(3072)), "has scales, but dtype F32: packed weights are U32"),
        ("weight", ("U32", [], bytes(4)), "has a weight of shape ()"),
        ("scales", ("U8", [96, 1], bytes(96)), "has dtype U8; affine has"),
        ("biases", ("BF16", [48, 1], bytes(96)), "has shape (48, 1), its scales (96, 1)"),
        ("biases", ("U8", [96, 1], bytes(96)), "has dtype U8; affine has"),
    ],
)
def test_a_part_of_a_packed_module_of_another_form_is_named(part, entry, problem, folder):
    rewrite(folder, lambda tensors: tensors.update({f"{HEAD}.{part}": entry}))
    (found,) = problems(folder, "packing")
    assert found.startswith(HEAD)
    assert problem in found
