import asyncio
import hashlib
import json
import os
import re

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.errors import ExitCode, InputError, OutputError, ServerError, UsageError
from olmocr.inputs.sources import Source
from olmocr.workspace.folder import open_workspace
from olmocr.workspace.stats import read_stats
from tests.conftest import PAGES
from tests.pipeline.doubles import Model, answer, write_image, write_pdf
from tests.rendered_here import PoolHere

CUT = answer(finish_reason="length")


def run(workspace, pdfs, *script, **options):
    model = Model(*(script or [answer()]))
    config = PipelineConfig(workspace=workspace, pdfs=pdfs, model="none", **options)
    return asyncio.run(run_pipeline(config, ask=model.ask, open_pool=PoolHere)), model.requests


def records(workspace):
    lines = [path.read_text() for path in sorted((workspace / "results").glob("output_*.jsonl"))]
    assert all(line.count("\n") == 1 for line in lines)
    return {record["metadata"]["Source-File"]: record for record in map(json.loads, lines)}


def markdown(workspace):
    files = [path for path in (workspace / "markdown").rglob("*.md") if path.is_file()]
    return {str(path.relative_to(workspace)): path.read_text() for path in files}


def test_a_document_becomes_one_line_of_upstreams_dolma_format(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf", pages=3)
    run(tmp_path / "ws", [pdf], answer("Öne"), answer("", language="null"), answer("Three"))
    record = records(tmp_path / "ws")[str(pdf)]
    assert record["id"] == hashlib.sha1("Öne\nThree".encode()).hexdigest()
    assert record["text"] == "Öne\nThree"
    assert record["source"] == "olmocr"
    assert record["added"] == record["created"]
    assert record["metadata"]["pdf-total-pages"] == 3
    assert record["metadata"]["total-input-tokens"] == 300
    assert record["metadata"]["total-output-tokens"] == 60
    assert record["metadata"]["total-fallback-pages"] == 0
    attributes = record["attributes"]
    assert attributes["pdf_page_numbers"] == [[0, 4, 1], [4, 4, 2], [4, 9, 3]]
    assert attributes["primary_language"] == ["en", "", "en"]
    assert attributes["is_rotation_valid"] == [True, True, True]
    assert attributes["rotation_correction"] == [0, 0, 0]
    assert all(len(values) == 3 for values in attributes.values())


def test_a_scan_that_every_answer_calls_turned_keeps_its_text_flagged_and_is_asked_again_where_that_is_wanted(tmp_path):
    scan = write_image(tmp_path / "scan.png")
    turned = answer("Sideways", valid=False, turn=90)
    summary, requests = run(tmp_path / "ws", [scan], turned, markdown=True)
    record = records(tmp_path / "ws")[str(scan)]
    assert (record["text"], record["attributes"]["is_rotation_valid"]) == ("Sideways", [False])
    assert (record["attributes"]["is_fallback"], len(record["attributes"]["rejected"][0].splitlines())) == ([False], 8)
    assert list(markdown(tmp_path / "ws").values()) == ["Sideways"]
    assert (summary.exit_code, summary.askew_pages, len(requests)) == (ExitCode.OK, 1, 8)
    assert read_stats(tmp_path / "ws").askew_pages == 1

    assert run(tmp_path / "ws", [scan], turned)[1] == []
    summary, _ = run(tmp_path / "ws", [scan], answer("Upright"), retry_failed=True)
    record = records(tmp_path / "ws")[str(scan)]
    assert (record["text"], record["attributes"]["is_rotation_valid"], summary.askew_pages) == ("Upright", [True], 0)


def test_a_scan_whose_answers_are_all_cut_and_call_it_turned_is_read_upright(tmp_path):
    scan = write_image(tmp_path / "scan.png")
    sideways = answer("| | | |", valid=False, turn=270, finish_reason="length")
    _, requests = run(tmp_path / "ws", [scan], sideways, answer("Upright"))
    assert [request.image.rotation for request in requests] == [0, 270]
    assert records(tmp_path / "ws")[str(scan)]["text"] == "Upright"


def test_the_keys_come_in_upstreams_order_and_the_text_is_ascii_in_the_file(tmp_path):
    run(tmp_path / "ws", [write_pdf(tmp_path / "a.pdf")], answer("Ö"))
    (line,) = [path.read_text() for path in (tmp_path / "ws/results").iterdir()]
    assert line.isascii()
    record = json.loads(line)
    assert list(record) == ["id", "text", "source", "added", "created", "metadata", "attributes"]
    upstream = ["Source-File", "olmocr-version", "pdf-total-pages", "total-input-tokens", "total-output-tokens"]
    assert list(record["metadata"])[:6] == [*upstream, "total-fallback-pages"]


def test_a_blank_document_is_written_with_no_text(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    summary, _ = run(tmp_path / "ws", [pdf], answer("", language="null"), markdown=True)
    assert summary.exit_code == ExitCode.OK
    assert records(tmp_path / "ws")[str(pdf)]["text"] == ""
    assert list(markdown(tmp_path / "ws").values()) == [""]


def test_pictures_are_documents_of_one_page(tmp_path):
    summary, _ = run(tmp_path / "ws", [write_image(tmp_path / "a.png"), write_image(tmp_path / "b.jpg")])
    assert (summary.done, summary.pages) == (2, 2)


def test_markdown_lies_under_the_sources_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pdf(tmp_path / "x/y.pdf")
    run("ws", ["x/y.pdf"], answer("# Title ✓"), markdown=True)
    assert markdown(tmp_path / "ws") == {"markdown/x/y.md": "# Title ✓"}


def test_no_markdown_is_written_unasked(tmp_path):
    run(tmp_path / "ws", [write_pdf(tmp_path / "a.pdf")])
    assert not (tmp_path / "ws/markdown").exists()


def test_no_two_sources_share_a_markdown_file(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    names = ["a.pdf", "a.png", "../a.pdf", "A.pdf", str(tmp_path / "in" / "b.pdf"), "b.pdf"]
    for name in ("in/a.pdf", "a.pdf", "in/A.pdf", "in/b.pdf"):
        write_pdf(tmp_path / name)
    write_image(tmp_path / "in/a.png")
    run(tmp_path / "ws", names, *[answer(f"text {number}") for number in range(6)], markdown=True, workers=1)
    texts = markdown(tmp_path / "ws")
    assert sorted(texts.values()) == [f"text {number}" for number in range(5)], "b.pdf was given twice"
    assert texts["markdown/a.md"] == "text 0", "the first to come has the plain name"


@pytest.mark.parametrize("order", [1, -1])
def test_a_document_whose_markdown_would_be_anothers_folder_gets_a_name_of_its_own(order, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["x/a.pdf", "x/a.md/b.pdf"][::order]
    for name in names:
        write_pdf(tmp_path / name)
    for _ in range(2):
        summary, _ = run("ws", names, answer("one"), answer("two"), markdown=True)
        assert summary.exit_code == ExitCode.OK
        assert sorted(markdown(tmp_path / "ws").values()) == ["one", "two"]


def test_something_in_the_way_is_one_sentence(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    (tmp_path / "ws/failed" / f"{Source(str(pdf), pdf).key}.json").mkdir(parents=True)
    with pytest.raises(OutputError, match="is in the way"):
        run(tmp_path / "ws", [pdf])


@pytest.mark.parametrize("name", ["~nobody-has-this-name/a.pdf", "x" * 300 + ".pdf", ""])
def test_a_name_that_can_be_no_file_is_one_sentence(name, tmp_path):
    with pytest.raises(InputError, match="nothing was started"):
        run(tmp_path / "ws", [name])


def test_a_private_umask_is_kept(tmp_path):
    before = os.umask(0o077)
    try:
        run(tmp_path / "ws", [write_pdf(tmp_path / "a.pdf")], markdown=True)
    finally:
        os.umask(before)
    assert not [path for path in (tmp_path / "ws").rglob("*") if path.stat().st_mode & 0o077]


def test_a_markdown_file_keeps_its_owner_in_later_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pdf(tmp_path / "a.pdf")
    write_image(tmp_path / "a.png")
    run("ws", ["a.png"], answer("picture"), markdown=True)
    run("ws", ["a.pdf", "a.png"], answer("document"), markdown=True)
    assert markdown(tmp_path / "ws")["markdown/a.md"] == "picture"
    assert len(markdown(tmp_path / "ws")) == 2


def test_no_markdown_leaves_the_workspace_whatever_the_source_is_called(tmp_path, monkeypatch):
    (tmp_path / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep/er")
    write_pdf(tmp_path / "a.pdf")
    run("ws", ["../../a.pdf", str(tmp_path / "deep/../a.pdf")], markdown=True)
    inside = set((tmp_path / "deep/er/ws").rglob("*.md"))
    assert inside == set(tmp_path.rglob("*.md"))
    assert inside


def test_a_very_long_name_is_shortened(tmp_path):
    pdf = write_pdf(tmp_path / f"{'é' * 120}.pdf")
    summary, _ = run(tmp_path / "ws", [pdf, write_image(pdf.with_suffix(".png"))], markdown=True)
    assert summary.done == 2
    assert len(markdown(tmp_path / "ws")) == 2


def test_text_that_is_not_unicode_is_still_written(tmp_path):
    summary, _ = run(tmp_path / "ws", [write_pdf(tmp_path / "a.pdf")], answer("a\ud800b"), markdown=True)
    assert summary.done == 1
    assert list(markdown(tmp_path / "ws").values()) == ["a?b"]


def test_what_is_done_is_not_read_again(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    run(tmp_path / "ws", [pdf])
    summary, requests = run(tmp_path / "ws", [pdf])
    assert (summary.done, summary.skipped, requests) == (0, 1, [])


def test_a_file_that_has_changed_is_read_again(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    run(tmp_path / "ws", [pdf])
    write_pdf(pdf, pages=2)
    summary, _ = run(tmp_path / "ws", [pdf])
    assert summary.done == 1
    assert len(records(tmp_path / "ws")) == 1


def test_a_result_that_is_damaged_is_made_again(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    run(tmp_path / "ws", [pdf])
    (result,) = (tmp_path / "ws/results").iterdir()
    result.write_text('{"text": "Hel')
    assert run(tmp_path / "ws", [pdf])[0].done == 1


def test_markdown_that_is_asked_for_later_is_written_without_reading_again(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    run(tmp_path / "ws", [pdf], answer("Hello"))
    _, requests = run(tmp_path / "ws", [pdf], markdown=True)
    assert requests == []
    assert list(markdown(tmp_path / "ws").values()) == ["Hello"]


def test_one_bad_document_does_not_stop_the_others(tmp_path):
    good, locked = write_pdf(tmp_path / "good.pdf"), write_pdf(tmp_path / "locked.pdf", password="x")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4")
    summary, _ = run(tmp_path / "ws", [locked, tmp_path / "broken.pdf", good])
    assert summary.exit_code == ExitCode.SOME_DOCUMENTS_FAILED
    assert summary.done == 1
    assert ["encrypted" in failure.why for failure in summary.failures] == [True, False]
    assert list(records(tmp_path / "ws")) == [str(good)]
    failed = [json.loads(path.read_text()) for path in (tmp_path / "ws/failed").iterdir()]
    assert sorted(each["Source-File"] for each in failed) == [str(tmp_path / "broken.pdf"), str(locked)]


def test_a_page_that_cannot_be_rendered_falls_back_and_the_others_are_read(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf", pages=2)
    pdf.write_bytes(re.sub(rb"(/Kids \[ )\d 0 R", rb"\g<1>9 0 R", pdf.read_bytes()))  # the first page is not there
    summary, requests = run(tmp_path / "ws", [pdf], max_page_error_rate=0.5)
    assert (summary.exit_code, summary.fallback_pages, len(requests)) == (ExitCode.OK, 1, 1)
    attributes = records(tmp_path / "ws")[str(pdf)]["attributes"]
    assert attributes["attempts"] == [0, 1]
    assert "page 1 of" in attributes["rejected"][0]


def test_a_page_that_never_succeeds_falls_back_to_its_text_layer_and_is_flagged(tmp_path):
    pdf = PAGES / "report_22.pdf"
    answers = [answer("One"), CUT, CUT, answer("Three")]
    summary, _ = run(tmp_path / "ws", [pdf], *answers, max_page_retries=2, max_page_error_rate=0.5)
    assert (summary.exit_code, summary.fallback_pages) == (ExitCode.OK, 1)
    record = records(tmp_path / "ws")[str(pdf)]
    assert record["attributes"]["is_fallback"] == [False, True, False]
    assert record["metadata"]["total-fallback-pages"] == 1
    start, end, _ = record["attributes"]["pdf_page_numbers"][1]
    assert len(record["text"][start:end]) > 100


def test_a_document_with_too_many_fallback_pages_is_kept_apart_as_failed_and_tried_again(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf", pages=2)
    summary, _ = run(tmp_path / "ws", [pdf], answer("One"), CUT, markdown=True)
    assert summary.exit_code == ExitCode.SOME_DOCUMENTS_FAILED
    assert "page 2; last: finish_reason is 'length'" in summary.failures[0].why
    assert not (tmp_path / "ws/results").exists()
    assert not (tmp_path / "ws/markdown").exists()
    (failed,) = (tmp_path / "ws/failed").iterdir()
    assert json.loads(failed.read_text())["document"]["text"].startswith("One")
    again, _ = run(tmp_path / "ws", [pdf], answer("One"), markdown=True)
    assert again.done == 1
    assert not failed.exists()


def test_a_document_that_fails_after_it_changed_leaves_no_stale_result(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    run(tmp_path / "ws", [pdf], markdown=True)
    pdf.write_bytes(b"%PDF-1.4")
    assert run(tmp_path / "ws", [pdf], markdown=True)[0].failures
    assert records(tmp_path / "ws") == markdown(tmp_path / "ws") == {}


def test_a_file_that_is_not_there_starts_nothing(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"there is no file .*b\.pdf; the folder .*empty contains no documents"):
        run(tmp_path / "ws", [pdf, tmp_path / "b.pdf", tmp_path / "empty"])
    assert not (tmp_path / "ws").exists()


def test_what_was_finished_stays_when_the_run_is_stopped(tmp_path):
    first, second = write_pdf(tmp_path / "1.pdf"), write_pdf(tmp_path / "2.pdf")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "ws", [first, second], answer("One"), KeyboardInterrupt(), workers=1, max_concurrent_pages=1)
    (finished,) = records(tmp_path / "ws")
    assert finished in (str(first), str(second))
    assert run(tmp_path / "ws", [first, second])[0].skipped == 1


def test_a_workspace_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "ws").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        run(tmp_path / "ws", [write_pdf(tmp_path / "a.pdf")])


def test_each_page_is_reported_when_it_is_read(tmp_path):
    seen = []
    config = PipelineConfig(workspace=tmp_path / "ws", pdfs=write_pdf(tmp_path / "a.pdf", pages=2), model="none")
    report = lambda source, page: seen.append((source.name, page.page_number, page.attempts))  # noqa: E731
    asyncio.run(run_pipeline(config, ask=Model(answer()).ask, on_page=report))
    assert seen == [(str(tmp_path / "a.pdf"), 1, 1), (str(tmp_path / "a.pdf"), 2, 1)]


def test_the_page_is_rendered_at_the_side_that_was_asked_for(tmp_path):
    _, requests = run(tmp_path / "ws", [write_pdf(tmp_path / "a.pdf")], target_longest_image_dim=644)
    assert max(requests[0].image.pixels.size) == 644


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "magic"},
        {"max_page_retries": 0},
        {"max_page_error_rate": 1.5},
        {"max_tokens": 0},
        {"target_longest_image_dim": 5},
        {"pdfs": []},
    ],
)
def test_a_combination_that_makes_no_sense_is_refused_when_it_is_made(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        PipelineConfig(**{"workspace": "ws", "pdfs": ["a.pdf"], "model": "m", **options})


def test_a_source_has_one_key_however_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.pdf", "./a.pdf", str(tmp_path / "a.pdf"), "../" + tmp_path.name + "/a.pdf"]
    assert len({Source(name, tmp_path.joinpath(name)).key for name in names}) == 1


def test_two_workspaces_at_once_never_claim_one_markdown_path(tmp_path):
    workspace = open_workspace(tmp_path)
    sources = [Source(name, tmp_path / name) for name in ("a.pdf", "a.png", "a.jpg")]
    paths = [workspace.markdown_path(source) for source in sources]
    assert len(set(paths)) == 3
    assert paths == [workspace.markdown_path(source) for source in sources]


def test_a_server_that_is_not_there_ends_the_run_at_once_and_no_document_counts_as_failed(tmp_path):
    config = PipelineConfig(workspace=tmp_path / "ws", pdfs=write_pdf(tmp_path / "a.pdf"), server="http://127.0.0.1:9")
    with pytest.raises(ServerError, match="cannot be reached") as caught:
        asyncio.run(run_pipeline(config))
    assert caught.value.exit_code == ExitCode.SERVER
    assert [path.name for path in (tmp_path / "ws").rglob("*.json*")] == ["metrics.json"]


def test_pages_that_a_document_does_not_have_are_its_failure(tmp_path):
    summary, _ = run(tmp_path / "ws", [write_pdf(tmp_path / "a.pdf", pages=2)], pages="7-9")
    assert summary.failures[0].why.endswith("has no page 7-9: it ends with page 2")
