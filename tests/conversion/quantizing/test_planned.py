"""Rows of a planned tensor, and the error that its report counts."""

import json
import math

import numpy as np
import pytest

from olmocr.conversion import shards as shards_module
from olmocr.conversion.convert import convert
from olmocr.conversion.recipe import changed, find_recipe
from olmocr.errors import PlanError
from olmocr.tensors.floats import NUMPY_DTYPES, narrowed, widened
from tests.checkpoints import E4M3, fp8_checkpoint, read_tensors, tiny_checkpoint


@pytest.mark.parametrize("per_row", [True, False])
def test_float8_rows_cut_into_chunks_have_each_its_own_scale(per_row, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "CHUNK_BYTES", 300)
    source = fp8_checkpoint(tmp_path / "source", per_row=per_row)
    convert(source, "none", tmp_path / "out")
    before, after = read_tensors(source), read_tensors(tmp_path / "out")
    names = [name for name, (dtype, _, _) in before.items() if dtype == "F8_E4M3"]
    assert names
    for name in names:
        _, shape, data = before[name]
        scale = widened(np.frombuffer(before[f"{name}_scale"][2], NUMPY_DTYPES["BF16"])).reshape(-1, 1)
        expected = narrowed(E4M3[np.frombuffer(data, np.uint8).reshape(shape)] * scale, "BF16")
        assert after[name.replace("model.", "language_model.model.", 1)][2] == expected.tobytes(), name


def with_first_values(values):
    """Return a change of tensors that puts eight *values* first into one of the matrices."""

    def change(tensors):
        name = next(name for name in tensors if name.endswith("q_proj.weight"))
        dtype, shape, data = tensors[name]
        return tensors | {name: (dtype, shape, narrowed(np.array(values, np.float32), "BF16").tobytes() + data[16:])}

    return change


@pytest.mark.parametrize("largest", [1e20, 1e30])
@pytest.mark.parametrize("method", ["fit", "stock"])
def test_weights_whose_squares_float32_cannot_hold_have_a_true_error_in_a_report_that_is_json(
    method, largest, tmp_path
):
    source = tiny_checkpoint(tmp_path / "source", change=with_first_values([largest] * 8))
    (report,) = convert(source, "4bit", tmp_path / "out", method=method)
    errors = {each.name: each.relative_error for each in report.tensors}
    assert all(math.isfinite(error) for error in errors.values())
    assert all(error > 0 for name, error in errors.items() if "q_proj.weight" in name)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads((tmp_path / "out/conversion_report.json").read_text(), parse_constant=refuse)


def test_a_tensors_error_is_the_same_sum_whichever_thread_was_first():
    parts = [(row, 10.0 ** (row % 17), 1e16 / (row + 1)) for row in range(50)]
    assert shards_module._summed(parts) == shards_module._summed(reversed(parts))


@pytest.mark.parametrize(
    ("dtype", "largest", "advice"),
    [(None, 3e38, r"`keep='language_model\.\S+q_proj'`$"), ("float16", 1e30, "`dtype='bfloat16'`")],
)
def test_a_weight_that_is_too_large_for_what_is_stored_is_named_with_a_way_out_that_helps(
    dtype, largest, advice, tmp_path
):
    source = tiny_checkpoint(tmp_path / "source", change=with_first_values([largest, -largest] * 4))
    with pytest.raises(PlanError, match=advice):
        convert(source, changed(find_recipe("8bit"), dtype=dtype), tmp_path / "out")
    assert not (tmp_path / "out").exists()
