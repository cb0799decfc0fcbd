"""The commands: what they print, write and end with."""

import json

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from olmocr.convert_to_mlx import app as convert_app
from olmocr.errors import ExitCode
from olmocr.publish.__main__ import app
from tests.checkpoints import tiny_checkpoint
from tests.hub.hub_writes import TOKEN
from tests.publish.pushes import REPO, files_of
from tests.publish.samples import model_copy


def run(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def hub(hub, monkeypatch):
    """A Hub that the client finds by itself."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def test_a_card_is_written_into_the_folder(model):
    assert "without a chart" in run("card", model, "--repo", REPO)
    assert f"olmocr document.pdf --model {REPO}\n" in (model / "README.md").read_text()


def test_a_card_of_several_variants_is_written_with_its_picture(model, tiny, tmp_path):
    other = model_copy(tiny, tmp_path / "other", mean_kl=0.3)
    file = tmp_path / "cards" / "card.md"
    file.parent.mkdir()
    out = run("card", model, "--repo", REPO, "--sibling", other, "--license", "mit", "--output", file)
    assert "with a chart" in out
    text = file.read_text()
    assert "| tester/other |" in text
    assert "\nlicense: mit\n" in text
    assert (file.parent / "size-fidelity.svg").read_text().startswith("<svg")
    assert not (model / "README.md").exists()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--repo", "x"), ExitCode.USAGE, "--repo x is not a repository's name"),
        (("--sibling", "nothing"), ExitCode.UNREADABLE_INPUT, "nothing has no conversion_report.json"),
        (("--output", "no/such/folder.md"), ExitCode.OUTPUT, "could not be written"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(args, code, says, model):
    out = run("card", model, *args, code=code)
    assert out.startswith("error: ")
    assert says in out


def test_a_dry_run_prints_and_a_push_does(hub, model):
    out = run("push", model, "--repo", REPO, "--dry-run", "--quiet")
    assert "add         model.safetensors" in out
    assert "gate        weights: ok: The folder is complete." in out
    assert hub.repositories == {}
    last = out.splitlines()[-1]
    assert last.startswith(f"would push to {REPO}: add 13, replace 0, delete 0, keep 0 files, ")
    out = run("push", model, "--repo", REPO, "--quiet", "--private")
    assert f"{hub.endpoint}/{REPO}: 13 files uploaded, 0 deleted, at " in out
    assert json.loads(files_of(hub)["conversion_report.json"].content)["version"] == 2
    assert TOKEN not in out


def test_a_dry_run_writes_the_card_to_a_file_where_that_is_asked_for(hub, model, tmp_path):
    run("push", model, "--repo", REPO, "--dry-run", "--quiet", "--card", tmp_path / "card.md", "--license", "mit")
    assert "\nlicense: mit\n" in (tmp_path / "card.md").read_text()
    assert hub.repositories == {}


def test_a_sibling_may_be_a_repository_in_a_card_and_in_a_push(hub, model, tiny, tmp_path):
    other = model_copy(tiny, tmp_path / "theirs", mean_kl=0.3)
    run("push", other, "--repo", "tester/other", "--quiet")
    assert "with a chart" in run("card", model, "--repo", REPO, "--sibling", "tester/other")
    assert "| tester/other |" in (model / "README.md").read_text()
    run("push", model, "--repo", REPO, "--quiet", "--sibling", "tester/other")
    assert b"| tester/other |" in files_of(hub)["README.md"].content


def test_a_push_without_a_token_says_where_to_get_one(hub, model, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    out = run("push", model, "--repo", REPO, "--quiet", code=ExitCode.HUB)
    assert "there is no token for the Hub; run 'hf auth login'" in out
    assert hub.asked == []


def test_a_gate_that_failed_ends_with_its_exit_code(hub, tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model", fidelity=None)
    out = run("push", folder, "--repo", REPO, "--quiet", code=ExitCode.GATE_FAILED)
    assert "name the gate with --allow-failing" in out
    run("push", folder, "--repo", REPO, "--quiet", "--allow-failing", "fidelity")


def convert(*args, code=0):
    result = CliRunner().invoke(convert_app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result.output


def test_a_conversion_can_end_in_a_push_with_the_same_gates(hub, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    args = (source, "-q", "8bit", "--no-smoke-test", "--quiet", "--upload-repo", REPO)
    args = (*args, "--base-model", "allenai/olmOCR-2-7B-1025")
    convert(*args, "-o", tmp_path / "two", "--allow-failing", "smoke", "--allow-failing", "fidelity")
    assert b"Published although it failed 2 gates" in files_of(hub)["README.md"].content
    assert files_of(hub)["model.safetensors"].content == (tmp_path / "two" / "model.safetensors").read_bytes()


def test_a_conversion_that_could_not_be_pushed_is_not_begun(hub, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    one = ("--quantize", "8bit", "--upload-repo", "somebody/model", "--base-model", "tester/base", "--license", "mit")
    out = convert(source, *one, "-o", tmp_path / "out", code=ExitCode.HUB)
    assert "the token may not write to somebody/model" in out
    assert not (tmp_path / "out").exists()
