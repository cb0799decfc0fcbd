"""What an earlier command left is known by its report."""

import shutil

from olmocr.conversion.convert import convert
from olmocr.publish.ready import has_passed_fidelity, has_passed_smoke, made_before
from olmocr.validate.known_pages.built_in_pages import draw_built_in_pages
from tests.publish.samples import model_copy
from tests.publish.uploads import targets


def test_a_conversion_that_was_carried_out_is_known_by_its_report(source, tmp_path):
    (target,) = targets(source, "8bit", output=tmp_path / "out")
    assert made_before(target) is None
    (report,) = convert(source, "8bit", tmp_path / "out")
    assert made_before(target) == report


def test_another_recipe_method_or_source_is_another_conversion(source, tmp_path):
    out = tmp_path / "out"
    convert(source, "8bit", out)
    assert made_before(*targets(source, "4bit", output=out)) is None
    assert made_before(*targets(source, "8bit", output=out, method="stock")) is None
    other = shutil.copytree(source, tmp_path / "other")
    shard = other / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert made_before(*targets(other, "8bit", output=out)) is None
    (out / "conversion_report.json").write_text("{")
    assert made_before(*targets(source, "8bit", output=out)) is None


def test_reports_count_only_for_these_weights_this_source_and_these_pages(tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model")
    assert has_passed_smoke(folder)
    assert has_passed_fidelity(folder, {}, ())
    assert not has_passed_fidelity(folder, {"model.safetensors": "0" * 64}, ())
    page = draw_built_in_pages(tmp_path, 644)[0].path
    assert not has_passed_fidelity(folder, {}, (page,))
    for failing in ({"smoke": False}, {"smoke": None}):
        assert not has_passed_smoke(model_copy(tiny, tmp_path / str(failing), **failing))
    for failing in ({"fidelity": False}, {"fidelity": None}):
        assert not has_passed_fidelity(model_copy(tiny, tmp_path / str(failing), **failing), {}, ())
    (folder / "smoke_report.json").write_text("{")
    assert not has_passed_smoke(folder)
