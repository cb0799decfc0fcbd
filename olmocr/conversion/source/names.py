"""Hugging Face tensor name -> MLX name, and the shapes that a config requires, as data for each family."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from olmocr.errors import CheckpointError

FAMILIES = {
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
    "Qwen3VLForConditionalGeneration": "qwen3_vl",
}
"""What can be converted: config.json's architecture -> its model_type, used as the family's name here."""

VISION = "vision_tower."
LANGUAGE = "language_model."
PATCH_EMBED = "vision_tower.patch_embed.proj.weight"
"""The one tensor whose layout changes: (out, in, t, h, w) in torch, (out, t, h, w, in) in MLX."""

PATCH_EMBED_AXES = (0, 2, 3, 4, 1)

# The layouts in use: the original one, the one newer transformers write, that of a model without its head,
# and MLX's own, which other training frameworks also write. Longest first.
_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("language_model.lm_head.", "language_model.lm_head."),
    ("language_model.model.", "language_model.model."),
    ("language_model.", "language_model.model."),
    ("model.lm_head.", "language_model.lm_head."),
    ("model.visual.", VISION),
    ("visual.", VISION),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)

LM_HEAD = "language_model.lm_head.weight"
EMBEDDINGS = "language_model.model.embed_tokens.weight"


def head_tensor(config: Mapping[str, Any]) -> str:
    """Return MLX's name of the matrix that makes logits: the embeddings where *config* ties the head to them."""
    return EMBEDDINGS if config["tie_word_embeddings"] else LM_HEAD


Component = Literal["language", "head", "embeddings", "vision", "merger"]

# Longest first. The deepstack mergers pass features of inner vision blocks to the language model.
_COMPONENTS: tuple[tuple[str, Component], ...] = (
    ("language_model.lm_head.", "head"),
    ("language_model.model.embed_tokens.", "embeddings"),
    (LANGUAGE, "language"),
    ("vision_tower.merger.", "merger"),
    ("vision_tower.deepstack_merger_list.", "merger"),
    (VISION, "vision"),
)

_VISION_MLP = re.compile(r"vision_tower\.blocks\.\d+\.mlp\.(?P<module>\w+)\.(?P<kind>weight|bias)")
_INTO_MLP = {"gate_proj", "up_proj", "fc1", "linear_fc1"}
_OUT_OF_MLP = {"down_proj", "fc2", "linear_fc2"}

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def mlx_name(name: str, config: dict[str, Any]) -> str | None:
    """Return MLX's name for the tensor *name*, or None if models do not need it (a buffer, or a tied head)."""
    if name.endswith((".inv_freq", ".position_ids")):
        return None
    for prefix, replacement in _PREFIXES:
        if name.startswith(prefix):
            mlx = replacement + name.removeprefix(prefix)
            return None if mlx == LM_HEAD and config["tie_word_embeddings"] else mlx
    return name


def mlx_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in MLX's layout of the tensor *name* (MLX's), which has *shape* in the source's."""
    return tuple(shape[axis] for axis in PATCH_EMBED_AXES) if name == PATCH_EMBED else shape


def component_of(name: str) -> Component:
    """Return which part of the model the tensor or module *name* (MLX's) belongs to."""
    return next((component for prefix, component in _COMPONENTS if name.startswith(prefix)), "language")


def vision_mlp_axis(name: str) -> int | None:
    """Return the axis of the tensor *name* (MLX's) along which the vision MLP's width runs, or None."""
    match = _VISION_MLP.fullmatch(name)
    if match and match["module"] in _INTO_MLP:
        return 0
    return 1 if match and match["module"] in _OUT_OF_MLP and match["kind"] == "weight" else None


def text_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the section of a flat config that describes the language model."""
    section: dict[str, Any] = config["text_config"] if config["model_type"] == "qwen3_vl" else config
    return section


def number_of_blocks(config: dict[str, Any]) -> dict[str, int]:
    """Return how many language ``layers`` and vision ``blocks`` a model has, for patterns that count from the end.

    Raises:
        CheckpointError: *config* (flat) does not say so.
    """
    return {
        "layers": len(_Dimensions(text_settings(config)).layers("num_hidden_layers")),
        "blocks": len(_Dimensions(config["vision_config"]).layers("depth")),
    }


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a model by MLX name, with its shape in the source's layout.

    Raises:
        CheckpointError: *config* (flat) lacks a dimension.
    """
    vision, language = _SHAPES[config["model_type"]]
    shapes = dict([*vision(_Dimensions(config["vision_config"])), *language(_Dimensions(text_settings(config)))])
    if config["tie_word_embeddings"]:
        del shapes[LM_HEAD]
    return shapes


_LARGEST_DIMENSION = 1 << 24
_MOST_LAYERS = 1000


class _Dimensions:
    """Looks up dimensions in a section of config.json, which may hold anything."""

    def __init__(self, section: dict[str, Any]) -> None:
        self._section = section

    def __getitem__(self, key: str) -> int:
        value = self._section.get(key)
        if type(value) is not int or not 0 < value <= _LARGEST_DIMENSION:
            raise CheckpointError(f"config.json says {key} is {value!r}, not a dimension")
        return value

    def layers(self, key: str) -> range:
        """Return the numbers of the layers that *key* counts."""
        if self[key] > _MOST_LAYERS:
            raise CheckpointError(f"config.json says {key} is {self[key]}, more than any model has")
        return range(self[key])

    def multiple(self, key: str, ratio: str) -> int:
        """Return the dimension *key* times the number *ratio*, rounded down like the model classes."""
        value = self._section.get(ratio)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST_DIMENSION:
            raise CheckpointError(f"config.json says {ratio} is {value!r}, not a ratio")
        if not 1 <= self[key] * value <= _LARGEST_DIMENSION:
            raise CheckpointError(f"config.json says {ratio} is {value!r}, which does not give a dimension")
        return int(self[key] * value)

    def chosen_layers(self, key: str, among: str) -> list[int]:
        """Return the list *key* of different layers, chosen from those that *among* counts."""
        value = self._section.get(key)
        layers = self.layers(among)
        if not isinstance(value, list) or any(type(each) is not int or each not in layers for each in value):
            raise CheckpointError(
                f"config.json says {key} is {value!r}, not a list of some of the {len(layers)} layers"
            )
        if len(set(value)) != len(value):
            raise CheckpointError(f"config.json says {key} is {value!r}, which names a layer twice")
        return value


def _linear(name: str, out: int, into: int, *, bias: bool) -> Shapes:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _norm(name: str, width: int, *, bias: bool) -> Shapes:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


def _patch_embed(config: _Dimensions, width: int) -> Shapes:
    patch = config["patch_size"]
    yield PATCH_EMBED, (width, config["in_channels"], config["temporal_patch_size"], patch, patch)


def _attention_block(block: str, width: int, *, norm_bias: bool) -> Shapes:
    """Yield what the vision blocks of all families have besides their MLP."""
    yield from _norm(f"{block}.norm1", width, bias=norm_bias)
    yield from _norm(f"{block}.norm2", width, bias=norm_bias)
    yield from _linear(f"{block}.attn.qkv", 3 * width, width, bias=True)
    yield from _linear(f"{block}.attn.proj", width, width, bias=True)


def _qwen2_merger(width: int, merge_size: int, out: int, *, norm_bias: bool) -> Shapes:
    merged = width * merge_size**2
    yield from _norm(f"{VISION}merger.ln_q", width, bias=norm_bias)
    yield from _linear(f"{VISION}merger.mlp.0", merged, merged, bias=True)
    yield from _linear(f"{VISION}merger.mlp.2", out, merged, bias=True)


def _qwen2_vision(config: _Dimensions) -> Shapes:
    width, mlp = config["embed_dim"], config.multiple("embed_dim", "mlp_ratio")
    yield from _patch_embed(config, width)
    for number in config.layers("depth"):
        block = f"{VISION}blocks.{number}"
        yield from _attention_block(block, width, norm_bias=True)
        yield from _linear(f"{block}.mlp.fc1", mlp, width, bias=True)
        yield from _linear(f"{block}.mlp.fc2", width, mlp, bias=True)
    yield from _qwen2_merger(width, config["spatial_merge_size"], config["hidden_size"], norm_bias=True)


def _qwen2_5_vision(config: _Dimensions) -> Shapes:
    width, mlp = config["hidden_size"], config["intermediate_size"]
    yield from _patch_embed(config, width)
    for number in config.layers("depth"):
        block = f"{VISION}blocks.{number}"
        yield from _attention_block(block, width, norm_bias=False)
        yield from _linear(f"{block}.mlp.gate_proj", mlp, width, bias=True)
        yield from _linear(f"{block}.mlp.up_proj", mlp, width, bias=True)
        yield from _linear(f"{block}.mlp.down_proj", width, mlp, bias=True)
    yield from _qwen2_merger(width, config["spatial_merge_size"], config["out_hidden_size"], norm_bias=False)


def _qwen3_vision(config: _Dimensions) -> Shapes:
    width, mlp = config["hidden_size"], config["intermediate_size"]
    yield from _patch_embed(config, width)
    yield f"{VISION}patch_embed.proj.bias", (width,)
    yield f"{VISION}pos_embed.weight", (config["num_position_embeddings"], width)
    for number in config.layers("depth"):
        block = f"{VISION}blocks.{number}"
        yield from _attention_block(block, width, norm_bias=True)
        yield from _linear(f"{block}.mlp.linear_fc1", mlp, width, bias=True)
        yield from _linear(f"{block}.mlp.linear_fc2", width, mlp, bias=True)
    merged, out = width * config["spatial_merge_size"] ** 2, config["out_hidden_size"]
    yield from _qwen3_merger(f"{VISION}merger", width, merged, out)
    for number, _ in enumerate(config.chosen_layers("deepstack_visual_indexes", "depth")):
        yield from _qwen3_merger(f"{VISION}deepstack_merger_list.{number}", merged, merged, out)


def _qwen3_merger(name: str, norm: int, merged: int, out: int) -> Shapes:
    """Yield a merger; *norm* is the width it normalizes: before patches are merged, or (deepstack) after."""
    yield from _norm(f"{name}.norm", norm, bias=True)
    yield from _linear(f"{name}.linear_fc1", merged, merged, bias=True)
    yield from _linear(f"{name}.linear_fc2", out, merged, bias=True)


def _qwen2_language(config: _Dimensions) -> Shapes:
    heads, width = config["num_attention_heads"], config["hidden_size"]
    key_value = width // heads * config["num_key_value_heads"]
    for layer in _layers(config):
        yield from _linear(f"{layer}.self_attn.q_proj", width, width, bias=True)
        yield from _linear(f"{layer}.self_attn.k_proj", key_value, width, bias=True)
        yield from _linear(f"{layer}.self_attn.v_proj", key_value, width, bias=True)
        yield from _linear(f"{layer}.self_attn.o_proj", width, width, bias=False)
    yield from _beside_attention(config)


def _qwen3_language(config: _Dimensions) -> Shapes:
    head, width = config["head_dim"], config["hidden_size"]
    query, key_value = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    for layer in _layers(config):
        yield from _linear(f"{layer}.self_attn.q_proj", query, width, bias=False)
        yield from _linear(f"{layer}.self_attn.k_proj", key_value, width, bias=False)
        yield from _linear(f"{layer}.self_attn.v_proj", key_value, width, bias=False)
        yield from _linear(f"{layer}.self_attn.o_proj", width, query, bias=False)
        yield from _norm(f"{layer}.self_attn.q_norm", head, bias=False)
        yield from _norm(f"{layer}.self_attn.k_norm", head, bias=False)
    yield from _beside_attention(config)


def _layers(config: _Dimensions) -> Iterator[str]:
    return (f"{LANGUAGE}model.layers.{number}" for number in config.layers("num_hidden_layers"))


def _beside_attention(config: _Dimensions) -> Shapes:
    """Yield what the language models of all families have besides their attention."""
    width, mlp, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    yield f"{LANGUAGE}model.embed_tokens.weight", (vocabulary, width)
    for layer in _layers(config):
        yield from _norm(f"{layer}.input_layernorm", width, bias=False)
        yield from _norm(f"{layer}.post_attention_layernorm", width, bias=False)
        yield from _linear(f"{layer}.mlp.gate_proj", mlp, width, bias=False)
        yield from _linear(f"{layer}.mlp.up_proj", mlp, width, bias=False)
        yield from _linear(f"{layer}.mlp.down_proj", width, mlp, bias=False)
    yield from _norm(f"{LANGUAGE}model.norm", width, bias=False)
    yield LM_HEAD, (vocabulary, width)


_SHAPES: dict[str, tuple[Callable[[_Dimensions], Shapes], Callable[[_Dimensions], Shapes]]] = {
    "qwen2_vl": (_qwen2_vision, _qwen2_language),
    "qwen2_5_vl": (_qwen2_5_vision, _qwen2_language),
    "qwen3_vl": (_qwen3_vision, _qwen3_language),
}
