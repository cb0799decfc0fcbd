import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.inputs import places
from olmocr.inputs.origins import Refused, WebFile
from olmocr.inputs.places import folded, place_in_store, place_of_file, place_of_url
from olmocr.inputs.sources import Source, find_sources


def test_every_way_to_spell_a_file_leads_to_one_place(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in/a.pdf"
    file.write_bytes(b"%PDF-1.4")
    (tmp_path / "link.pdf").symlink_to("in/a.pdf")
    (tmp_path / "elsewhere").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    spellings = ["in/a.pdf", "./in//a.pdf", "in/../in/a.pdf", str(file), "link.pdf", "elsewhere/a.pdf"]
    assert {place_of_file(each) for each in spellings} == {os.path.realpath(file)}
    (source,) = find_sources(spellings)
    assert source.name == "in/a.pdf"
    assert len(source.spellings) == 3, "its own path, and two links that lead to it"


def on_a_disk_that_folds(monkeypatch, folder):
    """Have every spelling of a file in *folder* lead to it, as on a Mac's disk."""
    lstat = os.lstat

    def folding(path):
        path = Path(path)
        found = [each for each in folder.iterdir() if folded(each.name) == folded(path.name)]
        return lstat(found[0] if path.parent == folder and found else path)

    monkeypatch.setattr(places.os, "lstat", folding)


@pytest.mark.parametrize(
    ("listed", "given"),
    [
        ("Report.PDF", "report.pdf"),
        (unicodedata.normalize("NFD", "é.pdf"), unicodedata.normalize("NFC", "é.pdf")),
        (unicodedata.normalize("NFC", "É.pdf"), unicodedata.normalize("NFD", "é.pdf")),
        ("1.pdf", "1.PDF"),
    ],
)
def test_a_disk_that_takes_two_spellings_for_one_has_one_place(listed, given, tmp_path, monkeypatch):
    folder = tmp_path.resolve()
    (folder / listed).write_bytes(b"x")
    on_a_disk_that_folds(monkeypatch, folder)
    assert place_of_file(folder / given) == place_of_file(folder / listed) == str(folder / listed)


def test_a_disk_that_tells_spellings_apart_has_a_place_for_each(tmp_path):
    for name in ("a.pdf", "A.pdf"):
        (tmp_path / name).write_bytes(b"x")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this disk takes both for one")
    assert place_of_file(tmp_path / "a.pdf") != place_of_file(tmp_path / "A.pdf")
    assert place_of_file(tmp_path / "gone.pdf") == str(tmp_path.resolve() / "gone.pdf")


@pytest.mark.parametrize(
    "spelling",
    [
        "HTTP://Host.org/a.pdf",
        "http://host.org:80/a.pdf",
        "http://host.org:/a.pdf",
        "http://host.org/x/../a.pdf",
        "http://host.org/./%61.pdf",
    ],
)
def test_a_url_has_one_place_however_it_is_spelled(spelling):
    assert place_of_url(spelling) == "http://host.org/a.pdf"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://h/a.pdf", "https://h/a.pdf"),
        ("http://h/a.pdf", "http://h/A.pdf"),
        ("http://h/a%2Fb.pdf", "http://h/a/b.pdf"),
        ("http://h/a.pdf?v=1", "http://h/a.pdf?v=2"),
        ("http://h:8080/a.pdf", "http://h/a.pdf"),
        ("http://me@h/a.pdf", "http://you@h/a.pdf"),
        ("http://[::1]/a.pdf", "http://[::2]/a.pdf"),
    ],
)
def test_urls_that_may_give_different_files_have_two_places(one, other):
    assert place_of_url(one) != place_of_url(other)


def test_a_password_that_was_changed_makes_no_other_document():
    assert place_of_url("https://me:old@h/a.pdf") == place_of_url("https://me:new@h/a.pdf")
    assert Source("https://h/a.pdf", WebFile("https://me:old@h/a.pdf")).key != Source("x", WebFile("https://h/b")).key


def test_one_store_has_one_name():
    assert place_in_store("ABFS://c", "c/a.pdf") == place_in_store("az://c", "c/a.pdf") == "az://c/c/a.pdf"


def test_what_is_refused_is_the_document_that_it_will_be_once_it_is_put_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = Source("a.pdf", Refused("no such file"))
    assert refused.key == Source("./a.pdf", tmp_path / "a.pdf").key
    assert Source("a.zip::b.pdf", Refused("why")).key == Source(f"{tmp_path}/a.zip::b.pdf", Refused("why")).key
    assert Source("ftp://h/a.pdf", Refused("why")).key != refused.key


@given(st.text("aA/.%2fZ?é"), st.sampled_from(["http", "https"]))
def test_the_place_of_a_place_is_itself(path, scheme):
    place = place_of_url(f"{scheme}://host/{path}")
    assert place_of_url(place) == place
    assert "/../" not in place.partition("?")[0]
