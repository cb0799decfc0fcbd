"""Documents in archives: found in order, copied one at a time, bounded, and refused by name."""

import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.errors import InputError
from olmocr.inputs.local_file import local_file
from olmocr.inputs.origins import Refused
from olmocr.inputs.sources import find_sources
from tests.inputs.documents import PDF, SMALL, content_of, names, why, write, write_tar, write_zip

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
    assert [content_of(source, here) for source in found] == [
        MEMBERS[m] for m in ("b.pdf", "inner/a.pdf", "inner/scan")
    ]
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
    assert content_of(found[2], here) == PDF + b"\x02"
    (unpacked,) = (here.parent / "scratch").glob("*.tar")
    before = unpacked.stat().st_mtime_ns
    assert [content_of(source, here)[-1] for source in found] == [0, 1, 2]
    assert unpacked.stat().st_mtime_ns == before


def test_members_of_a_packed_tar_may_be_read_at_once(here):
    members = {f"{number}.pdf": PDF + os.urandom(50_000) for number in range(8)}
    found = find_sources([write_tar(here / "all.tgz", members)])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda source: content_of(source, here), found)) == list(members.values())
    assert len(list((here.parent / "scratch").glob("*.tar"))) == 1


@pytest.mark.parametrize("escape", ["../evil.pdf", "/etc/evil.pdf", "a/../../evil.pdf"])
@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_member_that_leads_out_of_its_archive_is_refused_and_the_others_are_read(kind, escape, here):
    members = {escape: PDF, "good.pdf": PDF}
    path = write_zip(here / "all.zip", members) if kind == "zip" else write_tar(here / "all.tgz", members)
    bad, good = find_sources([path])
    assert why(bad, here).endswith("points outside its archive")
    assert content_of(good, here) == PDF
    assert not list(here.parent.rglob("evil.pdf"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_an_archive_are_refused(kind, here):
    info = tarfile.TarInfo("shadow.pdf")
    info.type, info.linkname = kind, "/etc/passwd"
    bad, good = find_sources([write_tar(here / "all.tgz", {"x": info, "good.pdf": PDF})])
    assert "is a link or a device" in why(bad, here)
    assert content_of(good, here) == PDF


def test_an_encrypted_member_is_a_failure_with_what_to_do(here):
    path = write_zip(here / "all.zip", {"a.pdf": PDF})
    data = bytearray((here / "all.zip").read_bytes())
    data[6] |= 1  # of the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # of the central directory
    (here / "all.zip").write_bytes(data)
    (source,) = find_sources([path])
    assert why(source, here).endswith("is encrypted; unpack the archive with its password and give the files")


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
        assert [len(content_of(whole, here)) for whole in members[:1]] == [5000]


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
    assert content_of(source, here) == PDF + b" new"


def test_an_archive_that_is_gone_when_its_turn_comes_is_one_sentence(here):
    found = find_sources([write_zip(here / "a.zip", {"a.pdf": PDF}), write_tar(here / "a.tgz", {"a.pdf": PDF})])
    (here / "a.zip").unlink()
    (here / "a.tgz").unlink()
    assert [why(source, here)[:16] for source in found] == ["there is no file", "there is no file"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
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


def test_an_archive_without_documents_says_so(here):
    (source,) = find_sources([write_zip(here / "a.zip", {"a.csv": b"1,2"})])
    assert "contains no documents" in why(source, here)
