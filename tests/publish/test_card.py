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
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from packaging.requirements import Requirement
from typer.testing import CliRunner

from olmocr.conversion.convert import convert
from olmocr.convert_to_mlx import app as convert_app
from olmocr.errors import InputError, UsageError
from olmocr.page import PAGE_PROMPT, parse_page_response
from olmocr.publish.card import Variant, make_card, make_chart
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import find_facts
from olmocr.publish.markup import code_block, escaped
from olmocr.validate.fidelity.plots import Point, size_against_fidelity
from tests.checkpoints import tiny_checkpoint
from tests.conftest import PAGES, ROOT
from tests.publish.pushes import files_of, push
from tests.publish.samples import HOSTILE, change_report, model_copy

OLMOCR_2 = "allenai/olmOCR-2-7B-1025"


def variant(folder, title="org/tiny-8bit"):
    return Variant(title, read_reports(folder))


def card_of(folder, siblings=(), **facts):
    this = variant(folder)
    return make_card(this, find_facts(this.reports.conversion, **facts), [each.row for each in siblings])


def html_of(card):
    return rendered(card.split("\n---\n", 1)[1])


def rendered(markdown):
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).disable("linkify").render(markdown)


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
    assert "| first answers that hold the format | 7 of 8 | 8 of 8 |" in card
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


def test_the_front_matter_is_what_the_hub_reads(tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model")
    change_report(folder, lambda report: report["source"].update(name=OLMOCR_2))
    card = ModelCard(card_of(folder))
    assert card.data.to_dict() == {
        "language": ["en"],
        "license": "apache-2.0",
        "library_name": "mlx",
        "pipeline_tag": "image-text-to-text",
        "base_model": OLMOCR_2,
        "base_model_relation": "quantized",
        "datasets": ["allenai/olmOCR-mix-1025"],
        "tags": ["mlx", "mlx-vlm", "ocr", "olmocr", "pdf", "apple-silicon", "8-bit", "quantized"],
    }
    assert "model-index" not in card.content
    assert f"[allenai/olmOCR-2-7B-1025](https://huggingface.co/{OLMOCR_2})" in card.text
    assert "olmOCR 2: Unit Test Rewards" in card.text


def test_a_source_that_is_no_repository_has_no_base_model_and_a_license_only_if_one_is_stated(tiny):
    data = ModelCard(card_of(tiny)).data.to_dict()
    assert not {"base_model", "base_model_relation", "license", "language"} & set(data)
    assert "License: not stated" in card_of(tiny)
    assert ModelCard(card_of(tiny, license_id="mit")).data.license == "mit"
    assert ModelCard(card_of(tiny, base_model="org/base")).data.base_model == "org/base"


@pytest.mark.parametrize("facts", [{"base_model": "a/b/c"}, {"base_model": "x: y"}, {"license_id": "MIT\nfoo: bar"}])
def test_a_base_model_or_license_that_the_hub_would_not_take_is_refused(facts, tiny):
    with pytest.raises(UsageError, match=r"--(base-model|license) "):
        card_of(tiny, **facts)


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
    assert install == ["pip", "install", "olmocr[mlx] @ git+https://example.org/olmocr.git"]
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


@pytest.mark.parametrize("text", ["*a*", "_a_", "<b>", "[a](b)", "a | b", "`a`", "~~a~~", "&amp;", "$a$", ":smile:"])
def test_escaped_text_is_shown_as_it_is(text):
    html = rendered(f"| x {escaped(text)} |\n|-|\n")
    shown = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<th>x {shown}</th>" in html


def test_what_turns_the_direction_of_text_is_spelled_out():
    assert escaped("a\u202eb") == "a\\\\u202eb"


def test_code_is_fenced_by_more_backticks_than_it_holds():
    assert code_block("````").startswith("`````\n")


@pytest.mark.parametrize("name", ["conversion_report.json", "smoke_report.json", "fidelity_report.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}', "\ud800"])
def test_a_damaged_report_is_refused_and_not_left_out(name, content, tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model")
    (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=f"{name} cannot be used"):
        read_reports(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_bytes": "9"}, "weight_bytes is not a whole number"),
        ({"bits_per_weight": float("nan")}, "it is not JSON: NaN is not a number"),
        ({"bits_per_weight": "4"}, "bits_per_weight is not a number"),
        ({"files": [{"name": "a", "nbytes": 1}]}, r"files\[0\] has no sha256"),
        ({"kept": {"because": True}}, r"kept\.\* is not a whole number"),
        ({"version": 3}, "it is of version 3"),
    ],
)
def test_a_report_with_a_value_of_another_type_is_refused(change, message, tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model")
    change_report(folder, lambda report: report.update(change))
    with pytest.raises(InputError, match=message):
        read_reports(folder)


@pytest.mark.parametrize("measured", ["smoke", "fidelity"])
def test_a_report_of_other_weights_is_refused(measured, tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model", **{"smoke": None, "fidelity": None} | {measured: True})
    change_report(folder, lambda report: report["files"][0].update(sha256="0" * 64))
    with pytest.raises(InputError, match=f"{measured}_report.json was made of other weights"):
        read_reports(folder)


def test_a_folder_that_was_not_converted_here_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no conversion_report\.json; give a folder"):
        read_reports(tmp_path)


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
