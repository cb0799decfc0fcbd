import asyncio
import gc
import json
import zipfile
from pathlib import Path

import pytest

from olmocr import PipelineConfig, run_pipeline, run_pipeline_sync
from olmocr.errors import AnswerError, ExitCode, InputError, OlmocrError, ServerError, ServerUnavailableError
from olmocr.rendering.pool import RenderedPage, default_workers
from tests.backends.model_server import ModelServer
from tests.clocks import run_skipping
from tests.pipeline.doubles import Reader, answer, number_of, write_numbered_pdf, write_pdf
from tests.rendered_here import PoolHere

AWAY = ServerUnavailableError("the server is away")


def run(workspace, pdfs, reader=None, **options):
    reader = reader or Reader()
    options = {"target_longest_image_dim": 64, "model": "m", **options}
    config = PipelineConfig(workspace=workspace, pdfs=pdfs, **options)
    return asyncio.run(run_pipeline(config, ask=reader.ask, open_pool=PoolHere)), reader


def results(workspace):
    records = [json.loads(path.read_text()) for path in (workspace / "results").glob("*.jsonl")]
    return {record["metadata"]["Source-File"]: record for record in records}


def pages_text(*numbers):
    return "\n".join(f"page {number}" for number in numbers)


def test_pages_are_asked_side_by_side_as_many_as_allowed_and_no_more(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 25))
    summary, reader = run(tmp_path / "ws", pdf, Reader(together=5), max_concurrent_pages=5)
    assert reader.most_at_once == 5
    assert sorted(reader.asked) == list(range(1, 25))
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(*range(1, 25)), "in order, whoever came first"
    assert summary.pages == 24


def test_pages_of_several_documents_share_what_is_allowed(tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / f"{at}.pdf", range(10 * at + 1, 10 * at + 5)) for at in range(4)]
    _, reader = run(tmp_path / "ws", pdfs, Reader(together=6), max_concurrent_pages=6, workers=4)
    assert reader.most_at_once == 6
    assert len({number // 10 for number in reader.asked[:6]}) > 1, "a document has four"


def test_one_page_at_once_and_one_worker_are_one_after_the_other(tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / f"{at}.pdf", range(10 * at + 1, 10 * at + 4)) for at in range(2)]
    _, reader = run(tmp_path / "ws", pdfs, max_concurrent_pages=1, workers=1)
    assert reader.asked == [1, 2, 3, 11, 12, 13]


def test_pages_are_not_rendered_much_ahead_of_the_model(tmp_path):
    """A model that does not come to an end has as many pictures waiting as may be in hand, and no more."""
    pdfs = [write_numbered_pdf(tmp_path / f"{at}.pdf", range(100 * at + 1, 100 * at + 31)) for at in range(2)]
    most = 2 + default_workers() + 1

    async def look():
        config = PipelineConfig(
            workspace=tmp_path / "ws", pdfs=pdfs, model="m", target_longest_image_dim=64, max_concurrent_pages=2
        )
        gate = asyncio.Event()

        async def ask(request):
            await gate.wait()
            return answer()

        gc.collect()
        before = pictures_in_memory()  # of other tests
        running = asyncio.create_task(run_pipeline(config, ask=ask))
        while pictures_in_memory() - before < most:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # for one too many
        in_hand = pictures_in_memory() - before
        gate.set()
        return in_hand, await running

    in_hand, summary = asyncio.run(look())
    assert in_hand == most
    assert summary.pages == 60


def pictures_in_memory():
    return sum(type(each) is RenderedPage for each in gc.get_objects())


def test_a_page_that_is_blank_asks_no_model(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 0, 3])
    summary, reader = run(tmp_path / "ws", pdf)
    assert (sorted(reader.asked), summary.blank_pages, summary.pages) == ([1, 3], 1, 3)
    record = results(tmp_path / "ws")[str(pdf)]
    assert record["text"] == pages_text(1, 3)
    assert record["attributes"]["is_blank"] == [False, True, False]
    assert record["attributes"]["attempts"] == [1, 0, 1]


def test_an_answer_that_lacks_most_of_the_files_own_text_is_flagged(tmp_path):
    words = " ".join(f"word{number}" for number in range(60))
    pdf = tmp_path / "a.pdf"
    write_text_pdf(pdf, words)
    summary, _ = run(tmp_path / "ws", pdf, Reader({0: [answer("word1 word2 word3")]}))
    attributes = results(tmp_path / "ws")[str(pdf)]["attributes"]
    assert (summary.poor_pages, attributes["low_coverage"], attributes["text_coverage"]) == (1, [True], [0.05])
    whole, _ = run(tmp_path / "ws", pdf, Reader({0: [answer(words)]}), force=True)
    assert whole.poor_pages == 0
    assert results(tmp_path / "ws")[str(pdf)]["attributes"]["text_coverage"] == [1.0]


def write_text_pdf(path, text):
    content = f"BT /F 6 Tf 2 50 Td ({text}) Tj ET"
    path.write_text(
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 2000 2000]/Contents 4 0 R"
        "/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj\n"
        f"4 0 obj<</Length {len(content)}>>stream\n{content}\nendstream endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    )


@pytest.mark.parametrize("loop", [answer("again and again " * 300), answer("agai", finish_reason="loop")])
def test_an_answer_that_goes_round_in_circles_is_asked_again(loop, tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    summary, reader = run(tmp_path / "ws", pdf, Reader({1: [loop, answer("out of it")]}))
    record = results(tmp_path / "ws")[str(pdf)]
    assert (record["text"], reader.asked, summary.retried_pages) == ("out of it", [1, 1], 1)
    assert "went round in circles" in record["attributes"]["rejected"][0]


def test_a_broken_answer_counts_as_an_attempt(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    broken = AnswerError("no JSON")
    reader = Reader({1: [broken, answer("good")], 2: [broken]})
    summary, reader = run(tmp_path / "ws", pdf, reader, max_page_retries=3)
    assert sorted(reader.asked) == [1, 1, 2, 2, 2]
    assert (summary.retried_pages, summary.fallback_pages) == (2, 1)
    assert summary.failures[0].why == "the model gave no good answer for page 2; last: no JSON"


def test_a_page_that_takes_too_long_falls_back_and_the_others_are_read(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])

    async def ask(request):
        if number_of(request.image.pixels) == 2:
            asyncio.get_running_loop().skip(1000)
            await asyncio.Event().wait()
        return answer()

    config = PipelineConfig(
        workspace=tmp_path / "ws", pdfs=pdf, model="m", target_longest_image_dim=64, max_concurrent_pages=1,
        page_timeout=500, max_page_error_rate=1,
    )  # fmt: skip
    summary = run_skipping(run_pipeline(config, ask=ask, open_pool=PoolHere))
    assert (summary.fallback_pages, summary.exit_code) == (1, ExitCode.OK)
    assert results(tmp_path / "ws")[str(pdf)]["attributes"]["rejected"][1] == "the page took more than 500 s"


def test_a_page_that_nobody_answers_fails_its_document_alone_and_is_asked_again_next_time(tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / f"{at}.pdf", [10 * at + 1, 10 * at + 2, 10 * at + 3]) for at in range(3)]
    summary, _ = run(tmp_path / "ws", pdfs, Reader({12: [AWAY]}), max_concurrent_pages=1)
    assert (summary.done, summary.pages, summary.exit_code) == (2, 8, ExitCode.SOME_DOCUMENTS_FAILED)
    assert summary.failures[0].source == str(pdfs[1])
    assert summary.failures[0].why == f"page 2 of {pdfs[1]} got no answer: the server is away"
    again, reader = run(tmp_path / "ws", pdfs)
    assert (reader.asked, again.done, again.skipped) == ([12], 1, 2)
    assert results(tmp_path / "ws")[str(pdfs[1])]["text"] == pages_text(11, 12, 13)


def test_three_pages_in_a_row_without_an_answer_end_the_run_and_a_later_one_resumes(tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / f"{at}.pdf", range(10 * at + 1, 10 * at + 5)) for at in range(3)]
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4")
    away = Reader({number: [AWAY] for number in range(13, 40)})
    options = {"max_concurrent_pages": 1, "workers": 1}
    with pytest.raises(
        ServerError, match=r"the server is away; the run ends after 3 pages .* run it again later"
    ) as end:
        run(tmp_path / "ws", [tmp_path / "broken.pdf", *pdfs], away, **options)
    assert end.value.exit_code == ExitCode.SERVER
    assert not isinstance(end.value, ServerUnavailableError)
    assert "broken.pdf" in (tmp_path / "ws/failures.jsonl").read_text(), "what failed before is told all the same"
    assert json.loads((tmp_path / "ws/metrics.json").read_text())["pages"] == 6
    again, reader = run(tmp_path / "ws", pdfs, **options)
    assert reader.asked == [13, 14, 21, 22, 23, 24]
    assert (again.done, again.skipped, again.exit_code) == (2, 1, ExitCode.OK)


def test_pages_without_an_answer_that_are_not_in_a_row_do_not_end_the_run(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 12))
    summary, _ = run(tmp_path / "ws", pdf, Reader({n: [AWAY] for n in (1, 2, 4, 5, 7, 8)}), max_concurrent_pages=1)
    assert summary.failures[0].why == f"6 pages (first: 1) of {pdf} got no answer: the server is away"


def test_a_server_that_cannot_be_used_at_all_ends_the_run_at_once(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 12))
    reader = Reader({number: [ServerError("wrong key")] for number in range(1, 12)})
    with pytest.raises(ServerError, match=r"^wrong key$"):
        run(tmp_path / "ws", pdf, reader, max_concurrent_pages=1)
    assert len(reader.asked) <= 2, "the next page may have been waiting for its turn"


def test_a_page_that_the_model_refuses_is_not_asked_again(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    summary, reader = run(tmp_path / "ws", pdf, Reader({1: [InputError("too large")]}), max_page_error_rate=1)
    assert (sorted(reader.asked), summary.fallback_pages, summary.done) == ([1, 2], 1, 1)


def test_failures_come_in_the_order_of_the_sources_however_they_end(tmp_path):
    names = ["c", "a", "d", "b"]
    pdfs = [write_pdf(tmp_path / f"{name}.pdf", password="x") for name in names]
    good = write_numbered_pdf(tmp_path / "good.pdf", [1])
    summary, _ = run(tmp_path / "ws", [pdfs[0], pdfs[1], good, pdfs[2], pdfs[3]], workers=4)
    assert [Path(failure.source).stem for failure in summary.failures] == names
    lines = [json.loads(line) for line in (tmp_path / "ws/failures.jsonl").read_text().splitlines()]
    assert [Path(line["Source-File"]).stem for line in lines] == ["a", "b", "c", "d"]
    assert all("encrypted" in line["error"] for line in lines)
    assert [{key: line[key] for key in ("source", "page_number", "why")} for line in lines] == sorted(
        (failure.as_json for failure in summary.failures), key=lambda failure: failure["source"]
    )


def test_nothing_failed_leaves_no_list_of_failures(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf", password="x")
    run(tmp_path / "ws", pdf)
    write_numbered_pdf(pdf, [1])
    assert run(tmp_path / "ws", pdf)[0].done == 1
    assert not (tmp_path / "ws/failures.jsonl").exists()
    assert list((tmp_path / "ws/failed").iterdir()) == []


def test_the_numbers_of_a_run_are_written_down(tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / "a.pdf", [1, 0, 3]), write_pdf(tmp_path / "b.pdf", password="x")]
    summary, _ = run(tmp_path / "ws", pdfs, Reader({3: [answer(turn=45), answer()]}))
    metrics = json.loads((tmp_path / "ws/metrics.json").read_text())
    expected = {"done": 1, "failed": 1, "pages": 3, "blank_pages": 1, "retried_pages": 1, "input_tokens": 200}
    assert expected.items() <= metrics.items()
    assert metrics["seconds"] == summary.seconds > 0
    assert metrics["pages_per_minute"] > 0
    assert metrics["attempts_ended"] == {"stop": 3}
    assert metrics["peak_memory_bytes"] > 10 << 20
    assert metrics["engine"] == {}, "no model ran in this process"


def test_a_bug_in_what_is_called_after_a_page_ends_the_run_and_the_page_is_kept(tmp_path):
    config = PipelineConfig(
        workspace=tmp_path / "ws", pdfs=write_numbered_pdf(tmp_path / "a.pdf", [1, 2]), model="m",
        target_longest_image_dim=64,
    )  # fmt: skip

    def on_page(source, page):
        raise KeyError(page.page_number)

    with pytest.raises(KeyError):
        asyncio.run(run_pipeline(config, ask=Reader().ask, on_page=on_page))
    assert run(tmp_path / "ws", tmp_path / "a.pdf")[1].asked in ([2], [])


# What is written beside the results.


def beside(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.*") if path.is_file()}


def test_page_files_page_records_and_front_matter_are_written_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_numbered_pdf(tmp_path / "x/a.pdf", [1, 0, 3])
    run("ws", "x/a.pdf", page_files=True, page_records=True, front_matter=True, markdown=True)
    pages = beside(tmp_path / "ws/pages")
    assert sorted(pages) == ["x/a.md/0001.md", "x/a.md/0002.md", "x/a.md/0003.md"]
    assert pages["x/a.md/0003.md"] == (
        '---\nprimary_language: "en"\nis_rotation_valid: True\nrotation_correction: 0\n'
        "is_table: False\nis_diagram: False\n---\npage 3"
    )
    (record,) = map(json.loads, beside(tmp_path / "ws/page_records").values())
    assert [(page["page_number"], page["status"]) for page in record["pages"]] == [
        (1, "valid"),
        (2, "blank"),
        (3, "valid"),
    ]
    markdown = beside(tmp_path / "ws/markdown")["x/a.md"]
    assert markdown.startswith('---\nsource: "x/a.pdf"\npages: 3\nlanguages: ["en"]\nfallback_pages: []\n')
    assert markdown.endswith("\n---\npage 1\npage 3")


def test_a_separator_stands_between_pages_and_tells_the_next_ones_number(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [7, 8, 9])
    run(tmp_path / "ws", pdf, page_separator="\n\n<!-- page {page} -->\n\n", output_dir=tmp_path / "out")
    (text,) = [path.read_text() for path in (tmp_path / "out").rglob("*.md")]
    assert text == "page 7\n\n<!-- page 2 -->\n\npage 8\n\n<!-- page 3 -->\n\npage 9"
    assert not (tmp_path / "ws/markdown").exists()
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(7, 8, 9), "the record is upstream's"


def test_page_files_can_be_asked_for_later_and_those_of_a_longer_reading_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run("ws", "a.pdf")
    summary, reader = run("ws", "a.pdf", page_files=True)
    assert (summary.skipped, reader.asked) == (1, [])
    assert sorted(beside(tmp_path / "ws/pages")) == ["a.md/0001.md", "a.md/0002.md"]
    run("ws", "a.pdf", page_files=True, pages="2")
    assert beside(tmp_path / "ws/pages") == {"a.md/0002.md": "page 2"}


def test_a_document_that_fails_after_it_changed_leaves_nothing_beside(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    options = {"page_files": True, "page_records": True, "markdown": True}
    run(tmp_path / "ws", pdf, **options)
    pdf.write_bytes(b"%PDF-1.4")
    run(tmp_path / "ws", pdf, **options)
    for folder in ("pages", "page_records", "markdown", "results"):
        assert beside(tmp_path / "ws" / folder) == {}, folder


def test_two_sources_that_want_one_path_get_two_in_every_folder(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    write_numbered_pdf(tmp_path / "a.pdf", [1])
    write_numbered_pdf(tmp_path / "in/a.pdf", [0, 0, 2])
    for _ in range(2):
        run("../ws", ["a.pdf", "../a.pdf"], markdown=True, page_files=True, page_records=True)
        assert beside(tmp_path / "ws/markdown").pop("a.md") == "page 2", "the first, though it took longer"
        assert sorted(beside(tmp_path / "ws/markdown").values()) == ["page 1", "page 2"]
        assert sorted(beside(tmp_path / "ws/pages").values()) == ["", "", "page 1", "page 2"]
        assert len(beside(tmp_path / "ws/page_records")) == 2


# Where documents come from.


def test_members_of_an_archive_are_documents_and_a_broken_one_fails_alone(tmp_path):
    a, b = write_numbered_pdf(tmp_path / "a.pdf", [1]), write_numbered_pdf(tmp_path / "b.pdf", [2, 3])
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(a, "in/a.pdf")
        archive.write(b, "b.pdf")
        archive.writestr("c.pdf", b"%PDF-1.4")
    name = str(tmp_path / "all.zip")
    summary, _ = run(tmp_path / "ws", name, markdown=True)
    assert (summary.done, [failure.source for failure in summary.failures]) == (2, [f"{name}::c.pdf"])
    texts = {source: record["text"] for source, record in results(tmp_path / "ws").items()}
    assert texts == {f"{name}::in/a.pdf": "page 1", f"{name}::b.pdf": pages_text(2, 3)}
    again, reader = run(tmp_path / "ws", name)
    assert (reader.asked, again.skipped) == ([], 2)


def test_a_url_is_a_document_and_is_not_read_again_while_it_gives_the_same(tmp_path):
    content = write_numbered_pdf(tmp_path / "a.pdf", [1, 2]).read_bytes()
    with ModelServer(lambda handler: None, pages={"/a.pdf": lambda handler: give(handler, content)}) as server:
        for asked in ([1, 2], []):
            summary, reader = run(tmp_path / "ws", f"{server.url}/a.pdf", markdown=True)
            assert (sorted(reader.asked), summary.exit_code) == (asked, ExitCode.OK)
        content = write_numbered_pdf(tmp_path / "a.pdf", [1, 3]).read_bytes()
        assert sorted(run(tmp_path / "ws", f"{server.url}/a.pdf")[1].asked) == [1, 3]
        gone, _ = run(tmp_path / "ws", f"{server.url}/gone.pdf")
        assert "404" in gone.failures[0].why


def give(handler, content):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


# From where there is a loop already.


def test_a_notebook_whose_cells_run_in_a_loop_can_run_it(tmp_path):
    config = PipelineConfig(
        workspace=tmp_path / "ws",
        pdfs=write_numbered_pdf(tmp_path / "a.pdf", [1]),
        model="m",
        target_longest_image_dim=64,
    )

    async def cell():
        return run_pipeline_sync(config, ask=Reader().ask)

    assert asyncio.run(cell()).done == 1
    assert run_pipeline_sync(config, ask=Reader().ask).skipped == 1


def test_an_error_is_raised_from_within_a_loop_too(tmp_path):
    config = PipelineConfig(workspace=tmp_path / "ws", pdfs=tmp_path / "none.pdf", model="m")

    async def cell():
        return run_pipeline_sync(config, ask=Reader().ask)

    with pytest.raises(OlmocrError, match="there is no file"):
        asyncio.run(cell())
