import dataclasses
import json
import re
from pathlib import Path

import pytest

from olmocr.conversion.plan import make_plan
from olmocr.conversion.plan_text import Resources, plan_json, plan_tables
from olmocr.conversion.recipe import changed, find_recipe, parse_recipe, recipe_names
from olmocr.model_folder import ModelFolder
from tests.conftest import ROOT
from tests.conversion.sources import seven_billion, tiny

RESOURCES = Resources(disk_needed=6_000_000_000, disk_free=70_000_000_000, peak_memory=250_000_000)


def lines_of(plan, resources=RESOURCES):
    return plan_tables(plan, resources).splitlines()


def starting_with(lines, word):
    return next(" ".join(line.split()) for line in lines if line.startswith(word))


@pytest.mark.parametrize("recipe", recipe_names())
def test_no_line_is_longer_than_100_characters(recipe):
    assert max(map(len, lines_of(make_plan(seven_billion(), find_recipe(recipe))))) <= 100


def test_the_heading_says_what_is_made_of_what_and_how():
    source = dataclasses.replace(seven_billion(), folder=ModelFolder(Path("there"), "some/model", "abc123"))
    lines = lines_of(make_plan(source, changed(find_recipe("mixed"), keep=("*.o_proj", "*.q_proj"))))
    assert starting_with(lines, "source") == "source some/model at abc123"
    assert starting_with(lines, "recipe").startswith("recipe mixed: The language model at 4 bits")
    assert starting_with(lines, "changed") == "changed keep *.o_proj; keep *.q_proj"
    assert starting_with(lines, "method") == "method fit"
    assert "3,420 wide, is widened to 3,456 with zeros" in starting_with(lines, "padding")


def test_what_does_not_apply_is_left_out():
    text = plan_tables(make_plan(tiny(), find_recipe("none")))
    for word in ("changed", "method", "padding", "disk", "memory"):
        assert not any(line.startswith(word) for line in text.splitlines())


def test_every_component_says_what_it_takes_and_becomes():
    plan = make_plan(seven_billion(), find_recipe("mixed"))
    lines = lines_of(plan)
    head, merger = plan.components[1], plan.components[4]
    assert starting_with(lines, "head") == f"head {head.parameters:,} 6.50 {head.nbytes:,} 6-bit g64 x 1"
    assert starting_with(lines, "merger") == f"merger {merger.parameters:,} 16.00 {merger.nbytes:,} kept 5"
    assert starting_with(lines, "all") == f"all {plan.parameters:,} {plan.bits_per_weight:.2f} {plan.weight_bytes:,}"
    assert " ".join(" ".join(lines).split()).count("4-bit g64 x 130, 6-bit g64 x 10, 8-bit g64 x 56, kept 141") == 1


def test_a_mode_that_is_not_affine_is_called_by_its_name():
    recipe = parse_recipe(b"name: a\nsummary: A.\nrules: [{match: '*', mode: nvfp4}]", "a")
    plan = make_plan(seven_billion(vision={"intermediate_size": 3456}), recipe)
    assert starting_with(lines_of(plan), "head").endswith(" nvfp4 x 1")


def test_what_is_kept_stands_with_its_bytes_the_most_first():
    plan = make_plan(seven_billion(), find_recipe("8bit"))
    lines = lines_of(plan)
    start = next(number for number, line in enumerate(lines) if line.startswith("kept"))
    table = [" ".join(line.split()) for line in lines[start + 1 : lines.index("", start)]]
    assert [line.split(" ", 2)[2] for line in table] == [
        "the vision tower is kept, as stock mlx-vlm does",
        "MLX does not quantize convolutions such as the patch embedding",
        "a norm or a bias is not a matrix",
    ]
    assert sum(int(line.split()[0]) for line in table) == sum(tensor.params is None for tensor in plan.tensors)


def test_the_totals_are_bytes_of_files_and_what_the_conversion_takes():
    plan = make_plan(seven_billion(), find_recipe("4bit"))
    lines = lines_of(plan)
    assert starting_with(lines, "output") == f"output 5.64 GB ({plan.file_bytes:,} bytes) in 3 files"
    assert starting_with(lines, "disk") == "disk 6.00 GB needed, 70.00 GB free"
    assert starting_with(lines, "memory") == "memory 0.25 GB at most during the conversion"
    assert starting_with(lines_of(plan, Resources(disk_needed=6_000_000_000)), "disk") == "disk 6.00 GB needed"


def test_which_macs_it_fits_stands_for_every_size():
    lines = lines_of(make_plan(seven_billion(), find_recipe("none")))
    assert starting_with(lines, "Macs with").startswith("Macs with 8 GB 16 GB 24 GB 32 GB")
    assert starting_with(lines, "it fits") == "it fits no no no yes yes yes yes yes yes"


def test_the_two_smallest_are_what_an_8_gb_mac_can_run_and_4bit_is_not():
    fits = {
        name: plan_json(make_plan(seven_billion(), find_recipe(name)))["smallest_mac_gib"] for name in recipe_names()
    }
    assert [name for name, gib in fits.items() if gib == 8] == ["mixed-small", "mixed-tiny"]
    assert fits["4bit"] == fits["mixed"] == 16


def test_the_json_says_all_that_the_plan_knows():
    plan = make_plan(seven_billion(), changed(find_recipe("mixed"), keep=("*.o_proj",)), method="stock")
    read = json.loads(json.dumps(plan_json(plan, RESOURCES)))
    assert read["version"] == 1
    assert (read["recipe"], read["method"], read["changes"]) == ("mixed", "stock", ["keep *.o_proj"])
    assert read["file_bytes"] == sum(file["bytes"] for file in read["files"]) == plan.file_bytes
    assert sum(part["bytes"] for part in read["kept"]) == sum(each.nbytes for each in plan.tensors if not each.params)
    assert sum(part["nbytes"] for part in read["components"]) == read["weight_bytes"]
    assert read["components"][1]["quantized"] == [{"group_size": 64, "bits": 6, "mode": "affine", "tensors": 1}]
    assert read["vision_intermediate_size"] == 3456
    assert read["conversion"] == {"disk_needed": 6_000_000_000, "disk_free": 70_000_000_000, "peak_memory": 250_000_000}
    assert read["running_memory"]["total"] > read["weight_bytes"]
    assert read["macs"][0] == {"memory_gib": 8, "limit_bytes": (8 << 30) * 2 // 3, "fits": False}


def test_the_json_has_an_entry_for_every_tensor():
    plan = make_plan(seven_billion(), find_recipe("mixed"))
    entries = {entry["name"]: entry for entry in plan_json(plan)["tensors"]}
    assert len(entries) == len(plan.tensors)
    assert entries["vision_tower.blocks.0.mlp.down_proj.weight"] == {
        "name": "vision_tower.blocks.0.mlp.down_proj.weight",
        "shape": [1280, 3420],
        "padding": {"axis": 1, "zeros": 36},
        "bits": 8,
        "group_size": 64,
        "mode": "affine",
        "kept_because": None,
        "bytes": 1280 * 3456 * 17 // 16,
    }
    assert entries["language_model.model.norm.weight"]["kept_because"] == "a norm or a bias is not a matrix"


def test_every_field_of_the_json_is_in_the_docs():
    rows = [line.split("|")[1] for line in (ROOT / "docs/recipes.md").read_text().splitlines() if line.startswith("|")]
    documented = set(re.findall("`([a-z_]+)`", " ".join(rows)))
    assert set(plan_json(make_plan(tiny(), find_recipe("none")))) <= documented
