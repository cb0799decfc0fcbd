"""Several reports in one table."""

import dataclasses

import pytest

from olmocr.reports.parts import Interval
from olmocr.validate.fidelity.gates import check_gates, read_gates
from olmocr.validate.fidelity.ladder import COLUMNS, by_size, ladder_lines, ladder_markdown, model_labels, steps
from tests.validate.reports import report


def model(recipe, nbytes, kl, *, spread=0.1):
    made = report(recipe=recipe, mean_kl=kl)
    interval = Interval(kl * (1 - spread), kl * (1 + spread), 0.95, 2000)
    return dataclasses.replace(
        made,
        cost=dataclasses.replace(made.cost, weight_bytes=nbytes),
        distribution=dataclasses.replace(made.distribution, mean_kl_interval=interval),
        gate=check_gates(made, read_gates()),
    )


EIGHT, FOUR, MIXED = model("8bit", 9 * 10**9, 1e-6), model("4bit", 5 * 10**9, 1e-3), model("mixed", 4 * 10**9, 1e-4)


def test_the_largest_comes_first():
    assert [each.recipe for each in by_size([FOUR, EIGHT, MIXED])] == ["8bit", "4bit", "mixed"]


def test_it_is_said_where_fewer_bytes_are_nearer():
    assert steps([EIGHT, FOUR]) == ["With every step down in size the mean divergence grows."]
    assert steps([EIGHT, FOUR, MIXED]) == ["mixed is smaller than 4bit and nearer to the source."]
    unsure = model("mixed", 4 * 10**9, 9.9e-4)
    assert steps([FOUR, unsure]) == [
        "mixed is smaller than 4bit and nearer to the source, though their intervals overlap."
    ]
    assert steps([FOUR]) == []


def test_models_of_one_recipe_are_told_apart_by_their_folders():
    one, other = (dataclasses.replace(FOUR, model=name) for name in ("stock", "fit\x1b[2J"))
    assert model_labels([one, other, EIGHT]) == ["stock", "fit\\x1b[2J", "8bit"]


def test_a_limit_that_broke_is_named_with_its_model():
    lines = ladder_lines([EIGHT, model("6bit", 7 * 10**9, 0.4)])
    assert lines[-1] == "6bit broke most_mean_kl of 6bit (gates.yaml): it is 0.0013, measured was 0.4"
    (gate,) = [line for line in lines if line.startswith("gate")]
    assert gate.endswith("  broke 1 limit")
    assert "passed" in gate


@pytest.mark.parametrize("count", [2, 3, 7])
def test_on_a_terminal_of_80_columns_every_model_and_figure_is_there(count):
    models = [dataclasses.replace(EIGHT, recipe=f"mixed-{number}") for number in range(count)]
    lines = ladder_lines(models)
    assert max(map(len, lines)) <= 80
    assert sum("1.00e-06 to" in line or "9.00e-07 to" in line for line in lines) == -(-count // 2)
    text = "\n".join(lines)
    assert all(text.count(each.recipe) >= 1 for each in models)
    assert all(name in text for name in COLUMNS)


def test_in_markdown_it_is_a_table():
    lines = ladder_markdown([FOUR, EIGHT]).splitlines()
    assert lines[2].startswith("| 8bit | 9.00 GB |")
    assert len({line.count("|") for line in lines[:4]}) == 1
