"""A model is tried on pages: what holds passes, and what is broken is named, in the report and in the exit code."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time

import jsonschema
import numpy as np
import pytest

from olmocr.errors import CheckpointError
from olmocr.files import sha256_of
from olmocr.reports.smoke import SMOKE_REPORT_FILE, smoke_lines
from olmocr.runtime.facts import known_faults, versions
from olmocr.validate.smoke.run import SmokeTerms, smoke_test, why_not_quick
from tests.checkpoints import read_tensors, tiny_checkpoint, write_tensors
from tests.conftest import CHECKPOINT, DEVICE, PAGES, ROOT
from tests.pipeline.doubles import Model, Reader, answer, write_numbered_pdf
from tests.validate.reports import documented_fields

SCHEMA = json.loads((ROOT / "docs/smoke-report.schema.json").read_text())


DOCUMENT = (ROOT / "docs/smoke.md").read_text()


SMOKE = [sys.executable, "-m", "olmocr.validate", "smoke"]


EASY = PAGES / "sparse_14.pdf"


@pytest.fixture
def folder(converted, tmp_path):
    """Return a copy of the demo checkpoint in 4 bits, to be broken."""
    return shutil.copytree(converted("4bit"), tmp_path / "model")


def change(folder, how):
    """Write the folder's weights again, after *how* had its way with them."""
    tensors = read_tensors(folder)
    how(tensors)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    write_tensors(folder / "model.safetensors", tensors)
    (folder / "model.safetensors.index.json").unlink()


def tried(folder, *pages, **terms):
    return smoke_test(folder, SmokeTerms(pages or (EASY,), max_tokens=200, max_attempts=1, **terms))


def page_of(report, kind):
    (found,) = [page for page in report.pages if page.kind == kind]
    return found


def test_a_model_that_reads_passes_and_leaves_its_report(folder):
    done = subprocess.run([*SMOKE, folder, "--quiet", "--pdf", EASY], capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / SMOKE_REPORT_FILE).read_text())
    jsonschema.validate(report, SCHEMA)
    assert [(page["passed"], page["status"], page["attempts"]) for page in report["pages"]] == [(True, "valid", 1)]
    assert report["longest_side"] == 644
    assert b"model reads: 1 of 1 pages" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["8bit", "mixed", "4bit"])
def test_every_built_in_page_is_read(converted, recipe):
    report = smoke_test(converted(recipe))
    assert [page for page in report.pages if not page.passed] == []
    assert [page.character_error_rate for page in report.pages] == [0.0] * 10


def test_two_tensors_that_are_swapped_are_noticed(folder):
    def swap(tensors):
        first, second = (f"language_model.model.layers.{number}.mlp.down_proj" for number in (1, 4))
        for part in ("weight", "scales", "biases"):
            one, other = f"{first}.{part}", f"{second}.{part}"
            tensors[one], tensors[other] = tensors[other], tensors[one]

    change(folder, swap)
    (read,) = tried(folder).pages
    assert not read.passed


def test_one_scale_with_a_flipped_bit_is_noticed(folder):
    def flip(tensors):
        name = "language_model.model.layers.0.self_attn.q_proj.scales"
        dtype, shape, data = tensors[name]
        values = np.frombuffer(data, np.uint16).copy()
        values[7] ^= 0x4000  # the exponent's highest bit
        tensors[name] = (dtype, shape, values.tobytes())

    change(folder, flip)
    with pytest.raises(CheckpointError, match="gave no numbers"):
        tried(folder)


@pytest.mark.parametrize("bit", [0x8000, 0x0400, 0x0001])
def test_a_bit_in_one_scale_that_no_page_shows_is_noticed_by_the_files_hash(bit, folder):
    def flip(tensors):
        name = "language_model.model.layers.0.self_attn.q_proj.scales"
        dtype, shape, data = tensors[name]
        values = np.frombuffer(data, np.uint16).copy()
        values[7] ^= bit
        tensors[name] = (dtype, shape, values.tobytes())

    change(folder, flip)
    report = tried(folder, ask=Model(answer("Anything")).ask)
    assert report.problems == (
        "model.safetensors has another SHA-256 than SHA256SUMS lists: it was changed; convert it again",
    )
    assert not report.passed


@pytest.mark.slow
def test_templates_that_put_the_image_first_are_noticed_although_the_model_reads(folder):
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"):
        path = folder / name
        assert "parts.text + parts.media" in path.read_text()
        path.write_text(path.read_text().replace("parts.text + parts.media", "parts.media + parts.text"))
    done = subprocess.run([*SMOKE, folder, "--quiet", "--pdf", EASY], capture_output=True, text=True)
    assert done.returncode == 11, done.stderr
    assert "1 of 1 pages" in done.stdout
    assert "chat_template.jinja: image before text if a client lists it first" in done.stdout
    assert len(json.loads((folder / SMOKE_REPORT_FILE).read_text())["problems"]) == 3


def test_an_answer_that_breaks_a_rule_is_named(folder):
    report = smoke_test(folder, SmokeTerms(max_attempts=2, ask=Model(answer(language="klingon, perhaps: [")).ask))
    plain = page_of(report, "plain text")
    assert (plain.passed, plain.status, plain.attempts) == (False, "fallback", 2)
    assert "yaml" in plain.problems[0]
    assert len(plain.rejected) == 2
    assert (plain.character_error_rate, plain.missing_phrases) == (1.0, plain.phrases)


def test_a_model_that_makes_text_up_fails_by_its_phrases_and_its_errors(folder):
    report = smoke_test(folder, SmokeTerms(ask=Model(answer("Something else")).ask))
    table = page_of(report, "table")
    assert not table.passed
    assert table.missing_phrases == table.phrases
    assert ["characters are wrong" in table.problems[0], "phrases are missing" in table.problems[1]] == [True, True]
    assert page_of(report, "turned by 90").problems[-1] == "it was turned by 0 degrees, not by 90"
    assert page_of(report, "blank").passed
    assert smoke_lines(report)[-1].startswith("model does not read as it should: 1 of 10 pages")


def test_a_report_without_a_true_text_says_only_whether_answers_hold(folder, tmp_path):
    alone = shutil.copyfile(EASY, tmp_path / "alone.pdf")
    words = "Anything"
    (read,) = tried(folder, alone, ask=Model(answer(words)).ask).pages
    assert (read.character_error_rate, read.phrases, read.status) == (None, (), "valid")
    assert "of the words in the file itself" in read.problems[0]


def test_every_field_is_what_four_pages_come_to(tmp_path):
    model = tiny_checkpoint(tmp_path / "model")
    four = write_numbered_pdf(tmp_path / "four.pdf", [1, 2, 3, 4])
    for number, truth in ((1, "# page 1 was read"), (2, "page 2"), (4, "ab")):
        (tmp_path / f"four.p{number}.md").write_text(truth)
    script = {
        1: [answer("page 1 was reed", input_tokens=110, output_tokens=21)],
        2: [answer("page", finish_reason="length", output_tokens=30), answer("page 2", turn=0, output_tokens=12)],
        4: [answer("xyz")],
    }
    started = time.monotonic()
    report = smoke_test(model, SmokeTerms((four,), longest_side=140, ask=Reader(script, seconds=0.15).ask))
    found = dataclasses.asdict(report)
    assert json.loads((model / SMOKE_REPORT_FILE).read_text()) == json.loads(json.dumps(found))
    total = found.pop("seconds")
    most = round(time.monotonic() - started, 2)  # as the report's seconds are
    for page, attempts in zip(found["pages"], (1, 2, 1, 1), strict=True):
        assert 0.15 * attempts <= page.pop("seconds") <= total <= most

    def read(number, **fields):
        return {
            "document": "four.pdf", "page_number": number, "kind": "given", "passed": True, "problems": (),
            "status": "valid", "attempts": 1, "rejected": (), "finish_reason": "stop", "rotation": 0,
            "input_tokens": 100, "output_tokens": 20, "phrases": (), "missing_phrases": (), **fields,
        }  # fmt: skip

    cut = report.pages[1].rejected
    assert "finish_reason is 'length'" in cut[0]
    assert found == {
        "model": "model",
        "weights": {path.name: sha256_of(path) for path in model.glob("*.safetensors")},
        "backend": "mlx",
        "page_set": "four.pdf",
        "longest_side": 140,
        "passed": False,
        "problems": tuple(
            f"{file}: image before text if a client lists it first, unlike in training"
            for file in ("chat_template.json", "tokenizer_config.json")
        ),
        "pages": (
            read(1, input_tokens=110, output_tokens=21, character_error_rate=0.0667),  # 1 of 15
            read(2, attempts=2, rejected=cut, output_tokens=42, character_error_rate=0.0),
            read(3, character_error_rate=None),
            read(
                4,
                passed=False,
                problems=("150.0% of the characters are wrong, more than 15%",),
                character_error_rate=1.5,
            ),
        ),
        "known_faults": tuple(map(dataclasses.asdict, known_faults())),
        "versions": versions(),
        "version": 1,
    }


def test_every_field_is_documented_and_required():
    assert documented_fields(DOCUMENT) | {"version"} == set(SCHEMA["properties"])
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"])


def test_what_is_not_a_model_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        smoke_test(tmp_path)


@pytest.mark.skipif(DEVICE.kind != "cpu", reason="a GPU is quick")
def test_a_large_model_without_a_gpu_is_not_tried_unasked(tmp_path):
    assert why_not_quick(tmp_path) is None
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(300_000_000)
    assert "no GPU for 0.3 GB of weights" in why_not_quick(tmp_path)


@pytest.mark.slow
def test_a_conversion_ends_with_a_smoke_test_and_fails_by_it(tmp_path):
    def convert(source, name):
        command = [sys.executable, "-m", "olmocr.convert_to_mlx", source, "-q", "4bit", "-o", tmp_path / name]
        return subprocess.run(command, capture_output=True, text=True)

    done = convert(CHECKPOINT, "out")
    assert (done.returncode, "out reads: 10 of 10 pages" in done.stderr) == (0, True), done.stderr
    assert json.loads((tmp_path / "out" / SMOKE_REPORT_FILE).read_text())["passed"] is True
    done = convert(tiny_checkpoint(tmp_path / "tiny"), "random")
    assert (done.returncode, "does not read as it should" in done.stderr) == (11, True), done.stderr
