"""Small repositories, and processes that read them: the client reads its environment when it is imported."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from safetensors.numpy import save_file

from olmocr.model_folder import INDEX_FILE
from tests.hub_server import TOKEN

# huggingface_hub 1 does not go on where a download stopped, and words a malformed endpoint as an error of httpx.
since_client_2 = pytest.mark.skipif(version("huggingface_hub").startswith("1."), reason="huggingface_hub 1")


WEIGHTS = "model.safetensors"


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


FIND = "import sys, olmocr.hub.find as m; f = m.find_model(*sys.argv[1:]); print(f.path, f.revision, sep='\\n')"


# A few lines of Python that use the module. A folder that is kept can be taken up by the lines of a later process.
STEPS = """
import pickle, sys
from dataclasses import replace
from pathlib import Path
from olmocr.errors import OlmocrError
from olmocr.hub.find import *
from olmocr.hub.read import *
from olmocr.model_folder import shard_sha256

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


UNREADABLE = "is not a local folder, and not a repository on the Hub that you may read; check the name, or set HF_TOKEN"


REFUSED = {
    ("tiny/unknown", TOKEN): f"tiny/unknown {UNREADABLE}",
    ("tiny/unknown", None): f"tiny/unknown {UNREADABLE}",
    ("tiny/private", None): f"tiny/private {UNREADABLE}",
    ("tiny/olmocr", "--revision", "nope", None): "tiny/olmocr has no revision nope; choose an existing branch",
    ("tiny/gated", TOKEN): "tiny/gated is gated: accept its terms on the Hub, then set HF_TOKEN or run 'hf auth login'",
    ("tiny/disabled", TOKEN): "the Hub refuses tiny/disabled (403); check that HF_TOKEN is valid",
    ("tiny/down", None): "tiny/down could not be downloaded: the Hub answered 500; run it again",
    ("tiny/olmocr", "hf_expired"): "the Hub refuses tiny/olmocr (401); check that HF_TOKEN is valid",
    ("tiny/olmocr", "hf_pasted\fbadly"): "tiny/olmocr could not be downloaded: Illegal header value b'Bearer ***; run",
}


FETCH = f"print(fetch_shard(kept(), {SHARDS[0]!r}, Path('shards'), patience=()).name)"


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
