"""What stock mlx-vlm says of a folder."""

import pytest
from mlx_vlm.convert import convert as stock_convert

from olmocr.validate.weights.check import check_weights
from tests.conftest import CHECKPOINT
from tests.validate.weights.folders import SHARD, edit_config, edit_index, problems, rewrite

NORM = "language_model.model.norm.weight"


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_a_folder_that_stock_mlx_vlm_made_is_whole(mode, tmp_path):
    bits, group_size = {"affine": (6, 32), "mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}[mode]
    stock_convert(
        str(CHECKPOINT), str(tmp_path / "out"), quantize=True, q_bits=bits, q_group_size=group_size, q_mode=mode
    )
    report = check_weights(tmp_path / "out", CHECKPOINT)
    assert [check for check in report.checks if check.problems] == []
    assert report.holds
    assert {error.bits for error in report.errors} == {16, bits}
    assert 0 < report.errors[0].relative_error < 0.25


@pytest.mark.parametrize("setting", ["auto_map", "model_file"])
def test_a_folder_with_code_is_not_loaded(setting, folder):
    (folder / "evil.py").write_text("raise SystemExit('it ran')")
    edit_config(folder, lambda config: config.update({setting: "evil.py"}))
    (problem,) = problems(folder, "loads")
    assert f"has {setting}, which would run Python code from the folder" in problem


def test_what_mlx_vlm_says_against_a_folder_is_passed_on(folder):
    edit_config(folder, lambda config: config.update(model_type="ghost"))
    (problem,) = problems(folder, "loads")
    assert problem.startswith("mlx-vlm does not load it: ValueError: ")
    assert "ghost" in problem


def test_a_broken_folder_is_not_tried_to_load(folder):
    edit_index(folder, lambda index: index["weight_map"].pop(NORM))
    (check,) = [check for check in check_weights(folder).checks if check.name == "loads"]
    assert (check.holds, check.detail) == (None, "not tried, because of index")


def test_a_dtype_that_mlx_vlm_reads_by_writing_to_the_file_is_not_tried(folder):
    edit_config(folder, lambda config: config.update(model_type="llava"))
    rewrite(folder, lambda tensors: tensors.update(extra=("F8_E8M0", [1], b"\x7f")))
    before = (folder / SHARD).stat().st_mtime_ns
    (check,) = [check for check in check_weights(folder).checks if check.name == "loads"]
    assert check.holds is None
    assert "F8_E8M0" in check.detail
    assert (folder / SHARD).stat().st_mtime_ns == before
