"""A frozen dataclass as JSON and back, and what of a stranger's JSON is refused."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from olmocr.reports.typed_json import WrongTypeError, parse_as, report_json


@dataclass(frozen=True)
class Part:
    nbytes: int
    bits: float


@dataclass(frozen=True)
class Report:
    name: str
    state: Literal["done", "failed"]
    parts: tuple[Part, ...]
    counts: Mapping[str, int]
    best: Part | None
    passed: bool
    version: int = 1


REPORT = Report("a", "done", (Part(1, 4.5), Part(2, 8.0)), {"one": 1}, None, True)


def changed(**fields):
    return json.dumps({**json.loads(report_json(REPORT)), **fields})


def test_what_was_written_is_read_back_as_it_was():
    assert parse_as(Report, report_json(REPORT)) == REPORT
    assert report_json(REPORT).startswith('{\n  "name": "a",\n  "state": "done",\n  "parts": [\n')


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_report_of_what_is_not_a_number_is_not_written(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        report_json(Part(1, number))


def test_a_field_that_is_unknown_is_left_out_and_one_with_a_default_may_be_missing():
    value = json.loads(changed(unknown=[1]))
    del value["version"]
    assert parse_as(Report, json.dumps(value)) == REPORT


def test_a_whole_number_is_a_number_too():
    (part,) = parse_as(Report, changed(parts=[{"nbytes": 1, "bits": 4}])).parts
    assert (part.bits, type(part.bits)) == (4.0, float)


def test_a_lone_surrogate_comes_back_as_it_was():
    assert parse_as(Report, changed(name="\udcff")).name == "\udcff"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": 1}, "name is not text"),
        ({"name": None}, "name is not text"),
        ({"state": "lost"}, "state is not what it should be"),
        ({"passed": 1}, "passed is not true or false"),
        ({"version": True}, "version is not a whole number"),
        ({"version": 1.0}, "version is not a whole number"),
        ({"counts": {"one": "1"}}, "counts.* is not a whole number"),
        ({"best": []}, "best is not an object"),
        ({"best": {"nbytes": 1, "bits": True}}, "best.bits is not a number"),
        ({"parts": [{"nbytes": 1, "bits": 1.0}, {"nbytes": 1}]}, "parts[1] has no bits"),
        ({"parts": {}}, "parts is not a list"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(fields, sentence):
    with pytest.raises(WrongTypeError) as error:
        parse_as(Report, changed(**fields))
    assert str(error.value) == sentence


@pytest.mark.parametrize("text", ["[]", "7", "null", '"text"'])
def test_what_is_not_an_object_is_refused(text):
    with pytest.raises(WrongTypeError, match=r"^it is not an object$"):
        parse_as(Report, text)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "\ud800", '{"bits": NaN}', '{"bits": -Infinity}', '{"a": 1e999}']
)
def test_what_is_not_json_is_refused(text):
    with pytest.raises(WrongTypeError, match=r"^it is not JSON: "):
        parse_as(Report, text)


def test_a_field_that_is_missing_is_named():
    with pytest.raises(WrongTypeError, match=r"^it has no name$"):
        parse_as(Report, "{}")
