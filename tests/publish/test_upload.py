"""One command from a checkpoint to the Hub: what is there is not done again, what a gate asks for is measured."""

import dataclasses
import json
import shutil

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from olmocr.conversion.convert import convert
from olmocr.convert_to_mlx import app
from olmocr.errors import ExitCode, UsageError
from olmocr.hub.write import Hub
from olmocr.publish.gates import GateFailedError
from olmocr.publish.upload import Upload, timed
from olmocr.reports.typed_json import report_json
from olmocr.runtime.facts import weight_hashes
from olmocr.validate.known_pages.built_in_pages import draw_built_in_pages
from tests.conftest import CHECKPOINT
from tests.hub.hub_writes import TOKEN, Blob, Repository
from tests.publish.pushes import REPO, files_of
from tests.publish.samples import fidelity_report, smoke_report, weights_of
from tests.publish.uploads import targets

BASE = "tester/base"


SLUG = "tester/small-ocr-0123456789abcdef01234567"


STATED = ("--base-model", BASE, "--license", "mit")


@pytest.fixture
def hub(hub, monkeypatch):
    """A Hub that the client finds by itself."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    address = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def run(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    assert TOKEN not in result.output
    return result.output


def measured(folder, source, passed=True):
    """Leave reports beside a folder's weights as a smoke test and a measurement would."""
    weights = weights_of(folder)
    (folder / "smoke_report.json").write_text(report_json(smoke_report(weights)))
    report = fidelity_report(weights, passed=passed, source_weights=weight_hashes(source))
    (folder / "fidelity_report.json").write_text(report_json(report))


def test_the_same_command_resumes_with_what_is_there(hub, source, tmp_path):
    out = tmp_path / "out"
    convert(source, "8bit", out)
    measured(out, source)
    before = (out / "model.safetensors").stat().st_mtime_ns
    said = run(source, "-q", "8bit", "-o", out, "--upload-repo", REPO, *STATED)
    assert "is already this conversion" in said
    assert "has already passed its smoke test" in said
    assert "has already been measured against its source" in said
    assert f"published {hub.endpoint}/{REPO}: 13 files uploaded" in said
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    assert files_of(hub)["model.safetensors"].content == (out / "model.safetensors").read_bytes()
    assert b"Gate: passed" in files_of(hub)["README.md"].content
    assert "0 files uploaded" in run(source, "-q", "8bit", "-o", out, "--upload-repo", REPO, *STATED)


def test_without_an_upload_a_folder_that_is_there_is_left_alone(source, tmp_path):
    convert(source, "8bit", tmp_path / "out")
    assert "exists; choose another --output" in run(source, "-q", "8bit", "-o", tmp_path / "out", code=ExitCode.OUTPUT)


def test_several_recipes_become_a_repository_each_that_tells_of_the_others(hub, source, tmp_path):
    out = tmp_path / "out"
    convert(source, ["8bit", "4bit"], out)
    for folder in out.iterdir():
        measured(folder, source)
    said = run(source, "-q", "8bit,4bit", "-o", out, "--upload-repo", "tester/tiny", "--private", *STATED)
    assert set(hub.repositories) == {"tester/tiny-8bit", "tester/tiny-4bit"}
    for name, other in (("8bit", "4bit"), ("4bit", "8bit")):
        assert f"published {hub.endpoint}/tester/tiny-{name}: " in said
        assert f"| tester/tiny-{other} |".encode() in files_of(hub, f"tester/tiny-{name}")["README.md"].content
        assert b"\nlicense: mit\n" in files_of(hub, f"tester/tiny-{name}")["README.md"].content
        assert hub.repositories[f"tester/tiny-{name}"].private


def test_if_one_of_several_fails_a_gate_none_is_published(hub, source, tmp_path):
    out = tmp_path / "out"
    convert(source, ["8bit", "4bit"], out)
    for folder in out.iterdir():
        measured(folder, source, passed=folder.name.endswith("8bit"))
    upload = Upload("tester/tiny", base_model=BASE, license_id="mit")
    plans = targets(source, "8bit", "4bit", output=out)
    with pytest.raises(GateFailedError, match=r"fidelity: mean_kl is 0\.0123"):
        upload.publish(plans, Hub(hub.endpoint, TOKEN))
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--no-smoke-test",), "--upload-repo needs the smoke test; leave out --no-smoke-test"),
        (("--allow-failing", "weight"), "--allow-failing weight is not a gate"),
        (("--license", "No Such"), "--license No Such is not a license identifier of the Hub"),
        (("--upload-repo", "tester"), "--repo tester is not a repository's name"),
    ],
)
def test_what_no_gate_would_let_through_is_refused_before_anything_is_converted(args, says, hub, source, tmp_path):
    given = args if "--upload-repo" in args else (*args, "--upload-repo", REPO)
    assert says in run(source, "-q", "8bit", "-o", tmp_path / "out", *given, code=ExitCode.USAGE)
    assert not (tmp_path / "out").exists()
    assert hub.asked == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            (),
            "source is a local folder, and the card has to name the repository that it is, or was trained from; give ",
        ),
        (("--license", "mit"), "give --base-model ORG/NAME\n"),
        (("--base-model", BASE), "source and tester/base do not state a license, and the card must; state it with"),
        (("--base-model", "base"), "--base-model base is not a repository's name"),
    ],
)
def test_a_card_that_an_audit_would_find_wrong_is_noticed_before_anything_is_converted(
    args, says, hub, source, tmp_path
):
    said = run(source, "-q", "8bit", "-o", tmp_path / "out", "--upload-repo", REPO, *args, code=ExitCode.USAGE)
    assert says in said
    assert list(tmp_path.iterdir()) == []
    assert hub.writes() == []


def test_a_license_that_the_sources_own_card_states_need_not_be_stated_again(hub, source, tmp_path):
    own = shutil.copytree(source, tmp_path / "own")
    (own / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Mine\n")
    upload = Upload(REPO, base_model=BASE)
    assert (
        upload.require_possible(
            targets(own, "8bit", output=tmp_path / "out"), Hub(hub.endpoint, TOKEN), smoke_test=True, low_disk=False
        ).license
        == "cc-by-4.0"
    )


def test_a_license_that_the_base_models_card_states_need_not_be_stated_again(hub, source, tmp_path):
    hub.repositories[BASE] = Repository()
    hub.repositories[BASE].add({"README.md": Blob(b"---\nlicense: mit\n---\n", False)})
    upload, there = Upload(REPO, base_model=BASE), Hub(hub.endpoint, TOKEN)
    (target,) = targets(source, "8bit", output=tmp_path / "out")
    assert upload.require_possible([target], there, smoke_test=True, low_disk=False).license == "mit"


def test_a_collection_that_is_not_there_is_noticed_before_anything_is_converted(hub, source, tmp_path):
    args = ("-q", "8bit", "-o", tmp_path / "out", "--upload-repo", REPO, *STATED, "--collection", SLUG)
    assert SLUG in run(source, *args, code=ExitCode.HUB)
    assert not (tmp_path / "out").exists()
    hub.collections[SLUG] = []
    convert(source, "8bit", tmp_path / "out")
    measured(tmp_path / "out", source)
    run(source, *args)
    assert hub.collections[SLUG] == [REPO]


def test_pages_that_are_not_there_are_noticed_before_anything_is_converted(hub, source, tmp_path):
    asked = ("--upload-repo", REPO, "--fidelity-pages", tmp_path / "nothing.pdf")
    assert "there is no file" in run(
        source, "-q", "8bit", "-o", tmp_path / "out", *asked, code=ExitCode.UNREADABLE_INPUT
    )
    assert not (tmp_path / "out").exists()


def test_without_the_source_on_this_disk_nothing_could_be_measured(source, tmp_path):
    (target,) = targets(source, "8bit", output=tmp_path / "out")
    folder = dataclasses.replace(target.plan.source.folder, remote_weights=True)
    plan = dataclasses.replace(target.plan, source=dataclasses.replace(target.plan.source, folder=folder))
    target = dataclasses.replace(target, plan=plan)
    with pytest.raises(UsageError, match="--low-disk does not keep the source to measure against"):
        Upload(REPO).require_possible([target], None, smoke_test=True, low_disk=True)


def test_how_long_it_will_take_is_told_once_by_the_first_page_that_was_read():
    times = iter([0, 0, 0, 40, 80])
    pages, said = [], []
    report = timed(lambda name, total: pages.append(name), said.append, lambda: next(times))
    for _ in range(4):
        report("model", 20)
    assert pages == ["model"] * 4
    assert said == ["17 pages are left, about 11 minutes"]


@pytest.mark.slow
def test_one_command_leads_from_the_checkpoint_to_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    known = draw_built_in_pages(tmp_path, 644)[-1]
    page = shutil.copyfile(known.path, tmp_path / "page.pdf")
    args = (CHECKPOINT, "-q", "8bit", "-o", tmp_path / "out", "--upload-repo", REPO, "--fidelity-pages", page, *STATED)
    said = run(*args)
    assert "out reads: 10 of 10 pages" in said
    assert "measuring" in said
    assert "its limits are met" in said
    assert json.loads(files_of(hub)["fidelity_report.json"].content)["page_set"] == "page.pdf"
    assert b"not measured" not in files_of(hub)["README.md"].content.split(b"##")[1]
    again = run(*args)
    assert "reads: " not in again
    assert "has already been measured against its source" in again
    assert "0 files uploaded" in again
