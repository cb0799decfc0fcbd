import dataclasses
import json
import shlex

import jsonschema
import pytest

from olmocr.conversion.convert import convert
from olmocr.conversion.recipe import changed, find_recipe
from olmocr.reports.conversion import ConversionReport
from olmocr.reports.typed_json import report_json
from tests.checkpoints import tiny_checkpoint
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "docs/conversion-report.schema.json").read_text())
DOCUMENT = (ROOT / "docs/conversion-report.md").read_text()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Return the tiny checkpoint's reports in 4 and in 8 bits, as they were written."""
    folder = tmp_path_factory.mktemp("reports")
    source = tiny_checkpoint(folder / "source")
    recipe = changed(find_recipe("mixed"), group_size=32, keep=("*.lm_head",))
    convert(source, ["4bit", "8bit", recipe], folder / "out")
    return {
        path.parent.name.removeprefix("source-mlx-"): json.loads(path.read_text())
        for path in (folder / "out").glob("*/conversion_report.json")
    }


@pytest.mark.parametrize("recipe", ["4bit", "8bit", "mixed"])
def test_a_report_is_what_the_schema_says(recipe, reports):
    jsonschema.validate(reports[recipe], SCHEMA)
    assert set(reports[recipe]) == set(SCHEMA["properties"])


def test_a_report_without_a_field_is_not(reports):
    for field in SCHEMA["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in reports["4bit"].items() if key != field}, SCHEMA)


def test_every_field_is_documented():
    assert [field.name for field in dataclasses.fields(ConversionReport) if f"`{field.name}`" not in DOCUMENT] == []


def test_more_bits_have_less_error(reports):
    def errors(recipe):
        return {each["name"]: each["relative_error"] for each in reports[recipe]["tensors"] if each["bits"]}

    four, eight = errors("4bit"), errors("8bit")
    assert set(four) == set(eight)
    assert all(0 < eight[name] < four[name] / 8 for name in four)


def test_the_command_names_all_that_changes_a_byte(reports):
    command = reports["mixed"]["command"]
    for part in ("--quantize mixed", "--method fit", "--group-size 32", "--keep '*.lm_head'"):
        assert part in command


def test_the_command_can_be_given_to_a_shell_whatever_the_source_is_called(tmp_path):
    (report,) = convert(tiny_checkpoint(tmp_path / "my model's; ls"), "4bit", tmp_path / "out")
    assert shlex.split(report.command)[3:6] == ["my model's; ls", "--quantize", "4bit"]


def test_no_path_of_the_machine_is_in_a_report(tmp_path):
    (report,) = convert(tiny_checkpoint(tmp_path / "source"), "4bit", tmp_path / "out")
    assert str(tmp_path) not in report_json(report)
