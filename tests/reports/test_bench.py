"""What a bench report tells a person, line by line."""

from dataclasses import replace

from olmocr.reports.bench import BenchReport, CategoryScore, Comparison, TypeCount, bench_lines
from olmocr.reports.parts import Interval

WITHIN = Interval(0.5, 0.756, 0.95, 1000)
REPORT = BenchReport(
    model="m", weights={}, backend="mlx", data_set="set", checks_sha256="", revision=None, longest_side=1288,
    max_tokens=8000, complete=False, incomplete=("3 checks of type math were not scored",), score=0.6667,
    interval=WITHIN,
    categories=(
        CategoryScore(category="old", documents=2, scored=3, skipped=3, passed=2, score=0.6667, interval=WITHIN),
        CategoryScore(category="new", documents=1, scored=4, skipped=0, passed=1, score=0.25, interval=None),
        CategoryScore(category="math", documents=1, scored=0, skipped=2, passed=0, score=None, interval=None),
    ),
    types=(TypeCount("math", 0, 0, 5, "there is no browser"), TypeCount("table", 7, 3, 0)),
    documents=4, documents_left_out=0, pages=9, pages_without_answer=1, absent_in_nothing=2, comparison=None,
    date="2026-01-02", machine="", seconds=1.0, versions={},
)  # fmt: skip


def test_every_category_is_told_and_what_was_not_scored():
    assert bench_lines(REPORT) == [
        "  66.7%  old: 2 of 3 checks of 2 documents, 50.0% to 75.6%, 3 not scored",
        "  25.0%  new: 1 of 4 checks of 1 document",
        "   none  math: nothing was scored, 2 not scored",
        "         math: 5 not scored: there is no browser",
        "1 of 9 pages got no good answer, so all their checks failed",
        "2 checks that a text is absent passed because the page has no text",
        "m scores 66.7%, the mean of 2 categories (95%: 50.0% to 75.6%)",
        "not a full run: 3 checks of type math were not scored",
    ]


def test_a_full_run_is_told_without_what_it_has_none_of():
    compared = Comparison("o", {}, 4, 7, 0.5, 0.25, 0.25, WITHIN, 0.01, 3, 1, 0.5, "m is better than o")
    full = replace(
        REPORT, incomplete=(), interval=None, categories=REPORT.categories[1:2], types=REPORT.types[1:],
        pages_without_answer=0, absent_in_nothing=0, comparison=compared,
    )  # fmt: skip
    assert bench_lines(full) == [
        "  25.0%  new: 1 of 4 checks of 1 document",
        "m scores 66.7%, the mean of 1 categories",
        "m is better than o",
    ]
    assert bench_lines(replace(full, score=None))[1] == "m: nothing was scored"
