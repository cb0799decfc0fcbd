"""Weights of one block from a source's shards, in each of the formats that sources have."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks, computing_dtype
from olmocr.conversion.calibrated.passes.walk import walk
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.errors import CheckpointError
from olmocr.model_folder import INDEX_FILE, ModelFolder
from olmocr.tensors.floats import NUMPY_DTYPES, narrowed
from tests.checkpoints import E4M3, TINY, fp8_checkpoint, read_tensors, tiny_checkpoint, tiny_tensors, write_tensors
from tests.conftest import DEVICE
from tests.conversion.calibrated.pages import random_page

BLOCK = "language_model.model.layers.0"
UP = f"{BLOCK}.mlp.up_proj"


def read(folder):
    return read_checkpoint(ModelFolder(folder))


def values_of(folder, name):
    dtype, shape, data = read_tensors(folder)[name]
    return np.frombuffer(data, NUMPY_DTYPES[dtype]).reshape(shape).astype(np.float32)


def in_dtype(dtype):
    """Return what writes all tensors of a checkpoint in *dtype*."""

    def change(tensors):
        changed = {}
        for name, (_, shape, data) in tensors.items():
            values = np.frombuffer(data, NUMPY_DTYPES["BF16"]).astype(np.float32)
            changed[name] = (dtype, shape, narrowed(values, dtype).tobytes())
        return changed

    return change


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_block_is_read_whole_and_exactly_in_each_format(tmp_path, dtype):
    source = read(tiny_checkpoint(tmp_path / "source", change=in_dtype(dtype)))
    blocks = SourceBlocks(source, mx.float32)
    weights = blocks.weights(BLOCK)
    assert set(weights) == {name.removeprefix(f"{BLOCK}.") for name in source.tensors if name.startswith(f"{BLOCK}.")}
    for name, values in weights.items():
        original = f"model.layers.0.{name}"
        np.testing.assert_array_equal(np.array(values), values_of(tmp_path / "source", original))
    nbytes = sum(info.nbytes for name, info in source.tensors.items() if name.startswith(f"{BLOCK}."))
    assert blocks.bytes_read == nbytes


@pytest.mark.parametrize("per_row", [True, False])
def test_float8_weights_are_multiplied_with_their_scale(tmp_path, per_row):
    source = read(fp8_checkpoint(tmp_path / "source", TINY, per_row))
    _, shape, codes = read_tensors(tmp_path / "source")["model.layers.0.mlp.up_proj.weight"]
    scale = values_of(tmp_path / "source", "model.layers.0.mlp.up_proj.weight_scale").reshape(-1, 1)
    expected = E4M3[np.frombuffer(codes, np.uint8)].reshape(shape) * scale
    blocks = SourceBlocks(source, mx.float32)
    np.testing.assert_array_equal(np.array(blocks.weights(BLOCK)["mlp.up_proj.weight"]), expected)
    matrix = blocks.matrix(UP)
    assert matrix.shape == shape
    np.testing.assert_array_equal(matrix.rows(), expected)
    np.testing.assert_array_equal(matrix.rows(5, 9), expected[5:9])


def test_a_blocks_tensors_may_lie_in_several_shards(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    tensors = tiny_tensors(TINY)
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-{number % 3 + 1:05}-of-00003.safetensors" for number, name in enumerate(tensors)}
    for shard in set(shards.values()):
        write_tensors(folder / shard, {name: tensors[name] for name in tensors if shards[name] == shard})
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": shards}))
    weights = SourceBlocks(read(folder), mx.float32).weights(BLOCK)
    for name, values in weights.items():
        np.testing.assert_array_equal(np.array(values), values_of(folder, f"model.layers.0.{name}"))


def test_only_chosen_rows_are_read_and_near_ones_together(tmp_path):
    source = read(tiny_checkpoint(tmp_path / "source"))
    name, expected = (
        "language_model.model.embed_tokens.weight",
        values_of(tmp_path / "source", "model.embed_tokens.weight"),
    )
    blocks = SourceBlocks(source, mx.float32)
    chosen = [0, 1, 40, 95]
    np.testing.assert_array_equal(blocks.chosen_rows(name, chosen), expected[chosen])
    blocks = SourceBlocks(source, mx.float32)
    blocks.chosen_rows(name, [0, 1, 95])
    assert blocks.bytes_read == 3 * 128  # 93 rows of 128 bytes are a gap


def test_what_is_computed_in_is_float32_on_a_cpu_and_the_sources_own_on_a_gpu(tmp_path):
    kinds = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
    for dtype, kind in kinds.items():
        source = read(tiny_checkpoint(tmp_path / dtype, change=in_dtype(dtype)))
        assert computing_dtype(source) == (mx.float32 if DEVICE.kind == "cpu" else kind)
    fp8 = read(fp8_checkpoint(tmp_path / "fp8", TINY, True))
    assert computing_dtype(fp8) == (mx.float32 if DEVICE.kind == "cpu" else mx.bfloat16)


def test_weights_that_are_on_the_hub_are_asked_for(tmp_path):
    source = read(tiny_checkpoint(tmp_path / "source"))
    away = replace(source, folder=replace(source.folder, remote_weights=True))
    with pytest.raises(CheckpointError, match="download them first"):
        SourceBlocks(away, mx.float32).weights(BLOCK)


@pytest.mark.parametrize("kind", ["BF16", "F16", "F32", "fp8", "tied"])
def test_sources_of_every_format_are_walked(tmp_path, kind):
    tokens = {"image_token_id": 90, "tie_word_embeddings": kind == "tied"}
    if kind == "fp8":
        folder = fp8_checkpoint(tmp_path / "source", {**TINY, **tokens}, True)
    else:
        changes = in_dtype("BF16" if kind == "tied" else kind)
        tied = {"lm_head.weight"} if kind == "tied" else set()
        folder = tiny_checkpoint(
            tmp_path / "source",
            tokens,
            lambda tensors: {name: each for name, each in changes(tensors).items() if name not in tied},
        )
    source, seen = read(folder), []
    walk(source, [random_page(source.config)], seen.append, tmp_path / "states")
    head = "language_model.model.embed_tokens" if kind == "tied" else "language_model.lm_head"
    assert [each.name for each in seen] == ["vision_tower.blocks.0", BLOCK, head]
    for block in seen:
        for matrix in block.matrices.values():
            (hessian,) = matrix.input.hessians
            assert np.isfinite(hessian).all()
            assert hessian.trace() > 0
