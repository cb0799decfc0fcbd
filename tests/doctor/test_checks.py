import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from olmocr.doctor.checks import PACKAGES, fit
from olmocr.runtime.machine import (
    available_memory,
    available_on_a_mac,
    chip,
    free_disk,
    hub_cache,
    is_port_free,
    total_memory,
)
from olmocr.runtime.versions import KNOWN_BAD, installed_version, known_bad, parse_version
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


def whys(package, version):
    return " ".join(bad.why for bad in known_bad(package, version))


@pytest.mark.parametrize(
    ("package", "version", "why"),
    [
        ("mlx-vlm", "0.3.5", "positions"),
        ("mlx-vlm", "0.6.2", "another model"),
        ("mlx-vlm", "0.6.4", "breaks image inputs"),
        ("mlx-vlm", "0.6.7", "breaks image inputs"),
        ("mlx-vlm", "0.6.13", "at the same time"),
        ("mlx-vlm", "0.7.3", "image before the text"),
        ("mlx-vlm", "0.8.0", "newer than"),
        ("mlx", "0.32.3", "older than mlx-vlm 0.7 needs"),
        ("transformers", "5.2.0", "cannot load Qwen2.5-VL"),
        ("transformers", "4.57.3", "older than"),
    ],
)
def test_a_version_that_is_known_to_be_bad_is_said_to_be(package, version, why):
    assert why in whys(package, version)


@pytest.mark.parametrize(
    ("package", "version"),
    [("mlx-vlm", "0.7.10"), ("mlx-vlm", "0.7.99"), ("mlx", "0.32.4"), ("transformers", "5.24.0")],
)
def test_a_good_version_is_not(package, version):
    assert whys(package, version) == ""


def test_each_fault_ends_with_the_version_that_mended_it():
    assert "image before the text" not in whys("mlx-vlm", "0.7.4")
    assert "breaks image inputs" not in whys("mlx-vlm", "0.6.8")
    assert "breaks image inputs" not in whys("mlx-vlm", "0.6.3")
    assert "cannot load" not in whys("transformers", "5.2.1")


def test_versions_are_compared_as_numbers():
    assert parse_version("0.10.1") > parse_version("0.9.12")
    assert parse_version("5.2.0rc1") == parse_version("5.2.0") == (5, 2, 0)
    assert parse_version("unknown") == ()


def test_every_package_of_which_something_is_known_is_looked_at():
    assert {bad.package for bad in KNOWN_BAD} <= set(PACKAGES)
    assert all(bad.wanted.partition(">")[0] == bad.package for bad in KNOWN_BAD)


def test_what_is_not_installed_has_no_version():
    assert installed_version("no-such-package-anywhere") is None
    assert installed_version("numpy")


def test_a_port_is_free_until_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_port_free(port)
    assert is_port_free(port)


def test_the_machine_has_a_chip_memory_and_a_disk(tmp_path):
    assert chip()
    assert GIB < total_memory() < 1 << 45
    assert 0 < available_memory() <= total_memory()
    there, not_yet = free_disk(tmp_path), free_disk(tmp_path / "not/yet/made")
    assert abs(there - not_yet) < GIB
    assert abs(there - shutil.disk_usage(tmp_path).free) < GIB


def test_what_a_mac_says_of_its_memory_is_understood():
    vm_stat = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               1000.\n"
        "Pages active:                           200000.\n"
        "Pages inactive:                           3000.\n"
        "Pages speculative:                         500.\n"
        "Pages wired down:                        90000.\n"
        "Pages purgeable:                           250.\n"
    )
    assert available_on_a_mac(vm_stat) == 4500 * 16384
    assert available_on_a_mac("") is None


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
    assert done.stdout.splitlines()[-1] == "to be mended: device"


def test_it_is_quick_since_it_loads_nothing_that_is_slow_to_load():
    code = "import sys; from olmocr.doctor.checks import check_machine; [*check_machine()]; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in run(command=[sys.executable, "-c", code]).stdout.split()}
    assert {"mlx", "olmocr"} <= loaded
    assert not loaded & {"mlx_vlm", "transformers", "torch", "numba", "pandas", "scipy", "PIL", "pypdfium2", "fastapi"}
