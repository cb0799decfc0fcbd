"""A browser is found or named, and does not outlive a page, whatever it does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olmocr.errors import InputError
from olmocr.validate.bench.formulas import browser
from olmocr.validate.bench.formulas.browser import Browser, BrowserError, find_browser


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_one_that_is_named_is_taken_and_one_that_is_not_there_refused(tmp_path, monkeypatch):
    named = program(tmp_path / "a browser", "")
    assert find_browser(named) == Browser((str(named),))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser("a browser") == Browser((str(named),))
    with pytest.raises(InputError, match="is not a program that can be started; give a Chromium"):
        find_browser(tmp_path / "nothing")


def test_one_on_the_path_is_found_and_where_there_is_none_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert find_browser() is None
    brave = program(tmp_path / "brave-browser", "")
    assert find_browser() == Browser((str(brave),))
    chrome = program(tmp_path / "google-chrome", "")
    assert find_browser() == Browser((str(chrome),))


def test_on_macos_applications_are_looked_into(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    edge = program(tmp_path / "Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge", "")
    assert find_browser() == Browser((str(edge),))


def test_a_page_is_given_as_a_file_and_nothing_is_left(tmp_path):
    script = program(
        tmp_path / "browser", f'for last; do :; done; echo "$last" > {tmp_path}/page; cat "${{last#file://}}"'
    )
    assert Browser((str(script),)).dump("<p>a page</p>", 60) == "<p>a page</p>"
    page = Path((tmp_path / "page").read_text().strip().removeprefix("file://"))
    assert not page.parent.exists()


def test_one_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    script = program(tmp_path / "browser", f"sleep 600 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(BrowserError, match="did not draw a page within 1 s"):
        Browser((str(script),)).dump("", 1)
    child = (tmp_path / "child").read_text().strip()
    for _ in range(1000):  # killed, and then reaped by whoever has it now
        state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            break
        time.sleep(0.01)
    else:
        pytest.fail("the browser's child is still there")


def test_what_it_said_last_is_told(tmp_path):
    script = program(tmp_path / "browser", "echo first >&2; echo 'no display' >&2; echo >&2; exit 3")
    with pytest.raises(BrowserError, match="ended with status 3: no display"):
        Browser((str(script),)).dump("", 60)


def test_one_that_cannot_be_started_is_told(tmp_path):
    with pytest.raises(BrowserError, match="cannot be started: No such file"):
        Browser((str(tmp_path / "nothing"),)).dump("", 60)


def test_it_may_reach_no_network_and_has_a_profile_of_its_own(tmp_path):
    script = program(tmp_path / "browser", 'printf "%s\\n" "$@"')
    options = Browser((str(script),)).dump("", 60).splitlines()
    assert {"--headless=new", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"} <= set(
        options
    )
    (profile,) = [each for each in options if each.startswith("--user-data-dir=")]
    assert not Path(profile.partition("=")[2]).exists()
    assert ("--no-sandbox" in options) is (browser.sys.platform == "linux" and os.geteuid() == 0)
