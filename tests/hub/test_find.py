"""Models by folder and from a Hub: the real client against a real server on the loopback interface."""

import json
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from olmocr.errors import CheckpointError, ExitCode, UsageError
from olmocr.hub.find import find_model, find_settings, require_model
from olmocr.hub.read import remote_header
from olmocr.model_folder import INDEX_FILE, ModelFolder
from tests.conftest import CHECKPOINT
from tests.hub.repositories import (
    FETCH,
    FIND,
    REFUSED,
    SHARDS,
    UNREADABLE,
    WEIGHTS,
    convert,
    header_of,
    kept_settings,
    lines,
    python,
    report,
    since_client_2,
    the_error,
)
from tests.hub_server import TOKEN, Cut, HubServer, Repository


def test_a_repository_is_converted_without_asking_for_its_pickle_and_code(hub, commits, tmp_path):
    process = convert(tmp_path, hub, "tiny/olmocr")
    assert process.returncode == ExitCode.OK
    assert process.stderr.startswith("downloaded tiny/olmocr: ")
    source = report(tmp_path)["source"]
    assert (source["name"], source["revision"]) == ("tiny/olmocr", commits.main.sha)
    files = {asked.path for asked in hub.asked if not asked.path.startswith("/api/")}
    assert files == set(commits.main.files) - {"pytorch_model.bin", "modeling.py", "README.md"}


def test_a_repository_is_downloaded_at_the_revision_that_was_asked_for(hub, commits, tmp_path):
    assert convert(tmp_path, hub, "tiny/olmocr", "--revision", "draft").returncode == ExitCode.OK
    assert report(tmp_path)["source"]["revision"] == commits.draft.sha
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["top_k"] == 77


def test_a_commit_hash_is_a_revision(hub, commits, tmp_path):
    path, revision = python(tmp_path, hub, "-c", FIND, "tiny/public", commits.older.sha).stdout.splitlines()
    assert revision == commits.older.sha
    assert Path(path).is_relative_to(tmp_path / "home")


def test_a_private_repository_is_downloaded_with_a_token_that_only_the_hub_sees(hub, tmp_path):
    process = python(tmp_path, hub, "-c", FIND, "tiny/private", HF_TOKEN=TOKEN)
    assert process.returncode == 0
    assert TOKEN not in process.stdout + process.stderr
    assert {(asked.host, asked.with_token) for asked in hub.asked} == {("127.0.0.1", True), ("localhost", False)}


@pytest.mark.parametrize("command", REFUSED, ids=lambda command: ascii(" ".join(filter(None, command))))
def test_a_refusal_is_one_sentence_with_what_to_do_and_without_the_token(refusals, command):
    exit_code, output = refusals[command]
    assert exit_code == ExitCode.HUB
    assert output.startswith(f"error: {REFUSED[command]}")
    assert output.count("\n") == 1
    assert not re.search("Loopback|expired|pasted|badly", output)


def test_without_a_network_the_command_ends_in_a_sentence_and_tries_for_less_than_a_minute(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers, and nobody else can take it
        hub = SimpleNamespace(endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}")
        process = convert(tmp_path, hub, "a/b")
    assert process.returncode == ExitCode.HUB
    assert the_error(process).startswith("a/b is not a local folder, and the Hub cannot be reached; check the network")


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({"HF_ENDPOINT": "http://hub:port"}, marks=since_client_2, id="endpoint"),
        pytest.param({"ALL_PROXY": "socks5://127.0.0.1:1"}, id="proxy"),
    ],
)
def test_an_environment_that_makes_no_connection_ends_in_a_sentence(hub, tmp_path, env):
    process = convert(tmp_path, hub, "tiny/olmocr", **env)
    assert process.returncode == ExitCode.HUB
    assert the_error(process).startswith("tiny/olmocr ")


def test_a_cache_that_cannot_be_written_is_an_output_error(hub, tmp_path):
    (tmp_path / "file").touch()
    process = convert(tmp_path, hub, "tiny/olmocr", HF_HOME=str(tmp_path / "file"))
    assert process.returncode == ExitCode.OUTPUT
    assert the_error(process).startswith("the Hub's cache (HF_HOME) could not be written: ")


@since_client_2
def test_a_download_that_breaks_off_resumes_where_it_stopped(hub, commits, tmp_path):
    hub.cut_once[WEIGHTS] = Cut(11 << 20, "closed")
    path, _ = python(tmp_path, hub, "-c", FIND, "tiny/public").stdout.splitlines()
    assert (Path(path) / WEIGHTS).read_bytes() == (commits.small.folder / WEIGHTS).read_bytes()
    assert [asked.byte_range for asked in hub.asked if asked.path == WEIGHTS] == [None, None, f"bytes={10 << 20}-"]


def test_a_connection_that_is_reset_ends_in_a_sentence_and_a_second_run_completes(hub, commits, tmp_path):
    hub.cut_once[SHARDS[1]] = Cut(12 << 20, "reset")
    process = convert(tmp_path, hub, "tiny/olmocr")
    if process.returncode != ExitCode.OK:  # the client goes on by itself where the reset meets it between two reads
        assert process.returncode == ExitCode.HUB
        assert the_error(process).endswith("; run it again (complete files are kept)")
        assert not (tmp_path / "out").exists()
        assert convert(tmp_path, hub, "tiny/olmocr").returncode == ExitCode.OK
    assert report(tmp_path)["source"]["name"] == "tiny/olmocr"


def test_a_folder_is_taken_before_a_repository_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny/olmocr").mkdir(parents=True)
    assert find_model("tiny/olmocr") == ModelFolder(Path("tiny/olmocr"))


@pytest.mark.parametrize("name", ["./missing", "a/b/c", "olmocr", "a/b--c", "~nobody-here/model", "n" * 300, __file__])
def test_what_is_neither_a_folder_nor_a_repositorys_name_is_not_a_checkpoint(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as error:
        find_model(name)
    assert str(error.value).startswith(f"{name} is not a readable folder; give a model's folder, or a Hub")
    assert error.value.exit_code == ExitCode.BAD_CHECKPOINT


def test_a_revision_of_a_folder_is_refused():
    with pytest.raises(UsageError, match="is a local folder, which does not have a revision main"):
        find_model(str(CHECKPOINT), "main")


def test_settings_come_without_weights_at_one_commit(hub, commits, tmp_path):
    steps = (
        "f = find_settings('tiny/sharded'); print(f.path, f.revision, f.remote_weights, sep='\\n')",
        "print(sorted(each.name for each in f.remote_files))",
    )
    printed = lines(tmp_path, hub, "; ".join(steps))
    assert printed[1:] == [commits.sharded.sha, "True", str(["consolidated.safetensors", *SHARDS])]
    assert sorted(path.name for path in Path(printed[0]).iterdir()) == ["config.json", INDEX_FILE]
    assert not [asked for asked in hub.asked if asked.path.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("repository", "sentence"),
    [
        (
            "tiny/pickled",
            "tiny/pickled has its weights only as pickle files (pytorch_model.bin), which can run code and",
        ),
        ("tiny/older", "tiny/older is not a checkpoint: it has no *.safetensors files"),
    ],
)
def test_a_repository_without_safetensors_is_refused_by_what_it_has(hub, tmp_path, repository, sentence):
    (printed,) = lines(tmp_path, hub, f"find_settings({repository!r})")
    assert printed.startswith(f"CheckpointError: {sentence}")


def test_a_branch_that_moves_leaves_the_revision_as_it_was_found(commits, tmp_path):
    with HubServer({"tiny/sharded": Repository({"main": commits.sharded})}) as hub:
        kept_settings(tmp_path, hub)
        hub.repositories = {"tiny/sharded": Repository({"main": commits.small, "before": commits.sharded})}
        steps = f"print(len(remote_header(kept(), {SHARDS[1]!r})[0])); {FETCH}; print(download_weights(kept()).path)"
        header_bytes, _, path = lines(tmp_path, hub, steps)
    assert int(header_bytes) == len(header_of(commits.sharded.folder / SHARDS[1]))
    for folder in (tmp_path / "shards", Path(path)):
        assert (folder / SHARDS[0]).read_bytes() == (commits.sharded.folder / SHARDS[0]).read_bytes()
    assert Path(path).name == commits.sharded.sha


def test_weights_are_downloaded_as_far_as_the_index_names_them(hub, commits, tmp_path):
    kept_settings(tmp_path, hub)
    path, remote, *hashes = lines(
        tmp_path,
        hub,
        f"f = download_weights(kept()); keep(f); print(f.path, f.remote_weights, sep='\\n')\n"
        f"for shard in {SHARDS}: print(shard_sha256(f, shard))",
    )
    assert remote == "False"
    assert sorted(file.name for file in Path(path).glob("*.safetensors")) == sorted(SHARDS)
    assert hashes == [commits.sharded.files[shard] for shard in SHARDS]


def test_what_is_in_the_cache_needs_no_network(hub, commits, tmp_path):
    lines(tmp_path, hub, "download_weights(find_settings('tiny/sharded'))")
    hub.asked.clear()
    again = (
        "f = find_settings('tiny/sharded'); assert download_weights(f) == f\n"
        f"print(f.revision, f.remote_weights, shard_sha256(f, {SHARDS[0]!r}))"
    )
    expected = f"{commits.sharded.sha} False {commits.sharded.files[SHARDS[0]]}"
    assert lines(tmp_path, hub, again, HF_HUB_OFFLINE="1") == [expected]
    assert hub.asked == []
    assert lines(tmp_path, hub, again) == [expected]
    assert not [asked for asked in hub.asked if asked.path in SHARDS]


def test_a_snapshot_that_find_model_made_has_its_weights(hub, tmp_path):
    lines(tmp_path, hub, "find_model('tiny/public')")
    assert lines(tmp_path, hub, "print(find_settings('tiny/public').remote_weights)", HF_HUB_OFFLINE="1") == ["False"]


@pytest.mark.parametrize(
    "call",
    [
        "find_settings('tiny/sharded')",
        "find_settings('tiny/unknown')",
        f"remote_header(kept(), {SHARDS[0]!r})",
        FETCH,
    ],
    ids=["no weights", "nothing", "header", "shard"],
)
def test_offline_what_is_not_in_the_cache_ends_in_a_sentence(settings_cached, hub, call):
    (printed,) = lines(settings_cached, hub, call, HF_HUB_OFFLINE="1")
    repository = "tiny/unknown" if "unknown" in call else "tiny/sharded"
    assert printed.startswith(f"HubError: {repository} is not a local folder, and the Hub cannot be reached; check the")


def test_offline_a_download_that_is_not_complete_ends_in_a_sentence(settings_cached, hub):
    (printed,) = lines(settings_cached, hub, "download_weights(kept())", HF_HUB_OFFLINE="1")
    assert printed.startswith("HubError: tiny/sharded is ")
    assert "HF_HUB_OFFLINE" in printed


@pytest.mark.parametrize(
    ("repository", "token", "sentence"),
    [
        ("tiny/private", "", f"tiny/private {UNREADABLE}"),
        ("tiny/gated", TOKEN, "tiny/gated is gated: accept its terms"),
        ("tiny/disabled", TOKEN, "the Hub refuses tiny/disabled (403)"),
        ("tiny/down", "", "tiny/down could not be downloaded: the Hub answered 500; run it again later"),
        ("tiny/sharded", "hf_expired", "the Hub refuses tiny/sharded (401)"),
    ],
)
def test_settings_that_are_refused_end_in_a_sentence(hub, tmp_path, repository, token, sentence):
    (printed,) = lines(tmp_path, hub, f"find_settings({repository!r})", HF_TOKEN=token)
    assert printed.startswith(f"HubError: {sentence}")


def test_a_list_of_files_that_cannot_be_had_ends_in_a_sentence(hub, commits, settings_cached):
    hub.refuse_once[f"/api/models/tiny/sharded/revision/{commits.sharded.sha}"] = 429
    (printed,) = lines(settings_cached, hub, "find_settings('tiny/sharded')")
    assert printed == "HubError: tiny/sharded could not be downloaded: the Hub answered 429; run it again later"
    hub.lists_sizes = False
    (printed,) = lines(settings_cached, hub, "find_settings('tiny/sharded')")
    assert printed.startswith("HubError: the Hub does not list the size of consolidated.safetensors in tiny/sharded;")


def test_the_hash_of_a_remote_shard_is_the_one_that_the_hub_states(hub, commits, settings_cached):
    (printed,) = lines(settings_cached, hub, f"print(shard_sha256(kept(), {SHARDS[1]!r}))")
    assert printed == commits.sharded.files[SHARDS[1]]
    assert hub.asked == []


def test_the_settings_of_a_folder_are_the_folder():
    assert find_settings(str(CHECKPOINT)) == ModelFolder(CHECKPOINT)
    assert not find_settings(str(CHECKPOINT)).remote_weights
    assert find_settings(str(CHECKPOINT)).remote_files == ()
    with pytest.raises(CheckpointError, match="lacks the shard model"):
        remote_header(ModelFolder(CHECKPOINT), WEIGHTS)
    with pytest.raises(UsageError, match="is a local folder, which does not have a revision main"):
        find_settings(str(CHECKPOINT), "main")


@pytest.mark.parametrize(
    ("repository", "env", "printed"),
    [
        ("tiny/sharded", {}, []),
        ("tiny/unknown", {}, [f"HubError: tiny/unknown {UNREADABLE}"]),
        ("tiny/gated", {"HF_TOKEN": TOKEN}, ["HubError: tiny/gated is gated"]),
        ("tiny/down", {}, []),  # a failure of the Hub's own says nothing of the repository
        ("tiny/unknown", {"HF_HUB_OFFLINE": "1"}, []),
        ("no such model", {}, ["CheckpointError: no such model is not a readable folder"]),
    ],
)
def test_a_model_is_required_with_no_weights_downloaded_and_only_a_no_is_an_error(
    hub, tmp_path, repository, env, printed
):
    found = lines(tmp_path, hub, f"require_model({repository!r})", **env)
    assert len(found) == len(printed)
    assert all(line.startswith(start) for line, start in zip(found, printed, strict=True))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_without_a_config_that_we_know_is_not_the_model_that_is_required(tmp_path):
    require_model(str(CHECKPOINT))
    with pytest.raises(CheckpointError):
        require_model(str(tmp_path))


WATCHED = """
import sys
from olmocr.hub.find import find_model
find_model(sys.argv[1], on_stage=lambda stage: print(stage.done_bytes, stage.total_bytes, flush=True))
"""


def test_a_download_tells_how_many_bytes_are_there_and_nothing_where_all_are(hub, tmp_path):
    hub.seconds_a_piece = 0.005
    first, again = (python(tmp_path, hub, "-c", WATCHED, "tiny/sharded").stdout.splitlines() for _ in range(2))
    done, totals = zip(*(map(int, line.split()) for line in first), strict=True)
    assert len(set(totals)) == 1
    assert done[0] == 0
    assert list(done) == sorted(done)
    assert done[-1] == totals[0] > 12 << 20
    assert any(0 < each < totals[0] for each in done)
    assert again == []
