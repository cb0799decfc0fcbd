"""A model's folder -> SourceCheckpoint. Only headers are read, no weight."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from olmocr.conversion.config import flat_config
from olmocr.conversion.names import expected_shapes, mlx_name
from olmocr.errors import CheckpointError
from olmocr.model_folder import BF16_REPOSITORY, ModelFolder, read_config, read_json

INDEX_FILE = "model.safetensors.index.json"

# Bytes of one element, by safetensors' name of the dtype; and what MLX calls it.
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "U8": 1}
FLOAT_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: *offset* and *nbytes* are bytes in the file *shard*; *dtype* is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: Path
    offset: int
    nbytes: int


@dataclass(frozen=True)
class SourceCheckpoint:
    """A checkpoint that is whole: *tensors* by MLX name, exactly those that *config* (flat) calls for."""

    folder: ModelFolder
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_checkpoint(folder: ModelFolder) -> SourceCheckpoint:
    """Read the headers of a checkpoint and check that every tensor is there.

    Raises:
        CheckpointError: no checkpoint, damaged, incomplete, or of a family that we do not support.
    """
    config = read_config(folder)
    _refuse_quantized(folder, config)
    flat = flat_config(config)
    found = {info.name: info for shard in _shards(folder.path) for info in read_header(shard)}
    return SourceCheckpoint(folder, flat, _matched(found, flat, folder.path))


def _refuse_quantized(folder: ModelFolder, config: dict[str, Any]) -> None:
    where = folder.repo_id or str(folder.path)
    if "quantization" in config:
        raise CheckpointError(f"{where} is a converted MLX model already; convert the checkpoint that it was made from")
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        original = re.sub("-FP8$", "", folder.repo_id) if folder.repo_id else BF16_REPOSITORY
        raise CheckpointError(f"{where} is quantized already ({method}); convert the bf16 weights, {original}, instead")


def _shards(path: Path) -> list[Path]:
    if not (path / INDEX_FILE).exists():
        shards = sorted(path.glob("model*.safetensors"))
        if not shards:
            raise CheckpointError(f"{path} is no checkpoint: it has no *.safetensors files")
        return shards
    weight_map = read_json(path / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path / INDEX_FILE} has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{path / INDEX_FILE} names a shard outside the folder: {outside[0]}")
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of {len(names)} shards: {', '.join(missing[:5])}; download it again"
        )
    return [path / name for name in names]


def read_header(shard: Path) -> list[TensorInfo]:
    """Read which tensors lie where in a safetensors file; the library checks lengths, overlaps and offsets.

    Raises:
        CheckpointError: the file is damaged or truncated.
    """
    try:
        with safe_open(shard, framework="numpy"):
            pass
        with shard.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{shard} is damaged or truncated ({error}); download it again") from error
    header.pop("__metadata__", None)
    return [_tensor_info(name, entry, shard, 8 + length) for name, entry in header.items()]


def _tensor_info(name: str, entry: dict[str, Any], shard: Path, data_start: int) -> TensorInfo:
    begin, end = entry["data_offsets"]
    return TensorInfo(name, entry["dtype"], tuple(entry["shape"]), shard, data_start + begin, end - begin)


def _matched(found: dict[str, TensorInfo], config: dict[str, Any], path: Path) -> dict[str, TensorInfo]:
    """Return the tensors by MLX name; refuse a checkpoint that has not just those its config calls for."""
    expected = expected_shapes(config)
    named = {mlx: info for name, info in found.items() if (mlx := mlx_name(name, config)) is not None}
    problems = [f"{name} is missing" for name in expected if name not in named]
    for name, info in named.items():
        if name not in expected:
            problems.append(f"{info.name} {info.shape} is no tensor of this model")
        elif info.shape != expected[name]:
            problems.append(f"{info.name} has shape {info.shape}, config.json asks for {expected[name]}")
        elif info.dtype not in FLOAT_DTYPES:
            problems.append(f"{info.name} has dtype {info.dtype}, not one of {', '.join(FLOAT_DTYPES)}")
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(f"{path} does not hold the tensors that its config.json asks for:{shown}{more}")
    return {name: named[name] for name in expected}
