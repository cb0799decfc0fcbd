"""What a run writes is read by other programs' strict readers, whichever file comes first."""

import dataclasses
import datetime
import json
from itertools import permutations

import pyarrow.json
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.inputs.sources import Source
from olmocr.page import PageResponse
from olmocr.text import strict_json
from olmocr.workspace.document import Document, PageRecord
from olmocr.workspace.outputs import dolma_line, write_json_line
from tests.four_pages import DOCUMENT, FALLBACK, RETRIED, VALID

TODAY = datetime.date(2026, 5, 4)
BLANK = PageRecord(1, "blank", PageResponse(None, True, 0, False, False, None))


def document(*pages, name="a.pdf"):
    numbered = tuple(dataclasses.replace(page, page_number=number) for number, page in enumerate(pages, 1))
    return Document(Source(name, DOCUMENT.source.origin), "0" * 64, numbered, len(pages))


def saying(text):
    return dataclasses.replace(VALID, response=PageResponse("en", True, 0, False, False, text))


KINDS = {
    "blank": document(BLANK),
    "fallback": document(FALLBACK),
    "read": document(VALID, RETRIED),
    "a date": document(saying("2024-01-01")),
    "a moment": document(saying("2024-01-01T10:00:00Z")),
    "a number": document(saying("12")),
    "half a character": document(saying("a\ud800b"), name="bad\udcff\n\x00.pdf"),
}


def lines(documents):
    return [strict_json(dolma_line(each, TODAY)) for each in documents]


@pytest.mark.parametrize("first", KINDS)
def test_arrow_guesses_the_same_types_from_every_document(first, tmp_path):
    schemas = []
    for name in (first, "read"):
        write_json_line(tmp_path / "a.jsonl", dolma_line(KINDS[name], TODAY))
        schemas.append(pyarrow.json.read_json(tmp_path / "a.jsonl").schema)
    assert schemas[0] == schemas[1]
    assert "null" not in str(schemas[0])


@pytest.mark.parametrize("first", KINDS)
def test_datasets_reads_results_whichever_comes_first(first, tmp_path):
    datasets = pytest.importorskip("datasets")
    names = [first, *(name for name in KINDS if name != first)]
    for number, name in enumerate(names):
        write_json_line(tmp_path / "results" / f"output_{number}.jsonl", dolma_line(KINDS[name], TODAY))
    datasets.disable_progress_bars()
    read = datasets.load_dataset(
        "json", data_files=str(tmp_path / "results" / "*.jsonl"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert read["text"][:] == [json.loads(line)["text"] for line in lines(KINDS[name] for name in names)]


def test_polars_reads_results_in_any_order(tmp_path):
    polars = pytest.importorskip("polars")
    for number, order in enumerate(permutations(["blank", "read", "a date"])):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines(KINDS[name] for name in order)))
        assert polars.read_ndjson(path, infer_schema_length=1)["text"].len() == 3


def test_a_text_that_is_nothing_but_a_date_ends_with_a_line_end():
    line = dolma_line(KINDS["a date"], TODAY)
    assert line["text"] == "2024-01-01\n"
    assert line["attributes"]["pdf_page_numbers"] == [[0, 11, 1]]


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # half characters among them
ANY_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(ANY_VALUE)
def test_strict_readers_take_any_value_on_one_line(value):
    orjson = pytest.importorskip("orjson")
    text = strict_json(value)
    assert orjson.loads(text) == json.loads(text)
    assert len(text.splitlines()) == 1


@given(ANY_TEXT, ANY_TEXT)
def test_any_name_and_any_page_is_strict_json_whose_spans_fit(name, text):
    orjson = pytest.importorskip("orjson")
    page = PageResponse("en", True, 0, False, False, text)
    line = orjson.loads(strict_json(dolma_line(document(dataclasses.replace(VALID, response=page), name=name), TODAY)))
    ((start, end, number),) = line["attributes"]["pdf_page_numbers"]
    assert (start, number) == (0, 1)
    assert end == len(line["text"])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_not_written(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json({"a": number})
