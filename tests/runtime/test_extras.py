"""A message that names an extra gives the command that installs it where the person is."""

import json
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.runtime.extras import (
    DISTRIBUTION,
    Installation,
    Origin,
    extras_of_metadata,
    extras_of_receipt,
    find_installation,
    install_command,
    parse_origin,
    upgrade_command,
)
from tests.conftest import ROOT

CLONE = Origin("/home/ada/olmocr", is_folder=True, is_editable=True)
GIT = parse_origin('{"url": "https://example.org/olmocr.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}')
RECEIPT = """
[tool]
requirements = [{ name = "olmocr-mlx", extras = ["mlx"], directory = "/home/ada/olmocr" }, { name = "rich" }]
entrypoints = [{ name = "olmocr", install-path = "/home/ada/.local/bin/olmocr", from = "olmocr-mlx" }]
"""


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (Installation(CLONE), "pip install --editable '/home/ada/olmocr[viewer]'"),
        (
            Installation(CLONE, python="/home/ada/olmocr/.venv/bin/python"),
            "/home/ada/olmocr/.venv/bin/python -m pip install --editable '/home/ada/olmocr[viewer]'",
        ),
        (Installation(Origin()), "pip install 'olmocr-mlx[viewer]'"),
        (Installation(Origin("/a folder", is_folder=True)), "pip install '/a folder[viewer]'"),
        (Installation(GIT), "pip install 'olmocr-mlx[viewer] @ git+https://example.org/olmocr.git@ab12'"),
        (Installation(Origin(), "uv"), "uv pip install 'olmocr-mlx[viewer]'"),
        (Installation(Origin(), "uv", "/v/bin/python"), "uv pip install --python /v/bin/python 'olmocr-mlx[viewer]'"),
        (Installation(Origin(), "uv tool", extras=("mlx",)), "uv tool install 'olmocr-mlx[mlx,viewer]'"),
        (Installation(CLONE, "uv tool"), "uv tool install --editable '/home/ada/olmocr[viewer]'"),
        (Installation(Origin(), "pipx", extras=("mlx", "viewer")), "pipx install --force 'olmocr-mlx[mlx,viewer]'"),
    ],
)
def test_the_command_is_the_one_that_works_where_the_person_is(place, command):
    assert install_command("viewer", installation=place) == command


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (Installation(CLONE), "pip install --upgrade 'mlx>=1'"),
        (Installation(Origin(), "uv", "/v/bin/python"), "uv pip install --python /v/bin/python --upgrade 'mlx>=1'"),
        (Installation(Origin(), "uv tool"), "uv tool upgrade olmocr-mlx"),
        (Installation(Origin(), "pipx"), "pipx inject --force olmocr-mlx 'mlx>=1'"),
    ],
)
def test_a_library_is_upgraded_where_the_person_is(place, command):
    assert upgrade_command("mlx>=1", installation=place) == command


def test_in_this_clone_the_command_names_this_clone():
    assert find_installation().origin == Origin(str(ROOT), is_folder=True, is_editable=True)
    assert install_command("viewer").endswith(f" --editable '{ROOT}[viewer]'")


@pytest.mark.parametrize(
    ("found", "origin"),
    [
        (None, Origin()),
        ("", Origin()),
        ("[]", Origin()),
        ('{"url": 7}', Origin()),
        ('{"url": "file:///a%20b", "dir_info": {}}', Origin("/a b", is_folder=True)),
        ('{"url": "file:///a", "dir_info": {"editable": true}}', Origin("/a", is_folder=True, is_editable=True)),
        ('{"url": "file:///w.whl", "archive_info": {}}', Origin("file:///w.whl")),
        ('{"url": "https://x.org/s.tar.gz", "archive_info": {}}', Origin("https://x.org/s.tar.gz")),
        (
            '{"url": "ssh://git@x.org/r", "vcs_info": {"vcs": "git", "requested_revision": "v1"}, "subdirectory": "p"}',
            Origin("git+ssh://git@x.org/r@v1#subdirectory=p"),
        ),
    ],
)
def test_where_the_package_came_from_is_read_as_installers_write_it(found, origin):
    assert parse_origin(found) == origin


@pytest.mark.parametrize("user", ["ada:secret", "secret"])
def test_a_password_in_an_address_is_not_shown(user):
    found = {"url": f"https://{user}@x.org/r.git", "vcs_info": {"vcs": "git", "commit_id": "ab"}}
    assert parse_origin(json.dumps(found)) == Origin("git+https://x.org/r.git@ab")


def test_a_tools_extras_are_kept():
    assert extras_of_receipt(RECEIPT) == ("mlx",)
    assert extras_of_metadata('{"main_package": {"package_or_url": "/home/ada/olmocr[mlx, heic]"}}') == ("mlx", "heic")
    assert extras_of_metadata('{"main_package": {"package_or_url": "/home/ada/olmocr"}}') == ()


@given(st.text() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner)).map(json.dumps))
def test_what_is_not_a_note_of_an_installer_says_nothing(text):
    assert extras_of_receipt(text) == extras_of_metadata(text) == ()
    assert parse_origin(text) == Origin()


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each, max_size=2))
KEYS = st.sampled_from(["url", "dir_info", "vcs_info", "vcs", "editable", "subdirectory", "main_package", "tool"])


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON)).map(json.dumps))
def test_whatever_a_note_holds_the_command_can_be_typed(text):
    command = install_command("viewer", installation=Installation(parse_origin(text), extras=extras_of_metadata(text)))
    assert "viewer" in shlex.split(command)[-1]


def test_no_message_of_the_package_gives_a_command_that_installs_upstreams():
    sources = [*(ROOT / "olmocr").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    wrong = re.compile(r"install [^\n]*['\"]olmocr\[")
    assert [str(path) for path in sources if wrong.search(path.read_text(encoding="utf-8"))] == []


def test_the_name_is_the_one_that_is_built():
    assert f'name = "{DISTRIBUTION}"' in (ROOT / "pyproject.toml").read_text()
