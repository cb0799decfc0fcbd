"""What a card says, and that no report can make it say anything else."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree

import pytest
import yaml
from packaging.requirements import Requirement
from typer.testing import CliRunner

from olmocr.conversion.convert import convert
from olmocr.convert_to_mlx import app as convert_app
from olmocr.page import PAGE_PROMPT, parse_page_response
from olmocr.publish.card import make_card, make_chart
from olmocr.publish.front_matter import find_facts
from olmocr.validate.fidelity.plots import Point, size_against_fidelity
from tests.checkpoints import tiny_checkpoint
from tests.conftest import PAGES, ROOT
from tests.publish.cards import card_of, rendered, variant
from tests.publish.pushes import files_of, push
from tests.publish.samples import HOSTILE, change_report, model_copy


def html_of(card):
    return rendered(card.split("\n---\n", 1)[1])


def test_what_no_report_tells_is_said_not_to_be_measured(tiny):
    card = card_of(tiny)
    assert "Fidelity: not measured." in card
    assert "Smoke test: not measured." in card
    assert "By kind of token: not measured." in card
    assert "By kind of page: not measured." in card
    assert "olmOCR-bench: not measured." in card
    assert "What quantizing changed in its answers has not been measured." in card


def test_what_reports_tell_is_in_the_card(tiny, tmp_path):
    card = card_of(model_copy(tiny, tmp_path / "model"))
    rest = card.replace("computed, not measured", "").replace("| 1 | 1 | not measured |", "")
    assert "not measured" not in rest.replace("olmOCR-bench: not measured.", "")
    assert "| 0.0123 (0.00615 to 0.0246) | 0 |" in card
    assert "| answers that are the same, byte for byte | 6 of 8 | |" in card
    assert "| character error rate against the true text | 3.33% | 1.11% |" in card
    assert "| first answers that follow the format | 7 of 8 | 8 of 8 |" in card
    assert "| digits | 200 | 3 | 1.50% |" in card
    assert "| table tags | 0 | 0 | none |" in card
    assert "Gate: passed, by the limits that gates/default.yaml has for 8bit." in card
    assert "Smoke test: passed, 2 of 2 pages" in card
    assert "| table | 1 | 1 | 1.23% |" in card


def test_a_gate_that_failed_is_said_with_its_numbers(tiny, tmp_path):
    card = card_of(model_copy(tiny, tmp_path / "model", fidelity=False, smoke=False))
    assert "Gate: **failed**" in card
    assert "mean\\_kl is 0.0123 and may be 0.002." in card
    assert "Smoke test: **failed**, 0 of 2 pages" in card


def test_the_conversions_numbers_are_those_of_its_report(tiny):
    report = json.loads((tiny / "conversion_report.json").read_text())
    card = card_of(tiny)
    assert f"{report['bits_per_weight']:.2f} bits per weight" in card
    assert all(file["sha256"] in card for file in report["files"] + report["source"]["files"])
    assert report["command"] in card
    assert all(reason in card for reason in report["kept"])


def test_the_prompt_is_given_as_it_is_asked(tiny):
    card = card_of(tiny)
    assert f"```\n{PAGE_PROMPT}\n```" in card
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    asked = {}
    exec(code.split("\n\nmodel")[0].split("apply_chat_template\n")[1], asked)
    assert asked["PROMPT"] == PAGE_PROMPT


def commands_of(card):
    return [shlex.split(block) for block in re.findall(r"```sh\n(.*?)\n```", card, re.DOTALL)]


def test_the_commands_of_a_card_are_all_there_are_of_it_and_run_as_pasted(tmp_path, monkeypatch):
    source = tiny_checkpoint(tmp_path / "source")
    convert(source, "8bit", tmp_path / "made")
    this = variant(tmp_path / "made")
    card = make_card(this, find_facts(this.reports.conversion), repository="https://example.org/olmocr.git")
    install, read, stock, again = commands_of(card)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert install == ["pip", "install", "olmocr-mlx[mlx] @ git+https://example.org/olmocr.git"]
    assert Requirement(install[2]).extras <= set(extras)
    assert read == ["olmocr", "document.pdf", "--model", "org/tiny-8bit"]
    assert {Requirement(each).name for each in stock[2:]} == {"mlx-vlm", "pypdfium2"}
    assert stock[2] in extras["mlx"]
    monkeypatch.chdir(tmp_path)
    assert again[:3] == ["python", "-m", "olmocr.convert_to_mlx"]
    done = CliRunner().invoke(convert_app, [*again[3:], "--no-smoke-test", "--quiet"])
    assert done.exit_code == 0, done.output
    name = "model.safetensors"
    assert (tmp_path / "source-mlx-8bit" / name).read_bytes() == (tmp_path / "made" / name).read_bytes()


def test_a_card_says_where_the_package_is_or_that_no_index_has_it(tiny):
    assert "It is on no package index" in card_of(tiny)
    this = variant(tiny)
    card = make_card(this, find_facts(this.reports.conversion), repository="https://example.org/olmocr.git")
    assert "This installs it from its repository:" in card
    assert "package index" not in card
    assert "pdftoppm" not in card


@pytest.mark.slow
def test_the_command_in_a_card_reads_a_document_with_the_model_from_the_hub(hub, converted, tmp_path):
    push(hub, model_copy(converted("8bit"), tmp_path / "model"))
    card = files_of(hub)["README.md"].content.decode()
    (command,) = [each for each in commands_of(card) if each[0] == "olmocr"]
    shutil.copyfile(PAGES / "sparse_14.pdf", tmp_path / "document.pdf")
    env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HOME": str(tmp_path)}
    env |= {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    here = [sys.executable, "-m", *command]
    done = subprocess.run(here, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Bakery Orders" in done.stdout


@pytest.mark.slow
def test_the_python_in_a_card_reads_a_page_with_stock_mlx_vlm(converted, tmp_path):
    folder = converted("8bit")
    this = variant(folder, str(folder))
    card = make_card(this, find_facts(this.reports.conversion))
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    shutil.copyfile(PAGES / "sparse_14.pdf", tmp_path / "document.pdf")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert parse_page_response(done.stdout.strip(), "lenient"), done.stderr


def test_hostile_text_in_a_report_becomes_no_markup(tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model", machine=HOSTILE)

    def change(report):
        report["recipe"] |= {"name": HOSTILE, "summary": HOSTILE, "changes": [HOSTILE]}
        report["source"] |= {"name": HOSTILE, "revision": HOSTILE}
        report["kept"] = {HOSTILE: 3}
        report["versions"] = {HOSTILE: HOSTILE}
        report["components"][0]["component"] = HOSTILE
        report["tensors"][0] |= {"name": HOSTILE, "bits": 4, "group_size": 64, "mode": HOSTILE}

    plain = html_of(card_of(folder))
    change_report(folder, change)
    this = variant(folder, HOSTILE)
    hostile = html_of(make_card(this, find_facts(this.reports.conversion)))
    tags = re.compile(r"<(script|img|a|h1|h2|hr|strong|svg|table|td|pre|ul)\b")
    more = [tag for tag in set(tags.findall(hostile)) if len(re.findall(f"<{tag}\\b", hostile)) > count(plain, tag)]
    assert set(more) <= {"td"}  # a row for the tensor that is now quantized
    assert "<script" not in hostile
    assert yaml.safe_load(make_card(this, find_facts(this.reports.conversion)).split("---")[1])["library_name"] == "mlx"


def count(html, tag):
    return len(re.findall(f"<{tag}\\b", html))


def test_a_command_with_backticks_stays_in_its_block(tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model")
    change_report(folder, lambda report: report.update(command="a\n```\n<script>\n````"))
    assert "<script" not in html_of(card_of(folder))


def test_siblings_stand_in_the_tables_and_in_a_picture(tiny, tmp_path):
    this = variant(model_copy(tiny, tmp_path / "this"))
    other = variant(model_copy(tiny, tmp_path / "other", mean_kl=0.5, weight_bytes=9_000_000), "org/<other>")
    card = make_card(this, find_facts(this.reports.conversion), [other.row])
    assert "| org/\\<other\\> | " in card
    assert "![Size against fidelity of these variants](size-fidelity.svg)" in card
    chart = make_chart([this.row, other.row])
    labels = [each.text for each in ElementTree.fromstring(chart).iter("{http://www.w3.org/2000/svg}text")]
    assert {"tiny-8bit", "<other>"} <= set(labels)


def test_there_is_no_picture_of_one_variant_that_was_measured(tiny, tmp_path):
    this = variant(model_copy(tiny, tmp_path / "this"))
    assert make_chart([this.row, variant(tiny).row]) is None
    assert "size-fidelity" not in make_card(this, find_facts(this.reports.conversion), [variant(tiny).row])


def test_a_picture_puts_the_larger_to_the_right_and_the_worse_above():
    chart = size_against_fidelity([Point("8", 9 * 10**9, 0.001, 0, 0.002), Point("4", 5 * 10**9, 0.1, 0.05, 0.2)])
    circles = list(ElementTree.fromstring(chart).iter("{http://www.w3.org/2000/svg}circle"))
    (eight_x, eight_y), (four_x, four_y) = [(float(each.get("cx")), float(each.get("cy"))) for each in circles]
    assert eight_x > four_x
    assert eight_y > four_y  # downwards in SVG
