"""What a smoke report tells a person, line by line."""

from olmocr.reports.smoke import KnownFault, SmokePage, SmokeReport, smoke_lines

GOOD = SmokePage(
    document="a.pdf", page_number=1, kind="digital", passed=True, problems=(), status="valid", attempts=1, rejected=(),
    finish_reason="stop", rotation=0, input_tokens=900, output_tokens=70, phrases=("one", "two", "three"),
    missing_phrases=(), character_error_rate=0.0123, seconds=1.26,
)  # fmt: skip
BAD = SmokePage(
    document="b.pdf", page_number=2, kind="scan", passed=False, problems=("it lacks 'two'", "it was turned"),
    status="fallback", attempts=3, rejected=("no words",), finish_reason=None, rotation=90, input_tokens=0,
    output_tokens=210, phrases=("one", "two"), missing_phrases=("two",), character_error_rate=None, seconds=4.0,
)  # fmt: skip
BARE = SmokePage(
    document="c.pdf", page_number=1, kind="blank", passed=True, problems=(), status="blank", attempts=0, rejected=(),
    finish_reason=None, rotation=0, input_tokens=0, output_tokens=0, phrases=(), missing_phrases=(),
    character_error_rate=None, seconds=0.0,
)  # fmt: skip


def report(*pages, passed, problems=(), known_faults=()):
    return SmokeReport(
        model="m", weights={}, backend="mlx", page_set="built-in", longest_side=644, passed=passed, problems=problems,
        pages=pages, known_faults=known_faults, seconds=5.25, versions={},
    )  # fmt: skip


def test_a_model_that_does_not_read_is_told_page_by_page_with_what_may_be_the_reason():
    fault = KnownFault("mlx-vlm", "0.7.3", "it puts the image first")
    assert smoke_lines(report(GOOD, BAD, BARE, passed=False, problems=("no template",), known_faults=(fault,))) == [
        "ok      a.pdf, page 1 (digital): valid, 1 attempts, 70 tokens, 1.2% errors, 3 of 3 phrases, 1.3 s",
        "broken  b.pdf, page 2 (scan): fallback, 3 attempts, 210 tokens, 1 of 2 phrases, 4.0 s",
        "        it lacks 'two'",
        "        it was turned",
        "ok      c.pdf, page 1 (blank): blank, 0 attempts, 0 tokens, 0.0 s",
        "no template",
        "mlx-vlm 0.7.3 is known to be bad: it puts the image first",
        "m does not read as it should: 2 of 3 pages (built-in, 644 px) passed in 5.2 s",
    ]


def test_a_model_that_reads_is_told_in_a_sentence():
    assert smoke_lines(report(BARE, passed=True))[-1] == "m reads: 1 of 1 pages (built-in, 644 px) passed in 5.2 s"
