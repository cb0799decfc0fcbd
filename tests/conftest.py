"""What many tests stand on: the demo checkpoint, its pages with their true text, and a converted model."""

import json
import logging
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from olmocr.conversion.convert import convert as convert_checkpoint
from olmocr.runtime.device import start_mlx

# Hundreds of commands that tests start, and both workers, would compile all modules anew where Python was told to keep
# no bytecode, as in many containers.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Before any test module imports MLX or mlx-vlm, or the fast BLAS comes too late.
DEVICE = start_mlx()

# How long one example takes says how busy the machine is. What few examples miss, many find: make test-slow.
settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=400)
settings.load_profile("quick")

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "demo" / "checkpoint"
PAGES = ROOT / "demo" / "pages"


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """Return a function: recipe, method -> the demo checkpoint's folder converted so, made once a session."""
    folders = {}

    def convert(recipe, method="fit"):
        if (recipe, method) not in folders:
            folder = folders[recipe, method] = tmp_path_factory.mktemp("models") / recipe
            convert_checkpoint(CHECKPOINT, recipe, folder, method=method)
        return folders[recipe, method]

    return convert


@pytest.fixture(scope="session")
def truth():
    """Return {(PDF's name, page number): that page's entry in pages.json}."""
    entries = json.loads((PAGES / "pages.json").read_text())
    return {(entry["pdf"], entry["page"]): entry for entry in entries}


@pytest.fixture
def writable_hub(monkeypatch):
    """Yield a Hub that is empty; the client, which read its environment long ago, speaks LFS and not Xet to it."""
    from huggingface_hub import constants

    from tests.hub.hub_writes import WritableHub

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with WritableHub() as hub:
        yield hub


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """Let reports of names that are no Unicode pass between processes, which send UTF-8."""
    return _sendable((yield))


def _sendable(value):
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_sendable, value))
    return value


@pytest.fixture(autouse=True)
def _log_stays_as_it_was():
    """Undo what a command that a test runs in this process makes of the package's log, which hides it from caplog."""
    log = logging.getLogger("olmocr")
    log.propagate = True  # a fixture of several tests may have run a command before
    before = list(log.handlers), log.propagate, log.level
    yield
    log.handlers, log.propagate = list(before[0]), before[1]
    log.setLevel(before[2])
