"""A benchmark folder is read whole, or refused with the line that is wrong."""

import hashlib
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.errors import InputError
from olmocr.validate.bench.checks import (
    BenchCheck,
    CheckError,
    Footnote,
    Format,
    Formula,
    Order,
    Phrase,
    parse_check,
    read_bench_set,
)

PRESENT = {"pdf": "text/a.pdf", "page": 1, "id": "one", "type": "present", "text": "A text"}


@pytest.fixture
def bench(tmp_path):
    """Return a function: lines of a category's checks -> a benchmark folder with two documents."""
    (tmp_path / "pdfs/text").mkdir(parents=True)
    for name in ("a.pdf", "b.PDF"):
        (tmp_path / "pdfs/text" / name).write_bytes(b"%PDF-")

    def make(*lines, category="text"):
        written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / f"{category}.jsonl").write_text("\n".join(written))
        return tmp_path

    return make


def test_every_document_gets_a_baseline_check_unless_it_has_one(bench):
    own = {"pdf": "text/a.pdf", "page": 1, "id": "two", "type": "baseline"}
    found = read_bench_set(bench(PRESENT, "", own))
    assert found.documents == ("text/a.pdf", "text/b.PDF")
    assert [(check.category, check.id, check.document) for check in found.checks] == [
        ("text", "one", "text/a.pdf"),
        ("text", "two", "text/a.pdf"),
        ("baseline", "text/b.PDF_baseline", "text/b.PDF"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "presnt"}, "no type of check 'presnt'; use one of present, absent"),
        ({"type": None}, "type is None, not a text"),
        ({"text": ""}, "text is '', not a text"),
        ({"text": "****"}, "consists only of formatting marks"),
        ({"text": 7}, "text is 7, not a text"),
        ({"page": 0}, "page is 0, not a whole number from 1"),
        ({"page": True}, "page is True"),
        ({"max_diffs": -1}, "max_diffs is -1"),
        ({"max_diffs": 1.5}, "max_diffs is 1.5"),
        ({"case_sensitive": "no"}, "case_sensitive is 'no', not true or false"),
        ({"max_diff": 2}, "does not have a field 'max_diff'"),
        ({"pdf": "../a.pdf"}, "is not inside pdfs"),
        ({"pdf": "/etc/a.pdf"}, "is not inside pdfs"),
        ({"pdf": "text/c.pdf"}, "'text/c.pdf', which is not in pdfs"),
        ({"id": None}, "id is None"),
    ],
)
def test_a_line_that_is_not_a_check_is_named(bench, change, reason):
    with pytest.raises(InputError, match=r"text\.jsonl:2 ") as error:
        read_bench_set(bench({**PRESENT, "id": "zero"}, {**PRESENT, **change}))
    assert reason in str(error.value)


@pytest.mark.parametrize("line", ['{"pdf": ', "[]", "7", "[" * 100_000, "NaN", '"\\ud800"'])
def test_a_line_that_is_not_a_json_object_is_named(bench, line):
    with pytest.raises(InputError, match=r"text\.jsonl:2 is not a check: it is not (a )?JSON"):
        read_bench_set(bench(PRESENT, line))


def test_an_id_that_stands_twice_is_named_with_both_places(bench):
    bench(PRESENT, category="more")
    with pytest.raises(InputError, match=r"text\.jsonl:1 has the same id as .*more\.jsonl:1, 'one'"):
        read_bench_set(bench(PRESENT))


def test_more_edits_than_half_of_a_text_are_refused():
    line = {"pdf": "a.pdf", "page": 1, "id": "one", "type": "order", "before": "abcd", "after": "a longer one"}
    assert parse_check(json.dumps({**line, "max_diffs": 2}), "text").rule == Order("abcd", "a longer one")
    with pytest.raises(CheckError, match="more than half"):
        parse_check(json.dumps({**line, "max_diffs": 3}), "text")


ANY = {"pdf": "a.pdf", "page": 1, "id": "one"}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"type": "math", "math": " x "}, Formula(" x ")),
        ({"type": "math", "math": "x", "ignore_dollar_delimited": True}, Formula("x", with_dollars=False)),
        ({"type": "format", "format": "bold", "text": "a  b"}, Format("a b", "bold")),
        ({"type": "footnote", "marker": "1"}, Footnote("1")),
        (
            {"type": "footnote", "marker": "1", "appears_before_marker": "*a*", "appears_after_marker": ""},
            Footnote("1", before="a"),
        ),
    ],
)
def test_checks_of_formulas_formats_and_footnotes_are_read(fields, rule):
    assert parse_check(json.dumps(ANY | fields), "text").rule == rule


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": "math", "math": " "}, "math is ' ', not a text"),
        ({"type": "math", "math": "x", "text": "x"}, "a check of type math does not have a field 'text'"),
        ({"type": "format", "format": "red", "text": "a"}, "format is 'red', not one of heading, bold, italic"),
        ({"type": "footnote"}, "marker is missing"),
        ({"type": "footnote", "marker": "1 2"}, "marker is '1 2', which is not a footnote's mark"),
        ({"type": "footnote", "marker": "1", "appears_before_marker": "**"}, "consists only of formatting marks"),
    ],
)
def test_those_that_cannot_be_meant_are_refused(fields, reason):
    with pytest.raises(CheckError) as error:
        parse_check(json.dumps(ANY | fields), "text")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("remove", "reason"),
    [("pdfs", "it has no folder pdfs"), ("text.jsonl", "no *.jsonl"), ("pdfs/text", "does not hold PDFs")],
)
def test_a_folder_that_is_not_a_benchmark_is_refused(bench, remove, reason):
    folder = bench(PRESENT)
    (folder / remove).rename(folder / "elsewhere")
    with pytest.raises(InputError) as error:
        read_bench_set(folder)
    assert reason in str(error.value)


def test_the_automatic_checks_names_are_not_taken(bench):
    with pytest.raises(InputError, match="rename it"):
        read_bench_set(bench(PRESENT, category="baseline"))


def test_bytes_that_are_no_text_are_refused(bench):
    folder = bench(PRESENT)
    (folder / "text.jsonl").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8 text: byte 0 is 0xff"):
        read_bench_set(folder)


def test_the_revision_is_that_of_all_files_if_the_hubs_client_left_one(bench):
    folder = bench(PRESENT)
    assert read_bench_set(folder).revision is None
    notes = folder / ".cache/huggingface/download/text.jsonl.metadata"
    notes.parent.mkdir(parents=True)
    content = (folder / "text.jsonl").read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    for etag in (git, hashlib.sha256(content).hexdigest()):
        notes.write_text(f"{'ab' * 20}\n{etag}\n1.5\n")
        assert read_bench_set(folder).revision == "ab" * 20
    for text in ("no commit", f"{'ab' * 20}", f"no commit\n{git}\n1.5\n"):
        notes.write_text(text)
        assert read_bench_set(folder).revision is None


def test_a_file_that_was_changed_after_it_was_downloaded_has_no_revision(bench):
    folder = bench(PRESENT)
    notes = folder / ".cache/huggingface/download/text.jsonl.metadata"
    notes.parent.mkdir(parents=True)
    notes.write_text(f"{'ab' * 20}\n{hashlib.sha256((folder / 'text.jsonl').read_bytes()).hexdigest()}\n1.5\n")
    assert read_bench_set(folder).revision == "ab" * 20
    assert read_bench_set(bench({**PRESENT, "text": "Easier"})).revision is None


def test_other_checks_are_another_data_set(bench):
    first = read_bench_set(bench(PRESENT)).checks_sha256
    assert read_bench_set(bench({**PRESENT, "text": "Other"})).checks_sha256 != first


FIELDS = st.fixed_dictionaries(
    {
        "pdf": st.text(string.ascii_letters + "/.", min_size=1),
        "page": st.integers(-1, 3) | st.booleans() | st.none(),
        "id": st.text(),
        "type": st.sampled_from(
            ["present", "absent", "order", "table", "baseline", "math", "format", "footnote", "other"]
        ),
    },
    optional={
        name: st.none() | st.booleans() | st.integers(-1, 5) | st.text(max_size=5) | st.lists(st.text(), max_size=1)
        for name in ("text", "before", "after", "cell", "up", "max_diffs", "first_n", "case_sensitive", "max_length")
    },
)


@given(FIELDS)
def test_any_object_becomes_a_check_or_a_sentence(fields):
    try:
        check = parse_check(json.dumps(fields), "text")
    except CheckError as error:
        assert str(error)
    else:
        assert isinstance(check, BenchCheck)
        assert check.page >= 1
        assert not isinstance(check.rule, Phrase) or check.rule.text.strip()


@given(st.text(max_size=40))
def test_any_line_becomes_a_check_or_a_sentence(line):
    with pytest.raises(CheckError):
        parse_check(line, "text")
