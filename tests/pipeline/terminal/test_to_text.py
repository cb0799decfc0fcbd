"""``olmocr x.pdf``: markdown goes to standard output, a file or a folder, and nobody's own file is replaced."""

import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from olmocr.errors import OutputError, UsageError
from olmocr.inputs.sources import find_sources
from olmocr.pipeline.terminal.to_text import (
    KEPT_DAYS,
    Destination,
    Text,
    names_documents,
    require_no_workspace,
    sweep,
    workspace_of,
)
from tests.backends.model_server import TEXT, ModelServer, chat_stream, fault
from tests.pipeline.doubles import write_numbered_pdf

HELLO = "Hello\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder, with a cache of one's own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def olmocr(server, *arguments):
    asking = ["--server", server.url, "--target-longest-image-dim", "64", "--max-page-retries", "1"]
    command = [sys.executable, "-m", "olmocr", *map(str, arguments), *asking]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def server():
    with ModelServer(chat_stream()) as server:
        yield server


@pytest.mark.parametrize("read", [(), ("read",)])
def test_a_document_is_printed_as_markdown_and_nothing_else_is(server, here, read):
    write_numbered_pdf(Path("a.pdf"), [1, 2])
    done = olmocr(server, *read, "a.pdf")
    assert (done.returncode, done.stdout) == (0, "Hello\nHello\n"), done.stderr
    assert [path.name for path in here.iterdir()] == ["a.pdf"]


def test_several_documents_and_those_of_a_folder_are_printed_one_after_the_other(server):
    for name in ("a.pdf", "papers/b.pdf", "papers/c.pdf"):
        write_numbered_pdf(Path(name), [1])
    assert olmocr(server, "a.pdf", "papers").stdout == "\n".join([HELLO] * 3)


def test_the_same_command_asks_nobody_again():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(chat_stream()) as server:
        assert olmocr(server, "a.pdf").stdout == HELLO
        asked = len(server.requests)
        assert olmocr(server, "a.pdf").stdout == HELLO
        assert len([each for each in server.requests[asked:] if each.method == "POST"]) == 0


def test_a_file_takes_the_markdown_and_may_be_written_again_by_the_same_command(server):
    write_numbered_pdf(Path("a.pdf"), [1])
    for _ in range(2):
        done = olmocr(server, "a.pdf", "-o", "a.md")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert Path("a.md").read_text() == HELLO


def test_somebody_elses_file_is_refused_before_anything_is_read():
    write_numbered_pdf(Path("a.pdf"), [1])
    Path("a.md").write_text("my notes")
    with ModelServer(chat_stream()) as server:
        done = olmocr(server, "a.pdf", "-o", "a.md")
        assert server.requests == []
    assert done.returncode == 6
    assert "a.md exists, and this command did not write it" in done.stderr
    assert Path("a.md").read_text() == "my notes"


def test_a_folder_takes_a_file_for_each_document(server):
    for name in ("a.pdf", "papers/a.pdf", "b.pdf"):
        write_numbered_pdf(Path(name), [1])
    done = olmocr(server, "a.pdf", "papers/a.pdf", "b.pdf", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["a-2.md", "a.md", "b.md"]


def test_a_document_that_fails_is_said_and_the_others_are_printed(server):
    write_numbered_pdf(Path("a.pdf"), [1])
    Path("bad.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    done = olmocr(server, "bad.pdf", "a.pdf")
    assert (done.returncode, done.stdout) == (9, HELLO)
    assert "bad.pdf failed: " in done.stderr


def test_of_a_document_without_a_good_answer_the_files_own_text_is_printed():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(fault(400, "no")) as server:
        done = olmocr(server, "a.pdf")
    assert done.returncode == 9
    assert "a.pdf: some pages have the file's own text" in done.stderr


def test_the_markdown_of_a_workspace_does_not_go_to_output(server):
    write_numbered_pdf(Path("a.pdf"), [1])
    done = olmocr(server, "ws", "--pdfs", "a.pdf", "-o", "out")
    assert done.returncode == 2
    assert "--output-dir" in done.stderr


def test_documents_after_a_workspace_are_read_into_it(server):
    write_numbered_pdf(Path("a.pdf"), [1])
    assert olmocr(server, "ws", "a.pdf", "--markdown").returncode == 0
    assert Path("ws/markdown/a.md").read_text().strip() == "Hello"


def test_what_stands_for_documents_is_told_from_a_workspace():
    write_numbered_pdf(Path("papers/a.pdf"), [1])
    Path("empty").mkdir()
    Path("ws/results").mkdir(parents=True)
    documents = ["papers/a.pdf", "papers", "-", "https://example.org/a.pdf", "missing.PDF", "a.zip::b.pdf", "*.pdf"]
    assert [name for name in documents if not names_documents(name)] == []
    assert [name for name in ("empty", "ws", "new", "new/ws") if names_documents(name)] == []


def test_another_model_or_document_has_another_workspace(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        write_numbered_pdf(Path(name), [1])
    asked = [(["a.pdf"], "m"), (["b.pdf"], "m"), (["a.pdf", "b.pdf"], "m"), (["a.pdf"], "n")]
    assert len({workspace_of(find_sources(names), {"model": model}) for names, model in asked}) == 4
    one = workspace_of(find_sources(["a.pdf"]), {"model": "m"})
    assert one == workspace_of(find_sources([str(Path("a.pdf").absolute())]), {"model": "m", "workers": 3})


def test_workspaces_that_nobody_uses_any_more_are_removed(tmp_path):
    for name in ("old", "new"):
        (tmp_path / "read" / name).mkdir(parents=True)
    now = time.time()
    os.utime(tmp_path / "read/old", (now, now - (KEPT_DAYS + 1) * 86400))
    sweep(tmp_path / "read", now)
    assert [path.name for path in (tmp_path / "read").iterdir()] == ["new"]


def test_one_file_for_several_documents_is_refused(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        write_numbered_pdf(Path(name), [1])
    with pytest.raises(UsageError, match="name a folder"):
        Destination("out.md", find_sources(["a.pdf", "b.pdf"]), tmp_path)


def test_names_that_a_macs_disk_takes_for_one_stay_apart(tmp_path):
    names = ["Ä.md", unicodedata.normalize("NFD", "Ä.md"), "ä.md"]
    Destination("out/", [], tmp_path).write(Text(name, name) for name in names)
    assert sorted(path.read_text() for path in Path("out").iterdir()) == sorted(names)
    keys = {unicodedata.normalize("NFC", path.name).casefold() for path in Path("out").iterdir()}
    assert len(keys) == 3


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_whatever_lies_in_a_folder_already_is_left_as_it_was(tmp_path, kind):
    Path("out").mkdir()
    there = Path("out/a.md")
    {"file": lambda: there.write_text("mine"), "folder": there.mkdir, "link": lambda: there.symlink_to("nothing")}[
        kind
    ]()
    Destination("out", [], tmp_path).write(iter([Text("a.md", "text")]))
    assert Path("out/a-2.md").read_text() == "text"
    assert not Path("out/nothing").exists()


def test_a_file_that_somebody_changed_since_is_somebodys(tmp_path):
    Destination("a.md", [], tmp_path).write(iter([Text("a.md", "text")]))
    Destination("a.md", [], tmp_path)
    Path("a.md").write_text("text, corrected by hand")
    with pytest.raises(OutputError, match="did not write it"):
        Destination("a.md", [], tmp_path)


def attached(folder, **contents):
    """Return files of a document called a, as a workspace holds them, and markdown that leads to them."""
    place = folder / "kept" / "a.files"
    place.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (place / f"{name}.png").write_text(content)
    links = "".join(f"![x](a.files/{name}.png)" for name in contents)
    return Text("a.md", links, tuple(place / f"{name}.png" for name in contents))


@pytest.mark.parametrize("output", ["out", "out/a.md"])
def test_figures_go_into_a_folder_beside_the_markdown_and_stale_ones_go(output, tmp_path):
    destination = Destination(output, [], tmp_path, attaches=True)
    destination.write(iter([attached(tmp_path, one="1", two="2")]))
    assert Path("out/a.files/two.png").read_text() == "2"
    Destination(output, [], tmp_path, attaches=True).write(iter([attached(tmp_path, one="other")]))
    assert [path.read_text() for path in Path("out/a.files").iterdir()] == ["other"]
    Destination(output, [], tmp_path).write(iter([Text("a.md", "none")]))
    assert [path.name for path in Path("out").iterdir()] == ["a.md"]


def test_figures_make_way_for_somebodys_folder_and_the_links_go_with_them(tmp_path):
    Path("out/a.files").mkdir(parents=True)
    Path("out/a.files/one.png").write_text("mine")
    for _ in range(2):
        Destination("out", [], tmp_path, attaches=True).write(iter([attached(tmp_path, one="1")]))
    assert Path("out/a.files/one.png").read_text() == "mine"
    assert Path("out/a.md").read_text() == "![x](a.files-2/one.png)"
    assert Path("out/a.files-2/one.png").read_text() == "1"


def test_figures_without_a_place_to_lie_are_refused_before_anything_is_read():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(chat_stream()) as server:
        done = olmocr(server, "a.pdf", "--figures")
        assert server.requests == []
    assert done.returncode == 2
    assert "say where with --output" in " ".join(done.stderr.split())


def test_a_figure_is_written_beside_the_markdown_of_one_command():
    write_numbered_pdf(Path("a.pdf"), [0x9600])
    text = TEXT.replace("Hello", "![x](page_0_0_1024_1024.png)")
    with ModelServer(chat_stream(text)) as server:
        done = olmocr(server, "a.pdf", "-o", "out", "--figures")
        assert done.returncode == 0, done.stderr
        assert Path("out/a.md").read_text() == "![x](a.files/page-0001-figure-1.png)"
        assert Path("out/a.files/page-0001-figure-1.png").read_bytes().startswith(b"\x89PNG")
        asked = len(server.requests)
        assert olmocr(server, "a.pdf", "-o", "out").returncode == 0
        assert [each.method for each in server.requests[asked:] if each.method == "POST"] == []
    assert Path("out/a.md").read_text() == "![x](page_0_0_1024_1024.png)"
    assert not Path("out/a.files").exists()


def test_a_name_that_is_longer_than_any_files_is_a_document_that_is_not_there_or_a_file_to_be_written(tmp_path):
    name = "d" * 300
    require_no_workspace([f"{name}.pdf"])
    assert names_documents(f"{name}[12].pdf")
    for output in (f"{name}.md", f"{name}/", name):
        Destination(output, [], tmp_path)
