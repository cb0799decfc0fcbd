"""The memory a model needs, computed from its config, and which Macs have it. Nothing here was measured on a Mac."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from olmocr.conversion.source.names import text_settings
from olmocr.page import MAX_TOTAL_TOKENS, TARGET_LONGEST_IMAGE_DIM

PREFILL_TOKENS = 2048
"""How many tokens of a prompt mlx-vlm gives the language model at once."""

MACS = (8, 16, 24, 32, 36, 48, 64, 96, 128)
"""GiB of memory that Macs are sold with."""

_GIB = 1 << 30

# Bytes of one activation. Weights loaded without a dtype are computed as bfloat16.
_BYTES = {"float32": 4}


@dataclass(frozen=True)
class RunningMemory:
    """Bytes that reading one page needs; the activations of *vision* and *prefill* come one after the other."""

    weights: int
    kv_cache: int
    vision: int
    prefill: int

    @property
    def total(self) -> int:
        """Bytes at the peak. The vision tower finishes before the prefill starts, and MLX reuses its memory."""
        return self.weights + self.kv_cache + max(self.vision, self.prefill)


def running_memory(config: dict[str, Any], weight_bytes: int) -> RunningMemory:
    """Return the most that one page needs, for a model with *config* (flat) whose weights have *weight_bytes*.

    - Cache: keys and values of all layers for ``MAX_TOTAL_TOKENS``: 2 x layers x key-value heads x head size a token.
    - Vision: the largest page, square, as patches; for each the wider half of a block: the stream and either
      queries, keys, values and attention's output, or the MLP's inner vectors (gate, up and their product; without
      a gate, before and after the activation). Attention is fused: no matrix of scores is made.
    - Prefill: for each of ``PREFILL_TOKENS`` tokens the stream and the language model's gate, up and product.

    Buffers of the libraries, Python (a few hundred MB) and other programs on the machine come on top.
    """
    text, vision = text_settings(config), config["vision_config"]
    size = _BYTES.get(str(config.get("torch_dtype")), 2)
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    a_token = 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * head
    return RunningMemory(
        weights=weight_bytes,
        kv_cache=MAX_TOTAL_TOKENS * a_token * size,
        vision=_patches(vision) * _widest_of_a_vision_block(config) * size,
        prefill=PREFILL_TOKENS * (text["hidden_size"] + 3 * text["intermediate_size"]) * size,
    )


def _patches(vision: dict[str, Any]) -> int:
    """Return how many patches a page has whose sides are both ``TARGET_LONGEST_IMAGE_DIM``, in complete mergers."""
    merge = vision["spatial_merge_size"]
    side = round(TARGET_LONGEST_IMAGE_DIM / (vision["patch_size"] * merge)) * merge
    return int(side * side)


def _widest_of_a_vision_block(config: dict[str, Any]) -> int:
    """Return the most numbers that a vision block holds for one patch at a time."""
    vision = config["vision_config"]
    if config["model_type"] == "qwen2_vl":  # whose hidden_size is the language model's
        width = vision["embed_dim"]
        mlp = int(width * vision["mlp_ratio"])
    else:
        width, mlp = vision["hidden_size"], vision["intermediate_size"]
    inner = 3 if config["model_type"] == "qwen2_5_vl" else 2  # the others do not have a gate
    return int(width + max(4 * width, inner * mlp))


def limit(gib: int) -> int:
    """Return how many bytes Metal lets a process keep on the GPU of a Mac with *gib* GiB, by default.

    ``recommendedMaxWorkingSetSize``, as published logs of programs report it: 10922.67 MiB of 16 GiB and 21845.34 of 32
    are two thirds; larger machines report three quarters or more.
    """
    memory = gib * _GIB
    return memory * 2 // 3 if gib <= 32 else memory * 3 // 4


def smallest_mac(total: int) -> int | None:
    """Return the GiB of the smallest Mac whose limit is at least *total* bytes, or None if every Mac's is lower."""
    return next((gib for gib in MACS if total <= limit(gib)), None)


def fitting_macs(total: int) -> dict[int, bool]:
    """Return for every size of Mac, in GiB, whether *total* bytes are within its limit."""
    return {gib: total <= limit(gib) for gib in MACS}
