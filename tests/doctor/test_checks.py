""""""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from olmocr.doctor.checks import fit
from olmocr.runtime.machine import hub_cache
from tests.conversion.sources import SEVEN_BILLION

DOCTOR = [sys.executable, "-m", "olmocr.doctor"]


GIB = 1 << 30


CONFIG = json.dumps(SEVEN_BILLION | {"architectures": ["Qwen2_5_VLForConditionalGeneration"]})


def run(*arguments, command=DOCTOR, **environment):
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=os.environ | environment
    )


def findings(done):
    return {each["name"]: each for each in json.loads(done.stdout)["findings"]}


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HF_HUB_CACHE": "/c"}, "/c"),
        ({"HF_HOME": "/h"}, "/h/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({}, str(Path("~/.cache/huggingface/hub").expanduser())),
    ],
)
def test_the_hubs_cache_is_where_its_client_looks(environment, folder, monkeypatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(hub_cache()) == folder


def test_a_model_fits_is_tight_or_does_not_fit():
    assert fit("m", 5 * GIB, 8 * GIB, 6 * GIB).state == "ok"
    assert fit("m", 5 * GIB, 8 * GIB, None).state == "ok"
    tight = fit("m", 7 * GIB, 8 * GIB, 6 * GIB)
    assert (tight.state, tight.advice) == ("warning", "only 6.0 GiB are available now: close other programs")
    too_large = fit("m", 9 * GIB, 8 * GIB, 6 * GIB)
    assert (too_large.state, too_large.value) == ("problem", "m needs 9.0 GiB to read a page, of 8.0 GiB")
    assert "fewer bits" in too_large.advice


def model_folder(path, size):
    path.mkdir()
    (path / "config.json").write_text(CONFIG)
    with (path / "model.safetensors").open("wb") as file:
        file.truncate(size)
    return path


def test_the_command_says_what_is_there_and_ends_well():
    done = run()
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == "ready to read pages"
    assert all(line.startswith(("ok ", "warning ", " ")) for line in lines[:-1])


def test_json_holds_the_same():
    done = run("--json", "--model", "/nowhere")
    assert json.loads(done.stdout)["ready"] is False
    found = findings(done)
    assert found["python"]["value"].startswith(sys.version.split()[0])
    assert found["device"]["state"] in ("ok", "warning")
    assert found["model"]["state"] == "problem"
    assert {"platform", "memory", "disk, here", "disk, Hub's cache", "port 8000", "port 30024"} <= found.keys()


def test_a_model_that_is_too_large_for_any_machine_is_a_problem(tmp_path):
    done = run("--json", "--model", model_folder(tmp_path / "large", 1 << 42))
    assert done.returncode == 3
    assert "does not fit" in findings(done)["model"]["advice"]


def test_a_model_that_is_small_fits(tmp_path):
    model = findings(run("--json", "--model", model_folder(tmp_path / "small", 1000)))["model"]
    assert model["value"].startswith("small needs 1.")


@pytest.mark.parametrize("config", ["{", "{}", '{"architectures": ["Other"]}', "[]", CONFIG[:-9]])
def test_a_model_that_is_none_is_a_problem_and_no_traceback(tmp_path, config):
    folder = model_folder(tmp_path / "model", 1000)
    (folder / "config.json").write_text(config)
    done = run("--json", "--model", folder)
    assert (done.returncode, done.stderr) == (3, "")
    assert findings(done)["model"]["state"] == "problem"


def test_without_mlx_the_command_says_how_to_get_it():
    code = "import sys; sys.modules['mlx.core'] = None; from olmocr.doctor.__main__ import app; app()"
    done = run(command=[sys.executable, "-c", code])
    assert done.returncode == 3
    assert "[mlx]'" in done.stdout
    assert done.stdout.splitlines()[-1] == "to fix: device"


def test_it_is_quick_since_it_loads_nothing_that_is_slow_to_load():
    code = "import sys; from olmocr.doctor.checks import check_machine; [*check_machine()]; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in run(command=[sys.executable, "-c", code]).stdout.split()}
    assert {"mlx", "olmocr"} <= loaded
    assert not loaded & {"mlx_vlm", "transformers", "torch", "numba", "pandas", "scipy", "PIL", "pypdfium2", "fastapi"}
