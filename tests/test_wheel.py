"""What is built is whole: a wheel that is installed has the command, and all files that are not Python."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Return a fresh virtual environment with the wheel in it and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    (wheel,) = built.glob("*.whl")
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return folder


def run(folder, *command):
    """Run a command of *folder*'s; only the outside libraries are those of the tests' own environment."""
    own = next(folder.glob("lib/python*/site-packages"))
    environment = os.environ | {"PYTHONPATH": f"{own}{os.pathsep}{sysconfig.get_path('purelib')}"}
    done = subprocess.run(
        [folder / "bin" / command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def data_files():
    """Return the files of the package that are not Python, by their path in it."""
    tracked = subprocess.run(["git", "ls-files", "olmocr"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    return {path for path in tracked if not path.endswith(".py")}


def test_the_wheel_has_every_file_that_is_not_python(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name.startswith("olmocr_mlx-")
    assert "olmocr/hub/known_models.toml" in names
    assert data_files() - names == set()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"olmocr"}


def test_the_source_distribution_has_the_package_and_its_docs_and_nothing_else(built):
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    top = {"olmocr", "docs", "deploy", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO"}
    assert data_files() - names == set()
    assert {"docs/deploy.md", "deploy/Dockerfile", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert {name.split("/")[0] for name in names} <= top | {".gitignore"}


def test_the_command_of_an_installed_wheel_is_called_olmocr(installed):
    assert "olmocr FILE.pdf" in run(installed, "olmocr", "help")
    assert re.fullmatch(r"olmocr [\d.]+\n", run(installed, "olmocr", "--version"))


def test_an_installed_wheel_finds_its_data(installed):
    code = """
import json, olmocr
from olmocr.conversion.recipe import find_recipe
from olmocr.hub.known_models import known_models
print(json.dumps([olmocr.__file__, len(known_models()), find_recipe("mixed").name]))
"""
    where, models, recipe = json.loads(run(installed, "python", "-c", code))
    assert Path(where).is_relative_to(installed)
    assert models >= 2
    assert recipe == "mixed"


def test_an_installed_wheel_says_that_a_machine_is_measured_in_a_clone(installed):
    code = """
from olmocr.doctor.measure.terms import find_demo
try:
    find_demo()
except Exception as error:
    print(type(error).__name__, error)
"""
    said = run(installed, "python", "-P", "-c", code)
    assert said.startswith("UsageError measuring a machine needs the demo checkpoint and its pages: they are not here")


def test_what_a_missing_extra_is_installed_with_names_the_wheel(built, installed):
    (wheel,) = built.glob("*.whl")
    code = "from olmocr.runtime.extras import install_command; print(install_command('viewer'))"
    command = run(installed, "python", "-P", "-c", code)
    assert command.strip().endswith(f"'olmocr-mlx[viewer] @ {wheel.as_uri()}'")
    assert str(installed) in command


def test_all_has_every_extra_of_a_mac_and_mlx_has_what_its_smoke_test_needs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r"\[(.+)\]", extras["all"][0])
    elsewhere = {"all", "cuda", "torch", "s3", "gcs", "azure", "ray", "dev", "validate"}
    assert set(named.split(",")) == extras.keys() - elsewhere
    assert "olmocr-mlx[validate]" in extras["mlx"]
    assert "olmocr-mlx[validate]" in extras["cuda"]
