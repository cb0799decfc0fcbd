"""The recipes in deploy/ and docs/deploy.md: their files are well formed, and their commands are ones that exist."""

import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from configparser import RawConfigParser
from pathlib import Path

import pytest
import typer

from olmocr.pipeline.__main__ import app as read_app
from olmocr.serving.__main__ import _GRACE_SECONDS
from olmocr.serving.__main__ import app as serve_app
from olmocr.serving.limits import ServerLimits
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
DOCUMENT = (ROOT / "docs/deploy.md").read_text()
PLIST = plistlib.loads((DEPLOY / "org.olmocr.serve.plist").read_bytes())
COMMANDS = {"serve": typer.main.get_command(serve_app), "read": typer.main.get_command(read_app)}
SECONDS_TO_END = _GRACE_SECONDS + 5


def unit():
    """Return the sections of the unit; what is given several times is the last here."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(DEPLOY / "olmocr.service")
    return parser


def shown_commands():
    """Return the command lines in the document's blocks."""
    blocks = re.findall(r"^```sh no-run\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    return "".join(blocks).splitlines()


def arguments_of_olmocr(line):
    """Return what follows the command, or the image that is run, on a line."""
    words = shlex.split(line.partition(" > ")[0])
    (at,) = (number for number, word in enumerate(words) if word in ("olmocr", "olmocr:cuda"))
    return words[at + 1 :]


def every_command():
    yield unit()["Service"]["ExecStart"].split()[1:]
    yield PLIST["ProgramArguments"][1:]
    for line in shown_commands():
        if line.startswith(("docker run", "olmocr ")):
            yield arguments_of_olmocr(line)


@pytest.mark.parametrize("arguments", list(every_command()), ids=" ".join)
def test_each_command_of_olmocr_has_options_that_exist(arguments):
    is_server = arguments[0] == "serve"
    command = COMMANDS["serve" if is_server else "read"]
    context = command.make_context("olmocr", arguments[1:] if is_server else arguments)
    assert context.params["model"].startswith("mlx-community/")


def test_all_of_them_are_looked_at():
    assert len(list(every_command())) == 6
    assert sum(arguments[0] == "serve" for arguments in every_command()) == 5


def test_a_server_that_other_machines_reach_is_given_a_key():
    for line in shown_commands():
        if "--host 0.0.0.0" in line:
            assert "-e OLMOCR_API_KEY" in line


def test_the_files_that_the_commands_name_are_there():
    named = re.findall(r"(?<![\w/])(deploy/[\w.]+|demo/[\w./]+)", "\n".join(shown_commands()))
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_extras_that_are_installed_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    named = re.findall(r"EXTRAS=([\w,]+)", dockerfile + DOCUMENT) + re.findall(r"\.\[([\w,]+)\]", DOCUMENT)
    assert len(named) >= 5
    for each in named:
        assert set(each.split(",")) <= set(extras)
        assert "serve" in each.split(",") or each == "all"


INSTRUCTIONS = {"FROM", "RUN", "ARG", "ENV", "USER", "VOLUME", "WORKDIR", "EXPOSE", "ENTRYPOINT", "CMD"}


def test_the_dockerfile_has_instructions_that_exist_and_ends_as_a_user_without_rights():
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    words = [line.split(maxsplit=1) for line in lines]
    assert words[0][0] == "FROM"
    assert {instruction for instruction, _ in words} <= INSTRUCTIONS
    assert dict(words)["USER"] == re.search(r"--uid (\d+)", text)[1]
    assert dict(words)["ENTRYPOINT"] == '["olmocr"]'


def test_the_image_gets_what_the_package_is_built_of_and_no_more():
    """What hatchling reads: the package, and the files that pyproject.toml names."""
    kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"olmocr", "pyproject.toml", project["readme"], *project["license-files"]} <= kept
    assert [name for name in kept if not (ROOT / name).exists()] == []


def test_hadolint_has_nothing_to_say():
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


BASE_IMAGE = re.search(r"^FROM (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[1]


def builder():
    """Return a program that builds images and has the base image at hand; None if there is none."""
    for name in ("docker", "podman", "buildah"):
        program = shutil.which(name)
        look = ["inspect", "--type", "image"] if name == "buildah" else ["image", "inspect"]
        if program and subprocess.run([program, *look, BASE_IMAGE], capture_output=True).returncode == 0:
            return program
    return None


@pytest.mark.slow
def test_the_image_is_built_step_by_step():
    program = builder()
    if program is None:
        pytest.skip(f"nothing here builds images and has {BASE_IMAGE}")
    build = [program, "build", "-f", DEPLOY / "Dockerfile", "-t", "olmocr:tried", ROOT]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd here")
    there = tmp_path / "olmocr.service"  # systemd looks whether the program is there
    there.write_text((DEPLOY / "olmocr.service").read_text().replace("/opt/olmocr/bin/olmocr", sys.executable))
    done = subprocess.run([analyze, "verify", "--man=no", there], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_ends_well_and_is_not_started_again_where_that_is_of_no_use():
    service = unit()["Service"]
    assert service["SuccessExitStatus"] == "130"
    assert service["RestartPreventExitStatus"].split() == ["2", "3", "4"]
    assert int(service["TimeoutStopSec"]) > SECONDS_TO_END


def test_the_agent_has_the_keys_that_launchd_knows_with_values_of_their_types():
    types = {
        "Label": str, "ProgramArguments": list, "RunAtLoad": bool, "KeepAlive": dict, "ThrottleInterval": int,
        "ExitTimeOut": int, "ProcessType": str, "StandardOutPath": str, "StandardErrorPath": str,
    }  # fmt: skip
    assert {key: type(value) for key, value in PLIST.items()} == types
    assert PLIST["Label"] + ".plist" == "org.olmocr.serve.plist"
    assert Path(PLIST["ProgramArguments"][0]).name == "olmocr"
    assert PLIST["ExitTimeOut"] > SECONDS_TO_END
    assert PLIST["ProcessType"] in ("Background", "Standard", "Adaptive", "Interactive")
    assert "--host" not in PLIST["ProgramArguments"]


def test_the_proxies_let_through_what_the_server_takes():
    nginx, caddy = (DEPLOY / "nginx.conf").read_text(), (DEPLOY / "Caddyfile").read_text()
    mebibytes = ServerLimits.request_bytes >> 20
    assert f"client_max_body_size {mebibytes}m;" in nginx
    assert f"proxy_read_timeout {ServerLimits.answer_seconds:.0f}s;" in nginx
    assert "proxy_buffering off;" in nginx
    assert f"max_size {mebibytes}MiB" in caddy
    assert "flush_interval -1" in caddy


def test_nginx_takes_its_file(tmp_path):
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("nginx is not installed")
    server = re.sub(r"listen 443 ssl;|ssl_certificate.*;", "", (DEPLOY / "nginx.conf").read_text())
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {temporary} {server} }}")
    done = subprocess.run([nginx, "-t", "-p", tmp_path, "-e", "stderr", "-c", config], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_caddy_takes_its_file():
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("caddy is not installed")
    adapt = [caddy, "adapt", "--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile"]
    done = subprocess.run(adapt, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
