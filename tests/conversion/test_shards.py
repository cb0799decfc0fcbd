"""Shards as a whole: the same bytes by any number of threads, several recipes from one read, padding with zeros."""

import json
import math
import shutil

import mlx.core as mx
import numpy as np
import pytest
import safetensors
from mlx_vlm.utils import load_model

from olmocr.conversion import shards as shards_module
from olmocr.conversion.convert import convert, plan_targets
from olmocr.conversion.plan import make_plan
from olmocr.conversion.recipe import changed, find_recipe, recipe_names
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.conversion.write import write_models
from olmocr.errors import CheckpointError, OutputError
from olmocr.files import sha256_of
from olmocr.model_folder import HASHES_FILE, ModelFolder
from tests.checkpoints import fp8_checkpoint, read_tensors, tiny_checkpoint, write_tensors
from tests.conftest import CHECKPOINT


def tiny_recipe(name):
    """Return a packaged recipe for matrices as narrow as a tiny model's."""
    return changed(find_recipe(name), group_size=32)


@pytest.mark.parametrize("method", ["fit", "stock"])
def test_any_number_of_threads_gives_the_same_bytes(method, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "CHUNK_BYTES", 500)
    source = tiny_checkpoint(tmp_path / "source")
    for threads in (1, 2, 5):
        convert(source, tiny_recipe("mixed"), tmp_path / str(threads), method=method, threads=threads)
    sums = {(tmp_path / str(threads) / HASHES_FILE).read_text() for threads in (1, 2, 5)}
    shards = {(tmp_path / str(threads) / "model.safetensors").read_bytes() for threads in (1, 2, 5)}
    assert (len(sums), len(shards)) == (1, 1)


def test_large_chunks_give_the_same_bytes_as_small_ones(tmp_path, monkeypatch):
    source = tiny_checkpoint(tmp_path / "source")
    convert(source, tiny_recipe("mixed"), tmp_path / "large")
    monkeypatch.setattr(shards_module, "CHUNK_BYTES", 1)
    convert(source, tiny_recipe("mixed"), tmp_path / "small")
    assert (tmp_path / "large/model.safetensors").read_bytes() == (tmp_path / "small/model.safetensors").read_bytes()


def test_several_recipes_from_one_read_are_those_of_one_each(tmp_path):
    source, seen = tiny_checkpoint(tmp_path / "source"), []
    reports = convert(source, ["4bit", "8bit", "none"], tmp_path / "all", progress=seen.append)
    assert sum(seen) == sum(len(data) for _, _, data in read_tensors(source).values())
    for report, folder in zip(reports, ("source-mlx-4bit", "source-mlx-8bit", "source-mlx"), strict=True):
        (one,) = convert(source, report.recipe.name, tmp_path / "one" / report.recipe.name)
        alone = tmp_path / "one" / report.recipe.name
        assert (tmp_path / "all" / folder / HASHES_FILE).read_text() == (alone / HASHES_FILE).read_text()
        assert (report.tensors, report.files, report.components) == (one.tensors, one.files, one.components)


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_bytes_that_are_planned_are_those_that_are_written_by_every_recipe(recipe, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    quantizes = find_recipe(recipe).quantizes
    (target,) = plan_targets(
        ModelFolder(source), [tiny_recipe(recipe) if quantizes else find_recipe(recipe)], "fit", tmp_path / "out"
    )
    (report,) = write_models([target])
    sizes = {file.name: file.nbytes for file in report.files}
    assert sizes == {path.name: path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")}
    assert sum(sizes.values()) == target.plan.file_bytes
    written = {name: len(data) for name, (_, _, data) in read_tensors(tmp_path / "out").items()}
    assert written == {part.name: part.nbytes for tensor in target.plan.tensors for part in tensor.outputs}


@pytest.mark.parametrize("recipe", ["mixed", "none"])
def test_the_safetensors_library_reads_the_same_bytes_of_what_is_written(recipe, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    convert(source, tiny_recipe(recipe) if recipe == "mixed" else recipe, tmp_path / "out")
    theirs = safetensors.deserialize((tmp_path / "out/model.safetensors").read_bytes())
    read = {name: (each["dtype"], tuple(each["shape"]), bytes(each["data"])) for name, each in theirs}
    assert read == read_tensors(tmp_path / "out")


def padded_by_hand(source, plan, folder):
    """Convert *source* without quantizing, then append the zeros that *plan* says, and say so in config.json."""
    convert(source, "none", folder)
    paddings = {tensor.name: tensor.padding for tensor in plan.tensors if tensor.padding}
    tensors = read_tensors(folder)
    for name, padding in paddings.items():
        dtype, shape, data = tensors[name]
        values = np.frombuffer(data, np.uint16).reshape(shape)
        widths = [(0, padding.zeros if axis == padding.axis else 0) for axis in range(values.ndim)]
        wider = np.pad(values, widths)
        tensors[name] = (dtype, list(wider.shape), wider.tobytes())
    write_tensors(folder / "model.safetensors", tensors)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = plan.vision_intermediate_size
    (folder / "config.json").write_text(json.dumps(config))
    return paddings


@pytest.mark.parametrize("checkpoint", ["demo", "tiny"])
def test_stock_mlx_vlm_computes_the_same_from_a_padded_vision_mlp(checkpoint, tmp_path):
    source = CHECKPOINT if checkpoint == "demo" else tiny_checkpoint(tmp_path / "source")
    recipe = find_recipe("mixed") if checkpoint == "demo" else tiny_recipe("mixed")
    plan = make_plan(read_checkpoint(ModelFolder(source)), recipe)
    convert(source, "none", tmp_path / "plain")
    assert padded_by_hand(source, plan, tmp_path / "padded")
    pixels = mx.random.normal((64, 3 * 2 * 14 * 14), key=mx.random.key(0))
    grid = mx.array([[1, 8, 8]])
    ids = mx.array([[1, 2, 3, 4]])
    results = []
    for name in ("plain", "padded"):
        model = load_model(tmp_path / name)
        features = model.vision_tower(pixels, grid, output_hidden_states=False)
        logits = model.language_model(ids).logits
        results.append([np.array(each.astype(mx.float32)) for each in (features, logits)])
    for plain, padded in zip(*results, strict=True):
        # Zeros add nothing; but a BLAS may sum a longer row in another order, and on some processors it does.
        assert np.abs(plain - padded).max() <= 1e-5 * np.abs(plain).max()


def test_what_leads_into_the_padding_is_read_back_as_zeros_so_that_it_adds_nothing(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    convert(source, tiny_recipe("mixed"), tmp_path / "out")
    arrays = mx.load(str(tmp_path / "out/model.safetensors"))
    for name in ("gate_proj", "up_proj"):
        module = f"vision_tower.blocks.0.mlp.{name}"
        parts = [arrays[f"{module}.{part}"] for part in ("weight", "scales", "biases")]
        rows = np.array(mx.dequantize(*parts, group_size=32, bits=8).astype(mx.float32))
        assert rows.shape == (64, 32)
        assert not rows[44:].any()
        assert not np.array(arrays[f"{module}.bias"].astype(mx.float32))[44:].any()


@pytest.mark.parametrize("per_row", [True, False])
def test_a_float8_checkpoint_is_converted_from_its_exact_values(per_row, tmp_path):
    source = fp8_checkpoint(tmp_path / "source", per_row=per_row)
    (report,) = convert(source, "4bit", tmp_path / "out")
    assert {tensor.bits for tensor in report.tensors} == {None, 4}
    assert all(math.isfinite(tensor.relative_error) and tensor.relative_error < 0.2 for tensor in report.tensors)


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80])
def test_a_weight_that_is_not_a_number_is_named_with_its_shard_and_no_folder_is_left(bits, tmp_path):
    def broken(tensors):
        dtype, shape, data = tensors["visual.blocks.0.norm1.weight"]
        return tensors | {"visual.blocks.0.norm1.weight": (dtype, shape, bits.to_bytes(2, "little") + data[2:])}

    source = tiny_checkpoint(tmp_path / "source", change=broken)
    with pytest.raises(CheckpointError, match=r"norm1\.weight in model\.safetensors has infinite values"):
        convert(source, "4bit", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_a_shard_that_does_not_read_back_as_it_was_written_is_not_a_success(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "CHUNK_BYTES", 500)
    source = tiny_checkpoint(tmp_path / "source")

    def corrupt(nbytes):
        with (tmp_path / ".out.partial/model.safetensors").open("r+b") as file:
            file.write(b"\xff" * 9)

    with pytest.raises(OutputError, match="reads back differently from what was written; check the disk"):
        convert(source, "4bit", tmp_path / "out", threads=1, progress=corrupt)
    assert not (tmp_path / "out").exists()


def test_a_file_of_the_hubs_cache_that_is_not_what_its_name_says_is_refused(tmp_path):
    cache = tmp_path / "models--org--name"
    (cache / "snapshots").mkdir(parents=True)
    source = tiny_checkpoint(cache / "snapshots" / ("c" * 40))
    weights = source / "model.safetensors"
    true, other = sha256_of(weights), "0" * 64
    (cache / "blobs").mkdir()
    for name in (true, other):
        shutil.copyfile(weights, cache / "blobs" / name)
    weights.unlink()
    weights.symlink_to(cache / "blobs" / other)
    from_the_hub = ModelFolder(source, "org/name", "c" * 40)
    with pytest.raises(CheckpointError, match=f"is not the file that the Hub lists: its SHA-256 is {true}"):
        write_models(plan_targets(from_the_hub, [find_recipe("4bit")], "stock", tmp_path / "out"))
    assert not list(tmp_path.glob("*out*"))
    weights.unlink()
    weights.symlink_to(cache / "blobs" / true)
    (report,) = write_models(plan_targets(from_the_hub, [find_recipe("4bit")], "stock", tmp_path / "out"))
    assert [each.sha256 for each in report.source.files] == [true]
