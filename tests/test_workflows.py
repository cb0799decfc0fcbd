"""The workflows run what a person runs, on both systems and all Pythons, and hand nobody more than is needed."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.y*ml"))
TEXT = {path.name: path.read_text() for path in WORKFLOWS}
PARSED = {name: yaml.safe_load(text) for name, text in TEXT.items()}
# YAML 1.1 takes the key `on` for True.
JOBS = [(f"{name}:{job}", parsed["jobs"][job]) for name, parsed in PARSED.items() for job in parsed["jobs"]]
COMMANDS = "\n".join(step.get("run", "") for _, job in JOBS for step in job["steps"])


@pytest.mark.parametrize("name", TEXT)
def test_every_action_is_named_by_its_commit_with_the_version_beside_it(name):
    used = re.findall(r"uses:(.+)", TEXT[name])
    assert used
    assert [each for each in used if not re.fullmatch(r" actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)] == []


def test_one_action_has_one_version_everywhere():
    used = {tuple(each.split("@")) for text in TEXT.values() for each in re.findall(r"uses: (\S+@\S+)", text)}
    assert len(used) == len({action for action, _ in used})


@pytest.mark.parametrize("name", PARSED)
def test_a_workflow_may_read_the_repository_and_nothing_else(name):
    triggers = PARSED[name][True]
    assert PARSED[name]["permissions"] == {"contents": "read"}
    assert "group" in PARSED[name]["concurrency"]
    assert not {"pull_request_target", "workflow_run"} & set(triggers)
    assert "secrets" not in TEXT[name]


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_every_job_has_a_time_limit_and_keeps_no_credentials(name, job):
    assert 0 < job["timeout-minutes"] <= 350
    assert "permissions" not in job
    checkouts = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert [step["with"] for step in checkouts] == [{"persist-credentials": False}]


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_what_is_downloaded_is_kept_until_pyproject_changes(name, job):
    (python,) = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert (python["cache"], python["cache-dependency-path"]) == ("pip", "pyproject.toml")


@pytest.mark.parametrize("job", ["tests", "install"])
def test_tests_and_installs_run_on_both_systems_and_every_python_that_we_name(job):
    matrix = PARSED["tests.yml"]["jobs"][job]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == f">={matrix['python'][0]}"


def test_the_workflows_run_targets_and_scripts_that_are_there():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    run = set(re.findall(r"make ([\w-]+)", COMMANDS))
    assert {"demo", "test", "lint", "test-slow"} == run
    assert run <= targets
    assert ".ci/wheel" in COMMANDS
    assert (ROOT / ".ci/wheel").stat().st_mode & 0o111


def test_each_system_measures_itself_after_its_tests_and_shows_the_report():
    steps = [step.get("run", "") for step in PARSED["tests.yml"]["jobs"]["tests"]["steps"]]
    (measured,) = [number for number, step in enumerate(steps) if "olmocr.doctor --measure" in step]
    assert steps.index("make test PYTHON=python") < measured
    assert "machine_report.md" in steps[measured + 1]


def test_slow_tests_run_on_a_schedule_and_not_for_every_change():
    assert "schedule" in PARSED["slow.yml"][True]
    assert not {"push", "pull_request"} & set(PARSED["slow.yml"][True])
    assert "test-slow" not in TEXT["tests.yml"]


def test_actionlint_finds_nothing_in_them_and_something_in_a_broken_one(tmp_path):
    actionlint = Path(sys.executable).parent / "actionlint"
    assert subprocess.run([actionlint, *WORKFLOWS], capture_output=True, text=True).stdout == ""
    broken = tmp_path / "broken.yml"
    broken.write_text(TEXT["tests.yml"].replace("matrix.python", "matrix.pyton"))
    assert "pyton" in subprocess.run([actionlint, broken], capture_output=True, text=True).stdout
