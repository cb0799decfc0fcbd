"""Whether a conversion is calibrated: as asked, or where pages, memory and time allow."""

import json
import logging
from dataclasses import replace

import pytest

from olmocr.calibration.choice import Wish, settle
from olmocr.conversion.calibrated.terms import ALL_BITS, FEW_BITS
from olmocr.conversion.calibrated.wanted import wanted_matrices, work_of
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.recipe import find_recipe
from olmocr.errors import InputError, PlanError, UsageError
from olmocr.model_folder import ModelFolder
from tests.conftest import CHECKPOINT
from tests.conversion.calibrated.pages import random_pages


def targets_of(output, recipe="8bit", method="calibrated"):
    return plan_targets(ModelFolder(CHECKPOINT), [find_recipe(recipe)], method, output)


def pages_of(source, wish):
    """Return random pages, which are found at once."""
    return tuple(random_pages(json.loads((CHECKPOINT / "config.json").read_text())))


def methods(targets):
    return [target.plan.method for target in targets]


def never(question):
    raise AssertionError(f"nobody is to be asked: {question}")


def test_what_is_not_calibrated_needs_no_page(tmp_path):
    targets, calibration = settle(targets_of(tmp_path, method="fit"), Wish(), never)
    assert (methods(targets), calibration) == (["fit"], None)


@pytest.mark.parametrize(
    "wish", [Wish(tokens=100), Wish(answering=CHECKPOINT), Wish(by_gradients=True), Wish(propagation=False)]
)
def test_what_only_calibration_heeds_is_refused_where_nothing_is_calibrated(wish, tmp_path):
    with pytest.raises(UsageError, match=r"`calibration_tokens`.* need `method='calibrated'`"):
        settle(targets_of(tmp_path, method="fit"), wish)


def test_the_drawn_pages_are_taken_and_few_tokens_are_few_pages(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    targets, calibration = settle(targets_of(tmp_path), Wish("calibrated", tokens=500), never)
    assert methods(targets) == ["calibrated"]
    assert calibration.are_drawn
    assert 1 <= len(calibration.pages) < 10
    assert "calibrating on" in caplog.text


def test_a_page_that_cannot_be_read_is_named_by_a_command_that_asks_for_it(tmp_path):
    (tmp_path / "mine.pdf").write_bytes(b"not a PDF")
    with pytest.raises(InputError, match=r"mine\.pdf"):
        settle(targets_of(tmp_path / "model"), Wish("calibrated", (tmp_path / "mine.pdf",)), never)


def test_short_memory_refuses_what_was_asked_for(tmp_path):
    with pytest.raises(PlanError, match=r"needs .* of memory, and this machine has .*; use `method='fit'`"):
        settle(targets_of(tmp_path), Wish("calibrated"), pages_of=pages_of, memory=1 << 20)


def test_short_memory_makes_a_recipe_of_that_method_with_fit_and_says_so(tmp_path, caplog):
    targets, calibration = settle(targets_of(tmp_path), Wish(), pages_of=pages_of, memory=1 << 20)
    assert (methods(targets), calibration) == (["fit"], None)
    assert "made with fit instead of calibrated: calibrating needs" in caplog.text


@pytest.mark.parametrize(
    ("answer", "expected"), [(None, "fit"), (lambda question: False, "fit"), (lambda question: True, "calibrated")]
)
def test_what_takes_long_is_asked_and_left_where_nobody_says_yes(answer, expected, tmp_path):
    slow = (1.0, 1.0)
    targets, calibration = settle(targets_of(tmp_path), Wish(), answer, pages_of, rates=lambda: slow)
    assert methods(targets) == [expected]
    assert (calibration is not None) == (expected == "calibrated")


def test_what_was_asked_for_is_done_however_long_it_takes(tmp_path):
    targets, _ = settle(targets_of(tmp_path), Wish("calibrated"), never, pages_of, rates=lambda: (1.0, 1.0))
    assert methods(targets) == ["calibrated"]


@pytest.mark.parametrize(
    ("propagation", "bits"), [(None, FEW_BITS), (True, ALL_BITS), (False, 0)], ids=["own way", "asked for", "left out"]
)
def test_blocks_make_up_for_the_rounding_before_them_as_asked_or_as_the_recipe_does(propagation, bits, tmp_path):
    wish = Wish("calibrated", propagation=propagation)
    _, calibration = settle(targets_of(tmp_path, "3bit"), wish, never, pages_of, rates=lambda: (1e12, 1e12))
    assert calibration.propagated_bits == bits


def test_each_way_is_asked_about_the_quicker_one_last(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    answers = iter([False, True])
    slow = (1.0, 1.0)
    targets, calibration = settle(
        targets_of(tmp_path, "3bit"), Wish(), lambda question: next(answers), pages_of, rates=lambda: slow
    )
    assert (methods(targets), calibration.propagated_bits) == (["calibrated"], 0)
    said = [line for line in caplog.messages if line.startswith("calibrating on")]
    assert ["make up for" in line for line in said] == [True, False]


def test_short_memory_leaves_out_what_needs_more_of_it(tmp_path):
    (target,) = targets_of(tmp_path, "3bit")
    pages = pages_of(None, None)
    most, least = (work_of(wanted_matrices([target.plan], bits), pages, 4).peak_memory for bits in (FEW_BITS, 0))
    assert least < most
    _, calibration = settle([target], Wish("calibrated"), never, pages_of, int((most + least) / 2 / 0.6))
    assert calibration.propagated_bits == 0


def remote(target):
    """Return *target* with its source's weights still on the Hub."""
    source = target.plan.source
    folder = replace(source.folder, remote_weights=True)
    return replace(target, plan=replace(target.plan, source=replace(source, folder=folder)))


@pytest.mark.parametrize("asked", [False, True])
def test_tokens_count_by_their_gradients_only_where_that_is_asked_for(tmp_path, asked):
    wish = Wish("calibrated", by_gradients=asked)
    _, calibration = settle(targets_of(tmp_path), wish, never, pages_of, rates=lambda: (1e12, 1e12))
    assert calibration.by_gradients == asked


def test_gradients_are_refused_if_there_is_no_memory_for_them(tmp_path):
    targets = targets_of(tmp_path)
    plain, back = (
        work_of(wanted_matrices([targets[0].plan]), many_pages(None, None), by_gradients=each).peak_memory
        for each in (False, True)
    )
    memory = int((plain + back) / 2 / 0.6)
    _, calibration = settle(targets, Wish("calibrated"), never, many_pages, memory, lambda: (1e12, 1e12))
    assert not calibration.by_gradients
    with pytest.raises(PlanError, match="calibrating needs"):
        settle(targets, Wish(by_gradients=True), never, many_pages, memory, lambda: (1e12, 1e12))


def many_pages(source, wish):
    """Return pages whose gradients take more memory than rounding does."""
    return pages_of(source, wish) * 500


def test_a_source_whose_weights_are_not_kept_is_made_with_fit_unless_calibration_is_asked_for(tmp_path, caplog):
    targets = [remote(target) for target in targets_of(tmp_path)]
    made, calibration = settle(targets, Wish(low_disk=True), pages_of=pages_of)
    assert (methods(made), calibration) == (["fit"], None)
    assert "made with fit instead of calibrated: calibrating reads the weights before" in caplog.text
    with pytest.raises(UsageError, match="`low_disk=True` does not keep them"):
        settle(targets, Wish("calibrated", low_disk=True), pages_of=pages_of)
