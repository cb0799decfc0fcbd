"""Values that are not finite and scales that are zero are named with their place."""

import shutil

import pytest
from mlx_vlm.convert import convert as stock_convert

from tests.conftest import CHECKPOINT
from tests.validate.weights.folders import problems, put, rewrite

HEAD = "language_model.lm_head"


NORM = "language_model.model.norm.weight"


@pytest.mark.parametrize("value", [0x7FC0, 0x7F80, 0xFF80])
def test_a_value_that_is_not_finite_is_named_with_its_place(value, folder):
    put(folder, NORM, 5, value)
    assert problems(folder, "values") == [f"{NORM} has 1 value of 64, at [5], that is NaN or infinite"]


@pytest.mark.parametrize("zero", [0x0000, 0x8000])
def test_zero_scales_are_counted_and_the_first_is_named(zero, folder):
    put(folder, f"{HEAD}.scales", slice(7, 9), zero)
    expected = f"{HEAD}.scales has 2 values of 96, the first at [7, 0], that are zero"
    assert problems(folder, "values") == [expected]


def test_a_scale_of_8_bits_that_is_nan_is_named(tmp_path):
    stock_convert(str(CHECKPOINT), str(tmp_path / "out"), quantize=True, q_bits=4, q_group_size=32, q_mode="mxfp4")

    def change(tensors):
        dtype, shape, data = tensors[f"{HEAD}.scales"]
        tensors[f"{HEAD}.scales"] = (dtype, shape, b"\xff" + data[1:])

    rewrite(tmp_path / "out", change)
    (problem,) = problems(tmp_path / "out", "values")
    assert problem.startswith(f"{HEAD}.scales has 1 value of ")


def test_a_place_beyond_the_first_chunk_is_found(converted, tmp_path):
    folder = shutil.copytree(converted("none"), tmp_path / "model")
    put(folder, f"{HEAD}.weight", (4000, 380), 0x7FC0)
    assert f"{HEAD}.weight has 1 value of 1572864, at [4000, 380], that is NaN or infinite" in problems(
        folder, "values"
    )
