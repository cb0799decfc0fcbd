import stat
from pathlib import Path

import pytest

from olmocr.errors import UsageError
from olmocr.inputs.origins import Refused
from olmocr.inputs.sources import Source
from olmocr.workspace.folder import open_workspace, ours_or_beside, require_local


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
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".olmocr-owners", "a.md"]
    assert not (tmp_path / "ws" / "markdown").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", "mine", '{"error": "mine"}', "[" * 5000, "\udcff"])
def test_a_file_that_is_called_as_ours_and_is_not_stays(content, tmp_path):
    path = tmp_path / "failures.jsonl"
    path.write_text(content, errors="surrogateescape")
    assert ours_or_beside(path, {"Source-File", "error"}) == tmp_path / "olmocr-failures.jsonl"
    path.write_text('{"Source-File": "a.pdf", "error": "why"}\n{"Source-File": 7}\n')
    assert ours_or_beside(path, {"Source-File", "error"}) == path


@pytest.mark.parametrize(
    "source_name", ["x" * 300 + "/a.pdf", "\udcff/\udcfe.pdf", "a\0b.pdf", "y/" * 2000 + "a.pdf", "..", ""]
)
def test_whatever_a_source_is_called_its_markdown_can_be_written(source_name, tmp_path):
    workspace = open_workspace(tmp_path)
    found = Source(source_name, Refused("nothing there"))
    path = workspace.write_markdown(found, "text")
    assert path.read_text() == "text"
    assert tmp_path / "markdown" in path.parents
    str(path).encode()


def test_a_document_that_is_forgotten_leaves_nothing_and_its_name_is_free(tmp_path):
    workspace = open_workspace(tmp_path)
    workspace.write_markdown(source("a.pdf"), "one")
    workspace.write_pages(source("a.pdf"), {1: "one"})
    workspace.write_result(source("a.pdf"), {"text": "one"})
    workspace.forget(source("a.pdf").key)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".md", ".jsonl", ".json")]
    assert workspace.markdown_path(source("a.png")) == tmp_path / "markdown/a.md"


def test_markdown_of_earlier_runs_elsewhere_goes_when_it_is_stale(tmp_path):
    earlier = open_workspace(tmp_path / "ws", tmp_path / "out")
    stale = earlier.write_markdown(source("a.pdf"), "one", "id-1 front matter")
    now = open_workspace(tmp_path / "ws").with_markdown_elsewhere([tmp_path / "out", tmp_path / "unplugged"])
    now.remove_stale(source("a.pdf"), "id-1")
    assert stale.exists()
    now.remove_stale(source("a.pdf"), "id-2")
    assert not stale.exists()
    assert not (tmp_path / "unplugged").exists()


@pytest.mark.parametrize(
    "name", ["s3://b/ws", "S3A://b/ws", "gs://b", "abfss://c@a/ws", "hf://datasets/me/x", "s3:/b/ws", "x+y://z"]
)
def test_what_is_not_on_this_disk_is_refused(name):
    with pytest.raises(UsageError, match=r"^the workspace .* is not on this disk: name a folder here"):
        require_local(name, "the workspace")


@pytest.mark.parametrize("name", ["ws", "./s3:/ws", "a:b", "C:/ws", "s3", "in//out"])
def test_a_folder_may_be_called_almost_anything(name):
    assert require_local(name, "the workspace") == Path(name)


def test_a_new_workspace_is_its_owners_alone_and_one_that_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o755)
    modes = [stat.S_IMODE(open_workspace(tmp_path / name).folder.stat().st_mode) for name in ("new", "shared")]
    assert modes == [0o700, 0o755]
