"""What each matrix of a source costs: measured once, kept, and made into recipes."""

import dataclasses
import json
import logging

import pytest

from olmocr.calibration.sensitivities import (
    SensitivityRequest,
    evenly,
    find_request,
    known_sensitivities,
    multiply_adds,
    with_predictions,
    write_recipe,
)
from olmocr.conversion.calibrated.allocation.recipe import Goal, allocate
from olmocr.conversion.calibrated.allocation.sensitivities import identified, read_sensitivities, write_sensitivities
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.recipe import find_recipe, read_recipe
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.errors import OutputError, PlanError, UsageError
from olmocr.model_folder import ModelFolder
from tests.conftest import CHECKPOINT
from tests.conversion.calibrated.measured import measured_of
from tests.conversion.calibrated.pages import random_page


@pytest.fixture(scope="module")
def source():
    return read_checkpoint(ModelFolder(CHECKPOINT))


@pytest.fixture(scope="module")
def known(source):
    return measured_of(source, source_id=identified(source))


def test_the_demos_file_is_of_the_demos_checkpoint_and_knows_each_of_its_matrices(source):
    found = known_sensitivities(source, CHECKPOINT.parent / "sensitivity.json", may_measure=False)
    matrices = {
        name.removesuffix(".weight")
        for name, info in source.tensors.items()
        if len(info.shape) == 2 and name.startswith("language_model.")
    }
    assert {each.module for each in found.matrices} == matrices
    assert found.methods() == ("fit", "calibrated")


def never(source):
    raise AssertionError("nothing is to be measured")


def test_a_file_of_this_source_is_read_and_one_of_another_is_refused(source, known, tmp_path):
    path = tmp_path / "sensitivity.json"
    write_sensitivities(path, known)
    assert known_sensitivities(source, path, "fit", pages_of=never) == known
    assert known_sensitivities(source, path, "calibrated", may_measure=False, pages_of=never) == known
    write_sensitivities(path, measured_of(source))
    with pytest.raises(PlanError, match=r"were measured on made up, whose weights .* are not those of checkpoint"):
        known_sensitivities(source, path, pages_of=never)


@pytest.mark.slow
def test_what_is_not_there_is_measured_and_kept(source, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, blocks = tmp_path / "new/sensitivity.json", []
    pages = [random_page(source.config, rows=4, columns=6, answer=5)]
    found = known_sensitivities(
        source, path, "fit", pages_of=lambda source: pages, on_block=lambda *done: blocks.append(done)
    )
    assert "measuring what each matrix costs, on 1 pages, takes about" in caplog.text
    assert read_sensitivities(path) == found
    assert found.methods() == ("fit", "calibrated")
    assert {each.module for each in found.matrices} == {each.module for each in measured_of(source).matrices}
    assert all(each.nats["fit"]["3"] > each.nats["fit"]["8"] for each in found.matrices)
    assert blocks[-1][0] == blocks[-1][1]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_dry_run_measures_nothing(source, tmp_path):
    with pytest.raises(PlanError, match=r"does not exist, and a dry run does not measure"):
        known_sensitivities(source, tmp_path / "none.json", may_measure=False, pages_of=never)


def test_pages_are_taken_from_all_kinds():
    assert evenly(list(range(24)), 8) == (0, 3, 6, 9, 12, 15, 18, 21)
    assert evenly(list(range(3)), 8) == (0, 1, 2)
    assert len(set(evenly(list(range(9)), 8))) == 8


def test_more_pages_and_methods_take_longer(source):
    page = random_page(source.config)
    one, two = (multiply_adds(source, [page] * count, ["fit"]) for count in (1, 2))
    assert one < two < multiply_adds(source, [page] * 2, ["fit", "calibrated"])


def test_the_recipe_is_written_beside_the_folder_and_made_the_same_way_again(source, known, tmp_path):
    (target,) = plan_targets(ModelFolder(CHECKPOINT), [find_recipe("mixed")], "fit", tmp_path / "out")
    request = SensitivityRequest(Goal("small", file_bytes=15_000_000), None)
    found = request.allocated(target, known, None, tmp_path / "out", dry_run=False)
    assert (found.output, found.plan.method, found.plan.recipe.file) == (tmp_path / "out", "fit", "out.yaml")
    assert found.plan.file_bytes <= 15_000_000
    recipe = read_recipe(tmp_path / "out.yaml")
    (again,) = plan_targets(ModelFolder(CHECKPOINT), [recipe], None, tmp_path / "out")
    assert again.plan == found.plan
    (predicted,) = with_predictions([again], known)
    assert f"{predicted.plan.predicted_nats:.3g} nats" in recipe.summary
    assert with_predictions([again], None) == [again]


def test_a_dry_run_writes_no_recipe_and_no_goal_changes_nothing(source, known, tmp_path):
    (target,) = plan_targets(ModelFolder(CHECKPOINT), [find_recipe("mixed")], "fit", tmp_path / "out")
    SensitivityRequest(Goal("small", mac_gib=8), None).allocated(target, known, "fit", tmp_path / "out", dry_run=True)
    assert SensitivityRequest(None, tmp_path).allocated(target, known, "fit", None, dry_run=False) == target
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_a_person_changed_is_not_written_over(source, known, tmp_path):
    found = allocate(source, known, Goal("small", file_bytes=15_000_000), find_recipe("mixed"), "fit")
    path = tmp_path / "out.yaml"
    write_recipe(path, found, known)
    write_recipe(path, found, known)
    text = path.read_text()
    path.write_text(text.replace("bits: 4", "bits: 5"))
    with pytest.raises(OutputError, match=r"out\.yaml already holds another recipe; use it with `recipe="):
        write_recipe(path, found, known)


def test_a_goal_makes_the_recipe_alone():
    request = find_request("5GB", None, None, None)
    request.require_alone(None, None)
    with pytest.raises(UsageError, match="`target_size='5GB'` makes a recipe, in groups of 64; leave out `quantize`"):
        request.require_alone("4bit", None)
    assert not find_request(None, None, None, None).is_one
    find_request(None, None, None, CHECKPOINT).require_alone("4bit")


def test_the_file_is_named_after_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = find_request(None, "8GB", None, None)
    assert request.file_of(ModelFolder(CHECKPOINT)).name == "checkpoint-sensitivity.json"
    assert not request.is_there(ModelFolder(CHECKPOINT))


def test_the_docs_name_every_field_of_the_file(known):
    text = (CHECKPOINT.parents[1] / "docs/sensitivities.md").read_text()
    fields = {*dataclasses.asdict(known), *json.loads(json.dumps(dataclasses.asdict(known.pages)))}
    assert all(f"`{field}`" in text for field in fields)
