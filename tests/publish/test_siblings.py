"""Other variants in a card's tables: folders and repositories are told apart, and what a repository holds is read."""

import json

import pytest

from olmocr.errors import HubError, InputError, UsageError
from olmocr.hub.write import Hub
from olmocr.publish.card import Variant
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.push import Push
from olmocr.publish.siblings import Siblings, read_repository, tell_apart
from tests.hub.hub_writes import TOKEN, Blob
from tests.publish.pushes import REPO, files_of, push
from tests.publish.samples import model_copy

OTHER = "tester/other"


@pytest.fixture
def other(hub, tiny, tmp_path):
    """Return the folder of another variant, which was pushed."""
    folder = model_copy(tiny, tmp_path / "theirs", mean_kl=0.4)
    push(hub, folder, OTHER)
    return folder


def read(hub, repo=OTHER):
    return read_repository(repo, Hub(hub.endpoint, TOKEN))


def test_a_folder_that_is_there_is_one_and_another_name_with_an_organisation_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org/here").mkdir(parents=True)
    found = tell_apart(["org/here", "org/there", "nothing", "../x/y"])
    assert found.repositories == ("org/there",)
    assert [str(folder) for folder in found.folders] == ["org/here", "nothing", "../x/y"]
    assert tell_apart([]) == Siblings((), ())


def test_a_repository_tells_what_the_folder_it_was_pushed_from_tells(hub, other):
    assert read(hub).row == Variant(OTHER, read_reports(other)).row


def test_a_repository_that_is_named_stands_in_the_tables_and_in_the_picture(hub, other, model):
    push(hub, model, repositories=(OTHER,))
    card = files_of(hub)["README.md"].content.decode()
    assert card.count(f"| {OTHER} | ") == 2
    assert "size-fidelity.svg" in files_of(hub)
    push(hub, model)
    assert files_of(hub)["README.md"].content.decode() == card


def test_its_row_is_made_anew_by_what_the_repository_holds_now(hub, other, model, tiny, tmp_path):
    push(hub, model, repositories=(OTHER,))
    push(hub, model_copy(tiny, tmp_path / "newer", mean_kl=0.25), OTHER)
    push(hub, model, repositories=(OTHER,))
    card = files_of(hub)["README.md"].content.decode()
    assert "| 0.25 | 6 of 8 |" in card
    assert "| 0.4 | 6 of 8 |" not in card


def test_the_repository_itself_is_not_a_sibling():
    with pytest.raises(UsageError, match=f"--sibling {REPO} is --repo itself"):
        Push(REPO, siblings=(REPO,))


def test_a_repository_that_is_not_there_is_told_before_anything_is_changed(hub, model):
    with pytest.raises(HubError, match="tester/none is not a local folder, and not a repository on the Hub"):
        push(hub, model, repositories=("tester/none",))
    assert hub.writes() == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("conversion_report.json", None, "tester/other has no conversion_report.json"),
        ("conversion_report.json", b"{}", "tester/other/conversion_report.json cannot be used"),
        ("config.json", None, "tester/other is not a checkpoint: it has no config.json"),
        ("config.json", b"[]", "tester/other/config.json does not hold a JSON object"),
        ("fidelity_report.json", b"\xff", "tester/other/fidelity_report.json cannot be used"),
    ],
)
def test_what_cannot_be_read_there_is_told_by_the_repositorys_name(name, content, says, hub, other):
    if content is None:
        files_of(hub, OTHER).pop(name)
    else:
        hub.repositories[OTHER].add({name: Blob(content, False)})
    with pytest.raises(InputError, match=says):
        read(hub)


def test_a_report_of_other_weights_is_refused(hub, other):
    report = json.loads((other / "fidelity_report.json").read_text()) | {"weights": {}}
    hub.repositories[OTHER].add({"fidelity_report.json": Blob(json.dumps(report).encode(), False)})
    with pytest.raises(InputError, match=r"tester/other/fidelity_report.json is about other weights"):
        read(hub)


@pytest.mark.parametrize("size", ["wide", None, [], 0, -1, 1e400])
def test_a_config_whose_numbers_are_none_is_one_sentence(size, hub, other):
    config = json.loads((other / "config.json").read_text())
    config["vision_config"]["patch_size"] = size
    hub.repositories[OTHER].add({"config.json": Blob(json.dumps(config).encode(), False)})
    try:
        read(hub)
    except InputError as error:
        assert str(error).startswith("tester/other/config.json")
