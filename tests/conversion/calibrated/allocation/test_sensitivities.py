import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.calibrated.allocation.sensitivities import (
    MatrixSensitivity,
    identified,
    parse_sensitivities,
    predicted_nats,
    read_sensitivities,
    require_source,
    write_sensitivities,
)
from olmocr.conversion.plan import make_plan
from olmocr.conversion.recipe import BITS, changed, find_recipe
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.errors import InputError, PlanError
from olmocr.files import sha256_of
from olmocr.model_folder import ModelFolder
from olmocr.reports.conversion import ConvertedSource, SourceFile
from olmocr.reports.typed_json import WrongTypeError, report_json
from tests.checkpoints import tiny_checkpoint
from tests.conversion.calibrated.measured import measured_of
from tests.conversion.sources import seven_billion, tiny

HASH = "0123456789abcdef" * 4
MEASURED = measured_of(tiny())


def as_dict(sensitivities=MEASURED):
    return json.loads(report_json(sensitivities))


def test_what_is_written_is_read_again(tmp_path):
    write_sensitivities(tmp_path / "new/sensitivity.json", MEASURED)
    assert read_sensitivities(tmp_path / "new/sensitivity.json") == MEASURED


@given(
    st.dictionaries(st.sampled_from(["fit", "stock"]), st.lists(st.floats(0, 1e9), min_size=5, max_size=5), min_size=1)
)
def test_any_nats_survive_the_file(by_method):
    nats = {method: dict(zip(map(str, BITS), values, strict=True)) for method, values in by_method.items()}
    matrix = MatrixSensitivity("language_model.lm_head", (96, 64), nats)
    given = dataclasses.replace(MEASURED, matrices=(matrix,))
    assert parse_sensitivities(report_json(given)) == given
    assert given.methods() == tuple(method for method in ("stock", "fit") if method in nats)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 2}, "version is 2, and 1 is read here"),
        ({"group_size": 32}, "group_size is 32, and 64 is read here"),
        ({"matrices": []}, "matrices are missing, or one is listed twice"),
        ({"matrices": as_dict()["matrices"][:1] * 2}, "matrices are missing, or one is listed twice"),
        ({"seed": "a"}, "seed is not a whole number"),
        ({"pages": {**as_dict()["pages"], "sha256": "abc"}}, "source.files or pages.sha256 does not have a SHA-256"),
        ({"source": {**as_dict()["source"], "files": []}}, "source.files or pages.sha256 does not have a SHA-256"),
    ],
)
def test_what_is_not_such_a_file_says_why(change, error, tmp_path):
    path = tmp_path / "sensitivity.json"
    path.write_text(json.dumps(as_dict() | change))
    with pytest.raises(InputError) as caught:
        read_sensitivities(path)
    assert (
        str(caught.value) == f"{path} does not hold sensitivities: {error}; docs/sensitivities.md describes the format"
    )


@pytest.mark.parametrize(
    ("nats", "error"),
    [
        ({}, "are of no method"),
        ({"guess": {"3": 1.0}}, "are of guess"),
        ({"fit": {"3": 1.0}}, "with fit are not of 3, 4, 5, 6, 8 bits"),
        ({"fit": dict.fromkeys("3456", 1.0) | {"8": -1.0}}, "with fit are not all numbers from 0 on"),
    ],
)
def test_a_matrix_has_a_price_at_every_number_of_bits(nats, error):
    text = as_dict()
    text["matrices"][0]["nats"] = nats
    with pytest.raises(WrongTypeError, match=f"nats of .* {error}"):
        parse_sensitivities(json.dumps(text))


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_other_bytes_are_refused_in_a_sentence(content):
    with pytest.raises(WrongTypeError):
        parse_sensitivities(content)


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_sensitivities(tmp_path / "none.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(InputError, match="has more than 16,777,216 bytes"):
        read_sensitivities(tmp_path / "large.json")


def test_a_source_is_known_by_the_hashes_of_its_shards(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    source = identified(read_checkpoint(ModelFolder(folder)))
    assert source.name == "source"
    assert {file.name: file.sha256 for file in source.files} == {
        path.name: sha256_of(path) for path in folder.glob("*.safetensors")
    }
    mine = dataclasses.replace(MEASURED, source=source)
    require_source(mine, dataclasses.replace(source, name="another name"))
    other = ConvertedSource("other", None, (SourceFile("model.safetensors", HASH),))
    with pytest.raises(PlanError, match=r"were measured on source, whose weights .* are not those of other \(0123456"):
        require_source(mine, other)


def test_the_prediction_is_the_sum_over_what_is_quantized():
    source = seven_billion()
    measured = measured_of(source)
    plan = make_plan(source, find_recipe("4bit"))
    nats = measured.nats("fit")
    assert predicted_nats(measured, plan) == pytest.approx(sum(by_bits[4] for by_bits in nats.values()))
    kept = make_plan(source, changed(find_recipe("4bit"), keep=("language_model.lm_head",)))
    assert predicted_nats(measured, kept) == pytest.approx(
        sum(by_bits[4] for module, by_bits in nats.items() if module != "language_model.lm_head")
    )
    assert predicted_nats(measured, make_plan(source, find_recipe("none"))) == 0


def test_nothing_is_predicted_of_what_was_not_measured():
    source = seven_billion()
    measured = measured_of(source)
    assert predicted_nats(measured, make_plan(source, changed(find_recipe("4bit"), group_size=32))) is None
    assert predicted_nats(measured, make_plan(source, find_recipe("4bit"), "stock")) is None
    with pytest.raises(PlanError, match=r"are for fit, not for `method='stock'`; choose another"):
        measured.nats("stock")
