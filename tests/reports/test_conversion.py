"""The report of a conversion: its schema, its docs and its fields."""

import dataclasses
import json
import re

import jsonschema
import pytest

from olmocr.reports.conversion import ConversionReport
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "docs/conversion-report.schema.json").read_text())


DOCUMENT = (ROOT / "docs/conversion-report.md").read_text()


@pytest.mark.parametrize("recipe", ["4bit", "8bit", "mixed"])
def test_a_report_is_what_the_schema_says(recipe, reports):
    jsonschema.validate(reports[recipe], SCHEMA)
    assert set(reports[recipe]) == set(SCHEMA["properties"])


def test_a_report_without_a_field_is_not(reports):
    for field in SCHEMA["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in reports["4bit"].items() if key != field}, SCHEMA)


def test_every_field_has_a_line_of_the_table_in_the_docs():
    first_cells = [line.split("|")[1] for line in DOCUMENT.splitlines() if line.startswith("| `")]
    documented = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert documented == {field.name for field in dataclasses.fields(ConversionReport)} - {"version"}
    assert "`version` is 2" in DOCUMENT
