"""A model's folder -> SourceCheckpoint. Only headers are read, no weight, and no pickle is ever opened."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmocr.conversion.config import flat_config
from olmocr.conversion.names import FAMILIES, LANGUAGE, VISION, expected_shapes, mlx_name
from olmocr.errors import CheckpointError
from olmocr.hub.read import remote_header
from olmocr.model_folder import BF16_REPOSITORY, INDEX_FILE, MODEL_TYPE, ModelFolder, other_prompt, read_config_of
from olmocr.strays import files_in, is_passed_over
from olmocr.tensors.dtypes import FLOAT_DTYPES, FP8_DTYPE
from olmocr.tensors.header import (
    ShardHeader,
    TensorInfo,
    listed,
    parse_header,
    parse_json,
    read_shard_header,
    shown,
)

_WEIGHT_SCALE = ".weight_scale"

# What compressed-tensors must say of FP8 weights for row * scale to be all there is to them.
_FP8_WEIGHTS: dict[str, tuple[object, ...]] = {
    "num_bits": (8,),
    "type": ("float",),
    "strategy": ("channel", "tensor"),
    "symmetric": (True,),
    "dynamic": (False,),
}
# What would change weights or tensors further; each may be there, empty.
_FP8_NOTHING_ELSE = ("kv_cache_scheme", "transform_config")

_SHARD_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,200}\.safetensors", re.ASCII)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceCheckpoint:
    """A checkpoint that is whole: *tensors* by MLX name, exactly those that *config* (flat) calls for."""

    folder: ModelFolder
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_checkpoint(folder: ModelFolder) -> SourceCheckpoint:
    """Read the headers of a checkpoint, here or on the Hub, and check that every tensor is there.

    A checkpoint that the pipeline here would not run, since it was trained on another prompt than olmOCR-2's, is read
    with a warning; its name stays in the config, so that the pipeline knows the converted model, too.

    Raises:
        CheckpointError: no checkpoint, damaged, incomplete, or of a family that we do not support.
        HubError: the headers are on the Hub and cannot be read there.
    """
    config = read_config_of(folder, FAMILIES)
    is_fp8 = _is_fp8(folder, config)
    flat = flat_config(config)
    _keep_other_prompt(folder, config, flat)
    return SourceCheckpoint(folder, flat, _matched(_read_tensors(folder), flat, is_fp8, folder))


def _keep_other_prompt(folder: ModelFolder, config: dict[str, Any], flat: dict[str, Any]) -> None:
    flat.pop("_name_or_path", None)  # a path on the disk of whoever saved it
    name = other_prompt(folder, config)
    if name:
        flat["_name_or_path"] = name
    if name or config["model_type"] != MODEL_TYPE:
        _log.warning(
            "%s was not trained on olmOCR-2's prompt: it can be converted, but the pipeline here, which asks that "
            "prompt, refuses to run it",
            folder.where,
        )


def _is_fp8(folder: ModelFolder, config: dict[str, Any]) -> bool:
    """Return whether matrices may be FP8; refuse every other checkpoint that is not in full precision."""
    text = config.get("text_config")
    sections = [config, text] if isinstance(text, dict) else [config]
    if any("quantization" in section for section in sections):
        raise _converted_already(folder)
    found = [section["quantization_config"] for section in sections if section.get("quantization_config")]
    reason = next(filter(None, map(_why_not_fp8, found)), None)
    if reason:
        is_fp8_repository = folder.repo_id is not None and folder.repo_id.endswith("-FP8")
        original = str(folder.repo_id).removesuffix("-FP8") if is_fp8_repository else BF16_REPOSITORY
        raise CheckpointError(
            f"{folder.where} is quantized already, and not so that it can be undone exactly ({reason}); "
            f"convert the bf16 weights, {original}, instead"
        )
    return bool(found)


def _converted_already(folder: ModelFolder) -> CheckpointError:
    return CheckpointError(
        f"{folder.where} is a converted MLX model already; convert the checkpoint that it was made from"
    )


def _why_not_fp8(quantization: Any) -> str | None:
    """Return what of a quantization_config is not the FP8 of compressed-tensors, as the published olmOCR-2 has it."""
    if not isinstance(quantization, dict):
        return f"quantization_config is {quantization!r}"
    if quantization.get("quant_method") != "compressed-tensors":
        return f"quant_method is {quantization.get('quant_method')!r}"
    sparsity = quantization.get("sparsity_config") or {}
    if not isinstance(sparsity, dict) or sparsity.get("format", "dense") != "dense":
        return "it has a sparsity_config"
    extra = [key for key in _FP8_NOTHING_ELSE if quantization.get(key)]
    if extra:
        return f"it has a {extra[0]}"
    groups = quantization.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        return "it has no config_groups"
    return next(filter(None, (_why_no_fp8_group(group, quantization) for group in groups.values())), None)


def _why_no_fp8_group(group: Any, quantization: dict[str, Any]) -> str | None:
    # Of input_activations nothing is asked: how activations are rounded changes no weight.
    if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
        return "a config group says nothing of weights"
    kind = group.get("format") or quantization.get("format")
    if kind != "float-quantized":
        return f"format is {kind!r}"
    wrong = [key for key, right in _FP8_WEIGHTS.items() if group["weights"].get(key) not in right]
    return f"{wrong[0]} of its weights is {group['weights'].get(wrong[0])!r}" if wrong else None


def _read_tensors(folder: ModelFolder) -> list[TensorInfo]:
    """Read every shard's header; refuse shards and an index that do not agree, and what is in MLX's layout already."""
    index = _read_index(folder.path)
    shards = sorted(set(index.values())) if index is not None else _unindexed_shards(folder)
    headers = _read_headers(folder, shards)
    tensors = [info for header in headers for info in header.tensors]
    if any(header.metadata.get("format") == "mlx" for header in headers) or any(
        info.name.startswith((LANGUAGE, VISION)) for info in tensors
    ):
        raise _converted_already(folder)
    problems = _repeated(tensors)
    if index is not None:
        problems += _index_problems(index, tensors)
    if problems:
        raise CheckpointError(listed(f"the shards of {folder.where} do not agree; download it again", problems))
    return tensors


def _read_index(path: Path) -> dict[str, str] | None:
    """Return which shard each tensor is said to be in; None where there is no index."""
    file = path / INDEX_FILE
    if not file.exists():
        return None
    try:
        weight_map = parse_json(file.read_bytes(), str(file)).get("weight_map")
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{file} has no weight_map; download it again")
    strange = [name for name in weight_map.values() if not isinstance(name, str) or not _SHARD_NAME.fullmatch(name)]
    if strange:
        raise CheckpointError(f"{file} names {shown(repr(strange[0]))}, which is no safetensors file in the folder")
    return weight_map


def _unindexed_shards(folder: ModelFolder) -> list[str]:
    """Return the shards where no index names them: all called ``model*``, or the only file."""
    if folder.remote_weights:
        files = sorted(file.name for file in folder.remote_files)
    else:
        files = [path.name for path in files_in(folder.path, ".safetensors") if path.is_file()]
    shards = [name for name in files if name.startswith("model")] or files
    if not shards:
        raise CheckpointError(_why_no_shards(folder))
    if len(shards) > 1 and not shards[0].startswith("model"):
        raise CheckpointError(
            f"{folder.where} has no {INDEX_FILE}, and which of its *.safetensors files make up the model cannot be "
            f"told: {', '.join(shards[:5])}; download the index, too"
        )
    return shards


def _why_no_shards(folder: ModelFolder) -> str:
    pickles = sorted(
        path.name for path in folder.path.iterdir() if path.suffix in _PICKLES and not is_passed_over(path.name)
    )
    if pickles:
        return (
            f"{folder.where} has its weights as pickles only ({', '.join(pickles[:5])}), which are not loaded, since "
            "they can run code; take or make the model's *.safetensors files"
        )
    return f"{folder.where} is no checkpoint: it has no *.safetensors files"


def _read_headers(folder: ModelFolder, shards: list[str]) -> list[ShardHeader]:
    if not folder.remote_weights:
        missing = [name for name in shards if not (folder.path / name).is_file()]
        if missing:
            raise CheckpointError(
                f"{folder.path} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing[:5])}; "
                "download it again"
            )
    headers, problems = [], []
    for shard in shards:
        try:
            headers.append(_read_shard(folder, shard))
        except CheckpointError as error:
            problems.append(str(error))
    if len(problems) == 1:
        raise CheckpointError(problems[0])
    if problems:
        raise CheckpointError(listed(f"{len(problems)} shards of {folder.where} cannot be read", problems))
    return headers


def _read_shard(folder: ModelFolder, shard: str) -> ShardHeader:
    if not folder.remote_weights:
        return read_shard_header(folder.path / shard)
    beginning, size = remote_header(folder, shard)
    return parse_header(beginning, size, shard, f"{folder.repo_id}/{shard}")


def _repeated(tensors: Iterable[TensorInfo]) -> list[str]:
    seen: dict[str, str] = {}
    problems = []
    for info in tensors:
        if info.name in seen:
            problems.append(f"{shown(info.name)} is in two shards, {seen[info.name]} and {info.shard}")
        seen[info.name] = info.shard
    return problems


def _index_problems(index: dict[str, str], tensors: list[TensorInfo]) -> list[str]:
    held = {(info.name, info.shard) for info in tensors}
    return [
        *(
            f"{INDEX_FILE} says that {shown(name)} is in {shard}, which does not have it"
            for name, shard in index.items()
            if (name, shard) not in held
        ),
        *(
            f"{shown(info.name)} is in {info.shard}, but not in {INDEX_FILE}"
            for info in tensors
            if info.name not in index
        ),
    ]


def _matched(
    found: list[TensorInfo], config: dict[str, Any], is_fp8: bool, folder: ModelFolder
) -> dict[str, TensorInfo]:
    """Return the tensors by MLX name; refuse a checkpoint that has not just those its config calls for."""
    expected = expected_shapes(config)
    named: dict[str, TensorInfo] = {}
    problems = []
    for info in found:
        name = mlx_name(info.name, config)
        if name is None or (is_fp8 and name.endswith(".input_scale")):  # scales activations, which are not rounded here
            continue
        if name in named:
            problems.append(f"{shown(info.name)} and {shown(named[name].name)} are the same tensor of the model")
        named[name] = info
    if is_fp8:
        named = _with_scales(named)
    problems += [f"{name} is missing" for name in expected if name not in named]
    for name, info in named.items():
        problem = _tensor_problem(info, expected.get(name))
        if problem:
            problems.append(f"{shown(info.name)} {problem}")
    if problems:
        raise CheckpointError(
            listed(f"{folder.where} does not hold the tensors that its config.json asks for", problems)
        )
    return {name: named[name] for name in expected}


def _with_scales(named: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Return *named* with every weight_scale put where the weight is that it scales."""
    weights = dict(named)
    for name, info in named.items():
        weight = name.removesuffix("_scale")
        if name.endswith(_WEIGHT_SCALE) and weight in weights:
            weights[weight] = replace(weights[weight], scale=info)
            del weights[name]
    return weights


def _tensor_problem(info: TensorInfo, shape: tuple[int, ...] | None) -> str | None:
    if shape is None:
        return f"{info.shape} is no tensor of this model"
    if info.shape != shape:
        return f"has shape {info.shape}, config.json asks for {shape}"
    if info.scale is not None:
        return _scale_problem(info, info.scale)
    if info.dtype not in FLOAT_DTYPES:
        return f"has dtype {info.dtype}, not one of {', '.join(FLOAT_DTYPES)}"
    return None


def _scale_problem(info: TensorInfo, scale: TensorInfo) -> str | None:
    if info.dtype != FP8_DTYPE or len(info.shape) != 2:
        return f"has a weight_scale, but is no matrix of {FP8_DTYPE}: {info.dtype} {info.shape}"
    if scale.dtype not in FLOAT_DTYPES:
        return f"has a weight_scale of dtype {scale.dtype}, not one of {', '.join(FLOAT_DTYPES)}"
    if scale.shape not in ((info.shape[0], 1), (1,), ()):
        return f"has a weight_scale of shape {scale.shape}, which is neither one for each of its rows nor one for all"
    return None
