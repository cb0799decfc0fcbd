import io
import os
import pty
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.errors import InputError
from olmocr.extras import install_command
from olmocr.inputs.archives import list_members, read_zip_member
from olmocr.inputs.limits import LIMITS, InputLimits
from olmocr.inputs.local_file import local_file
from olmocr.inputs.origins import Refused, StandardInput, ZipMember
from olmocr.inputs.sources import Source, find_sources
from olmocr.rendering.image_file import MOST_PAGES, MOST_PIXELS
from tests.conftest import ROOT
from tests.pipeline.doubles import write_image, write_pdf
from tests.work import lines_run

PDF = b"%PDF-1.4 not really"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that is the working one, beside a scratch."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def write(path, content=PDF):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(*given, **options):
    return [source.name for source in find_sources(given, **options)]


def content(source, here, **options):
    with local_file(source, here.parent / "scratch", **options) as path:
        return path.read_bytes()


def why(source, here, **options):
    with pytest.raises(InputError) as error:
        content(source, here, **options)
    return str(error.value)


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def write_tar(path, members, mode="w:gz"):
    """Write a tar; a member may be a TarInfo instead of bytes."""
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return str(path)


def test_a_file_is_given_once_however_it_is_spelled(here):
    write(here / "a.pdf")
    assert names("a.pdf", "./a.pdf", str(here / "a.pdf")) == ["a.pdf"]


def test_all_typing_errors_are_told_at_once(here):
    write(here / "a.pdf")
    with pytest.raises(InputError) as error:
        names("a.pdf", "b.pdf", "c.pdf", "*.png", "sub/", "ftp://x/a.pdf", "d.pdf", "e.pdf")
    assert str(error.value).startswith("there is no file b.pdf; there is no file c.pdf; no document matches *.png; ")
    assert str(error.value).endswith(" and 2 more; nothing was started")


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


def test_the_limits_in_the_docs_are_those_in_the_code():
    text = (ROOT / "docs/inputs.md").read_text()
    rows = (
        f"| {LIMITS.document_bytes >> 30} GiB | of a document that is downloaded",
        f"| {LIMITS.archive_members:,} members, or {LIMITS.archive_bytes >> 30} GiB unpacked |",
        f"where {LIMITS.harmless_bytes >> 20} MiB or more are packed tighter than 1 to {LIMITS.archive_ratio} |",
        f"| {LIMITS.stall_seconds:g} seconds of silence, {LIMITS.download_seconds / 3600:g} hour altogether |",
        f"| {MOST_PAGES:,} pages |",
        f"| {MOST_PIXELS:,} pixels |",
    )
    assert [row for row in rows if row not in text] == []


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
    assert content(source, here) == PDF
    assert len(source.key) == 40


def test_a_pdf_that_is_called_a_list_or_an_archive_is_a_pdf(here):
    write_pdf(here / "a.txt")
    write_pdf(here / "b.zip")
    assert names("a.txt", "b.zip") == ["a.txt", "b.zip"]


def test_a_list_that_is_no_text_is_refused(here):
    write(here / "a.txt", bytes(500))
    with pytest.raises(InputError, match=r"a\.txt is no list of names: it is no text"):
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
    monkeypatch.setitem(sys.modules, "s3fs", None)
    write_pdf(here / "good.pdf")
    write(here / "all.txt", b"s3://bucket/a.pdf\ngood.pdf\n")
    refused, good = find_sources(["all.txt"])
    assert install_command("s3") in why(refused, here)
    assert good.name == "good.pdf"


def test_a_member_may_have_a_longer_name_than_a_file(here):
    write_zip(here / "a.zip", {"x" * 300 + ".pdf": PDF})
    (source,) = find_sources(["a.zip::" + "x" * 300 + ".pdf"])
    assert content(source, here) == PDF


def test_a_url_with_an_ipv6_address_is_no_archive(here):
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


MEMBERS = {
    "b.pdf": PDF + b" b",
    "inner/a.pdf": PDF + b" a",
    "inner/scan": b"\x89PNG\r\n\x1a\n...",
    "readme.md": b"# words",
    "__MACOSX/inner/._a.pdf": b"junk",
    ".hidden/a.pdf": PDF,
}


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "tar.gz"])
def test_an_archive_stands_for_the_documents_in_it(kind, here):
    if kind == "zip":
        write_zip(here / "all.zip", MEMBERS)
    else:
        write_tar(here / f"all.{kind}", MEMBERS, "w" if kind == "tar" else "w:gz")
    found = find_sources([f"all.{kind}"])
    assert [source.name for source in found] == [f"all.{kind}::{m}" for m in ("b.pdf", "inner/a.pdf", "inner/scan")]
    assert [content(source, here) for source in found] == [MEMBERS[m] for m in ("b.pdf", "inner/a.pdf", "inner/scan")]
    assert len({source.key for source in found}) == 3
    assert find_sources([f"./all.{kind}::inner/a.pdf"])[0].key == found[1].key
    with pytest.raises(InputError, match=r"there is no document inner/z\.pdf in all"):
        names(f"all.{kind}::inner/z.pdf")


def test_copies_leave_the_scratch_when_they_were_read(here):
    (source,) = find_sources([write_zip(here / "all.zip", {"a.pdf": PDF})])
    with local_file(source, here.parent / "scratch") as path:
        assert path.read_bytes() == PDF
    assert list((here.parent / "scratch").iterdir()) == []


def test_a_packed_tar_is_unpacked_once_for_all_its_members(here):
    found = find_sources([write_tar(here / "all.tgz", {f"{n}.pdf": PDF + bytes([n]) for n in range(3)})])
    assert content(found[2], here) == PDF + b"\x02"
    (unpacked,) = (here.parent / "scratch").glob("*.tar")
    before = unpacked.stat().st_mtime_ns
    assert [content(source, here)[-1] for source in found] == [0, 1, 2]
    assert unpacked.stat().st_mtime_ns == before


def test_members_of_a_packed_tar_may_be_read_at_once(here):
    members = {f"{number}.pdf": PDF + os.urandom(50_000) for number in range(8)}
    found = find_sources([write_tar(here / "all.tgz", members)])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda source: content(source, here), found)) == list(members.values())
    assert len(list((here.parent / "scratch").glob("*.tar"))) == 1


@pytest.mark.parametrize("escape", ["../evil.pdf", "/etc/evil.pdf", "a/../../evil.pdf"])
@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_member_that_leads_out_of_its_archive_is_refused_and_the_others_are_read(kind, escape, here):
    members = {escape: PDF, "good.pdf": PDF}
    path = write_zip(here / "all.zip", members) if kind == "zip" else write_tar(here / "all.tgz", members)
    bad, good = find_sources([path])
    assert why(bad, here).endswith("leads out of its archive")
    assert content(good, here) == PDF
    assert not list(here.parent.rglob("evil.pdf"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_an_archive_are_refused(kind, here):
    info = tarfile.TarInfo("shadow.pdf")
    info.type, info.linkname = kind, "/etc/passwd"
    bad, good = find_sources([write_tar(here / "all.tgz", {"x": info, "good.pdf": PDF})])
    assert "is a link or a device" in why(bad, here)
    assert content(good, here) == PDF


def test_an_encrypted_member_is_a_failure_with_what_to_do(here):
    path = write_zip(here / "all.zip", {"a.pdf": PDF})
    data = bytearray((here / "all.zip").read_bytes())
    data[6] |= 1  # of the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # of the central directory
    (here / "all.zip").write_bytes(data)
    (source,) = find_sources([path])
    assert why(source, here).endswith("is encrypted; unpack the archive with its password and give the files")


SMALL = InputLimits(archive_members=10, archive_bytes=5_000_000, document_bytes=1_000_000, harmless_bytes=10_000)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"bomb.pdf": bytes(900_000)}, "unpacks to"),
        ({f"{n}.pdf": os.urandom(900_000) for n in range(6)}, "unpacks to"),
        ({f"{n}.pdf": PDF for n in range(11)}, "has more than 10 members"),
        ({"big.pdf": os.urandom(1_100_000)}, "more than 1000000"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_bomb_is_refused(kind, members, sentence, here):
    path = write_zip(here / "all.zip", members) if kind == "zip" else write_tar(here / "all.tgz", members)
    (source,) = find_sources([path], SMALL)
    assert isinstance(source.origin, Refused)
    assert sentence in why(source, here)


def test_a_zip_that_lies_about_its_size_gives_no_more_than_it_said(here):
    path = write_zip(here / "all.zip", {"a.pdf": bytes(500_000)})
    data = bytearray((here / "all.zip").read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    (here / "all.zip").write_bytes(data)
    (source,) = find_sources([path])
    assert "is damaged" in why(source, here)
    assert list((here.parent / "scratch").iterdir()) == []


def test_a_packed_tar_that_grows_after_it_was_listed_is_still_bounded(here):
    (source,) = find_sources([write_tar(here / "all.tgz", {"a.pdf": PDF})])
    write_tar(here / "all.tgz", {"a.pdf": bytes(3_000_000)})
    assert "unpacks to" in why(source, here, limits=SMALL)
    assert not list((here.parent / "scratch").glob("*.tar"))


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


def test_a_tar_with_an_endless_name_is_not_read_into_memory(here):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (here / "all.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(5000))
    (source,) = find_sources(["all.tar"])
    assert "header" in why(source, here)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
@pytest.mark.parametrize("data", [b"", b"words", b"PK\x03\x04 and nothing", b"\x1f\x8b\x08 and nothing"])
def test_an_archive_that_is_none_is_a_failure_of_its_own(name, data, here):
    write(here / name, data)
    write(here / "good.pdf")
    bad, good = find_sources([name, "good.pdf"])
    assert f"{name} is damaged" in why(bad, here)
    assert good.name == "good.pdf"


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_that_is_cut_is_a_failure_of_its_own(kind, here):
    members = {f"{n}.pdf": os.urandom(5000) for n in range(3)}
    path = write_zip(here / "a.zip", members) if kind == "zip" else write_tar(here / "a.tgz", members)
    write(here / f"a.{kind}", (here / f"a.{kind}").read_bytes()[:-4000])
    *members, source = find_sources([path])
    assert "is damaged" in why(source, here)
    if kind == "tgz":
        assert [len(content(whole, here)) for whole in members[:1]] == [5000]


def test_a_tar_that_goes_on_with_what_is_no_header_is_read_so_far_and_says_so(here):
    path = write_tar(here / "a.tar", {"a.pdf": PDF, "b.pdf": PDF}, "w")
    data = bytearray((here / "a.tar").read_bytes())
    data[1024:1030] = b"broken"  # the second member's header
    write(here / "a.tar", bytes(data))
    good, rest = find_sources([path])
    assert content(good, here) == PDF
    assert "a.tar is damaged: 1 documents come before that" in why(rest, here)


def test_a_member_that_cannot_be_opened_is_no_reason_to_do_without_the_others(here):
    path = write_zip(here / "a.zip", {"notes": b"words", "b.pdf": PDF})
    data = (here / "a.zip").read_bytes()
    write(here / "a.zip", data.replace(b"PK\x03\x04", b"PK\x03\x05", 1))  # the header of the first
    (good,) = find_sources([path])
    assert content(good, here) == PDF


def test_a_member_whose_name_claims_to_be_unicode_and_is_not_is_read_like_the_others(here):
    path = write_zip(here / "a.zip", {"é.pdf": PDF, "b.pdf": PDF + b"b"})
    write(here / "a.zip", (here / "a.zip").read_bytes().replace("é".encode(), b"\xff\xfe"))
    assert [content(source, here) for source in find_sources([path])] == [PDF, PDF + b"b"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_of_two_members_with_one_name_the_later_counts(kind, here):
    if kind == "zip":
        with zipfile.ZipFile(here / "all.zip", "w") as archive:
            archive.writestr("a.pdf", PDF + b" old")
            archive.writestr("a.pdf", PDF + b" new")
    else:
        infos = [tarfile.TarInfo("a.pdf"), tarfile.TarInfo("a.pdf")]
        with tarfile.open(here / "all.tgz", "w:gz") as archive:
            for info, data in zip(infos, (PDF + b" old", PDF + b" new"), strict=True):
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    (source,) = find_sources([f"all.{kind}"])
    assert content(source, here) == PDF + b" new"


def test_an_archive_that_is_gone_when_its_turn_comes_is_one_sentence(here):
    found = find_sources([write_zip(here / "a.zip", {"a.pdf": PDF}), write_tar(here / "a.tgz", {"a.pdf": PDF})])
    (here / "a.zip").unlink()
    (here / "a.tgz").unlink()
    assert [why(source, here)[:16] for source in found] == ["there is no file", "there is no file"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_archive_with_any_bytes_changed_or_lost_is_read_or_refused(kind, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")
    members = {"a.pdf": PDF * 20, "b/c.png": bytes(2000), "d": b"words"}
    path = folder / f"all.{kind}"
    if kind == "zip":
        write_zip(path, members)
    else:
        write_tar(path, members, "w" if kind == "tar" else "w:gz")
    changed = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=4)):
        changed[at] = data.draw(st.integers(0, 255))
    path.write_bytes(changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.booleans()) else changed)
    for source in find_sources([str(path)], SMALL):
        try:
            with local_file(source, folder / "scratch", limits=SMALL) as copy:
                assert copy.stat().st_size <= SMALL.document_bytes
        except InputError as error:
            assert str(error)


def test_standard_input_is_read_from_a_pipe(here):
    code = (
        "import pathlib; from olmocr.inputs.local_file import local_file; "
        "from olmocr.inputs.sources import find_sources; (source,) = find_sources(['-', '-'])\n"
        "with local_file(source, pathlib.Path('scratch')) as path: print(path.read_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=PDF, capture_output=True, check=True)
    assert done.stdout.decode().strip() == str(PDF)


def test_standard_input_that_is_a_keyboard_is_refused(here):
    master, terminal = pty.openpty()
    code = "from olmocr.inputs.sources import find_sources; find_sources(['-'])"
    done = subprocess.run([sys.executable, "-c", code], stdin=terminal, capture_output=True, check=False)
    os.close(terminal)
    os.close(master)
    assert b"InputError: - stands for standard input, and nothing is piped into it" in done.stderr


def test_an_archive_without_documents_says_so(here):
    (source,) = find_sources([write_zip(here / "a.zip", {"a.csv": b"1,2"})])
    assert "holds no document" in why(source, here)


def test_standard_input_is_one_document_that_can_be_read_again(here):
    source = Source("-", StandardInput())
    piped = io.BytesIO(PDF)
    assert content(source, here, stdin=piped) == PDF
    assert content(source, here, stdin=piped) == PDF


def test_standard_input_without_end_is_refused(here):
    assert "- has more than 1000000 bytes" in why(
        Source("-", StandardInput()), here, stdin=io.BytesIO(bytes(1_000_001)), limits=SMALL
    )


def test_a_name_is_kept_as_it_was_given_and_a_place_has_one_key(here):
    write(here / "a.pdf")
    write_image(here / "b.png")
    assert [source.name for source in find_sources(["./b.png", str(here / "a.pdf")])] == [
        "./b.png",
        str(here / "a.pdf"),
    ]


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
    assert held / count < 1000, "bytes for each"
