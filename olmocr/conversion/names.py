"""Hugging Face tensor name -> MLX name, and the shapes that a config calls for, as data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from olmocr.errors import CheckpointError

VISION = "vision_tower."
LANGUAGE = "language_model."
PATCH_EMBED = "vision_tower.patch_embed.proj.weight"
"""The one tensor whose layout changes: (out, in, t, h, w) in torch, (out, t, h, w, in) in MLX."""

PATCH_EMBED_AXES = (0, 2, 3, 4, 1)

# Both layouts seen in the wild: the original one, and the one newer transformers write. Longest first.
_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("model.visual.", VISION),
    ("visual.", VISION),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)

_LM_HEAD = "language_model.lm_head.weight"


def mlx_name(name: str, config: dict[str, Any]) -> str | None:
    """Return what MLX calls the tensor *name*; None for one that no model needs (a buffer, or a tied head)."""
    if name.endswith((".inv_freq", ".position_ids")):
        return None
    for prefix, replacement in _PREFIXES:
        if name.startswith(prefix):
            mlx = replacement + name.removeprefix(prefix)
            return None if mlx == _LM_HEAD and config["tie_word_embeddings"] else mlx
    return name


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a Qwen2.5-VL model by MLX name, with its shape in the source's layout.

    Raises:
        CheckpointError: *config* (flat) lacks a dimension.
    """
    return dict([*_vision(_Dimensions(config["vision_config"])), *_language(_Dimensions(config), config)])


_LARGEST_DIMENSION = 1 << 24
_MOST_LAYERS = 1000


class _Dimensions:
    """Looks dimensions up in a section of config.json, which may hold anything."""

    def __init__(self, section: dict[str, Any]) -> None:
        self._section = section

    def __getitem__(self, key: str) -> int:
        value = self._section.get(key)
        if type(value) is not int or not 0 < value <= _LARGEST_DIMENSION:
            raise CheckpointError(f"config.json says {key} is {value!r}, which is no dimension")
        return value

    def layers(self, key: str) -> range:
        """Return the numbers of the layers that *key* counts."""
        if self[key] > _MOST_LAYERS:
            raise CheckpointError(f"config.json says {key} is {self[key]}, more than any model has")
        return range(self[key])


def _linear(name: str, out: int, into: int, *, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _vision(config: _Dimensions) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, mlp, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    yield PATCH_EMBED, (width, config["in_channels"], config["temporal_patch_size"], patch, patch)
    for number in config.layers("depth"):
        block = f"{VISION}blocks.{number}"
        yield f"{block}.norm1.weight", (width,)
        yield f"{block}.norm2.weight", (width,)
        yield from _linear(f"{block}.attn.qkv", 3 * width, width, bias=True)
        yield from _linear(f"{block}.attn.proj", width, width, bias=True)
        yield from _linear(f"{block}.mlp.gate_proj", mlp, width, bias=True)
        yield from _linear(f"{block}.mlp.up_proj", mlp, width, bias=True)
        yield from _linear(f"{block}.mlp.down_proj", width, mlp, bias=True)
    merged = width * config["spatial_merge_size"] ** 2
    yield f"{VISION}merger.ln_q.weight", (width,)
    yield from _linear(f"{VISION}merger.mlp.0", merged, merged, bias=True)
    yield from _linear(f"{VISION}merger.mlp.2", config["out_hidden_size"], merged, bias=True)


def _language(config: _Dimensions, flat: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, mlp, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    key_value = width // config["num_attention_heads"] * config["num_key_value_heads"]
    yield f"{LANGUAGE}model.embed_tokens.weight", (vocabulary, width)
    for number in config.layers("num_hidden_layers"):
        layer = f"{LANGUAGE}model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (width,)
        yield f"{layer}.post_attention_layernorm.weight", (width,)
        yield from _linear(f"{layer}.self_attn.q_proj", width, width, bias=True)
        yield from _linear(f"{layer}.self_attn.k_proj", key_value, width, bias=True)
        yield from _linear(f"{layer}.self_attn.v_proj", key_value, width, bias=True)
        yield from _linear(f"{layer}.self_attn.o_proj", width, width, bias=False)
        yield from _linear(f"{layer}.mlp.gate_proj", mlp, width, bias=False)
        yield from _linear(f"{layer}.mlp.up_proj", mlp, width, bias=False)
        yield from _linear(f"{layer}.mlp.down_proj", width, mlp, bias=False)
    yield f"{LANGUAGE}model.norm.weight", (width,)
    if not flat["tie_word_embeddings"]:
        yield _LM_HEAD, (vocabulary, width)
