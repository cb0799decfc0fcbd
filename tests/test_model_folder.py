"""Models by folder and from a Hub: the real client against a real server on the loopback interface."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from olmocr.errors import CheckpointError, ExitCode, UsageError
from olmocr.model_folder import (
    INDEX_FILE,
    ModelFolder,
    find_model,
    find_settings,
    read_config,
    read_json,
    remote_header,
    remote_shards,
    shard_sha256,
)
from tests.conftest import CHECKPOINT
from tests.hub_server import TOKEN, Commit, Cut, HubServer, Repository

# huggingface_hub 1 does not go on where a download stopped, and words a malformed endpoint as an error of httpx.
since_client_2 = pytest.mark.skipif(version("huggingface_hub").startswith("1."), reason="huggingface_hub 1")

WEIGHTS = "model.safetensors"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
FIND = "import sys, olmocr.model_folder as m; f = m.find_model(*sys.argv[1:]); print(f.path, f.revision, sep='\\n')"

# A few lines of Python that use the module. A folder that is kept can be taken up by the lines of a later process.
STEPS = """
import pickle, sys
from dataclasses import replace
from pathlib import Path
from olmocr.errors import OlmocrError
from olmocr.model_folder import *

def keep(folder):
    Path("kept").write_bytes(pickle.dumps(folder))

def kept():
    return pickle.loads(Path("kept").read_bytes())

try:
    exec(sys.argv[1])
except OlmocrError as error:
    print(f"{type(error).__name__}: {error}")
"""

# The command, several times in one process: its imports take longer than all of its refusals.
EACH_COMMAND = """
import json, sys
from typer.testing import CliRunner
from olmocr.convert_to_mlx import app
for *args, token in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, args, env={"HF_TOKEN": token})
    print(json.dumps([result.exit_code, result.output]))
"""
UNREADABLE = "is neither a folder here nor a repository on the Hub that you may read; check the name, or set HF_TOKEN"
REFUSED = {
    ("tiny/unknown", TOKEN): f"tiny/unknown {UNREADABLE}",
    ("tiny/unknown", None): f"tiny/unknown {UNREADABLE}",
    ("tiny/private", None): f"tiny/private {UNREADABLE}",
    ("tiny/olmocr", "--revision", "nope", None): "tiny/olmocr has no revision nope; choose a branch, tag or commit",
    ("tiny/gated", TOKEN): "tiny/gated is gated: accept its terms on the Hub, then set HF_TOKEN or run 'hf auth login'",
    ("tiny/disabled", TOKEN): "the Hub refuses tiny/disabled (403); check that HF_TOKEN is valid",
    ("tiny/down", None): "tiny/down could not be downloaded: the Hub answered 500; run it again",
    ("tiny/olmocr", "hf_expired"): "the Hub refuses tiny/olmocr (401); check that HF_TOKEN is valid",
    ("tiny/olmocr", "hf_pasted\fbadly"): "tiny/olmocr could not be downloaded: Illegal header value b'Bearer ***; run",
}


@pytest.fixture(scope="module")
def commits(tmp_path_factory):
    """The demo checkpoint with a pickle and code beside it, the same with another top_k; a small one, and its past."""
    root = tmp_path_factory.mktemp("commits")
    shutil.copytree(CHECKPOINT, root / "main")
    (root / "main" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (root / "main" / "modeling.py").write_text("raise SystemExit('code from a repository was run')")
    shutil.copytree(root / "main", root / "draft")
    generation = json.loads((CHECKPOINT / "generation_config.json").read_text())
    (root / "draft" / "generation_config.json").write_text(json.dumps({**generation, "top_k": 77}))
    (root / "small").mkdir()
    (root / "small" / "config.json").write_text("{}")
    # The client takes 10 MiB at once: it needs more to have something to go on from.
    (root / "small" / WEIGHTS).write_bytes(bytes(range(256)) * (12 << 12))
    (root / "older").mkdir()
    (root / "older" / "config.json").write_text("{}")
    (root / "pickled").mkdir()
    (root / "pickled" / "config.json").write_text("{}")
    (root / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    make_shards(root / "sharded")
    return SimpleNamespace(**{each.name: Commit(each) for each in root.iterdir()})


def make_shards(folder):
    """Make a checkpoint of a large shard, one with a header longer than a first request, and what no index names."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}))
    save_file({"a": np.arange(3 << 20, dtype=np.float32)}, folder / SHARDS[0])
    save_file({"b": np.ones(4, dtype=np.float32)}, folder / SHARDS[1], {"note": "long " * 60_000})
    save_file({"a": np.zeros(4, dtype=np.float32)}, folder / "consolidated.safetensors")
    (folder / "original").mkdir()
    save_file({"a": np.zeros(4, dtype=np.float32)}, folder / "original" / WEIGHTS)


@pytest.fixture(scope="module")
def running_hub(commits):
    repositories = {"tiny/olmocr": Repository({"main": commits.main, "draft": commits.draft})}
    repositories["tiny/sharded"] = Repository({"main": commits.sharded})
    repositories["tiny/pickled"] = Repository({"main": commits.pickled})
    repositories["tiny/older"] = Repository({"main": commits.older})
    for access in ("public", "private", "gated", "disabled", "down"):
        repositories[f"tiny/{access}"] = Repository({"main": commits.small, "older": commits.older}, access)
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def hub(running_hub):
    for record in (running_hub.asked, running_hub.sent, running_hub.cut_once, running_hub.refuse_once):
        record.clear()
    running_hub.knows_ranges = running_hub.lists_sizes = True
    return running_hub


@pytest.fixture(scope="module")
def refusals(running_hub, tmp_path_factory):
    process = python(tmp_path_factory.mktemp("refusals"), running_hub, "-c", EACH_COMMAND, json.dumps(list(REFUSED)))
    return dict(zip(REFUSED, map(json.loads, process.stdout.splitlines()), strict=True))


@pytest.fixture(scope="module")
def settings_cached(running_hub, tmp_path_factory):
    """Return a folder in whose cache are the settings of tiny/sharded, and no weights."""
    folder = tmp_path_factory.mktemp("settings")
    kept_settings(folder, running_hub)
    return folder


def python(folder, hub, *args, **env):
    """Run Python in *folder*, with an empty cache there. The client reads its environment when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not re.match(r"HF_|HUGGING|.*_proxy$", name, re.I)}
    switched_off = dict.fromkeys(("DISABLE_XET", "DISABLE_TELEMETRY", "DISABLE_PROGRESS_BARS"), "1")
    env = {
        **kept,
        **{f"HF_HUB_{name}": value for name, value in switched_off.items()},
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "home"),
        **env,
    }
    return subprocess.run([sys.executable, *args], env=env, cwd=folder, capture_output=True, text=True, timeout=60)


def convert(folder, hub, model, *options, **env):
    command = ["-m", "olmocr.convert_to_mlx", model, "--no-smoke-test", "-q", "4bit", "-o", "out", *options]
    return python(folder, hub, *command, **env)


def lines(folder, hub, steps, **env):
    """Run *steps* in a process of their own; return the lines that they print."""
    process = python(folder, hub, "-c", STEPS, steps, **env)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def the_error(process):
    """Return the one line that a failed command prints."""
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def report(folder):
    return json.loads((folder / "out" / "conversion_report.json").read_text())


def test_a_repository_is_converted_without_asking_for_its_pickle_and_code(hub, commits, tmp_path):
    process = convert(tmp_path, hub, "tiny/olmocr")
    assert (process.returncode, process.stderr) == (ExitCode.OK, "")
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


def test_without_a_network_the_command_ends_within_seconds(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers, and nobody else can take it
        started = time.monotonic()
        hub = SimpleNamespace(endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}")
        process = convert(tmp_path, hub, "a/b")
    assert process.returncode == ExitCode.HUB
    assert the_error(process).startswith("a/b is no folder here, and the Hub cannot be reached; check the network")
    assert time.monotonic() - started < 10


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
def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub, commits, tmp_path):
    hub.cut_once[WEIGHTS] = Cut(11 << 20, "closed")
    path, _ = python(tmp_path, hub, "-c", FIND, "tiny/public").stdout.splitlines()
    assert (Path(path) / WEIGHTS).read_bytes() == (commits.small.folder / WEIGHTS).read_bytes()
    assert [asked.byte_range for asked in hub.asked if asked.path == WEIGHTS] == [None, None, f"bytes={10 << 20}-"]


def test_a_connection_that_is_reset_ends_in_a_sentence_and_a_second_run_completes(hub, commits, tmp_path):
    hub.cut_once[SHARDS[1]] = Cut(12 << 20, "reset")
    process = convert(tmp_path, hub, "tiny/olmocr")
    if process.returncode != ExitCode.OK:  # the client goes on by itself where the reset meets it between two reads
        assert process.returncode == ExitCode.HUB
        assert the_error(process).endswith("; run it again, files that are whole are kept")
        assert not (tmp_path / "out").exists()
        assert convert(tmp_path, hub, "tiny/olmocr").returncode == ExitCode.OK
    assert report(tmp_path)["source"]["name"] == "tiny/olmocr"


def test_a_folder_is_taken_before_a_repository_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny/olmocr").mkdir(parents=True)
    assert find_model("tiny/olmocr") == ModelFolder(Path("tiny/olmocr"))


@pytest.mark.parametrize("name", ["./missing", "a/b/c", "olmocr", "a/b--c", "~nobody-here/model", "n" * 300, __file__])
def test_what_is_neither_a_folder_nor_a_repositorys_name_is_no_checkpoint(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as error:
        find_model(name)
    assert str(error.value).startswith(f"{name} is no folder that can be read; give a model's folder, or a Hub")
    assert error.value.exit_code == ExitCode.BAD_CHECKPOINT


def folder_with(path, config):
    path.mkdir()
    (path / "config.json").write_text(config)
    return ModelFolder(path)


def test_a_folder_without_config_json_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no checkpoint: it has no config\.json"):
        read_config(ModelFolder(tmp_path))


@pytest.mark.parametrize("text", [b'{"architectures": [', b"\xff", b"[" * 100_000], ids=["cut", "not UTF-8", "deep"])
def test_broken_json_is_refused_with_the_files_name(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON: "):
        read_json(tmp_path / "config.json")


def test_a_json_list_is_no_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json holds no JSON object"):
        read_config(folder_with(tmp_path / "model", "[]"))


def test_another_architecture_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="is a Qwen2VLForConditionalGeneration, which is not supported"):
        read_config(folder_with(tmp_path / "model", '{"architectures": ["Qwen2VLForConditionalGeneration"]}'))


CONFIG = '{"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "_name_or_path": "%s"}'


@pytest.mark.parametrize(("folder", "config"), [("olmOCR-7B-0825", CONFIG % ""), ("m", CONFIG % "x/olmocr-7b-0725")])
def test_a_checkpoint_of_another_prompt_is_refused(tmp_path, folder, config):
    with pytest.raises(CheckpointError, match="trained on another prompt and would be asked wrongly; take allenai/"):
        read_config(folder_with(tmp_path / folder, config))


def test_a_config_of_olmocr_2_is_read():
    assert read_config(ModelFolder(CHECKPOINT)) == json.loads((CHECKPOINT / "config.json").read_text())


def test_a_revision_of_a_folder_is_refused():
    with pytest.raises(UsageError, match="is a folder here, which has no revision main"):
        find_model(str(CHECKPOINT), "main")


def asked_for(hub, file):
    return [asked for asked in hub.asked if asked.path == file]


def large_files(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]


def header_of(path):
    content = path.read_bytes()
    return content[: 8 + int.from_bytes(content[:8], "little")]


def kept_settings(folder, hub, model="tiny/sharded", **env):
    """Have a process find the settings of *model* and keep the folder for later ones; forget what it asked the Hub."""
    assert lines(folder, hub, f"keep(find_settings({model!r}))", **env) == []
    hub.asked.clear()
    hub.sent.clear()


FETCH = f"print(fetch_shard(kept(), {SHARDS[0]!r}, Path('shards'), patience=()).name)"


def test_settings_come_without_weights_at_one_commit(hub, commits, tmp_path):
    printed = lines(
        tmp_path,
        hub,
        "f = find_settings('tiny/sharded'); print(f.path, f.revision, f.remote_weights, remote_shards(f), sep='\\n')",
    )
    assert printed[1:] == [commits.sharded.sha, "True", str(("consolidated.safetensors", *SHARDS))]
    assert sorted(path.name for path in Path(printed[0]).iterdir()) == ["config.json", INDEX_FILE]
    assert not [asked for asked in hub.asked if asked.path.endswith(".safetensors")]


@pytest.mark.parametrize("shard", SHARDS, ids=["short", "longer than one request"])
def test_the_header_of_a_remote_shard_is_read_without_its_weights(hub, commits, tmp_path, shard):
    kept_settings(tmp_path, hub)
    (printed,) = lines(tmp_path, hub, f"h, n = remote_header(kept(), {shard!r}); print(h.hex(), n)")
    header = header_of(commits.sharded.folder / shard)
    assert printed == f"{header.hex()} {(commits.sharded.folder / shard).stat().st_size}"
    assert hub.sent[shard] <= len(header) + (128 << 10)
    assert not large_files(tmp_path)


def test_a_server_that_knows_no_ranges_sends_little_more_than_the_header(hub, commits, tmp_path):
    kept_settings(tmp_path, hub)
    hub.knows_ranges = False
    printed = lines(tmp_path, hub, f"for shard in {SHARDS}: print(remote_header(kept(), shard)[0].hex())")
    assert printed == [header_of(commits.sharded.folder / shard).hex() for shard in SHARDS]
    assert hub.sent[SHARDS[0]] < 4 << 20


def test_a_private_shard_is_fetched_with_a_token_that_only_the_hub_sees(hub, commits, tmp_path):
    kept_settings(tmp_path, hub, "tiny/private", HF_TOKEN=TOKEN)
    fetch = f"print(fetch_shard(kept(), {WEIGHTS!r}, Path('shards')))"
    assert lines(tmp_path, hub, fetch, HF_TOKEN=TOKEN) == [str(Path("shards", WEIGHTS))]
    assert {(asked.host, asked.with_token) for asked in hub.asked} == {("127.0.0.1", True), ("localhost", False)}
    assert lines(tmp_path, hub, f"remote_header(kept(), {WEIGHTS!r})")[0].startswith(
        f"HubError: tiny/private {UNREADABLE}"
    )


@pytest.mark.parametrize(
    ("content", "length"),
    [(b"", 0), (b"\x01\0", 1), (b"\x03" + bytes(7) + b"{}", 3), (b"\xff" * 8 + bytes(1 << 20), (1 << 64) - 1)],
    ids=["empty", "cut", "beyond the end", "absurd"],
)
def test_a_remote_header_of_impossible_length_is_a_damaged_file(tmp_path, content, length):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / WEIGHTS).write_bytes(content)
    with HubServer({"tiny/damaged": Repository({"main": Commit(tmp_path / "model")})}) as hub:
        read = f"remote_header(find_settings('tiny/damaged'), {WEIGHTS!r})"
        assert lines(tmp_path, hub, read) == [
            f"CheckpointError: {WEIGHTS} in tiny/damaged is damaged or no safetensors file: no header of {length} "
            f"bytes fits into its {len(content)}; choose another revision"
        ]


def test_a_header_that_breaks_off_ends_in_a_sentence(hub, tmp_path):
    kept_settings(tmp_path, hub)
    hub.cut_once[SHARDS[0]] = Cut(20, "closed")
    (printed,) = lines(tmp_path, hub, f"remote_header(kept(), {SHARDS[0]!r})")
    assert printed.startswith("HubError: tiny/sharded could not be downloaded: ")


def test_a_shard_that_the_repository_lacks_is_named(hub, tmp_path):
    kept_settings(tmp_path, hub)
    sentence = "CheckpointError: tiny/sharded lacks the shard x.safetensors; choose a repository or revision that is"
    for call in ("remote_header(kept(), 'x.safetensors')", "fetch_shard(kept(), 'x.safetensors', Path('shards'))"):
        (printed,) = lines(tmp_path, hub, call)
        assert printed.startswith(sentence)


@pytest.mark.parametrize(
    ("repository", "sentence"),
    [
        (
            "tiny/pickled",
            "tiny/pickled has its weights as pickle files only (pytorch_model.bin), which can run code and",
        ),
        ("tiny/older", "tiny/older is no checkpoint: it has no *.safetensors files"),
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
    assert printed.startswith(f"HubError: {repository} is no folder here, and the Hub cannot be reached; check the")


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
    assert printed.startswith("HubError: the Hub does not state the size of consolidated.safetensors in tiny/sharded;")


def test_a_shard_is_fetched_into_a_folder_and_not_into_the_cache(hub, commits, tmp_path):
    kept_settings(tmp_path, hub)
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]
    assert large_files(tmp_path) == [tmp_path / "shards" / SHARDS[0]]
    content = (tmp_path / "shards" / SHARDS[0]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == commits.sharded.files[SHARDS[0]]
    hub.asked.clear()
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]
    assert hub.asked == []


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_shard_that_breaks_off_is_gone_on_with_in_the_next_call(hub, commits, tmp_path, how):
    kept_settings(tmp_path, hub)
    hub.cut_once[SHARDS[0]] = Cut(5 << 20, how)
    (printed,) = lines(tmp_path, hub, FETCH)
    assert printed.startswith("HubError: tiny/sharded could not be downloaded: ")
    there = (tmp_path / "shards" / f"{SHARDS[0]}.incomplete").stat().st_size
    assert 0 < there <= 5 << 20
    hub.asked.clear()
    hub.sent.clear()
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]
    size = (commits.sharded.folder / SHARDS[0]).stat().st_size
    assert {asked.byte_range for asked in asked_for(hub, SHARDS[0])} == {f"bytes={there}-{size - 1}"}
    assert hub.sent[SHARDS[0]] == size - there
    assert large_files(tmp_path) == [tmp_path / "shards" / SHARDS[0]]


def test_a_shard_that_breaks_off_is_gone_on_with_by_a_server_that_knows_no_ranges(hub, tmp_path):
    kept_settings(tmp_path, hub)
    hub.cut_once[SHARDS[0]] = Cut(5 << 20, "closed")
    lines(tmp_path, hub, FETCH)
    hub.knows_ranges = False
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]


def test_a_shard_is_fetched_in_one_call_through_failures_that_pass(hub, tmp_path):
    kept_settings(tmp_path, hub)
    hub.refuse_once[SHARDS[0]] = 503
    hub.cut_once[SHARDS[0]] = Cut(5 << 20, "closed")
    assert lines(tmp_path, hub, FETCH.replace("patience=()", "patience=(0.01,)")) == [SHARDS[0]]
    assert hub.sent[SHARDS[0]] == (tmp_path / "shards" / SHARDS[0]).stat().st_size


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "the Hub refuses tiny/sharded (401); check that HF_TOKEN is valid"),
        (403, "the Hub refuses tiny/sharded (403); check that HF_TOKEN is valid"),
        (404, "tiny/sharded could not be downloaded: the Hub answered 404; run it again later"),
    ],
)
def test_a_shard_that_is_refused_is_not_asked_for_again(hub, settings_cached, status, sentence):
    hub.refuse_once[SHARDS[0]] = status
    (printed,) = lines(settings_cached, hub, FETCH.replace("patience=()", "patience=(3600,)"))
    assert printed.startswith(f"HubError: {sentence}")


@pytest.mark.parametrize("status", [429, 500])
def test_a_busy_hub_ends_in_a_sentence_when_patience_does(hub, settings_cached, status):
    hub.refuse_once[SHARDS[0]] = status
    (printed,) = lines(settings_cached, hub, FETCH)
    assert printed == f"HubError: tiny/sharded could not be downloaded: the Hub answered {status}; run it again later"


@pytest.mark.parametrize("wrong", ["{}.incomplete", "{}"], ids=["going on from it", "there already"])
@pytest.mark.parametrize("nbytes", [100, 13 << 20], ids=["other bytes", "too many"])
def test_a_shard_that_is_not_what_the_hub_lists_is_removed(hub, tmp_path, wrong, nbytes):
    kept_settings(tmp_path, hub)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / wrong.format(SHARDS[0])).write_bytes(b"x" * nbytes)
    (printed,) = lines(tmp_path, hub, FETCH)
    assert printed.startswith(f"HubError: {SHARDS[0]} of tiny/sharded is not the file that the Hub lists (by size or")
    assert list((tmp_path / "shards").iterdir()) == []
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]


def test_a_shard_that_is_shorter_than_the_hub_lists_ends_in_a_sentence(hub, commits, settings_cached, tmp_path):
    longer = "replace(kept(), remote_files=tuple(replace(each, size=each.size + 1) for each in kept().remote_files))"
    (printed,) = lines(settings_cached, hub, f"fetch_shard({longer}, {SHARDS[0]!r}, Path({str(tmp_path)!r}))")
    size = (commits.sharded.folder / SHARDS[0]).stat().st_size
    assert printed == (
        f"HubError: tiny/sharded could not be downloaded: {SHARDS[0]} ended after {size} bytes; run it again"
    )


def test_a_full_disk_is_an_output_error_and_what_is_there_is_kept(hub, tmp_path):
    kept_settings(tmp_path, hub)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    (printed,) = lines(tmp_path, hub, f"{limit}; {FETCH}")
    incomplete = Path("shards", f"{SHARDS[0]}.incomplete")
    assert printed.startswith(f"OutputError: the disk is full: {incomplete} could not be written; free some space")
    assert 0 < (tmp_path / incomplete).stat().st_size <= 1 << 20
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]


def test_a_folder_that_cannot_be_written_is_an_output_error(hub, settings_cached, tmp_path):
    (tmp_path / "file").touch()
    (printed,) = lines(settings_cached, hub, f"fetch_shard(kept(), {SHARDS[0]!r}, Path({str(tmp_path)!r}) / 'file')")
    assert printed.startswith(f"OutputError: {tmp_path / 'file' / SHARDS[0]}.incomplete could not be written: ")


def test_the_hash_of_a_remote_shard_is_the_one_that_the_hub_states(hub, commits, settings_cached):
    (printed,) = lines(settings_cached, hub, f"print(shard_sha256(kept(), {SHARDS[1]!r}))")
    assert printed == commits.sharded.files[SHARDS[1]]
    assert hub.asked == []


def test_the_hash_of_a_cached_shard_is_its_blobs_name(tmp_path):
    sha256, of_the_store = "ab" * 32, "cd" * 32
    (tmp_path / "blobs").mkdir()
    (tmp_path / of_the_store).touch()
    (tmp_path / "blobs" / sha256).symlink_to(tmp_path / of_the_store)
    (tmp_path / WEIGHTS).symlink_to(Path("blobs") / sha256)
    assert shard_sha256(ModelFolder(tmp_path, "a/b", "c"), WEIGHTS) == sha256


def test_a_shard_without_a_blob_of_that_name_has_no_hash(tmp_path):
    (tmp_path / "copied.safetensors").touch()
    (tmp_path / "git.safetensors").symlink_to("ab" * 20)
    (tmp_path / "linked.safetensors").symlink_to("ab" * 32)
    from_the_hub = ModelFolder(tmp_path, "a/b", "c")
    assert shard_sha256(from_the_hub, "copied.safetensors") is None
    assert shard_sha256(from_the_hub, "git.safetensors") is None
    assert shard_sha256(ModelFolder(tmp_path), "linked.safetensors") is None


def test_the_settings_of_a_folder_are_the_folder():
    assert find_settings(str(CHECKPOINT)) == ModelFolder(CHECKPOINT)
    assert not find_settings(str(CHECKPOINT)).remote_weights
    assert remote_shards(ModelFolder(CHECKPOINT)) == ()
    with pytest.raises(CheckpointError, match="lacks the shard model"):
        remote_header(ModelFolder(CHECKPOINT), WEIGHTS)
    with pytest.raises(UsageError, match="is a folder here, which has no revision main"):
        find_settings(str(CHECKPOINT), "main")
