"""Limits by recipe: which hold, which are broken by name, and which files hold none."""

import dataclasses
import json

import pytest

from olmocr.conversion.recipe import find_recipe
from olmocr.errors import UsageError
from olmocr.validate.fidelity.gates import LIMITS, check_gates, read_gates
from tests.validate.reports import page, report


def test_every_packaged_recipe_has_all_limits():
    gates = read_gates()
    assert all(set(limits) == set(LIMITS) for limits in gates.values())
    assert [find_recipe(name).name for name in gates if name != "default"] == [*gates][1:]


def test_a_good_conversion_passes_by_the_limits_of_its_recipe():
    found = check_gates(report(recipe="8bit", mean_kl=0.0005), read_gates())
    assert (found.passed, found.broken, found.recipe, found.file) == (True, (), "8bit", "gates.yaml")


def test_the_same_divergence_is_too_much_for_more_bits():
    assert check_gates(report(recipe="4bit", mean_kl=0.01), read_gates()).passed
    (broken,) = check_gates(report(recipe="8bit", mean_kl=0.01), read_gates()).broken
    assert (broken.name, broken.limit, broken.measured) == ("most_mean_kl", 0.001, 0.01)


def test_each_limit_that_is_broken_is_named():
    bad = report(mean_kl=1.0, top1_agreement=0.5, error_rate=0.3, pages=(page(valid=False), page(looped=True)))
    found = check_gates(bad, read_gates())
    assert {broken.name for broken in found.broken} == set(LIMITS)


def test_what_the_source_cannot_read_either_is_not_a_fault_of_the_conversion():
    alike = report(pages=(page(), page(valid=False, source_valid=False, looped=True, source_looped=True)))
    assert check_gates(alike, read_gates()).passed


def test_a_measurement_that_is_not_a_number_breaks_its_limit():
    assert not check_gates(report(mean_kl=float("nan")), read_gates()).passed


def test_a_recipe_of_ones_own_has_the_default_limits():
    assert check_gates(report(recipe="mine"), read_gates()).recipe == "default"
    assert check_gates(report(recipe=None), read_gates()).recipe == "default"


def test_limits_of_ones_own_take_the_place_of_the_packaged_ones(tmp_path):
    file = tmp_path / "strict.yaml"
    file.write_text("default: {most_mean_kl: 0.5}\nrecipes:\n  4bit: {least_top1_agreement: 1}\n")
    found = check_gates(report(recipe="4bit", mean_kl=0.4, top1_agreement=0.9), read_gates(file), file)
    assert ([each.name for each in found.broken], found.file) == (["least_top1_agreement"], "strict.yaml")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("default: {most_kl: 1}", "has a limit 'most_kl'; use one of most_mean_kl"),
        ("default: {most_mean_kl: low}", "most_mean_kl is 'low', not a number"),
        ("default: {most_mean_kl: yes}", "most_mean_kl is True, not a number"),
        ("- 1", "is not a file of limits"),
        ("limits: {}", "is not a file of limits"),
        ("recipes: [4bit]", "recipes is not a list"),
        ("recipes: {4bit: 1}", "4bit is not a list"),
        ("default: {", "cannot be read"),
    ],
)
def test_a_file_that_holds_no_limits_is_refused(tmp_path, text, why):
    file = tmp_path / "gates.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=why):
        read_gates(file)


def test_a_report_can_be_written_as_json():
    json.dumps(dataclasses.asdict(report()))
