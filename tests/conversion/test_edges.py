"""Edges of a conversion: huge and tiny weights, FP8 in small chunks, damaged states, one source shard at a time."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.conversion import plan as plan_module
from olmocr.conversion import shards as shards_module
from olmocr.conversion.convert import convert, plan_targets, with_weights
from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.conversion.recipe import QuantParams, changed, find_recipe
from olmocr.errors import PlanError
from olmocr.hub.find import missing_files
from olmocr.model_folder import HASHES_FILE, ModelFolder, RemoteShard
from olmocr.tensors.floats import NUMPY_DTYPES, narrowed, widened
from tests.checkpoints import E4M3, fp8_checkpoint, read_tensors, tiny_checkpoint
from tests.conftest import CHECKPOINT
from tests.hub_server import Commit, HubServer, Repository

any_params = st.builds(QuantParams, st.sampled_from([3, 4, 5, 6, 8]), st.sampled_from([32, 64, 128]))
KINDS = {
    "tiny": lambda values: values * np.float32(1e-38),
    "about the least scale": lambda values: values * np.float32(1e-4),
    "at its edge": lambda values: values * np.float32(3e-5),
    "one side": lambda values: np.abs(values) + np.float32(0.01),
    "the other side": lambda values: -np.abs(values) - np.float32(0.01),
    "far from zero": lambda values: 1 + values * np.float32(1e-4),
    "ties": lambda values: np.rint(values * 200) / 2,
    "constant": lambda values: np.full_like(values, values[0, 0]),
    "large": lambda values: values * np.float32(1e30),
}


def rows_of(kind, params, seed):
    values = np.random.default_rng(seed).normal(0, 0.02, (5, 2 * params.group_size)).astype(np.float32)
    return KINDS[kind](values)


@settings(deadline=None, max_examples=80)
@given(
    params=any_params,
    seed=st.integers(0, 99),
    kind=st.sampled_from(sorted(KINDS)),
    source=st.sampled_from(["BF16", "F32"]),
)
def test_groups_of_every_kind_are_fitted_to_the_same_bytes_by_numba_and_by_mlx(params, seed, kind, source):
    held = narrowed(rows_of(kind, params, seed), source)
    compiled, arrays = (quantized_rows(held, params, "fit", "BF16", each) for each in ("numba", "cpu"))
    assert [part.tobytes() for part in compiled.parts] == [part.tobytes() for part in arrays.parts]
    assert compiled.parts[1].view(np.uint16).all()


@settings(deadline=None, max_examples=80)
@given(
    params=any_params,
    seed=st.integers(0, 99),
    kind=st.sampled_from(sorted(set(KINDS) - {"large"})),
    source=st.sampled_from(["BF16", "F16", "F32"]),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
)
def test_stock_is_what_mlx_makes_of_the_rows_cast_to_any_stored_dtype(params, seed, kind, source, dtype):
    held = narrowed(rows_of(kind, params, seed), source)
    kinds = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
    with mx.stream(mx.cpu):
        cast = mx.array(widened(held)).astype(kinds[dtype])
        expected = mx.quantize(cast, group_size=params.group_size, bits=params.bits)
    stored = quantized_rows(held, params, "stock", dtype, "numba")
    assert [part.tobytes() for part in stored.parts] == [np.array(part.view(mx.uint8)).tobytes() for part in expected]


@pytest.mark.parametrize("per_row", [True, False])
def test_float8_rows_cut_into_chunks_have_each_its_own_scale(per_row, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "CHUNK_BYTES", 300)
    source = fp8_checkpoint(tmp_path / "source", per_row=per_row)
    convert(source, "none", tmp_path / "out")
    before, after = read_tensors(source), read_tensors(tmp_path / "out")
    names = [name for name, (dtype, _, _) in before.items() if dtype == "F8_E4M3"]
    assert names
    for name in names:
        _, shape, data = before[name]
        scale = widened(np.frombuffer(before[f"{name}_scale"][2], NUMPY_DTYPES["BF16"])).reshape(-1, 1)
        expected = narrowed(E4M3[np.frombuffer(data, np.uint8).reshape(shape)] * scale, "BF16")
        assert after[name.replace("model.", "language_model.model.", 1)][2] == expected.tobytes(), name


def with_first_values(values):
    """Return a change of tensors that puts eight *values* first into one of the matrices."""

    def change(tensors):
        name = next(name for name in tensors if name.endswith("q_proj.weight"))
        dtype, shape, data = tensors[name]
        return tensors | {name: (dtype, shape, narrowed(np.array(values, np.float32), "BF16").tobytes() + data[16:])}

    return change


@pytest.mark.parametrize("largest", [1e20, 1e30])
@pytest.mark.parametrize("method", ["fit", "stock"])
def test_weights_whose_squares_float32_cannot_hold_have_a_true_error_in_a_report_that_is_json(
    method, largest, tmp_path
):
    source = tiny_checkpoint(tmp_path / "source", change=with_first_values([largest] * 8))
    (report,) = convert(source, "4bit", tmp_path / "out", method=method)
    errors = {each.name: each.relative_error for each in report.tensors}
    assert all(math.isfinite(error) for error in errors.values())
    assert all(error > 0 for name, error in errors.items() if "q_proj.weight" in name)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads((tmp_path / "out/conversion_report.json").read_text(), parse_constant=refuse)


def test_a_tensors_error_is_the_same_sum_whichever_thread_was_first():
    parts = [(row, 10.0 ** (row % 17), 1e16 / (row + 1)) for row in range(50)]
    assert shards_module._summed(parts) == shards_module._summed(reversed(parts))


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """Return a function: writes the state that it makes of that of an interrupted conversion, and goes on with it."""
    monkeypatch.setattr(plan_module, "MAX_SHARD_BYTES", 30_000)
    source, state = tiny_checkpoint(tmp_path / "source"), tmp_path / ".out.partial/state.json"
    convert(source, "4bit", tmp_path / "expected")

    def stop(nbytes):
        if state.is_file() and json.loads(state.read_text())["shards"]:
            raise KeyboardInterrupt

    def go_on(change):
        with pytest.raises(KeyboardInterrupt):
            convert(source, "4bit", tmp_path / "out", threads=1, progress=stop)
        state.write_text(change(json.loads(state.read_text())))
        convert(source, "4bit", tmp_path / "out")
        assert (tmp_path / "out" / HASHES_FILE).read_text() == (tmp_path / "expected" / HASHES_FILE).read_text()

    return go_on


def test_a_state_nested_too_deeply_is_begun_anew(interrupted):
    interrupted(lambda state: "[" * 200_000)


def bad_errors(sums):
    def change(state):
        for entry in state["shards"].values():
            entry["errors"] = dict.fromkeys(entry["errors"], sums)
        return json.dumps(state)

    return change


@pytest.mark.parametrize("sums", [[1], ["x", "y"], {}])
def test_a_state_whose_errors_are_no_pairs_of_numbers_is_begun_anew(sums, interrupted):
    interrupted(bad_errors(sums))


def without_a_tensor(state):
    for entry in state["shards"].values():
        entry["errors"].popitem()
    return json.dumps(state)


def with_a_number_for_a_hash(state):
    return json.dumps({**state, "hashes": {"model.safetensors": 7}})


@pytest.mark.parametrize("change", [without_a_tensor, with_a_number_for_a_hash])
def test_a_state_that_was_changed_is_begun_anew(change, interrupted, tmp_path):
    interrupted(change)
    assert json.loads((tmp_path / "out/conversion_report.json").read_text())["resumed_shards"] == 0


def test_a_state_names_no_file_outside_the_folder_even_one_with_the_right_bytes(interrupted, tmp_path):
    def elsewhere(state):
        name = next(iter(state["shards"]))
        (tmp_path / "mine").write_bytes((tmp_path / ".out.partial" / name).read_bytes())
        state["shards"] = {"../mine": state["shards"][name]}
        return json.dumps(state)

    interrupted(elsewhere)
    assert (tmp_path / "mine").is_file()
    assert "mine" not in (tmp_path / "out" / HASHES_FILE).read_text()
    report = json.loads((tmp_path / "out/conversion_report.json").read_text())
    assert report["resumed_shards"] == 0


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
LOW_DISK = """
import sys
from pathlib import Path
from olmocr.conversion.convert import convert, plan_targets, with_weights
downloads, stop_in, most = Path(".out.partial/source"), sys.argv[1], 0
def watch(nbytes):
    global most
    names = [path.name for path in downloads.glob('*')]
    most = max(most, len(names))
    if stop_in in names:
        raise SystemExit(9)
convert("demo/olmocr", "4bit", Path("out"), low_disk=True, progress=watch)
print(most)
"""


def low_disk(hub, folder, stop_in=""):
    names = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", LOW_DISK, stop_in], cwd=folder, env=os.environ | names, capture_output=True, text=True
    )


@pytest.mark.parametrize("stop_in", SHARDS)
def test_an_interrupted_low_disk_conversion_goes_on_with_never_more_than_one_shard_on_the_disk(stop_in, tmp_path):
    with HubServer({"demo/olmocr": Repository({"main": Commit(CHECKPOINT)})}) as hub:
        first = low_disk(hub, tmp_path, stop_in)
        assert first.returncode == 9, first.stderr
        assert [path.name for path in (tmp_path / ".out.partial/source").iterdir()] == [stop_in]
        hub.sent.clear()
        done = low_disk(hub, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "1"
        if stop_in == SHARDS[0]:
            assert hub.sent[stop_in] < 1 << 20, "it was here already"
    convert(CHECKPOINT, "4bit", tmp_path / "expected")
    assert (tmp_path / "out" / HASHES_FILE).read_text() == (tmp_path / "expected" / HASHES_FILE).read_text()


def test_only_what_the_cache_lacks_is_to_be_downloaded(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"here")
    files = (RemoteShard("a.safetensors", 4, None), RemoteShard("b.safetensors", 10**18, None))
    model = ModelFolder(tmp_path, "org/name", "main", remote_weights=True, remote_files=files)
    assert missing_files(model) == files[1:]


def test_a_download_that_the_disk_has_no_room_for_is_refused_before_it_begins(tmp_path):
    (target,) = plan_targets(ModelFolder(tiny_checkpoint(tmp_path / "source")), [find_recipe("4bit")], "fit", None)
    huge = (RemoteShard("model.safetensors", 10**18, None),)
    there = replace(target.plan.source.folder, repo_id="org/name", remote_weights=True, remote_files=huge)
    (tmp_path / "source/model.safetensors").unlink(missing_ok=True)
    target = replace(target, plan=replace(target.plan, source=replace(target.plan.source, folder=there)))
    with pytest.raises(PlanError, match="use `low_disk=True`"):
        with_weights([target], low_disk=False)


@pytest.mark.parametrize(
    ("dtype", "largest", "advice"),
    [(None, 3e38, r"`keep='language_model\.\S+q_proj'`$"), ("float16", 1e30, "`dtype='bfloat16'`")],
)
def test_a_weight_that_is_too_large_for_what_is_stored_is_named_with_a_way_out_that_helps(
    dtype, largest, advice, tmp_path
):
    source = tiny_checkpoint(tmp_path / "source", change=with_first_values([largest, -largest] * 4))
    with pytest.raises(PlanError, match=advice):
        convert(source, changed(find_recipe("8bit"), dtype=dtype), tmp_path / "out")
    assert not (tmp_path / "out").exists()
