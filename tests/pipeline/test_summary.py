import json
from pathlib import Path

import pytest

from olmocr.errors import ExitCode
from olmocr.inputs.sources import Source, listed
from olmocr.pipeline.summary import RunCounts, RunSummary, metrics_of, pages_per_minute
from olmocr.workspace.document import Failure
from olmocr.workspace.folder import open_workspace
from tests.four_pages import FOUR

SOURCES = [Source(name, Path(name)) for name in ("a.pdf", "b.pdf", "c.pdf", "d.pdf", "e.pdf", "f.pdf")]


def counts_of_four_pages():
    """Return the counts of a run of 30 seconds over two documents that it read, one skipped, one left out, two bad."""
    ticks = iter([100.0, 130.5])
    counts = RunCounts(listed(SOURCES), clock=lambda: next(ticks))
    with counts.timed(apart_from=lambda: 0.5):
        for page in FOUR:
            counts.add_page(page)
    for state in ("done", "done", "skipped", "filtered"):
        counts.add_document(state)
    counts.add_failure(SOURCES[5], "broken")
    counts.add_failure(SOURCES[1], "away")
    counts.add_failure(SOURCES[1], "encrypted")
    return counts


def test_a_summary_counts_each_kind_of_page_and_of_document():
    assert counts_of_four_pages().summary() == RunSummary(
        done=2,
        skipped=1,
        filtered=1,
        failures=(Failure("b.pdf", "encrypted"), Failure("f.pdf", "broken")),
        pages=4,
        blank_pages=1,
        retried_pages=2,
        fallback_pages=1,
        poor_pages=1,
        askew_pages=0,
        input_tokens=2100,
        output_tokens=500,
        seconds=30.0,
        servers={"http://mac:8000/v1": {"pages": 1, "output_tokens": 200, "seconds": 4.0}},
    )


def test_a_run_that_did_nothing_has_counted_nothing_and_divides_by_nothing():
    summary = RunCounts(listed([])).summary()
    assert summary == RunSummary(0, 0, 0, (), 0, 0, 0, 0, 0, 0, 0, 0, 0.0)
    assert (pages_per_minute(summary), summary.exit_code) == (0.0, ExitCode.OK)


def test_a_failure_makes_the_exit_code():
    assert counts_of_four_pages().summary().exit_code == ExitCode.SOME_DOCUMENTS_FAILED


def test_four_pages_in_half_a_minute_are_eight_a_minute():
    assert pages_per_minute(counts_of_four_pages().summary()) == 8.0


def test_the_time_of_a_run_that_an_error_ends_counts():
    ticks = iter([0.0, 7.0])
    counts = RunCounts(listed([]), clock=lambda: next(ticks))
    with pytest.raises(ZeroDivisionError), counts.timed(apart_from=lambda: 2.0):
        raise ZeroDivisionError
    assert counts.summary().seconds == 5.0


def test_the_file_of_metrics_has_every_number(tmp_path):
    by_server = {"http://mac:8000/v1": {"went_away": 2}, "http://vllm:8000/v1": {"went_away": 1}}
    numbers = metrics_of(counts_of_four_pages(), {"pages": 2, "steps_a_token": 0.5}, by_server)
    open_workspace(tmp_path).write_metrics(numbers)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics.pop("peak_memory_bytes") > 10 << 20
    assert metrics == {
        "done": 2,
        "skipped": 1,
        "filtered": 1,
        "failed": 2,
        "failures": [
            {"source": "b.pdf", "page_number": None, "why": "encrypted"},
            {"source": "f.pdf", "page_number": None, "why": "broken"},
        ],
        "pages": 4,
        "blank_pages": 1,
        "retried_pages": 2,
        "fallback_pages": 1,
        "poor_pages": 1,
        "askew_pages": 0,
        "input_tokens": 2100,
        "output_tokens": 500,
        "seconds": 30.0,
        "pages_per_minute": 8.0,
        "attempts_ended": {"stop": 2, "loop": 1, "failed": 1, "length": 1, "cancelled": 1},
        "engine": {"pages": 2, "steps_a_token": 0.5},
        "servers": {
            "http://mac:8000/v1": {"pages": 1, "output_tokens": 200, "seconds": 4.0, "went_away": 2},
            "http://vllm:8000/v1": {"pages": 0, "output_tokens": 0, "seconds": 0.0, "went_away": 1},
        },
    }
