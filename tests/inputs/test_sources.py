""""""

import os
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from olmocr.errors import InputError
from olmocr.inputs.archives import list_members, read_zip_member
from olmocr.inputs.limits import LIMITS
from olmocr.inputs.origins import ZipMember
from olmocr.inputs.sources import Source, find_sources
from olmocr.runtime.extras import install_command
from tests.inputs.documents import PDF, content_of, names, why, write, write_tar, write_zip
from tests.pipeline.doubles import write_pdf
from tests.work import lines_run


def test_a_file_is_given_once_however_it_is_spelled(here):
    write(here / "a.pdf")
    assert names("a.pdf", "./a.pdf", str(here / "a.pdf")) == ["a.pdf"]


def test_all_typing_errors_are_told_at_once(here):
    write(here / "a.pdf")
    with pytest.raises(InputError) as error:
        names("a.pdf", "b.pdf", "c.pdf", "*.png", "sub/", "ftp://x/a.pdf", "d.pdf", "e.pdf")
    assert str(error.value).startswith("there is no file b.pdf; there is no file c.pdf; no document matches *.png; ")
    assert str(error.value).endswith(" and 2 more; nothing was started")


def test_a_list_names_documents_seen_from_here_or_from_its_own_folder(here):
    for name in ("a.pdf", "lists/b.pdf", "in/c.pdf"):
        write(here / name)
    write(here / "lists/all.txt", "\ufeff# mine\n\na.pdf\r\n  b.pdf\nin\nlists/*.pdf\n".encode())
    assert names("lists/all.txt") == ["a.pdf", "lists/b.pdf", "in/c.pdf"]


def test_what_a_list_names_in_vain_is_that_documents_failure(here):
    write(here / "a.pdf")
    write(here / "all.txt", b"gone.pdf\na.pdf\nall.txt\n*.png\nftp://x/y.pdf\n")
    found = find_sources(["all.txt"])
    assert [source.name for source in found] == ["gone.pdf", "a.pdf", "all.txt", "*.png", "ftp://x/y.pdf"]
    assert why(found[0], here) == "there is no file gone.pdf (line 1 of all.txt)"
    assert "a list within a list" in why(found[2], here)
    assert why(found[3], here) == "no document matches *.png (line 4 of all.txt)"
    assert "only http://" in why(found[4], here)


def test_a_list_may_hold_names_that_are_no_unicode(here):
    name = os.fsdecode(b"caf\xe9.pdf")
    try:
        write(here / name)
    except OSError:
        pytest.skip("this disk takes unicode only")
    write(here / "all.txt", b"caf\xe9.pdf\n")
    (source,) = find_sources(["all.txt"])
    assert content_of(source, here) == PDF
    assert len(source.key) == 40


def test_a_list_that_is_not_text_is_refused(here):
    write(here / "a.txt", bytes(500))
    with pytest.raises(InputError, match=r"a\.txt is not a list of names: it is not text"):
        names("a.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_is_read_in_the_ways_in_which_editors_write_it(encoding, here):
    write_pdf(here / "é.pdf"), write_pdf(here / " b.pdf ")
    write(here / "all.txt", "# all\r\né.pdf\r\n b.pdf \n".encode(encoding))
    assert names("all.txt") == ["é.pdf", " b.pdf "]


@pytest.mark.parametrize(
    "entry",
    [b"a\0b.pdf", b"x" * 300, b"x/" * 3000, b"[", b"**/" * 50 + b"*.gif", b"~nobody/a.pdf", b"\xff\xfe.pdf", b"http://[",
     b"https://:99999/", b"s3://", b"ftp://x/a", b"all.txt", b"::", b"a.zip::b", b"\x1b[31m",
     b".", b"empty"],
)  # fmt: skip
def test_whatever_a_line_of_a_list_is_the_others_are_found(entry, here):
    write_pdf(here / "good.pdf")
    (here / "empty").mkdir()
    write(here / "all.txt", b"#" * 1100 + b"\n" + entry + b"\ngood.pdf\n")
    found = find_sources(["all.txt"])
    assert Source("good.pdf", Path("good.pdf")).key in [source.key for source in found]
    assert all(len(source.key) == 40 for source in found)


def test_a_store_whose_extra_is_not_installed_is_the_failure_of_a_lists_line(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    write_pdf(here / "good.pdf")
    write(here / "all.txt", b"gs://bucket/a.pdf\ngood.pdf\n")
    refused, good = find_sources(["all.txt"])
    assert install_command("gcs") in why(refused, here)
    assert good.name == "good.pdf"


def test_a_member_may_have_a_longer_name_than_a_file(here):
    write_zip(here / "a.zip", {"x" * 300 + ".pdf": PDF})
    (source,) = find_sources(["a.zip::" + "x" * 300 + ".pdf"])
    assert content_of(source, here) == PDF


def test_a_url_with_an_ipv6_address_is_not_an_archive(here):
    assert names("http://[::1]:1/a.pdf") == ["http://[::1]:1/a.pdf"]
    with pytest.raises(InputError, match="is an archive or a list on another machine"):
        names("http://host/a.zip::b.pdf")


def test_many_stars_in_a_row_take_no_longer_than_one(here):
    write_pdf(here / "/".join("d" * 40) / "a.pdf")
    (found,) = names("**/" * 40 + "*.pdf")
    assert found.endswith("d/a.pdf")


@pytest.mark.parametrize("name", ["a\0b.pdf", "\ud800.pdf"])
def test_a_name_that_no_file_can_have_is_told_as_a_typing_error(name, here):
    with pytest.raises(InputError, match="there is no file"):
        find_sources([name])


@pytest.mark.parametrize("extended", [b"1" * 50_000, b"30 path=" + b"2" * 2000 + b".pdf\n"])
def test_a_tar_whose_header_is_nothing_but_digits_is_refused_before_they_are_looked_through(extended, here):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(extended)
    (here / "all.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + extended + bytes(-len(extended) % 512 + 1024))
    with pytest.raises(InputError, match="a header with a number of more than 1024 digits"):
        list_members(here / "all.tar", "all.tar", LIMITS)


def test_a_member_of_a_tar_may_begin_with_as_many_digits_as_it_likes(here):
    write_tar(here / "all.tar", {"a.txt": b"1" * 5000, "a.pdf": PDF}, mode="w")
    assert [name for name, _ in list_members(here / "all.tar", "all.tar", LIMITS)] == ["all.tar::a.pdf"]


def test_what_a_member_of_a_zip_costs_does_not_grow_with_the_others(here):
    def cost(count):
        write_zip(here / f"{count}.zip", {f"{number}.pdf": PDF for number in range(count)})
        member = ZipMember(str(here / f"{count}.zip"), "7.pdf")
        assert b"".join(read_zip_member(member)) == PDF
        return lines_run(lambda: list(read_zip_member(member)))

    assert cost(400) < 2 * cost(20)


def test_a_zip_that_was_replaced_is_read_as_it_is_now(here):
    for content in (PDF, PDF + b"more"):
        write_zip(here / "new.zip", {"7.pdf": content})
        (here / "new.zip").replace(here / "a.zip")
        assert b"".join(read_zip_member(ZipMember(str(here / "a.zip"), "7.pdf"))) == content


def test_a_tar_with_a_damaged_header_is_read_up_to_there_and_says_so(here):
    path = write_tar(here / "a.tar", {"a.pdf": PDF, "b.pdf": PDF}, "w")
    data = bytearray((here / "a.tar").read_bytes())
    data[1024:1030] = b"broken"  # the second member's header
    write(here / "a.tar", bytes(data))
    good, rest = find_sources([path])
    assert content_of(good, here) == PDF
    assert "a.tar is damaged: 1 documents come before that" in why(rest, here)


def test_a_member_that_cannot_be_opened_does_not_stop_the_others(here):
    path = write_zip(here / "a.zip", {"notes": b"words", "b.pdf": PDF})
    data = (here / "a.zip").read_bytes()
    write(here / "a.zip", data.replace(b"PK\x03\x04", b"PK\x03\x05", 1))  # the header of the first
    (good,) = find_sources([path])
    assert content_of(good, here) == PDF


def test_a_member_whose_name_claims_to_be_unicode_and_is_not_is_read_like_the_others(here):
    path = write_zip(here / "a.zip", {"é.pdf": PDF, "b.pdf": PDF + b"b"})
    write(here / "a.zip", (here / "a.zip").read_bytes().replace("é".encode(), b"\xff\xfe"))
    assert [content_of(source, here) for source in find_sources([path])] == [PDF, PDF + b"b"]


def test_a_hundred_thousand_documents_fit_into_a_hundred_megabytes(here):
    count = 1000
    for number in range(count):
        write(here / f"some/folder/with-a-long-name/document-{number:06}.pdf", b"")
    tracemalloc.start()
    try:
        found = find_sources(["some"])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == count
    # Where names have several spellings the whole path is kept beside the name that was given.
    assert held / count < 1000 + 2 * len(str(here)), "bytes for each"
