import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.calibrated.allocation.recipe import Goal, allocate, find_goal, recipe_of, recipe_text
from olmocr.conversion.calibrated.allocation.sensitivities import predicted_nats
from olmocr.conversion.macs import limit, running_memory
from olmocr.conversion.plan import make_plan
from olmocr.conversion.recipe import BITS, changed, find_recipe, parse_recipe, recipe_names
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.conversion.source.names import LANGUAGE
from olmocr.errors import PlanError, UsageError
from olmocr.model_folder import ModelFolder
from tests.conftest import CHECKPOINT
from tests.conversion.calibrated.measured import measured_of
from tests.conversion.sources import seven_billion, tiny

MIXED = find_recipe("mixed")


def language_modules(source):
    return [
        name.removesuffix(".weight")
        for name, info in source.tensors.items()
        if name.startswith(LANGUAGE) and len(info.shape) == 2
    ]


def bits_of(plan):
    return {tensor.name.removesuffix(".weight"): tensor.params.bits for tensor in plan.tensors if tensor.params}


@given(st.data())
def test_a_recipe_gives_every_matrix_the_bits_that_were_chosen(data):
    source = tiny(data.draw(st.integers(1, 5)), tie_word_embeddings=data.draw(st.booleans()))
    choice = {module: data.draw(st.sampled_from(BITS)) for module in language_modules(source)}
    recipe = recipe_of(choice, MIXED, source)
    bits = bits_of(make_plan(source, recipe))
    assert {module: bits[module] for module in choice} == choice
    assert all(bits[module] == 8 for module in bits if module not in choice)
    read = parse_recipe(recipe_text(recipe, ["Why."]).encode(), "it")
    assert read == dataclasses.replace(recipe, changes=(), file=None)


@pytest.mark.parametrize("name", recipe_names())
def test_the_file_of_any_recipe_is_read_as_that_recipe(name):
    recipe = find_recipe(name)
    assert parse_recipe(recipe_text(recipe).encode(), name) == recipe


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.strip()))
def test_no_text_breaks_a_recipes_file(text):
    recipe = dataclasses.replace(changed(MIXED, group_size=32), summary=text)
    try:
        read = parse_recipe(recipe_text(recipe).encode(), "it")
    except UsageError:
        return  # characters that a recipe does not take, or spaces alone
    assert read.rules == recipe.rules


def test_rules_are_patterns_that_a_person_reads():
    source = seven_billion()
    choice = dict.fromkeys(language_modules(source), 4)
    layers = "language_model.model.layers"
    choice |= {f"{layers}.{number}.self_attn.{name}": 8 for number in (26, 27) for name in ("k_proj", "v_proj")}
    choice |= {f"{layers}.{number}.self_attn.o_proj": 5 for number in range(28)}
    choice |= {f"{layers}.3.mlp.down_proj": 5, "language_model.lm_head": 6}
    recipe = recipe_of(choice, MIXED, source)
    assert [(rule.text, rule.params and rule.params.bits) for rule in recipe.rules[:-2]] == [
        ("language_model.lm_head", 6),
        ("language_model.model.embed_tokens", 4),
        (f"{layers}.[26:28].self_attn.{{k_proj,v_proj}}", 8),
        (f"{layers}.*.self_attn.o_proj, {layers}.[3].mlp.down_proj", 5),
        (f"{layers}.*", 4),
    ]
    assert [rule.text.split(".")[0] for rule in recipe.rules[-2:]] == ["vision_tower"] * 2


@pytest.mark.parametrize("target", [4_300_000_000, 4_999_999_999, 5_300_000_000, 7_000_000_000])
def test_files_are_as_large_as_asked_or_little_smaller_headers_included(target):
    source = seven_billion()
    found = allocate(source, measured_of(source), Goal("mine", file_bytes=target), MIXED, "fit")
    assert target - 2_000_000 < found.plan.file_bytes <= target
    again = make_plan(source, parse_recipe(recipe_text(found.recipe).encode(), "mine.yaml"))
    assert again.file_bytes == found.plan.file_bytes
    assert predicted_nats(measured_of(source), again) == pytest.approx(found.nats)


def test_an_allocation_is_predicted_to_be_nearer_than_the_recipe_of_its_bytes():
    source = read_checkpoint(ModelFolder(CHECKPOINT))
    measured = measured_of(source)
    mixed = make_plan(source, MIXED)
    found = allocate(source, measured, Goal("mine", file_bytes=mixed.file_bytes), MIXED, "fit")
    assert found.plan.file_bytes <= mixed.file_bytes
    assert found.nats < predicted_nats(measured, mixed)


def test_what_is_asked_in_nats_is_reached_with_fewer_bytes_than_by_a_recipe_that_reaches_it():
    source = seven_billion()
    measured = measured_of(source)
    nats = predicted_nats(measured, make_plan(source, MIXED))
    found = allocate(source, measured, Goal("mine", max_nats=nats), MIXED, "fit")
    assert found.nats <= nats
    assert found.plan.file_bytes < make_plan(source, MIXED).file_bytes
    with pytest.raises(PlanError, match="`max_kl` is 1e-12 nats"):
        allocate(source, measured, Goal("mine", max_nats=1e-12), MIXED, "fit")


def test_a_mac_is_filled_and_not_more():
    source = seven_billion()
    small, large = (
        allocate(source, measured_of(source), Goal("mine", mac_gib=gib), MIXED, "fit").plan for gib in (8, 16)
    )
    needed = running_memory(small.config, small.weight_bytes).total
    assert limit(8) - 2_000_000 < needed <= limit(8)
    assert set(bits_of(large).values()) == {8}
    with pytest.raises(PlanError, match=r"the target is .* bytes, and the fewest bits"):
        allocate(source, measured_of(source), Goal("mine", file_bytes=3_000_000_000), MIXED, "fit")


def test_what_is_to_be_kept_stays_kept():
    source = tiny(4)
    keep = ("language_model.model.layers.[1].*", "language_model.lm_head")
    base = changed(MIXED, keep=keep)
    found = allocate(source, measured_of(source), Goal("mine", max_nats=1.0), base, "fit")
    kept = {tensor.name for tensor in found.plan.tensors if len(tensor.source.shape) == 2 and not tensor.params}
    assert "language_model.lm_head.weight" in kept
    assert len([name for name in kept if ".layers.1." in name]) == 7
    assert found.recipe.changes == ()


def test_sensitivities_of_another_model_are_refused():
    with pytest.raises(PlanError, match=r"another model: this one lacks language_model\.model\.layers\.1\."):
        allocate(tiny(1), measured_of(tiny(2)), Goal("mine", file_bytes=10**9), MIXED, "fit")


@pytest.mark.parametrize(
    ("asked", "goal"),
    [
        (("5.3GB", None, None), Goal("5.3GB", file_bytes=5_300_000_000)),
        (("5 GiB", None, None), Goal("5GiB", file_bytes=5 << 30)),
        ((None, "8GB", None), Goal("mac-8GB", mac_gib=8)),
        ((None, "16", None), Goal("mac-16GB", mac_gib=16)),
        ((None, None, 0.002), Goal("kl-0.002", max_nats=0.002)),
        ((None, None, None), None),
    ],
)
def test_a_goal_is_what_a_person_says(asked, goal):
    assert find_goal(*asked) == goal


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (("5.3GB", None, 0.1), r"`target_size='5.3GB'` and `max_kl=0.1` are two goals; give only one"),
        (("much", None, None), r"`target_size` 'much' is not a size"),
        ((None, "12GB", None), r"`fit_mac='12GB'` is not a Mac's memory; give one of 8GB, 16GB, 24GB"),
        ((None, None, -1.0), r"`max_kl=-1.0` is not a number of nats"),
        ((None, None, float("nan")), r"`max_kl=nan` is not a number of nats"),
    ],
)
def test_what_is_not_a_goal_is_refused(asked, error):
    with pytest.raises(UsageError, match=error):
        find_goal(*asked)
