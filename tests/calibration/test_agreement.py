"""Whether a model whose bits were allocated is as far from its source as was predicted."""

import json
from dataclasses import replace

import pytest

from olmocr.calibration.agreement import measuring, require_as_predicted
from olmocr.conversion.calibrated.allocation.bits import DisagreementError
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.recipe import find_recipe
from olmocr.conversion.write import write_models
from olmocr.errors import ExitCode
from olmocr.model_folder import ModelFolder
from tests.checkpoints import decided_checkpoint
from tests.conversion.calibrated.pages import random_pages


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return decided_checkpoint(tmp_path_factory.mktemp("tiny") / "source", layers=1)


def written(source, output, predicted):
    """Write a model with a predicted divergence of *predicted* nats; return its report."""
    (target,) = plan_targets(ModelFolder(source), [find_recipe("4bit")], "stock", output)
    config = target.plan.source.config
    target = replace(target, plan=replace(target.plan, predicted_nats=predicted))
    (report,) = write_models([target], measure=measuring(lambda folder: random_pages(config, 2)))
    return report


def test_what_was_measured_stands_in_the_report_beside_what_was_predicted(source, tmp_path):
    report = written(source, tmp_path / "model", 0.5)
    told = json.loads((tmp_path / "model/conversion_report.json").read_text())["divergence"]
    assert (told["predicted_nats"], told["pages"], told["answer_tokens"]) == (0.5, 2, 15)
    assert told["measured_nats"] == report.divergence.measured_nats > 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_far_from_what_was_predicted_is_refused_with_the_code_of_a_gate(source, tmp_path):
    divergence = written(source, tmp_path / "model", 1e-6).divergence
    with pytest.raises(DisagreementError, match="the allocation predicted a KL of 1e-06 nats, but ") as refused:
        require_as_predicted(divergence)
    assert refused.value.exit_code == ExitCode.GATE_FAILED
    require_as_predicted(replace(divergence, predicted_nats=divergence.measured_nats))


def test_a_model_without_a_prediction_is_not_measured(source, tmp_path):
    report = written(source, tmp_path / "model", None)
    assert report.divergence is None
    require_as_predicted(report.divergence)
