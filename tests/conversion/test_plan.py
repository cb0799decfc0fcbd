import dataclasses
import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.conversion import plan as plan_module
from olmocr.conversion.checkpoint import read_checkpoint
from olmocr.conversion.plan import make_plan
from olmocr.conversion.quantize import quantized, to_mlx
from olmocr.conversion.recipe import QuantParams, QuantRecipe, find_recipe
from olmocr.conversion.shards import write_shards
from olmocr.errors import PlanError, UsageError
from olmocr.model_folder import ModelFolder
from tests.checkpoints import tiny_checkpoint
from tests.conftest import CHECKPOINT


@pytest.mark.parametrize(("recipe", "bits_per_weight"), [("none", 16.0), ("8bit", 11.520), ("4bit", 9.130)])
def test_the_planned_bits_per_weight_are_what_stock_mlx_vlm_counts(recipe, bits_per_weight):
    plan = make_plan(read_checkpoint(ModelFolder(CHECKPOINT)), find_recipe(recipe))
    assert plan.bits_per_weight == pytest.approx(bits_per_weight, abs=5e-4)


def test_every_tensor_that_is_kept_says_why():
    plan = make_plan(read_checkpoint(ModelFolder(CHECKPOINT)), find_recipe("4bit"))
    for tensor in plan.tensors:
        assert (tensor.params is None) == bool(tensor.kept_because)


def test_the_bytes_that_are_planned_are_the_bytes_that_are_written(tmp_path):
    plan = make_plan(read_checkpoint(ModelFolder(tiny_checkpoint(tmp_path / "source"))), find_recipe("8bit"))
    write_shards(plan, tmp_path, lambda nbytes: None)
    arrays = mx.load(str(tmp_path / "model.safetensors"))
    assert {name: array.nbytes for name, array in arrays.items()} == {
        output.name: output.nbytes for tensor in plan.tensors for output in tensor.outputs
    }


def test_every_matrix_that_a_group_size_does_not_divide_is_counted_at_once(tmp_path):
    source = read_checkpoint(ModelFolder(tiny_checkpoint(tmp_path / "source")))
    recipe = QuantRecipe("coarse", QuantParams(bits=4, group_size=128))
    with pytest.raises(PlanError, match="8 tensors have a last dimension that group size 128 does not divide"):
        make_plan(source, recipe)


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="none, 4bit, 8bit"):
        find_recipe("5bit")


def test_a_model_larger_than_a_shard_is_split_and_every_tensor_is_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "MAX_SHARD_BYTES", 20_000)
    plan = make_plan(read_checkpoint(ModelFolder(tiny_checkpoint(tmp_path / "source"))), find_recipe("4bit"))
    write_shards(plan, tmp_path, lambda nbytes: None)
    names = [set(mx.load(str(tmp_path / shard.file_name))) for shard in plan.shards]
    assert len(names) > 2
    assert sum(map(len, names)) == len(set().union(*names))


SPECIAL = [0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 1.0, -1.0, 0.5]


@settings(deadline=None)
@given(
    rows=st.integers(1, 5),
    groups=st.integers(1, 3),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 2**32 - 1),
    special=st.lists(st.sampled_from(SPECIAL), max_size=40),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
)
def test_any_rows_are_quantized_as_mlx_does_on_the_cpu(rows, groups, bits, seed, special, dtype):
    values = np.random.default_rng(seed).normal(0, 0.02, rows * groups * 64).astype(np.float32)
    values[: len(special)] = special
    matrix = mx.array(values).astype({"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}[dtype])
    matrix = matrix.reshape(rows, groups * 64)
    with mx.stream(mx.cpu):
        expected = mx.quantize(matrix, group_size=64, bits=bits)
    raw = bytes(np.array(matrix.view(mx.uint8)))
    ours = quantized(to_mlx(raw, dtype, matrix.shape), QuantParams(bits), dtype)
    assert [part.tobytes() for part in ours] == [np.array(part.view(mx.uint8)).tobytes() for part in expected]


def test_chunks_of_rows_give_the_same_bytes_as_the_whole(tmp_path, monkeypatch):
    from olmocr.conversion import shards

    plan = make_plan(read_checkpoint(ModelFolder(tiny_checkpoint(tmp_path / "source"))), find_recipe("4bit"))
    contents = []
    for chunk in (4 << 20, 300):
        monkeypatch.setattr(shards, "_CHUNK_BYTES", chunk)
        (folder := tmp_path / str(chunk)).mkdir()
        write_shards(plan, folder, lambda nbytes: None)
        contents.append((folder / "model.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_progress_adds_up_to_the_bytes_of_the_source(tmp_path):
    plan = make_plan(read_checkpoint(ModelFolder(tiny_checkpoint(tmp_path / "source"))), find_recipe("4bit"))
    seen = []
    write_shards(plan, tmp_path, seen.append)
    assert sum(seen) == sum(math.prod(tensor.source.shape) * 2 for tensor in plan.tensors)


def test_a_plan_is_plain_data_that_can_be_compared():
    source = read_checkpoint(ModelFolder(CHECKPOINT))
    assert make_plan(source, find_recipe("4bit")) == dataclasses.replace(make_plan(source, find_recipe("4bit")))
