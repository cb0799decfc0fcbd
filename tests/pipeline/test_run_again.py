"""What a run finds of earlier ones, and of others beside it."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.errors import AnswerError, ExitCode, ServerUnavailableError
from olmocr.pipeline.page_records import blank_record
from olmocr.workspace.records import RECORDS_FILE, Records
from tests.conftest import ROOT
from tests.pipeline.doubles import Reader, answer, write_numbered_pdf, write_pdf
from tests.pipeline.test_run_side_by_side import beside, pages_text, results, run
from tests.rendered_here import PoolHere

BROKEN = AnswerError("no JSON")
PROCESS = [sys.executable, "-m", "tests.pipeline.scripted_run"]


def test_a_run_that_is_stopped_inside_a_document_asks_only_for_what_is_missing(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 11))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "ws", pdf, Reader({6: [KeyboardInterrupt()]}), max_concurrent_pages=1)
    assert not (tmp_path / "ws/results").exists()
    summary, reader = run(tmp_path / "ws", pdf)
    assert sorted(reader.asked) == [6, 7, 8, 9, 10]
    assert (summary.pages, results(tmp_path / "ws")[str(pdf)]["text"]) == (5, pages_text(*range(1, 11)))


def test_a_file_that_was_renamed_asks_nothing(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run(tmp_path / "ws", pdf)
    moved = pdf.rename(tmp_path / "b.pdf")
    summary, reader = run(tmp_path / "ws", moved)
    assert (reader.asked, summary.done, summary.pages) == ([], 1, 0)
    assert results(tmp_path / "ws")[str(moved)]["text"] == pages_text(1, 2)


def test_what_lies_there_twice_is_read_once_and_written_twice(tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / name, [1, 2, 3]) for name in ("a.pdf", "b.pdf", "c.pdf")]
    summary, reader = run(tmp_path / "ws", pdfs, Reader(seconds=0.02))
    assert (sorted(reader.asked), summary.done, summary.pages) == ([1, 2, 3], 3, 3)
    assert [record["text"] for record in results(tmp_path / "ws").values()] == [pages_text(1, 2, 3)] * 3


def test_a_failure_that_lies_there_twice_is_tried_again_once_a_run(tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / name, [1, 2]) for name in ("a.pdf", "b.pdf")]
    for asked in ([1, 2], [2]):
        summary, reader = run(tmp_path / "ws", pdfs, Reader({2: [BROKEN]}), max_page_retries=1)
        assert (sorted(reader.asked), len(summary.failures)) == (asked, 2)


def test_a_file_that_was_touched_and_is_the_same_asks_nothing(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    run(tmp_path / "ws", pdf)
    os.utime(pdf, (1, 1))
    summary, reader = run(tmp_path / "ws", pdf)
    assert (reader.asked, summary.failures) == ([], ())
    assert run(tmp_path / "ws", pdf)[0].skipped == 1


def test_a_file_that_changed_is_read_anew_and_its_old_pages_are_not_mixed_in(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2, 3])
    run(tmp_path / "ws", pdf, markdown=True)
    write_numbered_pdf(pdf, [4, 2])
    _, reader = run(tmp_path / "ws", pdf, markdown=True)
    assert sorted(reader.asked) == [2, 4]
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(4, 2)
    assert list(beside(tmp_path / "ws/markdown").values()) == [pages_text(4, 2)]


def test_some_pages_first_and_all_later_ask_for_each_once(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 8))
    _, first = run(tmp_path / "ws", pdf, pages="2-3,6-")
    record = results(tmp_path / "ws")[str(pdf)]
    assert (sorted(first.asked), record["text"]) == ([2, 3, 6, 7], pages_text(2, 3, 6, 7))
    assert [span[2] for span in record["attributes"]["pdf_page_numbers"]] == [2, 3, 6, 7]
    assert (record["metadata"]["pdf-total-pages"], record["metadata"]["source-pages"]) == (4, 7)
    _, rest = run(tmp_path / "ws", pdf)
    assert sorted(rest.asked) == [1, 4, 5]
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(*range(1, 8))


def test_pages_that_a_document_does_not_have_are_its_failure(tmp_path):
    long, short = write_numbered_pdf(tmp_path / "a.pdf", [1, 2, 3]), write_numbered_pdf(tmp_path / "b.pdf", [4])
    summary, reader = run(tmp_path / "ws", [long, short], pages="3-")
    assert (reader.asked, summary.done) == ([3], 1)
    assert summary.failures[0].why == f"{short} has no page 3-: it ends with page 1"


def test_force_reads_everything_anew(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run(tmp_path / "ws", pdf)
    summary, reader = run(tmp_path / "ws", pdf, Reader({1: [answer("better")]}), force=True)
    assert (sorted(reader.asked), summary.done) == ([1, 2], 1)
    assert results(tmp_path / "ws")[str(pdf)]["text"] == "better\npage 2"


def test_what_fell_back_is_left_alone_until_it_is_asked_for(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run(tmp_path / "ws", pdf, Reader({2: [BROKEN]}), max_page_error_rate=0.5)
    summary, reader = run(tmp_path / "ws", pdf, max_page_error_rate=0.5)
    assert (reader.asked, summary.skipped) == ([], 1)
    summary, reader = run(tmp_path / "ws", pdf, max_page_error_rate=0.5, retry_failed=True)
    assert (reader.asked, summary.done) == ([2], 1)
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(1, 2)


def test_without_names_all_that_failed_or_fell_back_is_tried_again_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, numbers in (("good", [1]), ("fallback", [2, 3]), ("bad", [4])):
        write_numbered_pdf(tmp_path / f"{name}.pdf", numbers)
    gone = write_pdf(tmp_path / "gone.pdf", password="x")
    pdfs = ["good.pdf", "fallback.pdf", "bad.pdf", "gone.pdf"]
    first, _ = run("ws", pdfs, Reader({3: [BROKEN], 4: [BROKEN]}), max_page_error_rate=0.5, max_page_retries=1)
    assert [failure.source for failure in first.failures] == ["bad.pdf", "gone.pdf"]
    gone.unlink()
    summary, reader = run("ws", (), retry_failed=True)
    assert (sorted(reader.asked), summary.done, summary.failures) == ([3, 4], 2, ())
    assert "gone.pdf" in (tmp_path / "ws/failures.jsonl").read_text(), "nothing is dropped in silence"
    again, reader = run("ws", (), retry_failed=True)
    assert (reader.asked, again.done, again.exit_code) == ([], 0, ExitCode.OK)


def test_what_was_read_stays_when_only_nobody_answers_the_second_time(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run(tmp_path / "ws", pdf, Reader({2: [BROKEN]}), max_page_error_rate=0.5, markdown=True)
    away = Reader({2: [ServerUnavailableError("away")]})
    summary, _ = run(tmp_path / "ws", pdf, away, max_page_error_rate=0.5, retry_failed=True, markdown=True)
    assert len(summary.failures) == 1
    assert results(tmp_path / "ws")[str(pdf)]["text"] == "page 1\n"
    assert len(beside(tmp_path / "ws/markdown")) == 1
    assert run(tmp_path / "ws", pdf, markdown=True)[0].done == 1


def test_a_page_whose_record_is_damaged_is_asked_for_again(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2, 3])
    run(tmp_path / "ws", pdf)
    (tmp_path / "ws/results").rename(tmp_path / "gone")
    with Records(tmp_path / "ws") as records:
        (document,) = records.documents()
        records._write("UPDATE pages SET record = '{' WHERE page_number = ?", (2,))
    _, reader = run(tmp_path / "ws", pdf)
    assert reader.asked == [2]
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(1, 2, 3)
    assert document.page_count == 3


def test_a_result_that_was_thrown_away_is_made_from_the_pages(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run(tmp_path / "ws", pdf)
    for path in (tmp_path / "ws/results").iterdir():
        path.unlink()
    assert run(tmp_path / "ws", pdf)[1].asked == []
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(1, 2)


def test_pages_of_another_model_are_kept_and_both_are_named(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run(tmp_path / "ws", pdf, pages="1", model="old")
    run(tmp_path / "ws", pdf, model="new")
    assert results(tmp_path / "ws")[str(pdf)]["metadata"]["model"] == "new, old"


# Processes.


def start(*arguments):
    return subprocess.Popen(
        [*PROCESS, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def ended(process):
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    *numbers, last = output.splitlines()
    return sorted(map(int, numbers)), last


def test_processes_share_the_documents_of_a_workspace_and_both_end_when_all_is_done(tmp_path):
    pdfs = [write_numbered_pdf(tmp_path / f"{at}.pdf", range(10 * at + 1, 10 * at + 9)) for at in range(8)]
    processes = [start(tmp_path / "ws", 0.1, *pdfs) for _ in range(2)]
    (first, _), (second, _) = map(ended, processes)
    assert sorted(first + second) == sorted(number for at in range(8) for number in range(10 * at + 1, 10 * at + 9))
    assert first
    assert second
    assert len(results(tmp_path / "ws")) == 8
    with Records(tmp_path / "ws") as records:
        assert [document.state for document in records.documents()] == ["done"] * 8


def test_what_a_process_had_in_hand_when_it_died_is_taken_over(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 101))
    first = start(tmp_path / "ws", 0.1, pdf)
    assert first.stdout.readline().strip().isdigit()
    second = start(tmp_path / "ws", 0, pdf)
    for _ in range(30):
        assert first.stdout.readline().strip().isdigit()
    first.kill()
    more = len(list(first.stdout))
    first.communicate()
    asked, last = ended(second)
    assert last == "done 1 skipped 0 failed 0"
    assert len(asked) <= 100 - 31 - more + 3, "only the three in flight are asked again"
    assert results(tmp_path / "ws")[str(pdf)]["text"] == pages_text(*range(1, 101))


def make_documents(folder):
    """Make eight documents, blank pages, a copy and a broken one among them."""
    pdfs = [write_numbered_pdf(folder / f"{at}.pdf", [10 * at + 1, 10 * at + 2, 0, 10 * at + 4]) for at in range(6)]
    (folder / "copy.pdf").write_bytes(pdfs[0].read_bytes())
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4")
    return [*pdfs, folder / "copy.pdf", folder / "broken.pdf"]


def essence(workspace):
    """Return all of a workspace that does not tell when and by whom it was made."""
    documents = {
        name: (record["id"], record["text"], record["attributes"]) for name, record in results(workspace).items()
    }
    markdown = {name: text for name, text in beside(workspace / "markdown").items() if name.endswith(".md")}
    failures = (workspace / "failures.jsonl").read_text()
    return documents, markdown, failures


def killed_and_resumed(workspace, pdfs, chance, kills):
    """Kill *kills* runs at random moments, let the last one end, and return how many answers were given in all."""
    answered = 0
    for _ in range(kills):
        process = start(workspace, 0.005, *pdfs)
        wanted = chance.randrange(8)  # answers; none: in the middle of the start
        answered += sum(process.stdout.readline().strip().isdigit() for _ in range(wanted))
        time.sleep(chance.uniform(0, 0.02 if wanted else 1))
        process.send_signal(signal.SIGKILL)
        answered += sum(line.strip().isdigit() for line in process.stdout)
        _, errors = process.communicate()
        assert "Traceback" not in errors, errors
    return answered + len(ended(start(workspace, 0.005, *pdfs))[0])


@pytest.mark.parametrize(
    "runs", [pytest.param(3, id="3 kills"), pytest.param(50, id="50 kills", marks=pytest.mark.slow)]
)
def test_runs_that_are_killed_at_any_moment_end_with_the_documents_of_one_that_was_not(runs, tmp_path):
    pdfs = make_documents(tmp_path / "in")
    ended(start(tmp_path / "undisturbed", 0, *pdfs))
    expected = essence(tmp_path / "undisturbed")
    assert len(expected[0]) == 7
    chance = random.Random(runs)
    done = 0
    while done < runs:  # a workspace lives through three kills, each at another moment of the way
        workspace = tmp_path / f"ws{done}"
        kills = min(3, runs - done)
        answered = killed_and_resumed(workspace, pdfs, chance, kills)
        assert essence(workspace) == expected
        assert 18 <= answered <= 18 + 3 * kills, "more than the pages in flight were lost"
        done += kills


def test_a_database_that_lost_its_shared_memory_is_opened_as_it_was(tmp_path):
    """What kill -9 leaves: a write-ahead log that was never taken up."""
    with Records(tmp_path) as records:
        records.add_page("a", blank_record(1))
        for name in (RECORDS_FILE, f"{RECORDS_FILE}-wal"):
            (tmp_path / "copy").mkdir(exist_ok=True)
            (tmp_path / "copy" / name).write_bytes((tmp_path / name).read_bytes())
    with Records(tmp_path / "copy") as records:
        assert list(records.pages("a")) == [1]


def two_runs_at_once(folder, *readers, **options):
    """Run two in one process, in one workspace: they know of each other what two processes do."""
    config = PipelineConfig(workspace=folder / "ws", model="m", target_longest_image_dim=64, **options)

    async def both():
        return await asyncio.gather(*(run_pipeline(config, ask=reader.ask, open_pool=PoolHere) for reader in readers))

    return asyncio.run(both())


def test_two_runs_in_one_process_share_the_work_too(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    readers = Reader(seconds=0.05), Reader(seconds=0.05)
    summaries = two_runs_at_once(tmp_path, *readers, pdfs=pdf)
    assert sorted(number for reader in readers for number in reader.asked) == [1, 2]
    assert sorted((summary.done, summary.skipped) for summary in summaries) == [(0, 1), (1, 0)]


def test_what_another_run_has_just_failed_at_is_reported_and_not_tried_again(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    readers = [Reader({2: [BROKEN]}, seconds=0.05) for _ in range(2)]
    summaries = two_runs_at_once(tmp_path, *readers, pdfs=pdf, max_page_retries=2)
    assert sorted(number for reader in readers for number in reader.asked) == [1, 2, 2]
    assert [len(summary.failures) for summary in summaries] == [1, 1]


def test_what_two_runs_are_forced_to_read_anew_is_read_once(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    run(tmp_path / "ws", pdf)
    readers = Reader(seconds=0.05), Reader(seconds=0.05)
    two_runs_at_once(tmp_path, *readers, pdfs=pdf, force=True)
    assert sorted(number for reader in readers for number in reader.asked) == [1, 2]
    assert json.loads((tmp_path / "ws/metrics.json").read_text())["failed"] == 0
