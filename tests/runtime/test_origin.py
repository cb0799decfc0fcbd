"""Where this package can be had, as a card says it."""

import json
import re
import tomllib

import pytest

from olmocr.runtime.extras import DISTRIBUTION, REPOSITORY
from olmocr.runtime.origin import find_repository, package_repository
from tests.conftest import ROOT

GIT = {"url": "https://example.org/me/olmocr-mlx.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}}


def test_what_was_installed_from_a_repository_can_be_had_there():
    assert find_repository(json.dumps(GIT), ["Homepage, https://example.org/other"]) == GIT["url"]


def test_what_the_package_says_of_itself_counts_next():
    assert find_repository(None, ["Docs, https://a.org/d", "Repository, https://a.org/r"]) == "https://a.org/r"


@pytest.mark.parametrize(
    "url",
    ["https://me:secret@example.org/x", "ssh://git@example.org/x", "https://example.org/x'; ls", "file:///home/me/x"],
)
def test_an_address_with_a_login_or_of_this_machine_is_none(url):
    assert find_repository(json.dumps({**GIT, "url": url}), [f"Repository, {url}"]) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "file:///home/me", "dir_info": {"editable": true}}'])
def test_what_was_recorded_of_a_folder_or_is_damaged_is_passed_over(text):
    assert find_repository(text, []) is None


def test_this_package_is_looked_for_under_the_name_of_its_distribution():
    assert package_repository.__defaults__ == (DISTRIBUTION, REPOSITORY)


def test_the_public_address_counts_whatever_the_installation_recorded():
    assert package_repository(public="https://example.org/olmocr") == "https://example.org/olmocr"


def test_the_project_file_names_the_same_public_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project.get("urls", {}).get("Repository") == REPOSITORY


@pytest.mark.parametrize("card", sorted((ROOT / "model_cards").glob("*.md")), ids=lambda path: path.stem)
def test_no_kept_card_names_another_address_for_this_package(card):
    named = re.findall(rf"{DISTRIBUTION}[^\n]*git\+([^'\s]+)", card.read_text())
    assert named == ([REPOSITORY] if REPOSITORY else [])


def test_a_package_that_is_not_installed_is_nowhere():
    assert package_repository("no-such-package-anywhere") is None
