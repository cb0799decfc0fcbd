"""How far weights are from their source, tensor by tensor."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.convert import convert
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.model_folder import ModelFolder
from olmocr.tensors.floats import NUMPY_DTYPES
from olmocr.tensors.header import TensorInfo
from olmocr.validate.weights.check import check_weights
from olmocr.validate.weights.difference import compare
from olmocr.validate.weights.values import StoredTensor, as_float32, rounded
from tests.checkpoints import TINY, demo_checkpoint, nested_config, new_keys, tiny_checkpoint, tiny_tensors
from tests.validate.weights.folders import SHARD, edit_quantization, padded, problems, put, rewrite

HEAD = "language_model.lm_head"


NORM = "language_model.model.norm.weight"


UP = "vision_tower.blocks.0.mlp.up_proj"


DOWN = "vision_tower.blocks.0.mlp.down_proj"


def test_the_relative_error_is_that_of_the_weights_that_mlx_computes_with(whole, source):
    report = check_weights(whole, source)
    arrays = mx.load(str(whole / SHARD))
    _, shape, data = tiny_tensors(TINY)["lm_head.weight"]
    truth = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    parts = [arrays[f"{HEAD}.{part}"] for part in ("weight", "scales", "biases")]
    with mx.stream(mx.cpu):
        got = np.array(mx.dequantize(*parts, group_size=64, bits=4, dtype=mx.float32))
    (error,) = [each for each in report.errors if each.tensor == f"{HEAD}.weight"]
    assert error.relative_error == pytest.approx(np.linalg.norm(got - truth) / np.linalg.norm(truth), rel=0.01)
    assert (error.bits, error.group_size) == (4, 64)
    relative = [each.relative_error for each in report.errors]
    assert relative == sorted(relative, reverse=True)


def test_a_source_with_the_names_of_newer_transformers_is_compared_too(tmp_path, converted):
    source = demo_checkpoint(tmp_path / "source", rename=new_keys, reconfigure=nested_config)
    assert check_weights(converted("8bit"), source).holds


def test_a_kept_tensor_that_is_not_its_source_is_named(folder, source):
    put(folder, NORM, 5, 0x3F00)
    (problem,) = problems(folder, "source", source)
    assert problem == f"{NORM} was kept, but 1 of its 64 values differ from the source's in BF16"


def test_a_packed_tensor_of_another_model_is_named(whole, tmp_path):
    other = tiny_checkpoint(tmp_path / "other", change=lambda tensors: tiny_tensors(TINY, seed=1))
    found = problems(whole, "source", other)
    assert any(each.startswith(f"{HEAD}.weight does not match its source: its relative error is ") for each in found)


def test_a_tensor_that_the_folder_lacks_or_adds_is_named(folder, source):
    rewrite(folder, lambda tensors: {**{k: v for k, v in tensors.items() if k != NORM}, "ghost": ("BF16", [1], b"aa")})
    found = problems(folder, "source", source)
    assert found == [f"{NORM}: it is missing, but the source has it", "ghost is not in the source"]


def test_a_tensor_of_another_shape_is_named(folder, source):
    rewrite(folder, lambda tensors: tensors.update({NORM: ("BF16", [32], tensors[NORM][2][:64])}))
    assert problems(folder, "source", source) == [f"{NORM}: its shape is (32,), its source's (64,)"]


def test_a_broken_packing_is_not_compared(folder, source):
    edit_quantization(folder, lambda each: each.update({HEAD: {"bits": 8, "group_size": 64}}))
    assert f"{HEAD}.weight: it cannot be compared, because its packing is broken" in problems(folder, "source", source)


def test_a_kept_tensor_that_is_not_a_float_is_not_compared(folder, source):
    rewrite(folder, lambda tensors: tensors.update({NORM: ("U8", [64], bytes(64))}))
    assert problems(folder, "source", source) == [f"{NORM}: dtype U8 is not a float that can be compared"]


def test_values_that_are_not_finite_have_no_relative_error(folder, source):
    put(folder, f"{HEAD}.scales", (3, 0), 0x7FC0)
    found = problems(folder, "source", source)
    assert found == [f"{HEAD}.weight has no relative error: values that are not finite, or a source of zeros"]
    assert check_weights(folder, source).errors[0].relative_error is None


@pytest.mark.parametrize(("source_dtype", "target"), [("F32", "bfloat16"), ("F32", "float16"), ("BF16", "float16")])
def test_a_cast_of_a_kept_tensor_is_not_a_problem_and_its_error_is_reported(source_dtype, target, tmp_path):
    def change(tensors):
        if source_dtype == "BF16":
            return tensors
        random = np.random.default_rng(1)
        return {
            name: ("F32", shape, random.normal(0, 0.02, shape).astype(np.float32).tobytes())
            for name, (_, shape, _) in tensors.items()
        }

    source = tiny_checkpoint(tmp_path / "source", {"torch_dtype": target}, change)
    convert(source, "none", tmp_path / "out")
    report = check_weights(tmp_path / "out", source)
    assert report.holds
    assert 0 < report.errors[0].relative_error < 3e-3


def test_zeros_that_widen_the_vision_mlp_are_recognised_and_shown(tmp_path, source):
    report = check_weights(padded(tmp_path / "out", source), source)
    assert report.holds
    wider = {error.tensor: error.relative_error for error in report.errors if error.padded}
    gate = UP.replace("up", "gate")
    assert wider == dict.fromkeys(
        [f"{UP}.weight", f"{UP}.bias", f"{gate}.weight", f"{gate}.bias", f"{DOWN}.weight"], 0.0
    )


@pytest.mark.parametrize("name", [f"{UP}.weight", f"{UP}.bias"])
def test_padding_that_is_not_zero_is_named(name, tmp_path, source):
    found = problems(padded(tmp_path / "out", source, name, 0x3F00), "source", source)
    assert len(found) == 1
    assert found[0].startswith(f"{name} is padded to (64,")
    assert found[0].endswith("of the added values are not zero")


def quantized_vision(folder, name):
    """Pack a tensor of the vision tower to 8 bits, as MLX does."""

    def change(tensors):
        dtype, shape, data = tensors.pop(f"{name}.weight")
        weight = mx.array(np.frombuffer(data, np.uint16).reshape(shape)).view(mx.bfloat16)
        with mx.stream(mx.cpu):
            parts = mx.quantize(weight, group_size=32, bits=8)
            for part, array in zip(("weight", "scales", "biases"), parts, strict=True):
                stored = np.array(array.view(mx.uint8))
                kind = "U32" if part == "weight" else dtype
                tensors[f"{name}.{part}"] = (kind, list(array.shape), stored.tobytes())

    rewrite(folder, change)
    edit_quantization(folder, lambda each: each.update({name: {"bits": 8, "group_size": 32, "mode": "affine"}}))


@pytest.mark.parametrize("name", [UP, DOWN])
def test_padding_is_recognised_in_packed_weights_too(name, tmp_path, source):
    folder = padded(tmp_path / "out", source)
    quantized_vision(folder, name)
    report = check_weights(folder, source)
    assert report.holds
    (error,) = [error for error in report.errors if error.tensor == f"{name}.weight"]
    assert error.padded
    assert 0 < error.relative_error < 0.03


@pytest.mark.parametrize("scales", [np.linspace(0.5, 2, 96, dtype=np.float32)[:, None], np.full((1,), 0.3, np.float32)])
def test_values_of_8_bits_times_their_scales_are_the_reference(scales, tmp_path):
    codes = np.arange(96 * 64, dtype=np.uint32).reshape(96, 64).astype(np.uint8) & 0x77
    with mx.stream(mx.cpu):
        truth = np.array(mx.from_fp8(mx.array(codes), dtype=mx.float32)) * scales
    for name, array in (("codes", codes), ("scales", scales), ("kept", truth)):
        (tmp_path / name).write_bytes(array.tobytes())
    scale = TensorInfo("w_scale", "F32", scales.shape, "scales", 0, scales.nbytes)
    info = TensorInfo("w", "F8_E4M3", codes.shape, "codes", 0, codes.nbytes, scale)
    kept = StoredTensor(tmp_path / "kept", TensorInfo("w", "F32", truth.shape, "kept", 0, truth.nbytes))
    source = SourceCheckpoint(ModelFolder(tmp_path), {}, {"w": info})
    difference = compare(source, {"w": kept}, {}, lambda nbytes: None)
    assert (difference.problems, difference.errors[0].relative_error) == ((), 0.0)
    assert difference.errors[0].tensor == "w"


def test_scales_of_8_bit_values_that_are_neither_one_nor_one_a_row_are_named(tmp_path):
    (tmp_path / "zeros").write_bytes(bytes(4096))
    scale = TensorInfo("w_scale", "F32", (2, 2), "zeros", 0, 16)
    info = TensorInfo("w", "F8_E4M3", (32, 32), "zeros", 0, 1024, scale)
    kept = StoredTensor(tmp_path / "zeros", TensorInfo("w", "F32", (32, 32), "zeros", 0, 4096))
    difference = compare(SourceCheckpoint(ModelFolder(tmp_path), {}, {"w": info}), {"w": kept}, {}, lambda nbytes: None)
    assert difference.problems == ("w: its source has scales of shape (2, 2), which are not read here",)


def test_every_byte_of_8_bits_is_the_number_that_mlx_reads():
    codes = np.arange(256, dtype=np.uint8)
    with mx.stream(mx.cpu):
        theirs = np.array(mx.from_fp8(mx.array(codes), dtype=mx.float32))
    finite = codes & 0x7F != 0x7F
    assert np.array_equal(as_float32(codes.view(NUMPY_DTYPES["F8_E4M3"]), "F8_E4M3")[finite], theirs[finite])
    assert np.isnan(as_float32(codes.view(NUMPY_DTYPES["F8_E4M3"]), "F8_E4M3")[~finite]).all()


@pytest.mark.parametrize(("dtype", "theirs"), [("BF16", mx.bfloat16), ("F16", mx.float16), ("F32", mx.float32)])
def test_a_cast_rounds_as_mlx_does(dtype, theirs):
    values = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
    values[:4] = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1e6]
    with mx.stream(mx.cpu):
        expected = np.array(mx.array(values).astype(theirs).astype(mx.float32))
    assert np.array_equal(rounded(values, dtype), expected)
