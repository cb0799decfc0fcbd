"""Reports of a folder are those of its weights, or they are refused."""

import pytest

from olmocr.errors import InputError
from olmocr.publish.folder_reports import read_reports
from tests.publish.samples import change_report, model_copy


@pytest.mark.parametrize("name", ["conversion_report.json", "smoke_report.json", "fidelity_report.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}', "\ud800"])
def test_a_damaged_report_is_refused_and_not_left_out(name, content, tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model")
    (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=f"{name} cannot be used"):
        read_reports(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_bytes": "9"}, "weight_bytes is not a whole number"),
        ({"bits_per_weight": float("nan")}, "it is not JSON: NaN is not a number"),
        ({"bits_per_weight": "4"}, "bits_per_weight is not a number"),
        ({"files": [{"name": "a", "nbytes": 1}]}, r"files\[0\] has no sha256"),
        ({"kept": {"because": True}}, r"kept\.\* is not a whole number"),
        ({"version": 3}, "it has version 3"),
    ],
)
def test_a_report_with_a_value_of_another_type_is_refused(change, message, tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model")
    change_report(folder, lambda report: report.update(change))
    with pytest.raises(InputError, match=message):
        read_reports(folder)


@pytest.mark.parametrize("measured", ["smoke", "fidelity"])
def test_a_report_of_other_weights_is_refused(measured, tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model", **{"smoke": None, "fidelity": None} | {measured: True})
    change_report(folder, lambda report: report["files"][0].update(sha256="0" * 64))
    with pytest.raises(InputError, match=f"{measured}_report.json is about other weights"):
        read_reports(folder)


def test_a_folder_that_was_not_converted_here_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no conversion_report\.json; give a folder"):
        read_reports(tmp_path)
