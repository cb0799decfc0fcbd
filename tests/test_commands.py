"""The commands as a person types them: processes, exit codes, and what is left on the disk."""

import json
import os
import signal
import sys

import pytest

from olmocr.validate.score import character_error_rate
from tests.backends.model_server import ModelServer, chat_stream, events
from tests.checkpoints import tiny_checkpoint
from tests.conftest import PAGES, ROOT
from tests.pipeline.doubles import write_numbered_pdf, write_pdf
from tests.programs import (
    CONVERT,
    OLMOCR,
    TWICE,
    UNMEASURED,
    VALIDATE,
    assert_one_sentence,
    interrupted,
    run,
    small_disk,
    texts,
)


def test_demo_pages_are_read_right_by_the_8_bit_model(tmp_path, converted, truth):
    """A table, a page that is turned, and one that is blank among others."""
    pdfs = [PAGES / f"{kind}.pdf" for kind in ("table_16", "rotated_20", "report_22")]
    done = run(
        OLMOCR, tmp_path / "ws", "--pdfs", *pdfs, "--backend", "mlx", "--model", converted("8bit"),
        "--target_longest_image_dim", 644, "--markdown",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "documents: 3 done, 0 failed, 0 done before\npages:     5 (1 blank, 1 asked more than once)" in done.stdout
    assert "computing in" in done.stderr
    read = texts(tmp_path / "ws")
    assert len(read) == 5
    for page, text in read.items():
        assert character_error_rate(text, truth[page]["natural_text"] or "") < 0.02, page
    assert len(list((tmp_path / "ws/markdown").rglob("*.md"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["none", "8bit", "4bit"])
def test_every_demo_page_is_read_by_every_variant(recipe, tmp_path, converted, truth):
    pdfs = sorted(PAGES.glob("*.pdf"))
    done = run(
        OLMOCR, tmp_path / "ws", "--pdfs", *pdfs, "--model", converted(recipe), "--target-longest-image-dim", 644
    )
    assert done.returncode == 0, done.stderr
    read = texts(tmp_path / "ws")
    rates = [character_error_rate(read[page], entry["natural_text"] or "") for page, entry in truth.items()]
    assert sum(rates) / len(rates) < 0.006


@pytest.mark.parametrize("command", [[*OLMOCR, "read"], [sys.executable, "-m", "olmocr.pipeline"]])
def test_help_and_version_are_printed(command):
    assert "--max-page-retries" in run(command, "--help", env=os.environ | {"COLUMNS": "200"}).stdout
    assert run(command, "--version").stdout.startswith("olmocr 0.")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ([], "workspace"),
        (["ws"], "--pdfs"),
        (["ws", "--pdfs"], "--pdfs"),
        (["ws", "--pdfs", "a.pdf"], "--model"),
        (["ws", "--pdfs", "a.pdf", "--model"], "--model"),
        (["ws", "--magic"], "--magic"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_missing(arguments, missing, tmp_path):
    done = run(OLMOCR, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert missing in done.stderr.lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "magic"], ["backend must be one of mlx, mlx-vlm, vllm, not 'magic'"]),
        (["--max_page_retries", "0"], ["max_page_retries must be 1 or more, not 0"]),
    ],
)
def test_a_value_out_of_range_is_one_sentence(arguments, words, tmp_path):
    done = run(OLMOCR, "ws", "--pdfs", "a.pdf", "--model", "m", *arguments, cwd=tmp_path)
    assert_one_sentence(done, 2, *words)


def test_a_workspace_without_a_name_is_one_sentence_and_not_this_folder(tmp_path):
    done = run(OLMOCR, "", "--pdfs", write_pdf(tmp_path / "a.pdf"), "--model", "m", cwd=tmp_path)
    assert_one_sentence(done, 2, "the workspace has no name")
    assert not (tmp_path / "results").exists()


def test_a_tilde_in_an_output_is_the_home_folder(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    at_home = os.environ | {"HOME": str(tmp_path / "home")}
    done = run(CONVERT, source, "-q", "4bit", "--output=~/out", cwd=tmp_path, env=at_home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home/out/config.json").exists()


def test_a_file_that_is_not_there_is_one_sentence(tmp_path, converted):
    done = run(OLMOCR, tmp_path / "ws", "--pdfs", tmp_path / "a.pdf", "--model", converted("8bit"))
    assert_one_sentence(done, 7, "there is no file", "a.pdf", "nothing was started")


def test_an_encrypted_pdf_is_one_sentence_and_the_others_are_read(tmp_path):
    locked = write_pdf(tmp_path / "locked.pdf", password="secret")
    with ModelServer(chat_stream()) as server:
        done = run(OLMOCR, tmp_path / "ws", "--pdfs", locked, PAGES / "sparse_14.pdf", "--server", server.url)
    assert done.returncode == 9
    assert "Traceback" not in done.stderr
    assert "locked.pdf is encrypted; save a copy without its password" in done.stderr
    assert "documents: 1 done, 1 failed" in done.stdout
    assert ("sparse_14.pdf", 1) in texts(tmp_path / "ws")


LLAVA = {"architectures": ["LlavaForConditionalGeneration"]}


@pytest.mark.parametrize(
    ("command", "config", "words"),
    [
        ("convert", None, "is not a checkpoint: it has no config.json"),
        ("convert", ["not", "a", "config"], "does not hold a JSON object"),
        ("convert", LLAVA, "is a LlavaForConditionalGeneration, which is not"),
        ("olmocr", LLAVA, "is a LlavaForConditionalGeneration, which is not"),
    ],
)
def test_a_folder_that_is_not_a_model_of_ours_is_one_sentence(command, config, words, tmp_path):
    (model := tmp_path / "model").mkdir()
    if config is not None:
        (model / "config.json").write_text(json.dumps(config))
    pdf = write_pdf(tmp_path / "a.pdf")
    if command == "olmocr":
        done = run(OLMOCR, tmp_path / "ws", "--pdfs", pdf, "--model", model)
    else:
        done = run(CONVERT, model, "--output", tmp_path / "out")
    assert_one_sentence(done, 4, words)
    assert not (tmp_path / "out").exists()


def test_a_run_onto_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path):
    with ModelServer(chat_stream()) as server:
        done = run(
            OLMOCR, tmp_path / "ws", "--pdfs", PAGES / "sparse_14.pdf", "--server", server.url,
            preexec_fn=lambda: small_disk(512), env=UNMEASURED,
        )  # fmt: skip
    assert_one_sentence(done, 6, "the disk is full", "free some space")
    left = [path.name for path in (tmp_path / "ws").rglob("*") if path.is_file()]
    assert [name for name in left if not name.startswith("workspace.sqlite")] == []


def test_a_run_that_is_stopped_keeps_what_is_done(tmp_path, converted):
    pdfs = [PAGES / name for name in ("sparse_14.pdf", "dense_12.pdf")]
    results = tmp_path / "ws/results"
    code = interrupted(
        OLMOCR, tmp_path / "ws", "--pdfs", *pdfs, "--model", converted("8bit"), "--target-longest-image-dim", 644,
        "--max-concurrent-pages", 1,
        when=lambda: results.exists() and list(results.glob("output_*")),
    )  # fmt: skip
    assert code == 130
    assert texts(tmp_path / "ws")  # whichever was finished first
    assert not list((tmp_path / "ws").rglob("*.partial"))


@pytest.mark.parametrize("signals", [TWICE, (signal.SIGTERM,)])
def test_a_run_that_is_stopped_otherwise_keeps_what_is_done_too(signals, tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / f"{number}.pdf", [number]) for number in (1, 2)]
    results = tmp_path / "ws/results"
    with ModelServer(chat_stream(), events(end="hang")) as server:
        code = interrupted(
            OLMOCR, tmp_path / "ws", "--pdfs", *pdfs, "--server", server.url, "--target-longest-image-dim", 64,
            when=lambda: results.exists() and list(results.glob("output_*")), signals=signals,
        )  # fmt: skip
    assert code == 130
    assert list(texts(tmp_path / "ws").values()) == ["Hello"]
    assert not list((tmp_path / "ws").rglob("*.partial"))


def test_raw_answers_are_checked_by_line(tmp_path):
    good = (PAGES / "digital_01.md").read_text()
    (tmp_path / "a.md").write_text(good)
    (tmp_path / "b.md").write_text(good.replace("is_table: False", "is_table: maybe"))
    done = run(VALIDATE, "pages", ".", cwd=tmp_path)
    assert done.returncode == 11
    assert done.stdout.splitlines() == [
        "a.md: valid",
        "b.md:5: value: is_table is 'maybe', not True or False",
        "1 of 2 answers are valid",
    ]
    assert run(VALIDATE, "pages", "a.md", cwd=tmp_path).returncode == 0


def test_raw_answers_are_checked_for_machines_too(tmp_path):
    (tmp_path / "b.md").write_text("Hello")
    done = run(VALIDATE, "pages", "b.md", "--strict", "--json", cwd=tmp_path)
    (line,) = done.stdout.splitlines()
    message = "the answer begins with 'Hello', not with a line '---'"
    breaks = [{"line": 1, "rule": "opener", "message": message}]
    assert json.loads(line) == {"path": "b.md", "holds": False, "breaks": breaks}


def test_an_answer_that_is_not_there_is_one_sentence(tmp_path):
    assert_one_sentence(run(VALIDATE, "pages", tmp_path / "x"), 7, "there is no file or folder")


def test_the_demo_refuses_a_pdf_whose_true_text_it_does_not_know(tmp_path):
    pdf = write_pdf(tmp_path / "mine.pdf")
    done = run([sys.executable, str(ROOT / "demo/run.py")], "--out", tmp_path / "out", "--pdfs", pdf)
    assert done.returncode == 2
    assert "the true text of mine.pdf is not known" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_demo_runs_and_prints_what_it_measured(tmp_path):
    done = run(
        [sys.executable, str(ROOT / "demo/run.py")],
        "--out", tmp_path, "--variants", "4bit", "--pdfs", PAGES / "sparse_14.pdf",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| 4bit "))
    assert [cell.strip() for cell in row.split("|")[1:-2]] == ["4bit", "20,657,872", "9.13", "1", "1 of 1", "0.00%"]
