"""A converted model beside its source: what is measured, what is kept, and what is caught by a limit."""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys

import jsonschema
import mlx.core as mx
import numpy as np
import pytest

from olmocr.errors import CheckpointError, UsageError
from olmocr.inference.prompt import PageInputs
from olmocr.page import IMAGE_PLACEHOLDER, chat_prompt
from olmocr.reports.fidelity import FIDELITY_REPORT_FILE, FidelityReport, fidelity_lines
from olmocr.reports.typed_json import report_json
from olmocr.validate.fidelity.distributions import diverge, keep
from olmocr.validate.fidelity.forced import ForcedAnswer
from olmocr.validate.fidelity.gates import check_gates, read_gates
from olmocr.validate.fidelity.measure import (
    FidelityTerms,
    compare,
    distinct_folders,
    measure_fidelity,
    write_fidelity_report,
)
from olmocr.validate.fidelity.reading import inputs_of
from tests.checkpoints import read_tensors, write_tensors
from tests.conftest import CHECKPOINT, ROOT
from tests.validate.reports import documented_fields
from tests.validate.reports import report as made_report

SCHEMA = json.loads((ROOT / "docs/fidelity-report.schema.json").read_text())


DOCUMENT = (ROOT / "docs/fidelity.md").read_text()


FIDELITY = [sys.executable, "-m", "olmocr.validate", "fidelity"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder in which the source's answers are found again by the next test."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def measured(converted, page, work):
    """Return a function: recipe -> the report of the demo checkpoint converted so, on the short page."""
    return functools.cache(
        lambda recipe: measure_fidelity(converted(recipe), CHECKPOINT, FidelityTerms((page,), work=work))
    )


def swap(folder):
    """Swap two layers' matrices in a model's folder."""
    tensors = read_tensors(folder)
    first, second = (f"language_model.model.layers.{number}.mlp.down_proj" for number in (1, 4))
    for part in ("weight", "scales", "biases"):
        one, other = f"{first}.{part}", f"{second}.{part}"
        tensors[one], tensors[other] = tensors[other], tensors[one]
    write_tensors(folder / "model.safetensors", tensors)


@pytest.mark.slow
def test_fewer_bits_are_farther_from_the_source(measured):
    eight, four = (measured(recipe).distribution for recipe in ("8bit", "4bit"))
    assert 0 < eight.mean_kl < four.mean_kl / 10
    assert eight.top1_agreement == 1
    assert eight.mean_kl_interval.low <= eight.mean_kl <= eight.mean_kl_interval.high


def test_a_report_is_what_the_schema_says_and_holds_no_text_of_a_page(measured, page):
    text = report_json(measured("8bit"))
    report = json.loads(text)
    jsonschema.validate(report, SCHEMA)
    assert set(report) == set(SCHEMA["properties"])
    assert page.with_suffix(".md").read_text()[:20] not in text
    assert report["free_running"]["against_truth"]["character_error_rate"] == 0
    assert (report["recipe"], report["longest_side"]) == ("8bit", 644)
    assert sum(each["positions"] for each in report["distribution"]["flips"]) == report["distribution"]["positions"]


def test_what_the_model_costs_is_in_the_report(measured, converted):
    report = measured("4bit")
    assert report.cost.weight_bytes == (converted("4bit") / "model.safetensors").stat().st_size
    assert {part.component for part in report.cost.components} >= {"language", "vision", "merger"}
    assert report.cost.peak_memory > report.cost.weight_bytes


def test_several_models_are_measured_in_one_run_as_each_is_alone(measured, converted, page, work):
    each = [measured(recipe) for recipe in ("8bit", "4bit")]
    with compare([converted("8bit"), converted("4bit")], CHECKPOINT, FidelityTerms((page,), work=work)) as comparison:
        (read,) = comparison.pages
        assert comparison.image(read).pixels.width > 100
    assert [report.distribution for report in comparison.reports] == [report.distribution for report in each]
    assert [model.greedy.text for model in read.models] == [read.source.greedy.text] * 2


@pytest.mark.slow
def test_the_command_compares_several_models_and_ends_with_11_where_one_breaks_a_limit(converted, page, work, tmp_path):
    eight, four = (shutil.copytree(converted(recipe), tmp_path / recipe) for recipe in ("8bit", "4bit"))
    (tmp_path / "gates.yaml").write_text("recipes: {4bit: {most_mean_kl: 0}}")
    html = tmp_path / "look.html"
    done = subprocess.run(
        [*FIDELITY, eight, four, "--source", CHECKPOINT, "--pages", page, "--work", work, "--html", html, "--json",
         "--gates", tmp_path / "gates.yaml", "--gate"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 11, done.stderr
    assert [report["gate"]["passed"] for report in json.loads(done.stdout)] == [True, False]
    assert [json.loads((each / FIDELITY_REPORT_FILE).read_text()) for each in (eight, four)] == json.loads(done.stdout)
    assert "1 of 2 models meet their limits; 4bit breaks them." in html.read_text()
    assert "it contains the pages' images and text" in done.stderr


def test_a_model_that_is_given_twice_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is given twice"):
        distinct_folders([tmp_path / "a", tmp_path / "b", tmp_path / "b" / ".." / "a"])


def test_every_field_is_documented():
    assert documented_fields(DOCUMENT) | {"version"} == {field.name for field in dataclasses.fields(FidelityReport)}


@pytest.mark.slow
def test_a_broken_model_breaks_limits_by_name_and_the_command_says_so(converted, page, tmp_path):
    folder = shutil.copytree(converted("4bit"), tmp_path / "swapped")
    swap(folder)
    done = subprocess.run(
        [*FIDELITY, folder, "--source", CHECKPOINT, "--pages", page, "--work", tmp_path, "--max-tokens", "60",
         "--gate"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 11, done.stderr
    assert "most_mean_kl is 0.025" in done.stdout
    report = json.loads((folder / FIDELITY_REPORT_FILE).read_text())
    assert {broken["name"] for broken in report["gate"]["broken"]} >= {"most_mean_kl", "least_top1_agreement"}


def test_a_prompt_in_the_wrong_order_is_farther_than_any_limit_allows(source, image, answer):
    kept = keep(ForcedAnswer(source, inputs_of(source, image, 0), answer).blocks(), len(answer) + 1)
    wrong = chat_prompt().replace(IMAGE_PLACEHOLDER, "") + IMAGE_PLACEHOLDER
    fields = source.processor(text=[wrong], images=[image.pixels], add_special_tokens=False)
    names = ("input_ids", "pixel_values", "image_grid_thw")
    inputs = PageInputs(**{name: np.array(fields[name]) for name in names}, image_key=b"image", prompt_key=b"wrong")
    found = diverge(kept, ForcedAnswer(source, inputs, answer).blocks())
    report = made_report(mean_kl=float(found.divergence.mean()))
    assert [broken.name for broken in check_gates(report, read_gates()).broken] == ["most_mean_kl"]


@pytest.mark.slow
def test_an_interrupted_measurement_resumes_where_it_was(converted, page, tmp_path):
    pages = [shutil.copyfile(page, tmp_path / f"{name}.png") for name in ("one", "two")]
    terms = FidelityTerms(tuple(pages), longest_side=140, max_tokens=3, work=tmp_path / "work")
    said = []

    def interrupt(name, total):
        said.append((name, total))
        if len(said) == 5:
            raise KeyboardInterrupt

    models = (converted("8bit"), converted("4bit"))
    with pytest.raises(KeyboardInterrupt), compare(models, CHECKPOINT, terms, interrupt):
        pass
    assert [name for name, _ in said] == ["checkpoint", "checkpoint", "8bit", "8bit", "4bit"]
    assert {total for _, total in said} == {6}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("000*")}
    assert len(before) == 10
    with compare(models, CHECKPOINT, terms) as measured:
        assert [len(report.pages) for report in measured.reports] == [2, 2]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list((tmp_path / "work").rglob("*.partial"))


@pytest.mark.slow
def test_a_second_measurement_on_the_built_in_pages_reads_none_of_them_again(converted, tmp_path):
    terms = FidelityTerms(longest_side=140, max_tokens=3, work=tmp_path)
    first = measure_fidelity(converted("8bit"), CHECKPOINT, terms)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("000*")}
    second = measure_fidelity(converted("8bit"), CHECKPOINT, terms)
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("000*")} == before
    assert len(before) == 2 * 2 * len(first.pages)


@pytest.mark.slow
def test_nothing_is_lost_where_no_bits_are_dropped(measured):
    assert measured("none").distribution.mean_kl < 1e-7


@pytest.mark.slow
def test_both_models_are_never_in_memory_together(converted, page, tmp_path):
    mx.clear_cache()
    others = mx.get_active_memory()
    report = measure_fidelity(converted("4bit"), CHECKPOINT, FidelityTerms((page,), work=tmp_path))
    assert mx.get_active_memory() - others < report.cost.peak_memory / 4
    assert report.cost.peak_memory - others < 1.2 * (report.source_cost.peak_memory - others)


def test_a_report_is_told_in_words(tmp_path):
    made = made_report(mean_kl=0.2)
    made = dataclasses.replace(made, gate=check_gates(made, read_gates()))
    lines = fidelity_lines(made)
    assert lines[0] == "model against source: 1 pages (pages, 644 px)"
    assert lines[-1].strip() == "most_mean_kl is 0.025, measured 0.2"
    write_fidelity_report(tmp_path, made)
    assert json.loads((tmp_path / FIDELITY_REPORT_FILE).read_text())["gate"]["passed"] is False


def test_what_is_not_a_model_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        measure_fidelity(tmp_path, CHECKPOINT)
