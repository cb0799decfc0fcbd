"""What an audit finds in other people's MLX folders, and the card that it makes for them."""

import hashlib
import json
import shutil

import pytest
from huggingface_hub import ModelCard, constants
from mlx_vlm.convert import convert as stock_convert
from typer.testing import CliRunner

from olmocr.errors import CheckpointError, ExitCode, UsageError
from olmocr.model_folder import ModelFolder
from olmocr.publish.__main__ import app
from olmocr.publish.audit import audit_lines, audit_model, corrected_card
from olmocr.publish.front_matter import stated_facts
from tests.conftest import CHECKPOINT
from tests.hub.hub_writes import TOKEN, Blob, Repository
from tests.publish.pushes import whole
from tests.publish.samples import HOSTILE

GOOD = """---
library_name: mlx
pipeline_tag: image-text-to-text
base_model: allenai/olmOCR-2-7B-1025
base_model_relation: quantized
license: apache-2.0
---
# A card
"""
BAD = """---
library_name: transformers
tags: [mine, mlx]
model-index:
- name: x
  results:
  - task: {type: image-to-text}
    dataset: {type: bench, name: bench}
    metrics: [{type: accuracy, value: 82.4}]
---
# Theirs

Their words.
"""


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "folder")


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """The demo checkpoint as stock mlx-vlm converts it to 4 bits."""
    folder = tmp_path_factory.mktemp("stock") / "model"
    stock_convert(str(CHECKPOINT), str(folder), quantize=True, q_bits=4)
    return folder


def audit(folder, card=GOOD, **asked):
    return audit_model(ModelFolder(folder), card, check=whole, **asked)


def wrong(found):
    return {finding.what: finding.detail for finding in found.findings if finding.good is False}


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_folder_of_ours_with_a_card_holds(folder):
    found = audit(folder)
    assert found.holds, wrong(found)


def test_the_bits_are_those_that_the_conversion_report_counts(folder):
    report = json.loads((folder / "conversion_report.json").read_text())
    counted = {part.component: (part.parameters, part.nbytes) for part in audit(folder).components}
    assert counted == {part["component"]: (part["parameters"], part["nbytes"]) for part in report["components"]}
    assert audit(folder).head == "affine with 8 bits in groups of 64"


def test_a_stock_conversion_is_told_by_its_template_and_its_card(stock):
    found = audit(stock, "")
    assert wrong(found)["chat_template.jinja"].startswith("image before text")
    assert wrong(found)["card"] == "there is no README.md with a front matter"
    assert found.head == "affine with 4 bits in groups of 64"


@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_settings_that_one_reader_does_not_find_are_told(key, folder):
    edit(folder / "config.json", lambda config: config.pop(key))
    assert f"it has no {key}" in wrong(audit(folder))["config"]


def test_pages_that_are_let_through_too_large_are_told(folder):
    edit(folder / "preprocessor_config.json", lambda settings: settings.update(max_pixels=12_845_056))
    assert "up to 12,845,056 pixels are allowed" in wrong(audit(folder))["pixels"]


def test_files_that_are_missing_or_too_many_are_told(folder):
    (folder / "chat_template.jinja").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    found = wrong(audit(folder))
    assert found["files"] == "chat_template.jinja missing"
    assert found["contents"] == "pytorch_model.bin do not belong to a model"


def test_a_template_that_cannot_be_rendered_is_told_and_does_nothing(folder):
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}{{ nothing.at.all }}")
    assert "cannot be rendered" in wrong(audit(folder))["chat_template.jinja"]


def test_what_a_card_gets_wrong_is_told(folder):
    found = wrong(audit(folder, BAD))
    assert found["card: library_name"] == "'transformers' should be 'mlx'"
    assert found["card: model-index"] == "scores of the source are claimed"
    assert set(found) >= {"card: pipeline_tag", "card: base_model", "card: base_model_relation", "card: license"}


def test_a_base_model_that_is_another_one_is_told(folder):
    bare = GOOD.replace("allenai/olmOCR-2-7B-1025", "Qwen/Qwen2.5-VL-7B-Instruct")
    assert "is what olmOCR was trained from" in wrong(audit(folder, bare))["card: base_model"]
    assert "card: base_model" not in wrong(audit(folder, GOOD))
    stated = stated_facts("somebody/olmOCR", "mit")
    found = wrong(audit(folder, GOOD, facts=stated))
    assert found["card: base_model"] == "'allenai/olmOCR-2-7B-1025' should be 'somebody/olmOCR'"
    assert found["card: license"] == "'apache-2.0' should be 'mit'"
    good = {"card: base_model", "card: license"}
    assert not good & set(wrong(audit(folder, corrected_card(audit(folder, bare), bare, stated), facts=stated)))


def test_a_corrected_card_is_right_and_keeps_their_words(folder):
    facts = stated_facts("allenai/olmOCR-2-7B-1025", None)
    text = corrected_card(audit(folder, BAD), BAD, facts)
    card = ModelCard(text)
    assert card.data.library_name == "mlx"
    assert (card.data.base_model, card.data.base_model_relation) == ("allenai/olmOCR-2-7B-1025", "quantized")
    assert card.data.license == "apache-2.0"
    assert "mine" in card.data.tags
    assert "model-index" not in text
    assert "| language | " in text
    assert text.rstrip().endswith("Their words.")
    again = audit(folder, text)
    assert not [what for what in wrong(again) if what.startswith("card")]


def test_a_source_that_nobody_names_is_not_guessed(folder):
    card = ModelCard(corrected_card(audit(folder, ""), "", stated_facts(None, None)))
    assert card.data.base_model is None
    assert card.data.license is None


def test_hostile_words_in_a_folder_become_no_markup(folder):
    (folder / "a\n# b <script>").write_text("x")
    edit(folder / "config.json", lambda config: config.update(model_type=HOSTILE))
    text = corrected_card(audit(folder, "no front matter"), "", stated_facts(None, None))
    assert "\n# b" not in text
    assert "<script>" not in text.replace("\\<script\\>", "")


def test_weights_that_are_broken_are_told(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = audit_model(ModelFolder(folder), GOOD)
    assert "model.safetensors has another SHA-256" in wrong(found)["hashes"]
    assert any(line.startswith("WRONG    hashes: ") for line in audit_lines(found))


def test_a_folder_that_holds_no_model_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError):
        audit_model(ModelFolder(tmp_path), "")


def test_a_repository_is_audited_and_a_corrected_card_offered(hub, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repositories["somebody/model"] = Repository()
    files = {path.name: Blob(path.read_bytes(), path.suffix == ".safetensors") for path in tiny.iterdir()}
    before = hub.repositories["somebody/model"].add({**files, "README.md": Blob(BAD.encode(), False)})
    args = ["audit", "somebody/model", "--base-model", "allenai/olmOCR-2-7B-1025", "--create-pr", "--quiet"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == ExitCode.GATE_FAILED, done.output
    assert "WRONG    card: library_name" in done.output
    assert "ok       hashes on the Hub: the weights are those that the Hub lists" in done.output
    assert f"{hub.endpoint}/somebody/model/discussions/1: the corrected card is offered" in done.output
    assert hub.repositories["somebody/model"].find("main") == before
    offered = hub.repositories["somebody/model"].find("refs/pr/1").files["README.md"].content
    assert b"library_name: mlx" in offered


def test_weights_that_changed_since_the_hub_listed_them_are_told(folder):
    blob = folder.parent / hashlib.sha256(b"what the Hub lists").hexdigest()
    shutil.move(folder / "model.safetensors", blob)
    (folder / "model.safetensors").symlink_to(blob)
    found = audit_model(ModelFolder(folder, "somebody/model", "0" * 40), GOOD, check=whole)
    assert wrong(found) == {"hashes on the Hub": "model.safetensors is not what the Hub lists"}


def test_a_card_is_offered_to_repositories_only(folder, tmp_path):
    done = CliRunner().invoke(app, ["audit", str(folder), "--create-pr", "--quiet"])
    assert done.exit_code == UsageError.exit_code
    done = CliRunner().invoke(app, ["audit", str(folder), "--output", str(tmp_path / "card.md"), "--quiet"])
    assert done.exit_code == ExitCode.GATE_FAILED
    assert (tmp_path / "card.md").read_text().startswith("---\nlibrary_name: mlx")
