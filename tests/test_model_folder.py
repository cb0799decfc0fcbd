"""Models by folder and from a Hub: the real client against a real server on the loopback interface."""

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

import pytest

from olmocr.errors import CheckpointError, ExitCode, UsageError
from olmocr.model_folder import ModelFolder, find_model, read_config, read_json
from tests.conftest import CHECKPOINT
from tests.hub_server import TOKEN, Commit, Cut, HubServer, Repository

# huggingface_hub 1 does not go on where a download stopped, and words a malformed endpoint as an error of httpx.
since_client_2 = pytest.mark.skipif(version("huggingface_hub").startswith("1."), reason="huggingface_hub 1")

WEIGHTS = "model.safetensors"
FIND = "import sys, olmocr.model_folder as m; f = m.find_model(*sys.argv[1:]); print(f.path, f.revision, sep='\\n')"

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
    return SimpleNamespace(**{each.name: Commit(each) for each in root.iterdir()})


@pytest.fixture(scope="module")
def running_hub(commits):
    repositories = {"tiny/olmocr": Repository({"main": commits.main, "draft": commits.draft})}
    for access in ("public", "private", "gated", "disabled", "down"):
        repositories[f"tiny/{access}"] = Repository({"main": commits.small, "older": commits.older}, access)
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def hub(running_hub):
    running_hub.asked.clear()
    return running_hub


@pytest.fixture(scope="module")
def refusals(running_hub, tmp_path_factory):
    process = python(tmp_path_factory.mktemp("refusals"), running_hub, "-c", EACH_COMMAND, json.dumps(list(REFUSED)))
    return dict(zip(REFUSED, map(json.loads, process.stdout.splitlines()), strict=True))


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
    command = ["-m", "olmocr.convert_to_mlx", model, "--quantize", "4bit", "-o", "out", *options]
    return python(folder, hub, *command, **env)


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
    assert (report(tmp_path)["source"], report(tmp_path)["revision"]) == ("tiny/olmocr", commits.main.sha)
    files = {asked.path for asked in hub.asked if not asked.path.startswith("/api/")}
    assert files == set(commits.main.files) - {"pytorch_model.bin", "modeling.py", "README.md"}


def test_a_repository_is_downloaded_at_the_revision_that_was_asked_for(hub, commits, tmp_path):
    assert convert(tmp_path, hub, "tiny/olmocr", "--revision", "draft").returncode == ExitCode.OK
    assert report(tmp_path)["revision"] == commits.draft.sha
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
    hub.cut_once[WEIGHTS] = Cut(1 << 20, "reset")
    process = convert(tmp_path, hub, "tiny/public")
    assert process.returncode == ExitCode.HUB
    assert the_error(process).endswith("; run it again, files that are whole are kept")
    path, _ = python(tmp_path, hub, "-c", FIND, "tiny/public").stdout.splitlines()
    assert (Path(path) / WEIGHTS).read_bytes() == (commits.small.folder / WEIGHTS).read_bytes()


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
