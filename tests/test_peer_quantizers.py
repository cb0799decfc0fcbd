"""benchmarks/peer_quantizers.py: others' quantizers are given the same model, and what they store is read right."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.test_real_weights import small_llama

sys.path.append(str(ROOT / "benchmarks"))

import itertools

import peer_launcher
from peer_quantizers import Place, language_bytes, launch, load_into, own_options, read_back
from real_weights import load_source, logits
from smollm import write_checkpoint, write_llama

from olmocr.errors import OlmocrError
from olmocr.runtime.device import start_mlx


@pytest.fixture(scope="module")
def llama():
    return small_llama()


@pytest.mark.slow
def test_others_are_given_the_model_that_ours_are_given(llama, tmp_path):
    write_checkpoint(llama, tmp_path / "qwen")
    write_llama(llama, tmp_path / "llama")
    loaded = load_source(tmp_path / "qwen", tmp_path / "none")
    ids = np.arange(9, dtype=np.int32)[None]
    before = logits(loaded, ids)
    load_into(loaded, read_back(tmp_path / "llama"))
    assert np.array_equal(logits(loaded, ids), before)


def test_a_llama_has_no_biases_and_no_vision_tower(llama, tmp_path):
    write_llama(llama, tmp_path / "llama")
    read = read_back(tmp_path / "llama")
    assert "model.layers.1.self_attn.q_proj.weight" in read
    assert not [name for name in read if name.endswith(".bias") or "visual" in name]
    assert language_bytes(tmp_path / "llama") == 2 * sum(array.size for array in read.values())


def test_a_quantized_matrix_is_read_back_with_the_bits_that_its_folder_names(tmp_path):
    start_mlx()
    import mlx.core as mx

    weight = mx.random.normal((8, 64))
    arrays, expected = {"norm.weight": mx.ones(8)}, {"norm.weight": mx.ones(8)}
    for name, bits in (("usual", 4), ("finer", 6)):
        parts = mx.quantize(weight, bits=bits, group_size=64)
        arrays |= {f"{name}.{part}": array for part, array in zip(("weight", "scales", "biases"), parts, strict=True)}
        expected[f"{name}.weight"] = mx.dequantize(*parts, bits=bits, group_size=64)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays)
    settings = {"bits": 4, "group_size": 64, "finer": {"bits": 6, "group_size": 64}}
    (tmp_path / "config.json").write_text(json.dumps({"quantization": settings}))
    read = read_back(tmp_path)
    assert set(read) == set(expected)
    assert all(mx.array_equal(read[name], array) for name, array in expected.items())


def test_a_folder_without_weights_is_refused(tmp_path):
    start_mlx()
    with pytest.raises(OlmocrError, match="no weights"):
        read_back(tmp_path)


def test_a_quantizer_that_fails_is_told_with_its_last_words(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho began\necho no such model\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(OlmocrError, match=r"awq\.log ends with: no such model"):
        launch(Place(tmp_path), tmp_path / "awq", ["awq"], str(python))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_packed_codes_are_those_that_mlx_reads(bits):
    start_mlx()
    import mlx.core as mx

    codes = np.random.default_rng(0).integers(0, 2**bits, (5, 192)).astype(np.float32)
    scales, biases = mx.full((5, 3), 0.5), mx.full((5, 3), -1.0)
    weight = mx.array(codes) * 0.5 - 1.0
    packed = peer_launcher.pack(weight, bits, scales, biases)
    assert packed.shape == (5, 192 * bits // 32)
    assert mx.array_equal(mx.dequantize(packed, scales, biases, bits=bits, group_size=64), weight)


def test_products_in_float32_are_rounded_to_the_dtype_of_the_input():
    start_mlx()
    import mlx.core as mx
    import mlx.nn as nn

    layer = nn.Linear(64, 8)
    layer.set_dtype(mx.bfloat16)
    x = mx.random.normal((3, 64)).astype(mx.bfloat16)
    out, parts = peer_launcher.linear(layer, x), mx.quantize(layer.weight, bits=4, group_size=64)
    packed = peer_launcher.quantized_matmul(x, *parts, transpose=True, bits=4, group_size=64)
    stock = mx.quantized_matmul(x, *parts, transpose=True, bits=4, group_size=64)
    assert out.dtype == packed.dtype == mx.bfloat16
    assert mx.allclose(out, layer(x), rtol=0.02, atol=0.02)
    assert mx.allclose(packed, stock, rtol=0.02, atol=0.02)


def test_a_function_of_arrays_and_words_is_computed_in_float32():
    start_mlx()
    import mlx.core as mx

    x = mx.array([[1.0, 2.0**-9]]).astype(mx.bfloat16)
    out = peer_launcher.in_float32(mx.einsum)("ij,kj->ik", x, mx.ones((1, 2)).astype(mx.bfloat16))
    assert out.dtype == mx.bfloat16
    assert out.item() == 1.0
    assert peer_launcher.wide("causal") == "causal"


@pytest.mark.parametrize("method", ["stock", "awq", "gptq", "dwq"])
def test_every_matrix_of_anothers_has_the_bits_of_the_recipe(method):
    options = own_options(Path("llama"), "3bit", method, Namespace(awq_windows="128", awq_grid="20", dwq_rate="1e-5"))
    bits = [value for name, value in itertools.pairwise(options) if name.endswith("bits")]
    sizes = [value for name, value in itertools.pairwise(options) if name.endswith("group-size")]
    assert set(bits) == {"3"}
    assert set(sizes) == {"64"}
