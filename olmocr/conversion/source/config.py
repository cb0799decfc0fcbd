"""config.json as transformers 4 or 5 saved it -> the flat form that MLX model classes read."""

from __future__ import annotations

import copy
from typing import Any

from olmocr.errors import CheckpointError

# Keys of a nested text_config that the root already has for the complete model.
_NOT_TEXT = {
    "architectures",
    "model_type",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "_name_or_path",
    "quantization_config",
    "tie_word_embeddings",
}

# Settings of the text model that answers depend on and that the shapes of weights do not show.
_COMPUTED = ("hidden_act", "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "rope_theta", "head_dim")
_DTYPES = ("torch_dtype", "dtype")

# Some versions of transformers 4 save only those fields of a vision_config that differ from their own defaults, and
# mlx-vlm has other defaults.
_VISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "mlp_ratio": 4,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "qwen2_5_vl": {
        "depth": 32,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "hidden_size": 3584,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "tokens_per_second": 4,
        "window_size": 112,
    },
    "qwen3_vl": {
        "deepstack_visual_indexes": [8, 16, 24],
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 3584,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}

# Settings without a default in mlx-vlm's Qwen3-VL, besides the dimensions.
_QWEN3_NUMBERS = ("max_position_embeddings", "rms_norm_eps", "rope_theta")


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return *config* in the one form that mlx-vlm 0.7 reads, with every default spelled out where its own differs.

    transformers 5 nests the text model's fields in ``text_config``, combines ``rope_scaling`` and ``rope_theta`` into
    ``rope_parameters``, and renames the vision model's type. Here, ``rope_scaling`` has its ``type``, and the text
    fields are at the root; only Qwen3-VL's stay in ``text_config``, where mlx-vlm looks for them. FP8 weights become
    bfloat16, and their quantization settings are dropped.

    Raises:
        CheckpointError: *config* lacks a setting that mlx-vlm needs, or has one that it does not know.
    """
    flat = copy.deepcopy(config)
    text = {key: value for key, value in _section(flat, "text_config").items() if value is not None}
    _refuse_two_readings(flat, text)
    flat["torch_dtype"] = _dtype(flat, text)
    for key in ("text_config", "dtype", "quantization_config"):
        flat.pop(key, None)
    flat["tie_word_embeddings"] = bool(ties_embeddings(config))
    flat["vision_config"] = _flat_vision(flat)
    text = {key: value for key, value in text.items() if key not in _NOT_TEXT}
    if flat["model_type"] == "qwen3_vl":
        flat["text_config"] = _flat_qwen3_text(text, flat["tie_word_embeddings"])
    else:
        flat |= text
        flat["rope_scaling"] = _flat_rope(flat, "mrope")
    return flat


def ties_embeddings(config: dict[str, Any]) -> bool | None:
    """Return whether config.json ties the head to the embeddings; None where it does not say.

    Older versions of transformers put it in ``text_config``; transformers 5 takes a yes in either place.
    """
    text = config.get("text_config")
    sections = [config, text] if isinstance(text, dict) else [config]
    stated = [section["tie_word_embeddings"] for section in sections if section.get("tie_word_embeddings") is not None]
    return any(stated) if stated else None


def _refuse_two_readings(flat: dict[str, Any], text: dict[str, Any]) -> None:
    """Refuse a config that contradicts itself: transformers 5 would read one value, and mlx-vlm the other.

    Dimensions are not checked here: the shapes of the weights show which are right.
    """
    pairs = [(key, flat.get(key), text.get(key), "the top, where mlx-vlm reads it", "text_config") for key in _COMPUTED]
    for where, section in (("the top", flat), ("text_config", text)):
        rope, older = section.get("rope_parameters"), section.get("rope_scaling")
        if isinstance(rope, dict) and isinstance(older, dict):
            of = f"of {where}" if section is text else ""
            sections = (rope.get("mrope_section"), older.get("mrope_section"))
            pairs.append((f"mrope_section {of}".strip(), *sections, "rope_parameters", "rope_scaling"))
    both = (_mrope_section(flat), _mrope_section(text))
    pairs.append(("mrope_section", *both, "the top, where mlx-vlm reads it", "text_config"))
    pairs.append(
        ("the weights' dtype", _plain_dtype(flat.get("torch_dtype")), _plain_dtype(flat.get("dtype")), *_DTYPES)
    )
    for name, one, other, place, beside in pairs:
        if one is not None and other is not None and one != other:
            raise CheckpointError(
                f"config.json says that {name} is {one!r} in {place}, and {other!r} in {beside}; "
                "set both to the value that the model was trained with"
            )


def _mrope_section(section: dict[str, Any]) -> Any:
    found = (section.get(key) for key in ("rope_parameters", "rope_scaling"))
    return next((each.get("mrope_section") for each in found if isinstance(each, dict)), None)


def _plain_dtype(dtype: Any) -> Any:
    """Return a dtype's name as config.json usually has it, where a tool wrote torch's."""
    return dtype.removeprefix("torch.") if isinstance(dtype, str) else dtype


def _dtype(flat: dict[str, Any], text: dict[str, Any]) -> Any:
    if flat.get("quantization_config") or text.get("quantization_config"):
        return "bfloat16"
    found = flat.get("torch_dtype") or flat.get("dtype") or text.get("torch_dtype") or text.get("dtype")
    return _plain_dtype(found)


def _flat_vision(flat: dict[str, Any]) -> dict[str, Any]:
    family = flat["model_type"]
    vision = _VISION_DEFAULTS[family] | _section(flat, "vision_config")
    vision["model_type"] = family
    vision.pop("rope_parameters", None)
    vision.setdefault("in_channels", vision.get("in_chans", 3))
    return vision


def _flat_qwen3_text(text: dict[str, Any], tied: bool) -> dict[str, Any]:
    text |= {"model_type": "qwen3_vl_text", "tie_word_embeddings": tied, "rope_scaling": _flat_rope(text, "default")}
    if text.get("attention_bias"):
        raise CheckpointError(
            "config.json says attention_bias is true, but mlx-vlm's Qwen3-VL does not have these biases"
        )
    for key in _QWEN3_NUMBERS:
        if type(text.get(key)) not in (int, float):
            raise CheckpointError(f"config.json says {key} of text_config is {text.get(key)!r}, not a number")
    return text


def _flat_rope(text: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return what *text*'s ``rope_scaling`` becomes; move the theta that newer versions keep in it next to it."""
    rope = _section(text, "rope_parameters") or _section(text, "rope_scaling")
    text.pop("rope_parameters", None)
    theta = rope.pop("rope_theta", None)
    if theta is not None:
        text["rope_theta"] = theta
    if "mrope_section" not in rope:
        raise CheckpointError("config.json lacks rope_scaling.mrope_section: this is not a Qwen-VL model")
    scaled = [rope[key] for key in ("type", "rope_type") if rope.get(key) not in (None, "mrope", "default")]
    if scaled:
        raise CheckpointError(f"config.json says rope_scaling is of type {scaled[0]!r}, which mlx-vlm would ignore")
    return {**rope, "type": kind}


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json says {name} is {value!r}, not a group of settings")
    return dict(value)


def mlx_config(flat: dict[str, Any], quantization: dict[str, Any] | None) -> dict[str, Any]:
    """Return the config.json of a converted folder. The Hub reads one of its two keys, MLX the other."""
    config = dict(flat)
    if quantization is not None:
        config["quantization"] = quantization
        config["quantization_config"] = quantization
    return config
