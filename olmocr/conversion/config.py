"""config.json as transformers 4 or 5 saved it -> the flat form that MLX model classes read."""

from __future__ import annotations

import copy
from typing import Any

from olmocr.errors import CheckpointError

# Of a nested text_config: what the root already says about the whole model.
_NOT_TEXT = {"architectures", "model_type", "dtype", "torch_dtype", "transformers_version", "_name_or_path"}


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return *config* in Qwen2.5-VL's original form: text fields at the root, ``rope_scaling`` with its type.

    transformers 5 nests the text model's fields in ``text_config``, calls ``rope_scaling`` and ``rope_theta``
    together ``rope_parameters``, and renames the vision model's type; mlx-vlm 0.7 reads only the original form.
    """
    flat = copy.deepcopy(config)
    text = _section(flat, "text_config")
    flat.pop("text_config", None)
    flat |= {key: value for key, value in text.items() if key not in _NOT_TEXT and value is not None}
    flat["tie_word_embeddings"] = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    flat.setdefault("torch_dtype", flat.pop("dtype", None) or text.get("torch_dtype") or text.get("dtype"))
    flat.pop("dtype", None)
    _flatten_rope(flat)
    vision = flat["vision_config"] = _section(flat, "vision_config")
    vision["model_type"] = "qwen2_5_vl"
    vision.pop("rope_parameters", None)
    vision.setdefault("in_channels", vision.get("in_chans", 3))
    return flat


def _flatten_rope(flat: dict[str, Any]) -> None:
    rope = _section(flat, "rope_parameters") or _section(flat, "rope_scaling")
    flat.pop("rope_parameters", None)
    theta = rope.pop("rope_theta", None)
    if theta is not None:
        flat["rope_theta"] = theta
    if "mrope_section" not in rope:
        raise CheckpointError("config.json has no rope_scaling.mrope_section: this is no Qwen2.5-VL model")
    flat["rope_scaling"] = {**rope, "type": "mrope"}


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json says {name} is {value!r}, not a group of settings")
    return dict(value)


def mlx_config(flat: dict[str, Any], quantization: dict[str, Any] | None) -> dict[str, Any]:
    """Return the config.json of a converted folder. The Hub reads one of the two keys, MLX the other."""
    config = {key: value for key, value in flat.items() if key not in ("_name_or_path", "quantization_config")}
    if quantization is not None:
        config["quantization"] = quantization
        config["quantization_config"] = quantization
    return config
