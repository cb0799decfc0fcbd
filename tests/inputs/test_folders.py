"""Folders and patterns: which documents they stand for."""

import os

import pytest

from olmocr.inputs.sources import find_sources
from tests.inputs.documents import names, why, write


def test_a_folder_stands_for_the_documents_below_it_in_order(here):
    for name in (
        "in/b.pdf",
        "in/a/z.PNG",
        "in/a/y.tiff",
        "in/notes.md",
        "in/.hidden.pdf",
        "in/.git/a.pdf",
        "in/c.jpeg",
    ):
        write(here / name)
    write(here / "in/notes.md", b"# plain")
    write(here / "in/no-ending", b"%PDF-1.7")
    write(here / "in/script.py", b'if b"%PDF-" in start: pass')
    found = names("in")
    assert found == ["in/a/y.tiff", "in/a/z.PNG", "in/b.pdf", "in/c.jpeg", "in/no-ending"]
    assert names("in/") == found


def test_a_folder_that_leads_back_into_itself_is_walked_once(here):
    write(here / "in/a/b.pdf")
    for at in ("in/again", "in/a/up", "in/a/down"):
        (here / at).symlink_to(here / "in", target_is_directory=True)
    (here / "in/broken.pdf").symlink_to("nothing.pdf")
    (here / "in/self.pdf").symlink_to("self.pdf")
    assert names("in") == ["in/a/b.pdf"]
    assert names("in/**/*.pdf") == ["in/a/b.pdf"]


def test_a_workspace_within_the_folder_that_is_read_is_left_alone(here):
    write(here / "in/a.pdf")
    write(here / "in/ws/page.png")
    assert names("in", "in/**/*.p*", apart_from=here / "in/ws") == ["in/a.pdf"]
    assert names("in", apart_from=here / "not-made-yet") == ["in/a.pdf", "in/ws/page.png"]
    assert names("in/ws/page.png", apart_from=here / "in/ws") == ["in/ws/page.png"], "it was named"


def test_a_folder_that_may_not_be_entered_is_a_failure_and_not_a_silence(here):
    write(here / "in/a.pdf")
    write(here / "in/locked/b.pdf")
    (here / "in/locked").chmod(0)
    try:
        if os.access(here / "in/locked", os.R_OK):
            pytest.skip("this user may enter every folder")
        one, two = find_sources(["in"])
    finally:
        (here / "in/locked").chmod(0o700)
    assert one.name == "in/a.pdf"
    assert "in/locked cannot be read: Permission denied" in why(two, here)


def test_nothing_but_files_is_read_in_a_folder(here):
    os.mkfifo(here / "pipe.pdf")
    write(here / "a.pdf")
    assert names(".") == ["./a.pdf"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("in/*.pdf", ["in/a.pdf"]),
        ("in/**/*.pdf", ["in/a.pdf", "in/x/b.pdf", "in/x/y/c.pdf"]),
        ("in/**", ["in/a.pdf", "in/x/b.pdf", "in/x/d.png", "in/x/y/c.pdf"]),
        ("**/x/*", ["in/x/b.pdf", "in/x/d.png"]),
        ("in/?/[bd].p*", ["in/x/b.pdf", "in/x/d.png"]),
        ("in/**/y/**/*.pdf", ["in/x/y/c.pdf"]),
    ],
)
def test_a_pattern_that_the_shell_left_alone_is_followed(pattern, found, here):
    for name in ("in/a.pdf", "in/x/b.pdf", "in/x/y/c.pdf", "in/x/d.png"):
        write(here / name)
    write(here / "in/x/words.csv", b"a,b")
    assert names(pattern) == found
    assert names(str(here / pattern)) == [str(here / name) for name in found]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(here):
    write(here / "a[1].pdf")
    write(here / "a1.pdf")
    assert names("a[1].pdf") == ["a[1].pdf"]
