"""The loopback Hub itself: the real client can create, upload, change, list and download, and is refused."""

import hashlib

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from tests.hub.hub_writes import TOKEN, Account


@pytest.fixture
def hub(writable_hub):
    return writable_hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


def add(path, content):
    return CommitOperationAdd(path, content)


def test_a_file_goes_up_is_listed_and_comes_down_again(hub, api, tmp_path):
    api.create_repo("tester/model", private=True)
    content = bytes(range(256)) * 40
    info = api.create_commit(
        "tester/model", [add("config.json", b"{}"), add("a.safetensors", content)], commit_message="weights"
    )
    entries = {entry.path: entry for entry in api.list_repo_tree("tester/model", recursive=True)}
    assert entries["a.safetensors"].lfs.sha256 == hashlib.sha256(content).hexdigest()
    assert entries["config.json"].blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()
    folder = snapshot_download("tester/model", endpoint=hub.endpoint, token=TOKEN, local_dir=tmp_path / "down")
    assert (tmp_path / "down" / "a.safetensors").read_bytes() == content
    assert api.model_info("tester/model").sha == info.oid
    assert folder


def test_what_is_stored_is_not_sent_again(hub, api):
    api.create_repo("tester/model")
    for message in ("one", "two"):
        api.create_commit("tester/model", [add("a.safetensors", b"weights")], commit_message=message)
    assert len(hub.puts()) == 1
    assert not [each for each in hub.asked if each.method == "PUT" and each.with_token]


def test_a_large_file_goes_up_in_parts(hub, api):
    hub.parts_of = 1000
    api.create_repo("tester/model")
    content = bytes(range(256)) * 10
    api.create_commit("tester/model", [add("a.safetensors", content)], commit_message="parts")
    assert hub.puts() == ["1", "2", "3"]
    assert hub.repositories["tester/model"].find("main").files["a.safetensors"].content == content


def test_a_commit_onto_another_parent_is_refused(hub, api):
    api.create_repo("tester/model")
    parent = api.model_info("tester/model").sha
    api.create_commit("tester/model", [add("a.json", b"1")], commit_message="first", parent_commit=parent)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit("tester/model", [add("a.json", b"2")], commit_message="late", parent_commit=parent)


def test_a_pull_request_leaves_the_branch_alone(hub, api):
    api.create_repo("tester/model")
    info = api.create_commit("tester/model", [add("a.json", b"1")], commit_message="offer", create_pr=True)
    assert info.pr_revision == "refs/pr/1"
    assert [entry.path for entry in api.list_repo_tree("tester/model")] == [".gitattributes"]
    assert "a.json" in [entry.path for entry in api.list_repo_tree("tester/model", revision="refs/pr/1")]
    api.create_commit(
        "tester/model", [CommitOperationDelete("a.json")], commit_message="more", revision=info.pr_revision
    )
    assert "a.json" not in [entry.path for entry in api.list_repo_tree("tester/model", revision="refs/pr/1")]


def test_who_may_not_is_refused(hub, api):
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("somebody/model")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=hub.endpoint, token="hf_other").whoami()
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("tester/nothing")
    hub.account = Account(role="read")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("tester/model")
