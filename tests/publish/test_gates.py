"""Gates that a folder passes before the Hub is asked anything."""

import pytest

from olmocr.errors import ExitCode, UsageError
from olmocr.hub.write import Hub
from olmocr.publish.card import Variant
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import find_facts
from olmocr.publish.gates import GateFailedError
from olmocr.publish.push import Push, plan_push
from olmocr.validate.weights.check import Check, WeightsReport
from tests.hub.hub_writes import TOKEN
from tests.publish.pushes import REPO, WEIGHTS, files_of, push
from tests.publish.samples import model_copy


@pytest.mark.parametrize(
    ("reports", "gate", "why"),
    [
        ({"smoke": None}, "smoke", "Whether it reads was not measured"),
        ({"smoke": False}, "smoke", "0 of 2 pages of the smoke test passed"),
        ({"fidelity": None}, "fidelity", "How close it is to its source was not measured"),
        ({"fidelity": False}, "fidelity", "mean_kl is 0.0123 and may be 0.002"),
    ],
)
def test_a_gate_that_fails_ends_it_before_the_hub_is_asked_anything(reports, gate, why, hub, tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model", **reports)
    with pytest.raises(GateFailedError, match=f"{gate}: {why}") as caught:
        push(hub, folder)
    assert caught.value.exit_code == ExitCode.GATE_FAILED
    assert hub.asked == []
    other = {"smoke": "fidelity", "fidelity": "smoke"}[gate]
    with pytest.raises(GateFailedError, match=why):
        push(hub, folder, allow_failing=(other,))
    push(hub, folder, allow_failing=(gate,))
    first_lines = files_of(hub)["README.md"].content.decode().split("\n---\n")[1][:200]
    assert "Published although it failed a gate" in first_lines
    assert gate in first_lines


@pytest.mark.parametrize("holds", [False, None])
def test_weights_that_are_broken_or_could_not_be_checked_are_not_published(holds, hub, model):
    def check(folder):
        return WeightsReport(folder, (Check("loads", holds, "MLX is not installed", ("it is broken",)),), 1, 1, 8.0)

    with pytest.raises(GateFailedError, match="weights: loads"):
        push(hub, model, check=check)


def test_weights_that_the_report_does_not_name_are_not_published(hub, model):
    content = bytearray((model / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (model / WEIGHTS).write_bytes(content)
    with pytest.raises(GateFailedError, match="weights: the weights are not those"):
        push(hub, model)


def test_the_folder_is_really_checked_where_nothing_else_is_passed(hub, model):
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:-8])
    variant = Variant(REPO, read_reports(model))
    facts = find_facts(variant.reports.conversion)
    with pytest.raises(GateFailedError, match="weights: shards: "):
        plan_push(Push(REPO), variant, (), facts, Hub(hub.endpoint, TOKEN))


def test_a_gate_that_there_is_not_is_a_usage_error(hub, model):
    with pytest.raises(UsageError, match="--allow-failing weight is not a gate"):
        push(hub, model, allow_failing=("weight",))
