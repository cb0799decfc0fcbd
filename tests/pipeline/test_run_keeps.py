"""What lies on a person's disk: what stays, what goes, and what is never touched."""

import asyncio
import errno
import hashlib
import json
import os
import sqlite3
import time
import unicodedata
import zipfile
from pathlib import Path

import pytest

from olmocr.errors import AnswerError, CheckpointError, ServerUnavailableError, UsageError
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import run_pipeline, run_pipeline_sync
from olmocr.workspace.records import RECORDS_FILE, Records
from tests.backends.model_server import ModelServer
from tests.pipeline.doubles import Reader, answer, write_numbered_pdf
from tests.pipeline.test_run_side_by_side import beside, give, pages_text, results, run
from tests.rendered_here import PoolHere

BROKEN = AnswerError("no JSON")
EVERYTHING = {"markdown": True, "page_files": True, "page_records": True}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def texts_of_results():
    return [json.loads(path.read_text())["text"] for path in Path("ws/results").iterdir()]


def all_that_was_read():
    folders = ("results", "markdown", "pages", "page_records")
    return {(name, file): text for name in folders for file, text in beside(Path("ws") / name).items()}


def markdown(folder="ws/markdown"):
    found = [path for path in Path(folder).rglob("*.md") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in found}


# A person's own files.


def test_a_persons_own_file_beside_the_document_is_left_alone(tmp_path, caplog):
    write_numbered_pdf(tmp_path / "paper.pdf", [1])
    (tmp_path / "paper.md").write_text("my own notes")
    for _ in range(2):
        summary, _ = run("ws", "paper.pdf", output_dir=tmp_path)
        assert summary.failures == ()
    assert sorted(markdown(".").values()) == ["my own notes", "page 1"]
    assert markdown(".")["paper.md"] == "my own notes"
    assert len([record for record in caplog.records if "is not as olmocr wrote it" in record.getMessage()]) == 1


def test_what_a_person_has_corrected_stays_when_the_document_changes(tmp_path):
    write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", "a.pdf", **EVERYTHING)
    (tmp_path / "ws/markdown/a.md").write_text("page 1, corrected")
    (tmp_path / "ws/pages/a.md/0001.md").write_text("page 1, corrected, too")
    write_numbered_pdf(tmp_path / "a.pdf", [2])
    run("ws", "a.pdf", **EVERYTHING)
    assert markdown().pop("a.md") == "page 1, corrected"
    assert sorted(markdown().values()) == ["page 1, corrected", "page 2"]
    assert sorted(beside(tmp_path / "ws/pages").values()) == ["page 1, corrected, too", "page 2"]


def test_two_workspaces_may_write_markdown_into_one_folder(tmp_path):
    for name, number in (("x/a.pdf", 1), ("y/a.pdf", 2)):
        write_numbered_pdf(tmp_path / name, [number])
    os.chdir("x")
    run("../ws1", "a.pdf", output_dir="../out")
    os.chdir("../y")
    run("../ws2", "a.pdf", output_dir="../out")
    os.chdir("..")
    assert sorted(markdown("out").values()) == ["page 1", "page 2"]


def test_pages_of_documents_whose_markdown_went_to_two_folders_never_meet(tmp_path):
    write_numbered_pdf(tmp_path / "x/a.pdf", [1])
    write_numbered_pdf(tmp_path / "y/a.pdf", [2])
    for folder in ("x", "y"):
        os.chdir(tmp_path / folder)
        run(tmp_path / "ws", "a.pdf", output_dir=tmp_path / f"out-{folder}", page_files=True, page_records=True)
    assert sorted(beside(tmp_path / "ws/pages").values()) == ["page 1", "page 2"]
    assert len(beside(tmp_path / "ws/page_records")) == 2


def test_the_workspaces_own_folder_for_markdown_may_be_named(tmp_path):
    write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", "a.pdf", markdown=True)
    run("ws", "a.pdf", output_dir="ws/../ws/markdown/")
    assert markdown() == {"a.md": "page 1"}


# What was read stays until it is read anew.


@pytest.mark.parametrize("status", [503, 404, 200])
def test_a_url_whose_server_gives_something_else_for_a_while_keeps_what_was_read(status, tmp_path):
    content = write_numbered_pdf(tmp_path / "a.pdf", [1]).read_bytes()

    def page(handler):
        if status == 200 or content.startswith(b"%PDF"):
            give(handler, content)
        else:
            handler.send_error(status)

    with ModelServer(lambda handler: None, pages={"/a.pdf": page}) as server:
        url = f"{server.url}/a.pdf"
        run("ws", url, **EVERYTHING)
        before = all_that_was_read()
        assert len(before) == 4
        content = b"<html>back soon</html>"
        summary, _ = run("ws", url, **EVERYTHING)
        assert [failure.source for failure in summary.failures] == [url]
        assert all_that_was_read() == before
        content = (tmp_path / "a.pdf").read_bytes()
        again, reader = run("ws", url, **EVERYTHING)
        assert (reader.asked, again.failures) == ([], ())
        assert not list((tmp_path / "ws/failed").iterdir())


def test_a_file_on_a_disk_that_fails_keeps_what_was_read(tmp_path, monkeypatch):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", pdf, markdown=True)
    os.utime(pdf, (1, 1))

    def fails(path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("olmocr.inputs.local_file.sha256_of", fails)
        summary, _ = run("ws", pdf, markdown=True)
    assert "Input/output error" in summary.failures[0].why
    assert len(results(tmp_path / "ws")) == len(markdown()) == 1


def test_a_member_of_an_archive_that_is_damaged_for_a_while_keeps_what_was_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(write_numbered_pdf(tmp_path / "a.pdf", [1]), "a.pdf")
    whole = (tmp_path / "all.zip").read_bytes()
    run("ws", "all.zip", markdown=True)
    (tmp_path / "all.zip").write_bytes(whole[:-30])
    assert len(run("ws", "all.zip", markdown=True)[0].failures) == 1
    assert list(markdown().values()) == ["page 1"]
    assert len(results(tmp_path / "ws")) == 1
    (tmp_path / "all.zip").write_bytes(whole)
    assert run("ws", "all.zip", markdown=True)[0].failures == ()
    assert not (tmp_path / "ws/failures.jsonl").exists(), "the archive as a whole is whole again"


def test_a_document_that_is_forced_and_gets_no_good_answer_keeps_what_was_read(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run("ws", pdf, markdown=True)
    before = results(tmp_path / "ws")
    new = Reader({1: [answer("new 1")], 2: [BROKEN]})
    summary, _ = run("ws", pdf, new, force=True, markdown=True, max_page_retries=1)
    assert len(summary.failures) == 1
    assert results(tmp_path / "ws") == before
    assert list(markdown().values()) == [pages_text(1, 2)]
    again, reader = run("ws", pdf, Reader({2: [answer("new 2")]}), markdown=True)
    assert (reader.asked, again.done) == ([2], 1)
    assert list(markdown().values()) == ["new 1\nnew 2"]


def test_a_page_that_may_fall_back_and_does_when_it_is_forced_keeps_its_text(tmp_path, caplog):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run("ws", pdf)
    new = Reader({1: [answer("new 1")], 2: [BROKEN]})
    assert run("ws", pdf, new, force=True, max_page_retries=1, max_page_error_rate=0.5)[0].done == 1
    assert results(tmp_path / "ws")[str(pdf)]["text"] == "new 1\npage 2"
    assert "1 pages (first: 2) got no good answer this time and stay as they were read before" in caplog.text
    assert run("ws", pdf)[0].skipped == 1


def test_a_page_that_falls_back_the_first_time_was_not_read_before(tmp_path, caplog):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    broken = Reader({2: [BROKEN]})
    assert run("ws", pdf, broken, max_page_retries=1, max_page_error_rate=0.5)[0].done == 1
    assert "read before" not in caplog.text


def test_a_forced_run_that_is_stopped_has_changed_nothing_and_the_next_one_resumes_with_it(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2, 3])
    run("ws", pdf, markdown=True)
    new = {number: [answer(f"new {number}")] for number in (1, 2, 3)}
    with pytest.raises(KeyboardInterrupt):
        run("ws", pdf, Reader(new | {2: [KeyboardInterrupt()]}), force=True, markdown=True, max_concurrent_pages=1)
    assert list(markdown().values()) == [pages_text(1, 2, 3)]
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(1, 2, 3)
    summary, reader = run("ws", pdf, Reader(new), markdown=True)
    assert (sorted(reader.asked), summary.done) == ([2, 3], 1)
    assert list(markdown().values()) == ["new 1\nnew 2\nnew 3"]


def test_nobody_who_answers_costs_no_result_even_of_a_document_that_changed(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", pdf, markdown=True)
    write_numbered_pdf(pdf, [2])
    summary, _ = run("ws", pdf, Reader({2: [ServerUnavailableError("away")]}), markdown=True)
    assert len(summary.failures) == 1
    assert list(markdown().values()) == ["page 1"]
    run("ws", pdf, markdown=True)
    assert list(markdown().values()) == ["page 2"]


def test_pages_that_a_document_does_not_have_cost_no_result(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", pdf, markdown=True)
    assert run("ws", pdf, markdown=True, pages="7")[0].failures
    assert list(markdown().values()) == ["page 1"]


# One document, however it is spelled.


def spell_absolutely(tmp_path):
    return tmp_path / "in/a.pdf"


def spell_by_a_link(tmp_path):
    (tmp_path / "link.pdf").symlink_to("in/a.pdf")
    return "link.pdf"


def spell_by_a_linked_folder(tmp_path):
    (tmp_path / "linked").symlink_to("in")
    return "linked/a.pdf"


def spell_by_a_list(tmp_path):
    (tmp_path / "in/list.txt").write_text("a.pdf\n")
    return "in/list.txt"


SPELLINGS = [spell_absolutely, spell_by_a_link, spell_by_a_linked_folder, spell_by_a_list, lambda tmp_path: "in"]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_document_that_is_spelled_otherwise_has_one_of_everything_and_none_of_it_is_stale(spell, tmp_path):
    pdf = write_numbered_pdf(tmp_path / "in/a.pdf", [1])
    run("ws", "in/a.pdf", **EVERYTHING)
    other = spell(tmp_path)
    summary, reader = run("ws", other, **EVERYTHING)
    assert (summary.skipped, reader.asked) == (1, [])
    for name, number in (("in/a.pdf", 2), (other, 3)):
        write_numbered_pdf(pdf, [number])
        run("ws", name, **EVERYTHING)
        assert list(markdown().values()) == [f"page {number}"]
        assert list(beside(tmp_path / "ws/pages").values()) == [f"page {number}"]
        assert [record["text"] for record in results(tmp_path / "ws").values()] == [f"page {number}"]
        assert len(beside(tmp_path / "ws/page_records")) == len(list((tmp_path / "ws/results").iterdir())) == 1


def test_a_link_that_leads_to_another_file_now_leaves_nothing_of_the_first(tmp_path):
    for day in (1, 2):
        write_numbered_pdf(tmp_path / f"day{day}/a.pdf", [day])
    link = tmp_path / "today"
    for day in (1, 2, 1):
        link.unlink(missing_ok=True)
        link.symlink_to(f"day{day}")
        summary, _ = run("ws", "today/a.pdf", **EVERYTHING)
        assert summary.failures == ()
        assert markdown() == {"today/a.md": f"page {day}"}
        assert [record["text"] for record in results(tmp_path / "ws").values()] == [f"page {day}"]
        assert len(list((tmp_path / "ws/results").iterdir())) == 1
    run("ws", ["day2/a.pdf", "today/a.pdf"], **EVERYTHING)
    link.unlink()
    link.symlink_to("day2")
    run("ws", ["today/a.pdf"], **EVERYTHING)
    assert sorted(record["text"] for record in results(tmp_path / "ws").values()) == ["page 2"]


def test_a_file_that_has_a_name_of_its_own_stays_when_a_link_leads_elsewhere(tmp_path):
    for name, number in (("a.pdf", 1), ("b.pdf", 2)):
        write_numbered_pdf(tmp_path / name, [number])
    (tmp_path / "link.pdf").symlink_to("a.pdf")
    run("ws", ["link.pdf", "a.pdf"], markdown=True)
    (tmp_path / "link.pdf").unlink()
    (tmp_path / "link.pdf").symlink_to("b.pdf")
    run("ws", "link.pdf", markdown=True)
    assert sorted(texts_of_results()) == sorted(markdown().values()) == ["page 1", "page 2"]


def test_two_ways_to_write_an_accent_are_two_documents_where_the_disk_says_so_and_never_one_path(tmp_path):
    names = [unicodedata.normalize(form, "é.pdf") for form in ("NFC", "NFD")]
    for number, name in enumerate(names, 1):
        write_numbered_pdf(tmp_path / name, [number])
    count = len(list(tmp_path.glob("*.pdf")))  # a Mac's disk has one, which was written twice
    run("ws", names, markdown=True)
    assert sorted(markdown().values()) == ["page 1", "page 2"][-count:]
    folded = {unicodedata.normalize("NFC", name).casefold() for name in markdown()}
    assert len(folded) == count


def test_a_url_that_is_spelled_otherwise_is_the_same_document(tmp_path):
    content = write_numbered_pdf(tmp_path / "a.pdf", [1]).read_bytes()
    with ModelServer(lambda handler: None, pages={"/a.pdf": lambda handler: give(handler, content)}) as server:
        for url in (f"{server.url}/a.pdf", f"{server.url}/a.pdf".replace("http", "HTTP"), f"{server.url}/a.pdf#page=2"):
            run("ws", url, markdown=True)
    assert len(markdown()) == len(list((tmp_path / "ws/results").iterdir())) == 1


def test_a_workspace_whose_keys_were_those_of_links_resumes_with_one_result(tmp_path):
    """As an earlier version has left it, which knew a document by its path with links."""
    write_numbered_pdf(tmp_path / "in/a.pdf", [1])
    (tmp_path / "linked").symlink_to("in")
    run("ws", "linked/a.pdf", markdown=True)
    (result,) = (tmp_path / "ws/results").iterdir()
    old = hashlib.sha1(str(tmp_path / "linked/a.pdf").encode()).hexdigest()
    result.rename(result.with_name(f"output_{old}.jsonl"))
    db = sqlite3.connect(tmp_path / "ws" / RECORDS_FILE)
    db.execute("UPDATE documents SET key = ?", (old,))
    db.execute("DELETE FROM spellings")
    db.commit()
    db.close()
    _, reader = run("ws", "linked/a.pdf", markdown=True)
    assert reader.asked == []
    assert len(list((tmp_path / "ws/results").iterdir())) == 1


# Kinds of output, in one run and in later ones.


def test_options_of_output_that_are_given_later_rewrite_what_is_there_without_a_model(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run("ws", "a.pdf", **EVERYTHING)
    for options in ({"page_separator": "\n<!-- {page} -->\n"}, {"front_matter": True}, {}):
        summary, reader = run("ws", "a.pdf", **EVERYTHING, **options)
        assert (summary.skipped, reader.asked) == (1, [])
        text = markdown()["a.md"]
        assert ("<!-- 2 -->" in text) is ("page_separator" in options)
        assert text.startswith("---") is bool(options.get("front_matter"))
        page = (tmp_path / "ws/pages/a.md/0001.md").read_text()
        assert page.startswith("---") is bool(options.get("front_matter"))
    assert pdf.exists()


def test_what_is_as_it_should_be_is_not_written_again(tmp_path):
    write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run("ws", "a.pdf", **EVERYTHING)
    folders = [tmp_path / "ws" / name for name in ("markdown", "pages", "page_records")]
    files = [path for folder in folders for path in folder.rglob("*.*")]
    before = {path: path.stat().st_mtime_ns for path in files if path.is_file()}
    run("ws", "a.pdf", **EVERYTHING)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_markdown_that_a_later_run_does_not_ask_for_goes_when_it_is_stale(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", "a.pdf", **EVERYTHING)
    run("ws", "a.pdf", output_dir=tmp_path / "out")
    assert markdown() == markdown("out") == {"a.md": "page 1"}, "both are true"
    write_numbered_pdf(pdf, [2])
    run("ws", "a.pdf")
    assert (markdown(), markdown("out"), beside(tmp_path / "ws/pages")) == ({}, {}, {})
    run("ws", "a.pdf", output_dir=tmp_path / "out", markdown=True)
    assert markdown("out") == {"a.md": "page 2"}


def test_a_part_of_a_document_leaves_no_markdown_of_the_whole(tmp_path):
    write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run("ws", "a.pdf", markdown=True)
    run("ws", "a.pdf", pages="2")
    assert markdown() == {}


# Clocks.


@pytest.mark.parametrize("seconds", [-600, -1e9, 0, 1e9])
def test_force_reads_anew_whatever_the_clock_says(seconds, tmp_path, monkeypatch):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    stands = time.time()
    monkeypatch.setattr(time, "time", lambda: stands)
    run("ws", pdf)
    monkeypatch.setattr(time, "time", lambda: stands + seconds)
    for number in range(2):
        _, reader = run("ws", pdf, Reader({1: [answer(f"new {number}")]}), force=True)
        assert reader.asked == [1]
        assert results(tmp_path / "ws")[str(pdf)]["text"] == f"new {number}"


def test_a_file_whose_time_was_set_back_after_it_changed_is_read_again(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [2])
    status = pdf.stat()
    run("ws", pdf)
    pdf.write_bytes(write_numbered_pdf(tmp_path / "b.pdf", [4]).read_bytes())
    assert pdf.stat().st_size == status.st_size
    os.utime(pdf, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run("ws", pdf)[1].asked == [4]


# Models.


def test_what_was_read_with_another_model_or_other_options_is_told(tmp_path, caplog):
    pdfs = [write_numbered_pdf(tmp_path / f"{number}.pdf", [number]) for number in (1, 2)]
    run("ws", pdfs, model="first")
    caplog.clear()
    run("ws", pdfs, model="first")
    assert caplog.text == ""
    run("ws", pdfs, model="second")
    assert f"2 documents (first: {pdfs[0]}) keep pages that were read with first, not with second" in caplog.text
    caplog.clear()
    run("ws", pdfs, model="first", target_longest_image_dim=100)
    assert "read with other options (64 pixels, prompt c12f21ac; now 100 pixels, prompt c12f21ac)" in caplog.text
    caplog.clear()
    run("ws", pdfs, model="first", prompt="Read this.")
    assert "other options" in caplog.text
    caplog.clear()
    run("ws", pdfs, model="second", force=True)
    run("ws", pdfs, model="second")
    assert caplog.text == ""


def test_pages_of_another_model_that_a_document_resumes_with_are_reported(tmp_path, caplog):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run("ws", pdf, pages="1", model="first")
    run("ws", pdf, model="second")
    assert "1 documents" in caplog.text
    assert "with first, not with second" in caplog.text


def test_one_model_by_two_names_of_its_folder_is_one(tmp_path, caplog):
    (tmp_path / "models/m").mkdir(parents=True)
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", pdf, model="models/m")
    run("ws", pdf, model=f"{tmp_path}/models/../models/m/")
    assert "were read with" not in caplog.text


def test_a_model_that_is_not_there_is_an_error_where_nothing_is_left_to_read(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", pdf)
    config = PipelineConfig(workspace="ws", pdfs=pdf, model="no such model", target_longest_image_dim=64, markdown=True)
    with pytest.raises(CheckpointError, match="no such model is not a readable folder"):
        run_pipeline_sync(config)
    assert markdown(), "what needs no model was done"


def test_a_server_that_is_away_is_not_an_error_if_nothing_is_left_to_read(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    run("ws", pdf)
    config = PipelineConfig(workspace="ws", pdfs=pdf, server="http://127.0.0.1:9", target_longest_image_dim=64)
    assert run_pipeline_sync(config).skipped == 1


# Places that are no workspace.


@pytest.mark.parametrize(
    ("name", "field"),
    [
        *((name, "output_dir") for name in ("s3://bucket/ws", "AZ://c/ws", "s3:/bucket/ws", "file:///tmp/ws")),
        *(
            (name, field)
            for name in ("https://h/ws", "ftp://h/ws", "hf://a/b")
            for field in ("workspace", "output_dir")
        ),
    ],
)
def test_a_url_is_refused_as_a_folder_and_nothing_is_made(name, field, tmp_path):
    options = {"workspace": "ws", field: name}
    with pytest.raises(UsageError, match="is not on this disk: name a folder here"):
        PipelineConfig(pdfs="a.pdf", model="m", **options)
    assert list(tmp_path.iterdir()) == []


def test_what_two_runs_at_once_write_of_one_document_by_two_names_is_one(tmp_path):
    write_numbered_pdf(tmp_path / "a.pdf", [1])

    async def both():
        names = ["a.pdf", str(tmp_path / "a.pdf")]
        options = {"model": "m", "target_longest_image_dim": 64, **EVERYTHING}
        configs = [PipelineConfig(workspace="ws", pdfs=name, **options) for name in names]
        return await asyncio.gather(
            *(run_pipeline(config, ask=Reader(seconds=0.05).ask, open_pool=PoolHere) for config in configs)
        )

    for _ in range(2):
        asyncio.run(both())
        assert list(markdown().values()) == ["page 1"]
        assert len(list((tmp_path / "ws/results").iterdir())) == 1
    with Records(tmp_path / "ws") as records:
        assert len(list(records.documents())) == 1
    assert json.loads((tmp_path / "ws/metrics.json").read_text())["failed"] == 0
