"""A benchmark is read through the pipeline, scored, kept beside the weights, and compared with another model's."""

import dataclasses
import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from demo.make_bench import make_bench
from olmocr.errors import InputError, UsageError
from olmocr.files import sha256_of
from olmocr.reports.bench import BenchReport, bench_lines
from olmocr.reports.typed_json import report_json
from olmocr.runtime.facts import machine, versions
from olmocr.validate.__main__ import app
from olmocr.validate.bench.run import (
    BenchTerms,
    EarlierRun,
    compared,
    other_run,
    read_earlier,
    run_bench,
    score_answers,
)
from tests.backends.model_server import TEXT, ModelServer, chat_body, whole
from tests.checkpoints import tiny_checkpoint
from tests.conftest import ROOT
from tests.pipeline.doubles import Model, Reader, answer, write_numbered_pdf, write_pdf
from tests.validate.bench.formulas.doubles import drawing_tools, write_browser, write_katex
from tests.validate.reports import documented_fields

SCHEMA = json.loads((ROOT / "docs/bench-report.schema.json").read_text())


BENCH = [sys.executable, "-m", "olmocr.validate", "bench"]


@pytest.fixture
def model(tmp_path):
    """Return a checkpoint's folder, whose weights nobody reads in a test with a double."""
    return tiny_checkpoint(tmp_path / "model")


@pytest.fixture
def bench(tmp_path):
    """Return a benchmark of two categories, three documents, and checks of most types."""
    folder = tmp_path / "bench"
    checks = {
        "old": [
            {"id": "there", "type": "present", "pdf": "old/a.pdf", "text": "Some words"},
            {"id": "not there", "type": "absent", "pdf": "old/a.pdf", "text": "Page 7 of 9"},
            {"id": "another", "type": "present", "pdf": "old/b.pdf", "text": "Other words"},
        ],
        "maths": [
            {"id": "formula", "type": "math", "pdf": "maths/c.pdf", "math": "x^2"},
            {"id": "formula's text", "type": "present", "pdf": "maths/c.pdf", "text": "words"},
        ],
    }
    for category, lines in checks.items():
        (folder / "pdfs" / category).mkdir(parents=True)
        (folder / f"{category}.jsonl").write_text("".join(json.dumps({**line, "page": 1}) + "\n" for line in lines))
    for width, document in enumerate(("old/a.pdf", "old/b.pdf", "maths/c.pdf"), 600):
        write_pdf(folder / "pdfs" / document, size=(width, 792))
    return folder


def tried(model, bench, tmp_path, *script, **terms):
    double = Model(*(script or [answer("Some words")]))
    run = run_bench(model, bench, BenchTerms(work=tmp_path / "work", ask=double.ask, max_attempts=1, **terms))
    return run, double


def outcomes_of(run):
    return {outcome.id: outcome.passed for outcome in run.outcomes}


def test_each_category_has_its_score_and_all_of_them_a_mean(model, bench, tmp_path):
    run, _ = tried(model, bench, tmp_path)
    report = run.report
    assert {each.category: (each.passed, each.scored, each.skipped) for each in report.categories} == {
        "maths": (1, 1, 1),
        "old": (2, 3, 0),
        "baseline": (3, 3, 0),
    }
    assert report.score == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert report.interval.low <= report.score <= report.interval.high
    lines = "\n".join(bench_lines(report))
    assert "66.7%  old: 2 of 3 checks of 2 documents" in lines
    assert "not a full run: 1 checks of type math were not scored" in lines


def test_the_report_is_as_its_schema_says_and_holds_no_text_of_a_page(model, bench, tmp_path):
    tried(model, bench, tmp_path)
    report = json.loads((model / "bench_report.json").read_text())
    jsonschema.validate(report, SCHEMA)
    kept = (model / "bench_checks.jsonl").read_text()
    assert "words" not in json.dumps(report) + kept
    assert len(kept.splitlines()) == 8


def test_every_field_of_the_report_is_in_the_docs():
    document = (ROOT / "docs/bench.md").read_text()
    assert documented_fields(document) | {"version"} == set(SCHEMA["properties"])
    fields = {field.name for field in dataclasses.fields(BenchReport)}
    assert fields == set(SCHEMA["properties"]) == set(SCHEMA["required"])


def test_a_formula_is_counted_and_neither_passed_nor_failed(model, bench, tmp_path):
    run, _ = tried(model, bench, tmp_path)
    assert outcomes_of(run)["formula"] is None
    (maths,) = [each for each in run.report.types if each.type == "math"]
    assert (maths.scored, maths.skipped) == (0, 1)
    assert "browser" in maths.why_skipped
    assert not run.report.complete


def test_a_formula_is_scored_where_there_is_a_browser_and_katex(model, bench, tmp_path):
    tools = drawing_tools(tmp_path / "tools")
    run, _ = tried(model, bench, tmp_path, answer("Some words, and $y = x ^ 2$"), draftsman=tools)
    assert outcomes_of(run)["formula"] is True
    assert (run.report.complete, run.report.incomplete) == (True, ())
    assert run.report.versions["katex"] == "0.0"
    again, model_asked = tried(model, bench, tmp_path, draftsman=tools)
    assert (again.outcomes, model_asked.requests) == (run.outcomes, [])


def test_a_page_with_another_formula_or_with_none_fails_its_check(model, bench, tmp_path, caplog):
    tools = drawing_tools(tmp_path / "tools")
    for text in ("Some words, and $y_2$", "Some words"):
        run, _ = tried(model, bench, tmp_path / text, answer(text), draftsman=tools)
        assert outcomes_of(run)["formula"] is False
    assert "cannot be drawn" not in caplog.text
    maths = (bench / "maths.jsonl").read_text().replace("x^2", r"\\bad")
    (bench / "maths.jsonl").write_text(maths)
    run, _ = tried(model, bench, tmp_path / "bad", draftsman=tools)
    assert outcomes_of(run)["formula"] is False
    assert "1 formulas in checks cannot be drawn, the first in formula" in caplog.text


def test_a_browser_that_breaks_down_leaves_formulas_unscored(model, bench, tmp_path):
    def tools():
        draftsman = drawing_tools(tmp_path / "tools")()
        (tmp_path / "tools/broken").touch()
        return draftsman

    run, _ = tried(model, bench, tmp_path, draftsman=tools)
    assert outcomes_of(run)["formula"] is None
    assert "no display" in run.report.incomplete[0]


def test_where_there_are_no_formulas_no_browser_is_asked_for(model, bench, tmp_path):
    (bench / "maths.jsonl").write_text("")
    tried(model, bench, tmp_path, draftsman=lambda: pytest.fail("it was"))


@pytest.fixture
def answers(tmp_path):
    """Return a folder with an answer to each page, two for one of them."""
    folder = tmp_path / "olmocr"
    texts = {
        "old/a_pg1_repeat1.md": "Some words",
        "old/a_pg1_repeat2.md": "Page 7 of 9",
        "old/b_pg1_repeat1.md": "Other words",
        "maths/c.md": "words and $x^2$",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_answers_that_exist_are_scored_and_nothing_is_left_beside_them(bench, answers, tmp_path):
    before = sorted(answers.rglob("*"))
    run = score_answers(answers, bench, BenchTerms(draftsman=drawing_tools(tmp_path / "tools")))
    assert sorted(answers.rglob("*")) == before
    report = json.loads(report_json(run.report))
    jsonschema.validate(report, SCHEMA)
    assert (report["model"], report["backend"], report["weights"]) == ("olmocr", "answers", {})
    assert (report["longest_side"], report["max_tokens"], report["complete"]) == (None, None, True)
    assert re.fullmatch("[0-9a-f]{64}", report["answers_sha256"])
    found = outcomes_of(run)
    # Of two repeats more than half have to pass: one of two is not enough.
    assert (found["there"], found["not there"], found["old/a.pdf_baseline"]) == (False, False, True)
    assert (found["another"], found["formula"]) == (True, True)


def test_a_page_without_an_answer_passes_nothing_and_the_run_is_not_complete(bench, answers):
    (answers / "old/b_pg1_repeat1.md").unlink()
    run = score_answers(answers, bench)
    assert outcomes_of(run)["another"] is False
    assert run.report.pages_without_answer == 1
    assert run.report.incomplete[0] == "1 pages have no answer in the folder, so all their checks failed"


def test_a_model_is_compared_with_answers_as_with_another_model(model, bench, answers, tmp_path):
    run, _ = tried(model, bench, tmp_path)
    found = compared(run, other_run(answers, bench, BenchTerms())).report.comparison
    assert (found.other, found.other_weights, found.checks) == ("olmocr", {}, 7)


def test_several_servers_share_the_pages_and_others_of_the_same_model_may_go_on(model, bench, tmp_path):
    terms = {"longest_side": 112, "work": tmp_path / "work", "max_tokens": 500, "max_attempts": 1}
    body = whole(chat_body(TEXT.replace("Hello", "Some words")))
    with ModelServer(body) as one, ModelServer(body) as other:
        run = run_bench(model, bench, BenchTerms(**terms, server=(one.url, other.url)))
    assert (run.report.backend, run.report.pages_without_answer) == ("server", 0)
    assert one.requests
    assert other.requests
    with ModelServer(body) as third, ModelServer(body) as fourth:
        again = run_bench(model, bench, BenchTerms(**terms, server=(third.url, fourth.url)))
        assert not [request for server in (third, fourth) for request in server.requests]
    assert again.outcomes == run.outcomes


def test_a_server_reads_the_pages_and_the_report_says_so(model, bench, tmp_path):
    terms = {"work": tmp_path / "work", "max_attempts": 1}
    with ModelServer(whole(chat_body(TEXT.replace("Hello", "Some words"))), models=("a", "b")) as server:
        terms |= {"server": server.url, "server_model": "b"}
        run = run_bench(model, bench, BenchTerms(**terms))
    assert {body["model"] for _, _, body in server.requests} == {"b"}
    assert (run.report.backend, outcomes_of(run)["there"], run.report.pages_without_answer) == ("server", True, 0)
    again = run_bench(model, bench, BenchTerms(**terms))
    assert again.outcomes == run.outcomes  # the server is gone, and is not asked


def test_a_run_without_formulas_that_read_everything_is_complete(model, bench, tmp_path):
    (bench / "maths.jsonl").write_text("")
    run, _ = tried(model, bench, tmp_path)
    assert (run.report.complete, run.report.incomplete) == (True, ())


def test_on_a_page_without_a_good_answer_nothing_passes(model, bench, tmp_path):
    run, _ = tried(model, bench, tmp_path, answer("Some words", finish_reason="length"))
    assert set(outcomes_of(run).values()) == {False, None}
    assert (run.report.pages_without_answer, run.report.score) == (3, 0)


def test_what_is_not_to_be_there_passes_in_an_empty_answer_and_is_counted_apart(model, bench, tmp_path):
    run, _ = tried(model, bench, tmp_path, answer(""))
    found = outcomes_of(run)
    assert (found["there"], found["not there"], found["old/a.pdf_baseline"]) == (False, True, False)
    assert run.report.absent_in_nothing == 1
    assert any("1 checks that a text is absent passed" in line for line in bench_lines(run.report))


def test_a_document_that_cannot_be_opened_fails_its_checks_and_no_others(model, bench, tmp_path):
    (bench / "pdfs/old/b.pdf").write_bytes(b"%PDF-1.7 and no more")
    run, _ = tried(model, bench, tmp_path)
    found = outcomes_of(run)
    assert (found["another"], found["old/b.pdf_baseline"], found["there"]) == (False, False, True)


def test_a_page_that_was_read_is_not_read_again(model, bench, tmp_path):
    _, first = tried(model, bench, tmp_path)
    run, second = tried(model, bench, tmp_path)
    assert (len(first.requests), len(second.requests)) == (3, 0)
    assert run.report.score == pytest.approx((1 + 2 / 3 + 1) / 3)


def test_other_terms_are_another_reading(model, bench, tmp_path):
    tried(model, bench, tmp_path)
    _, again = tried(model, bench, tmp_path, longest_side=140)
    assert len(again.requests) == 3


def test_a_sample_reads_that_many_documents_of_each_folder_and_is_not_a_full_run(model, bench, tmp_path):
    run, double = tried(model, bench, tmp_path, sample=1)
    assert len(double.requests) == 2
    assert (run.report.documents, run.report.documents_left_out, run.report.complete) == (2, 1, False)
    assert run.report.incomplete[0] == "1 of 3 documents were left out"


def test_every_field_is_what_four_pages_and_nine_checks_come_to(model, tmp_path):
    bench, work = tmp_path / "four", tmp_path / "work"
    for document, numbers in (("old/a.pdf", [1, 2]), ("old/b.pdf", [3]), ("maths/c.pdf", [4])):
        write_numbered_pdf(bench / "pdfs" / document, numbers)
    lines = {
        "maths": [("c", 1, "math", {"math": "x^2"}), ("c", 1, "present", {"text": "page 4"})],
        "old": [
            ("a", 1, "present", {"text": "page 1"}),
            ("a", 2, "absent", {"text": "page 9"}),
            ("b", 1, "present", {"text": "page 3"}),
            ("b", 1, "order", {"before": "page", "after": "3"}),
        ],
    }
    digest = hashlib.sha256()
    for category, checks in lines.items():
        made = [
            {"id": f"{category} {number}", "pdf": f"{category}/{name}.pdf", "page": page, "type": kind, **fields}
            for number, (name, page, kind, fields) in enumerate(checks)
        ]
        content = "".join(json.dumps(each) + "\n" for each in made)
        (bench / f"{category}.jsonl").write_text(content)
        digest.update(f"{category}.jsonl\0{len(content)}\0{content}".encode())
    reader = Reader({2: [answer("")], 3: [answer("page 3", finish_reason="length")]}, seconds=0.02)
    started = time.monotonic()
    run = run_bench(model, bench, BenchTerms(longest_side=140, work=work, max_attempts=2, ask=reader.ask))
    report = dataclasses.asdict(run.report)
    # Two documents of "old" are drawn of two: a and a, a and b, or b and b.
    old, every, all_of_them = (
        {"low": low, "high": 1.0, "confidence": 0.95, "resamples": 2000} for low in (0.0, 1 / 3, 4 / 9)
    )
    why = "formulas are compared as drawn by a browser with KaTeX, but no program to draw them was given"
    score = (1 + 2 / 4 + 2 / 3) / 3
    assert 5 * 0.02 / 4 <= report.pop("seconds") <= time.monotonic() - started
    assert report == {
        "model": "model",
        "weights": {path.name: sha256_of(path) for path in model.glob("*.safetensors")},
        "backend": "mlx",
        "data_set": "four",
        "checks_sha256": digest.hexdigest(),
        "revision": None,
        "longest_side": 140,
        "max_tokens": 8000,
        "complete": False,
        "incomplete": (f"1 checks of type math were not scored: {why}",),
        "score": pytest.approx(score),
        "interval": pytest.approx(all_of_them),
        "categories": (
            of_category("maths", documents=1, scored=1, passed=1, skipped=1, score=1.0),
            of_category("old", documents=2, scored=4, passed=2, score=0.5, interval=old),
            of_category("baseline", documents=3, scored=3, passed=2, score=2 / 3, interval=pytest.approx(every)),
        ),
        "types": tuple(
            {"type": kind, "scored": scored, "passed": passed, "skipped": skipped, "why_skipped": reason}
            for kind, scored, passed, skipped, reason in (
                ("absent", 1, 1, 0, None),
                ("baseline", 3, 2, 0, None),
                ("math", 0, 0, 1, why),
                ("order", 1, 0, 0, None),
                ("present", 3, 2, 0, None),
            )
        ),
        "documents": 3,
        "documents_left_out": 0,
        "pages": 4,
        "pages_without_answer": 1,
        "absent_in_nothing": 1,
        "comparison": None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "answers_sha256": None,
        "version": 1,
    }

    theirs = tuple(dataclasses.replace(one, passed=one.passed and one.id != "old 0") for one in run.outcomes)
    earlier = EarlierRun("other", {"a": "b"}, run.report.checks_sha256, theirs)
    assert dataclasses.asdict(compared(run, earlier).report.comparison) == {
        "other": "other",
        "other_weights": {"a": "b"},
        "documents": 3,
        "checks": 8,
        "score": pytest.approx(score),
        "other_score": pytest.approx((1 + 1 / 4 + 2 / 3) / 3),
        "difference": pytest.approx(1 / 12),
        "interval": pytest.approx({"low": 0.0, "high": 1 / 6, "confidence": 0.95, "resamples": 2000}),
        "p_value": 1.0,
        "only_this": 1,
        "only_other": 0,
        "mcnemar_p_value": 1.0,
        "verdict": "model does not differ significantly from other in these 8 checks: "
        "+8.3 points, 95%: +0.0 to +16.7, p 1.000",
    }


def of_category(name, *, skipped=0, interval=None, **fields):
    return {"category": name, "skipped": skipped, "interval": interval, **fields}


def test_two_models_are_compared_by_the_checks_that_both_have(model, bench, tmp_path):
    other = tiny_checkpoint(tmp_path / "other")
    tried(other, bench, tmp_path / "elsewhere", answer("Nothing of it"))
    run, _ = tried(model, bench, tmp_path)
    found = compared(run, read_earlier(other)).report.comparison
    assert (found.checks, found.documents, found.only_this, found.only_other) == (7, 3, 2, 0)
    assert found.difference == pytest.approx(run.report.score - found.other_score)
    assert found.verdict.startswith("model does not differ significantly from other in these 7 checks: +44.4 points")
    assert compared(run, read_earlier(other / "bench_report.json")).report.comparison == found


def test_runs_that_were_asked_other_things_are_not_compared(model, bench, tmp_path):
    run, _ = tried(model, bench, tmp_path)
    earlier = read_earlier(model)
    with pytest.raises(UsageError, match="with other checks"):
        compared(run, dataclasses.replace(earlier, checks_sha256="another"))
    with pytest.raises(UsageError, match="no check was scored for both"):
        compared(run, dataclasses.replace(earlier, outcomes=()))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("bench_report.json", None, "is missing; run the benchmark on that model first"),
        ("bench_checks.jsonl", None, "is missing"),
        ("bench_report.json", "[]", "cannot be used"),
        ("bench_report.json", '{"model": "m", "weights": {}, "checks_sha256": "x"}', "other weights"),
        ("bench_checks.jsonl", '{"id": 7}', "cannot be used: id is not text"),
    ],
)
def test_an_earlier_run_that_cannot_be_used_is_refused(model, bench, tmp_path, name, text, reason):
    tried(model, bench, tmp_path)
    (model / name).unlink()
    if text is not None:
        (model / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_earlier(model)
    assert reason in str(error.value)


def test_the_command_ends_with_a_sentence_if_there_is_no_benchmark(tmp_path):
    done = subprocess.run([*BENCH, tmp_path, "--dir", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: ")


def test_the_command_scores_answers_and_says_what_formulas_lack(bench, answers, tmp_path):
    tools = tmp_path / "tools"
    environment = os.environ | {"OLMOCR_BROWSER": str(write_browser(tools))}
    katex = ["--katex", write_katex(tools / "katex")]
    command = [*BENCH, "--answers", answers, "--dir", bench]
    done = subprocess.run([*command, *katex, "--output", tmp_path], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "100.0%  maths: 2 of 2 checks of 1 document" in done.stdout
    assert read_earlier(tmp_path).model == "olmocr"
    (tools / "broken").touch()
    done = subprocess.run([*command, *katex], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (3, "")
    assert "formulas cannot be drawn" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give either a model's folder, or a folder of answers as --answers"),
        (["model", "--answers", "a"], "give either"),
        (["--answers", "a", "--server", "b"], "so --server is not needed; leave out one of the two"),
        (["--answers", "a", "--ray"], "so --ray is not needed; leave out one of the two"),
        (["model", "--output", "a"], "use --output only with --answers"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(arguments, reason):
    done = CliRunner().invoke(app, ["bench", "--dir", "x", *arguments])
    assert done.exit_code == 2
    assert reason in done.stderr


def test_the_demo_checkpoint_passes_what_is_true_of_its_pages(converted, tmp_path):
    folder = shutil.copytree(converted("4bit"), tmp_path / "demo-4bit")
    make_bench(tmp_path / "bench", ("sparse_14.pdf",))
    command = [*BENCH, folder, "--dir", tmp_path / "bench", "--work", tmp_path / "work", "--json", "--quiet"]
    done = subprocess.run([*command, "--max-tokens", "600"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema.validate(report, SCHEMA)
    assert (report["score"], report["complete"], report["longest_side"]) == (1.0, True, 644)
    assert [each["type"] for each in report["types"]] == ["absent", "baseline", "present"]


@pytest.mark.slow
def test_the_docs_commands_leave_a_report_that_is_not_a_full_run(tmp_path):
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    (commands,) = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/bench.md").read_text(), re.DOTALL | re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, env=environment, check=True)
    report = json.loads((tmp_path / "build/demo-4bit/bench_report.json").read_text())
    assert (report["score"], report["documents"], report["documents_left_out"]) == (1.0, 4, 18)


@pytest.mark.slow
def test_every_demo_page_passes_with_8_bits(converted, tmp_path):
    make_bench(tmp_path / "bench")
    report = run_bench(converted("8bit"), tmp_path / "bench", BenchTerms(work=tmp_path / "work")).report
    assert (report.score, report.documents) == (1.0, 22)
