"""A score of olmOCR-bench reaches the Hub from a full run only; of any other the card says what it is."""

import json
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from typer.testing import CliRunner

from olmocr.hub.write import Hub
from olmocr.publish.__main__ import app
from olmocr.publish.card import Variant, make_card
from olmocr.publish.eval_results import (
    DOCUMENTS,
    FULL_RUN,
    NotAFullRunError,
    eval_results,
    why_no_score,
)
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import find_facts
from olmocr.publish.push import carry_out, show_plan
from olmocr.publish.scan import EVAL_RESULTS_FILE, scan_folder
from olmocr.reports.bench import BenchReport, CategoryScore, Comparison, TypeCount
from olmocr.reports.parts import Interval
from olmocr.reports.typed_json import report_json
from tests.hub.hub_writes import TOKEN
from tests.publish.pushes import REPO, files_of, plan, push
from tests.publish.samples import HOSTILE, weights_of

WITHIN = Interval(0.5, 0.9, 0.95, 2000)
REVISION = "54a96a6fb6a2bd3b297e59869491db4d3625b711"


def full_run(weights=None):
    """Return what a full run leaves, formulas and all."""
    categories = tuple(
        CategoryScore(name, 100, count, count - 100, 0, (count - 100) / count, WITHIN)
        for name, count in FULL_RUN.items()
    )
    return BenchReport(
        model="tiny-8bit",
        weights=weights or {},
        backend="mlx",
        data_set="bench_data",
        checks_sha256="ab" * 32,
        revision=REVISION,
        longest_side=1288,
        max_tokens=8000,
        complete=True,
        incomplete=(),
        score=sum(each.score for each in categories) / len(categories),
        interval=WITHIN,
        categories=categories,
        types=(TypeCount("present", 8413, 7613, 0),),
        documents=DOCUMENTS,
        documents_left_out=0,
        pages=DOCUMENTS,
        pages_without_answer=2,
        absent_in_nothing=0,
        comparison=None,
        date="2026-11-20",
        machine="a test's machine",
        seconds=1.0,
        versions={"olmocr": "0.1.0"},
    )


def changed(name, **fields):
    """Return the categories of a full run, one of them changed."""
    return tuple(replace(each, **fields) if each.category == name else each for each in full_run().categories)


def without_formulas():
    """Return what a run of ours leaves of the whole benchmark."""
    why = "2927 checks of type math were not scored: formulas are compared as drawn by a browser"
    return replace(
        full_run(),
        complete=False,
        incomplete=(why,),
        categories=changed("arxiv_math", scored=0, passed=0, skipped=2927, score=None, interval=None),
        types=(TypeCount("math", 0, 0, 2927, "a browser"), TypeCount("present", 5486, 4786, 0)),
    )


def lies(model, report):
    """Put a report beside a model's weights."""
    (model / "bench_report.json").write_text(report_json(replace(report, weights=weights_of(model))))
    return model


def card_of(model):
    variant = Variant(REPO, read_reports(model))
    return make_card(variant, find_facts(variant.reports.conversion))


def test_a_full_run_is_written_as_the_hub_reads_it():
    value = yaml.safe_load(eval_results(full_run(), 4.512, REPO))
    overall, *others = parse_eval_result_entries(value)
    assert (overall.dataset_id, overall.task_id, overall.dataset_revision) == (
        "allenai/olmOCR-bench", "overall", REVISION,
    )  # fmt: skip
    assert overall.value == round(100 * full_run().score, 1)
    assert overall.date == "2026-11-20"
    assert overall.source_url == f"https://huggingface.co/{REPO}/blob/main/bench_report.json"
    assert overall.notes == "MLX, 4.51 bits per weight, 1288 px, olmocr 0.1.0"
    assert {each.task_id: each.value for each in others}["old_scans"] == 81.0
    assert [each.task_id for each in others] == list(FULL_RUN)


def test_a_model_without_a_repository_names_no_source():
    assert "source" not in yaml.safe_load(eval_results(full_run(), 4.5, "tiny-8bit"))[0]


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (without_formulas(), "2927 checks of type math were not scored"),
        (replace(full_run(), backend="answers"), "it is unknown which weights gave them"),
        (replace(full_run(), backend="server"), "a server read the pages, and it is unknown which weights it has"),
        (without_formulas(), "0 checks of arxiv_math were scored, but it has 2927"),
        (replace(full_run(), complete=False), "the report says that it is not complete"),
        (replace(full_run(), complete=False, incomplete=("9 of 1403 documents were left out",)), "9 of 1403"),
        (replace(full_run(), categories=full_run().categories[1:]), "these categories are missing: arxiv_math"),
        (replace(full_run(), categories=changed("baseline", category="mine")), "not in the benchmark: mine"),
        (replace(full_run(), categories=changed("old_scans", scored=525)), "525 checks of old_scans were scored"),
        (replace(full_run(), documents=1402), "1402 documents were read, but it has 1403"),
        (replace(full_run(), revision=None), "the revision of the data set is unknown"),
        (replace(full_run(), score=0.99), "its scores do not match its counts"),
        (replace(full_run(), categories=changed("old_scans", passed=520)), "its scores do not match its counts"),
        (replace(full_run(), score=None), "it has no score"),
    ],
)
def test_a_run_that_is_not_the_whole_is_refused_with_the_reason(report, reason):
    assert any(reason in each for each in why_no_score(report))
    with pytest.raises(NotAFullRunError) as error:
        eval_results(report, 4.5, REPO)
    assert reason in str(error.value)


def test_a_push_writes_the_score_of_a_full_run(hub, model):
    push(hub, lies(model, full_run()))
    there = files_of(hub)[EVAL_RESULTS_FILE].content
    assert there.decode() == eval_results(full_run(), read_reports(model).conversion.bits_per_weight, REPO)
    assert "bench_report.json" in files_of(hub)


def test_a_push_writes_no_score_of_a_part_and_says_why(hub, model):
    lies(model, without_formulas())
    (model / ".eval_results").mkdir()
    (model / EVAL_RESULTS_FILE).write_text("- value: 100\n")  # whoever wrote that
    text = show_plan(plan(hub, model))
    assert f"benchmark   no {EVAL_RESULTS_FILE}, because this is not a full run of olmOCR-bench: 2927 checks" in text
    said = []
    carry_out(plan(hub, model), Hub(hub.endpoint, TOKEN), said.append)
    assert EVAL_RESULTS_FILE not in files_of(hub)
    assert said[0].startswith(f"no {EVAL_RESULTS_FILE}")


def test_a_score_that_holds_no_more_is_deleted_from_the_repository(hub, model):
    push(hub, lies(model, full_run()))
    done = push(hub, lies(model, without_formulas()))
    assert EVAL_RESULTS_FILE in done.deleted
    assert EVAL_RESULTS_FILE not in files_of(hub)


def test_no_other_file_of_scores_may_lie_in_the_folder(model):
    (model / ".eval_results").mkdir()
    (model / ".eval_results/hle.yaml").write_text("- value: 100\n")
    (problem,) = scan_folder(model).problems
    assert problem.startswith(".eval_results/hle.yaml is not part of a model")


@pytest.mark.parametrize(("report", "is_there"), [(full_run(), True), (without_formulas(), False)])
def test_the_card_command_writes_it_or_says_why_not(report, is_there, model):
    done = CliRunner().invoke(app, ["card", str(lies(model, report)), "--repo", REPO])
    assert done.exit_code == 0, done.output
    assert (model / EVAL_RESULTS_FILE).is_file() is is_there
    assert ("the score of olmOCR-bench" in done.output) is is_there
    assert ("not a full run of olmOCR-bench: 2927 checks" in done.output) is not is_there


def test_a_card_shows_a_part_as_a_part(model):
    card = card_of(lies(model, without_formulas()))
    assert (
        "**This is not a full run of olmOCR-bench.** Do not compare it with such scores:\n2927 checks of type math"
        in card
    )
    assert "| arxiv\\_math | none | none | 0 | 0 | 2927 |" in card
    assert "| old\\_scans | 81.0% | 50.0% to 90.0% | 426 | 526 | 0 |" in card
    assert "It claims no score of olmOCR-bench" in card


def test_a_card_shows_a_full_run(model):
    card = card_of(lies(model, full_run()))
    assert "not a full run" not in card
    assert "claims no score of olmOCR-bench" not in card
    assert f"| bench\\_data at {REVISION} | score |" in card


def test_a_card_tells_what_a_comparison_found_and_no_markup_of_it(model):
    comparison = Comparison("4bit", {}, 9, 90, 0.9, 0.8, 0.1, WITHIN, 0.01, 9, 1, 0.02, HOSTILE)
    card = card_of(lies(model, replace(full_run(), comparison=comparison, data_set=HOSTILE)))
    assert "McNemar's test by check: p 0.02" in card
    assert "<script>" not in card


def test_a_report_of_other_weights_is_refused(model):
    (model / "bench_report.json").write_text(report_json(replace(full_run(), weights={"model.safetensors": "x"})))
    done = CliRunner().invoke(app, ["card", str(model)])
    assert done.exit_code == 7
    assert "other weights" in done.output


def test_what_the_benchmark_writes_is_what_a_card_reads(model):
    report = replace(
        full_run(), comparison=Comparison("4bit", {}, 9, 90, 0.9, 0.8, 0.1, WITHIN, 0.01, 9, 1, 0.02, "so")
    )
    read = read_reports(lies(model, report)).bench
    assert json.loads(report_json(read)) == json.loads((model / "bench_report.json").read_text())
