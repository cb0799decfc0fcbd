import stat
from pathlib import Path

import pytest

from olmocr.inputs.sources import Source
from olmocr.workspace.folder import open_workspace


def source(name):
    return Source(name, Path(name))


@pytest.mark.parametrize(
    ("first", "second"),
    [("A.pdf", "a.pdf"), ("in/Report.pdf", "IN/REPORT.PDF"), ("Straße.pdf", "STRASSE.pdf"), ("a.pdf", "a.png")],
)
def test_no_two_sources_have_one_path_on_a_disk_that_does_not_tell_large_letters_from_small(first, second, tmp_path):
    workspace = open_workspace(tmp_path)
    paths = [workspace.markdown_path(source(name)) for name in (first, second)]
    assert len({str(path.relative_to(tmp_path)).casefold() for path in paths}) == 2
    assert paths[0] == (tmp_path / "markdown" / first).with_suffix(".md"), "the first to come has the plain name"
    assert paths == [workspace.markdown_path(source(name)) for name in (first, second)], "in later runs, too"


def test_a_failure_takes_away_its_own_markdown_and_not_that_of_one_with_the_same_name_in_small_letters(tmp_path):
    workspace = open_workspace(tmp_path)
    kept = workspace.write_markdown(source("a.pdf"), "small")
    gone = workspace.write_markdown(source("A.pdf"), "large")
    workspace.write_failure(source("A.pdf"), "broken")
    assert (kept.read_text(), gone.exists()) == ("small", False)


def test_pages_are_written_by_their_numbers_and_those_of_an_earlier_reading_go(tmp_path):
    workspace = open_workspace(tmp_path)
    workspace.write_pages(source("in/a.pdf"), {1: "one", 2: "two", 10: "ten"})
    workspace.write_pages(source("in/a.pdf"), {2: "zwei", 10: "zehn"})
    workspace.write_pages(source("a.pdf"), {1: "another's"})
    written = sorted((path.name, path.read_text()) for path in (tmp_path / "pages").rglob("0*.md"))
    assert written == [("0001.md", "another's"), ("0002.md", "zwei"), ("0010.md", "zehn")]


def test_markdown_goes_to_another_folder_with_what_tells_whose_it_is(tmp_path):
    workspace = open_workspace(tmp_path / "ws", tmp_path / "out")
    path = workspace.write_markdown(source("a.pdf"), "text")
    assert (path, path.read_text()) == (tmp_path / "out" / "a.md", "text")
    assert len(list((tmp_path / "out" / ".olmocr-owners").iterdir())) == 1
    assert not (tmp_path / "ws" / "markdown").exists()


def test_a_new_workspace_is_its_owners_alone_and_one_that_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o755)
    modes = [stat.S_IMODE(open_workspace(tmp_path / name).folder.stat().st_mode) for name in ("new", "shared")]
    assert modes == [0o700, 0o755]
