"""A Hub on the loopback interface with small repositories in it."""

import json
import shutil
from types import SimpleNamespace

import pytest

from tests.conftest import CHECKPOINT
from tests.hub.repositories import EACH_COMMAND, REFUSED, WEIGHTS, kept_settings, make_shards, python
from tests.hub_server import Commit, HubServer, Repository


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


@pytest.fixture
def settings_kept(settings_cached, tmp_path):
    """Keep the settings of tiny/sharded in *tmp_path*, as kept_settings does there in a process of its own."""
    shutil.copy(settings_cached / "kept", tmp_path)
