"""Whatever a document is called, and wherever its name comes from, it is read or fails alone."""

import io
import os
import tarfile
import unicodedata

import pytest

from olmocr import PipelineConfig, run_pipeline_sync
from olmocr.inputs.sources import find_sources
from olmocr.workspace.folder import open_workspace
from tests.pipeline.doubles import Model, answer, write_image

orjson = pytest.importorskip("orjson")

ODD = [
    "plain.png", "a\nb.png", "\x1b[31mred\x1b[0m.png", "tab\t.png", "\r.png", "é.png",
    unicodedata.normalize("NFD", "é.png"), "\u202egnp.exe", "🦆.png", "x" * 240 + ".png", "é" * 120 + ".png",
    "bad\udcff.png", "-rf.png", "~.png", "*.png", "[.png", "::.png", "a::b.png", "#.png", "{0}.png", "%s.png",
    "[bold]x[/].png", " .png", "con.png", "a" * 200 + "/" + "b" * 200 + ".png",
]  # fmt: skip
ONLY_IN_ARCHIVES = ["y" * 300 + ".png", "z" * 300 + "/a.png", "d/" * 700 + "deep.png", "nul\0.png", ".\udcff./x.png"]


@pytest.fixture
def picture(tmp_path):
    return write_image(tmp_path / "picture.png").read_bytes()


def run(workspace, *given, **options):
    config = PipelineConfig(
        workspace=workspace,
        pdfs=tuple(map(str, given)),
        model="none",
        markdown=True,
        page_files=True,
        page_records=True,
        **options,
    )
    return run_pipeline_sync(config, ask=Model(answer()).ask)


def strict_lines(workspace):
    """Return every line of JSON that was written, as a strict reader takes it."""
    paths = [path for path in workspace.rglob("*.json*") if path.is_file()]
    return [
        orjson.loads(line) for path in paths for line in path.read_bytes().splitlines() if path.name != "metrics.json"
    ]


def write_odd_files(folder, picture):
    for name in ODD:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(picture + name.encode("utf-8", "surrogateescape"))
        except OSError:  # another system's disk takes fewer names, and two of them for one
            continue
        yield name


def test_files_of_any_name_are_read_and_their_results_are_strict_json(tmp_path, picture):
    written = list(write_odd_files(tmp_path / "in", picture))
    summary = run(tmp_path / "ws", tmp_path / "in")
    assert (summary.done, summary.failures) == (len(written), ())
    assert len(strict_lines(tmp_path / "ws")) >= 2 * len(written)
    assert len([path for path in (tmp_path / "ws" / "markdown").rglob("*.md") if path.is_file()]) == len(written)


def test_files_of_any_name_in_a_list_and_given_one_by_one_are_the_same_documents(tmp_path, picture):
    written = list(write_odd_files(tmp_path / "in", picture))
    plain = [name for name in written if not set(name) & set("\n\r") and "::" not in name]
    lines = b"".join(os.fsencode(f"./{name}\n") for name in plain)
    (tmp_path / "in" / "all.txt").write_bytes(lines)
    assert {source.key for source in find_sources([str(tmp_path / "in" / "all.txt")])} == {
        source.key for source in find_sources([str(tmp_path / "in" / name) for name in plain])
    }


@pytest.mark.slow
def test_members_of_an_archive_of_any_name_are_read_or_fail_alone(tmp_path, picture):
    names = [*ODD, *ONLY_IN_ARCHIVES]
    with tarfile.open(tmp_path / "odd.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            data = picture + name.encode("utf-8", "surrogateescape")
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    summary = run(tmp_path / "ws", tmp_path / "odd.tar")
    assert summary.done + len(summary.failures) >= len(names) - 1  # a folder called ".\udcff." is hidden
    assert summary.done >= len(ODD)
    assert len(strict_lines(tmp_path / "ws")) >= 2 * summary.done
    inside = (tmp_path / "ws").resolve()
    assert {path.resolve().is_relative_to(inside) for path in inside.rglob("*")} == {True}
    assert {path.name for path in tmp_path.iterdir()} == {"ws", "odd.tar", "picture.png"}


def test_a_failure_of_a_file_whose_name_is_not_text_is_tried_again(tmp_path, picture):
    path = tmp_path / "bad\udcff\n.png"
    try:
        path.write_bytes(picture[:60])
    except OSError:
        pytest.skip("this disk takes unicode only")
    assert len(run(tmp_path / "ws", path).failures) == 1
    (failure,) = strict_lines(tmp_path / "ws")[:1]
    assert "\n" not in failure["error"]
    path.write_bytes(picture)
    assert run(tmp_path / "ws", retry_failed=True).done == 1


def test_a_list_of_what_is_not_there_yet_leaves_no_failure_when_it_is(tmp_path, picture):
    (tmp_path / "all.txt").write_text(f"{tmp_path}/a.png\n")
    assert len(run(tmp_path / "ws", tmp_path / "all.txt").failures) == 1
    (tmp_path / "a.png").write_bytes(picture)
    assert run(tmp_path / "ws", tmp_path / "all.txt").done == 1
    assert not (tmp_path / "ws" / "failures.jsonl").exists()


def test_where_a_disk_does_not_take_a_name_the_document_has_another_one(tmp_path, picture, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(picture + name.encode())
    (tmp_path / "ws").mkdir()
    open_workspace(tmp_path / "ws")
    replaced = os.replace

    def replace(source, target):
        if str(target).endswith("a.md"):
            raise OSError(22, os.strerror(22))  # as exFAT says of a colon
        replaced(source, target)

    monkeypatch.setattr(os, "replace", replace)
    summary = run(tmp_path / "ws", tmp_path / "in")
    assert (summary.done, summary.failures) == (2, ())
    assert len(list((tmp_path / "ws" / "markdown").rglob("*.md"))) == 2


def test_a_fault_that_nobody_foresaw_costs_one_document_and_asks_to_be_reported(tmp_path):
    pictures = [
        write_image(tmp_path / f"{name}.png", size=size) for name, size in (("a", (200, 100)), ("b", (100, 90)))
    ]
    config = PipelineConfig(workspace=tmp_path / "ws", pdfs=tuple(map(str, pictures)), model="none", workers=1)
    summary = run_pipeline_sync(config, ask=Model(KeyError("thing"), answer()).ask)
    assert (summary.done, summary.exit_code) == (1, 9)
    assert "hit a bug in olmocr; please report it: KeyError: 'thing'" in summary.failures[0].why
