"""A conversion is made again from its report, and a difference of a byte is told."""

import dataclasses
import shutil

import pytest
from typer.testing import CliRunner

from olmocr.conversion.convert import convert
from olmocr.conversion.recipe import changed, find_recipe, read_recipe, recipe_names
from olmocr.errors import ExitCode, InputError, UsageError
from olmocr.publish.__main__ import app
from olmocr.publish.folder_reports import read_conversion_report
from olmocr.publish.reproduce import recipe_of, reproduce
from tests.checkpoints import tiny_checkpoint
from tests.publish.samples import change_report, model_copy

RECIPE = """
name: mine
summary: "Ünlike: the others"
vision_mlp_multiple: 32
rules:
  - {match: language_model.lm_head, head: untied, mode: mxfp4}
  - {match: ["language_model.model.layers.[-1:].*", "*.{k_proj,v_proj}"], bits: 8, group_size: 32}
  - {match: "language_model.*", bits: 3}
  - {match: "*", keep: "the vision tower: kept"}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("source") / "checkpoint")


@pytest.fixture(scope="module")
def mine(source, tmp_path_factory):
    """A conversion by a recipe of its own, changed from the command line."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.yaml").write_text(RECIPE)
    recipe = changed(read_recipe(folder / "mine.yaml"), dtype="float16", keep=("*.layers.0.mlp.*",))
    convert(source, recipe, folder / "model", method="stock")
    return folder / "model"


def test_the_same_bytes_come_of_the_report_alone(mine, source):
    found = reproduce(mine, str(source))
    assert found.holds
    assert {"model.safetensors", "config.json", "SHA256SUMS"} <= {file.name for file in found.files}
    assert "conversion_report.json" not in {file.name for file in found.files}
    assert found.versions == {}
    assert [path.name for path in mine.parent.iterdir() if path.name.startswith(".")] == []


def test_a_changed_byte_is_told_with_both_hashes(mine, source, tmp_path):
    folder = shutil.copytree(mine, tmp_path / "model")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    found = reproduce(folder, str(source))
    assert not found.holds
    (other,) = [file for file in found.files if not file.same]
    assert other.name == "model.safetensors"
    assert " in the new one" in other.detail


def test_another_source_is_told(mine, tmp_path):
    other = tiny_checkpoint(tmp_path / "checkpoint", change=lambda tensors: dict(reversed(tensors.items())))
    assert not reproduce(mine, str(other)).source_is_same


def test_reports_that_were_put_there_later_are_no_difference(mine, source, tmp_path):
    assert reproduce(model_copy(mine, tmp_path / "model"), str(source)).holds


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_comes_out_of_its_report_as_it_went_in(name, source, tmp_path):
    recipe = find_recipe(name)
    if recipe.quantizes:
        recipe = changed(recipe, group_size=32)  # which the tiny checkpoint's matrices can be cut into
    convert(source, recipe, tmp_path / "model")
    # By what method it was made, the report says elsewhere.
    assert recipe_of(read_conversion_report(tmp_path / "model").recipe) == dataclasses.replace(recipe, method=None)


def test_a_source_that_is_not_a_repository_must_be_given(mine):
    with pytest.raises(UsageError, match="made from a folder called checkpoint; say where it is with --source"):
        reproduce(mine)


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report.update(method="other"),
        lambda report: report["recipe"]["rules"][0].update(bits=7),
        lambda report: report["recipe"].update(rules=[]),
        lambda report: report["recipe"].update(name="../x"),
    ],
)
def test_a_report_that_cannot_be_followed_is_one_sentence(change, mine, source, tmp_path):
    folder = shutil.copytree(mine, tmp_path / "model")
    change_report(folder, change)
    with pytest.raises(InputError):
        reproduce(folder, str(source))


def test_the_command_says_it_and_ends_with_an_exit_code(mine, source, tmp_path):
    args = ["reproduce", str(mine), "--source", str(source), "--quiet"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0
    assert f"{mine} is reproduced by its report" in done.output
    folder = shutil.copytree(mine, tmp_path / "model")
    (folder / "config.json").write_text("{}")
    done = CliRunner().invoke(app, ["reproduce", str(folder), *args[2:]])
    assert done.exit_code == ExitCode.GATE_FAILED
    assert "OTHER   config.json" in done.output
