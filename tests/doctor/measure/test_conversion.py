"""Bytes of conversions beside those that are known."""

import json

import pytest

from olmocr.doctor.measure.conversion import compare, convert_demo
from olmocr.doctor.measure.terms import find_demo


@pytest.mark.parametrize(
    ("conversion", "digest", "kind", "known"),
    [
        ("4bit fit", "a", "arm64 Darwin, metal", "same"),
        ("4bit fit", "b", "arm64 Darwin, metal", "other"),
        ("mixed calibrated", "c", "x86_64 Linux, cpu", "same"),
        ("mixed calibrated", "d", "x86_64 Linux, cpu", "other"),
        ("mixed calibrated", "c", "arm64 Darwin, metal", "unknown"),
        ("8bit fit", "a", "x86_64 Linux, cpu", "unknown"),
    ],
)
def test_bytes_are_those_of_all_machines_or_of_this_kind(conversion, digest, kind, known, tmp_path):
    file = tmp_path / "known.json"
    file.write_text(json.dumps({"4bit fit": {"any": ["a"]}, "mixed calibrated": {"x86_64 Linux, cpu": ["c"]}}))
    assert compare(file, conversion, digest, kind) == known


@pytest.mark.parametrize(("recipe", "method"), [("8bit", "fit"), ("4bit", "fit"), ("4bit", "stock")])
def test_the_demos_conversions_have_the_bytes_that_are_kept(recipe, method, tmp_path):
    measured = convert_demo(find_demo(), recipe, method, tmp_path / "model")
    assert measured.known == "same"
    assert (measured.recipe, measured.method, len(measured.sha256)) == (recipe, method, 64)
