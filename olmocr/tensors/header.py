"""The first bytes of a safetensors file -> the tensors in it and their positions; everything is checked."""

from __future__ import annotations

import functools
import json
import math
import os
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from olmocr.errors import CheckpointError
from olmocr.tensors.dtypes import DTYPE_BYTES
from olmocr.text import one_line

LONGEST_HEADER = 100_000_000
"""Bytes; the safetensors library has the same limit."""

_MOST_AXES = 16
_LONGEST_NAME = 1024  # characters; patterns of recipes are matched against names
_SIZE_LIMIT = 1 << 63
_MOST_SHOWN = 10


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's position: *offset* and *nbytes* are bytes in the file called *shard*; *dtype* is safetensors' name.

    *scale* is set only for FP8 weights: the tensor to multiply them by, one factor for each row or one for all, to get
    the model's weights.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    offset: int
    nbytes: int
    scale: TensorInfo | None = None


@dataclass(frozen=True)
class ShardHeader:
    """The tensors of one file, and its writer's metadata (``format`` is ``pt`` or ``mlx``)."""

    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]


def read_header(shard: Path) -> list[TensorInfo]:
    """Read the tensors and their positions in a safetensors file.

    Raises:
        CheckpointError: the file is damaged or truncated.
    """
    return list(read_shard_header(shard).tensors)


def read_shard_header(shard: Path) -> ShardHeader:
    """Read the header of a safetensors file.

    Raises:
        CheckpointError: the file is damaged or truncated.
    """
    try:
        with shard.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            beginning = file.read(8)
            beginning += file.read(_header_length(beginning, size, str(shard)))
    except OSError as error:
        raise CheckpointError(f"{shard} cannot be read: {error.strerror or error}") from error
    return parse_header(beginning, size, shard.name, str(shard))


def parse_header(beginning: bytes, size: int, shard: str, where: str) -> ShardHeader:
    """Return the header of a safetensors file of *size* bytes from its *beginning*: length prefix and header.

    *shard* is the file's name, *where* its name in errors.

    Raises:
        CheckpointError: the file is damaged or truncated.
    """
    length = _header_length(beginning, size, where)
    if len(beginning) < 8 + length:
        raise CheckpointError(f"{where} is truncated: its header ends after {len(beginning)} bytes; download it again")
    if beginning[8:9] != b"{":  # not even a space, which JSON allows and the safetensors library does not
        raise CheckpointError(f"the header of {where} is not a JSON object; download it again")
    entries = parse_json(beginning[8 : 8 + length], f"the header of {where}")
    metadata = entries.pop("__metadata__", {})
    problems = [f"{shown(name)} {problem}" for name, entry in entries.items() if (problem := _problem(name, entry))]
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        problems.append("__metadata__ is not a group of texts")
    if problems:
        raise CheckpointError(listed(f"the header of {where} is damaged, download it again", problems))
    tensors = tuple(_tensor_info(name, entry, shard, 8 + length) for name, entry in entries.items())
    _check_layout(tensors, 8 + length, size, where)
    return ShardHeader(tensors, metadata)


def parse_json(text: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in *text*; refuse repeated keys instead of silently choosing one.

    Raises:
        CheckpointError: *text*, called *where* in errors, is something else.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=functools.partial(_object, where=where))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} cannot be read as JSON: {error}; download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} does not hold a JSON object; download it again")
    return value


def shown(name: str) -> str:
    """Return a tensor's *name* in a form safe to print, since it is untrusted."""
    return one_line(name, 200)


def listed(heading: str, problems: Sequence[str]) -> str:
    """Return an error's text that names all *problems* at once, up to ten of them in words."""
    if len(problems) == 1:
        return f"{heading}: {problems[0]}"
    more = [f"and {len(problems) - _MOST_SHOWN} more"] if len(problems) > _MOST_SHOWN else []
    return "\n  ".join([f"{heading}:", *problems[:_MOST_SHOWN], *more])


def _object(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name in value if counts[name] > 1)
        raise CheckpointError(f"{where} names {shown(twice)} twice; download it again")
    return value


def _header_length(beginning: bytes, size: int, where: str) -> int:
    if len(beginning) < 8:
        raise CheckpointError(f"{where} is truncated: {size} bytes are not a safetensors file; download it again")
    if beginning.startswith(b"version "):
        raise CheckpointError(f"{where} is a Git LFS pointer, not the weights; run 'git lfs pull' in its folder")
    (length,) = struct.unpack("<Q", beginning[:8])
    if length > LONGEST_HEADER:
        raise CheckpointError(f"{where} is damaged: a header cannot have {length} bytes; download it again")
    if 8 + length > size:
        raise CheckpointError(f"{where} is truncated: {size} bytes of at least {8 + length}; download it again")
    return int(length)


def _problem(name: str, entry: Any) -> str | None:
    return _entry_problem(entry) if len(name) <= _LONGEST_NAME else f"has a name of {len(name)} characters"


def _entry_problem(entry: Any) -> str | None:
    """Return what is wrong with a header's entry for one tensor, taken by itself."""
    if not isinstance(entry, dict):
        return "does not have dtype, shape and data_offsets"
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        return f"has dtype {shown(repr(dtype))}, which is unknown here"
    if not _are_sizes(shape) or len(shape) > _MOST_AXES:
        return f"has shape {shown(repr(shape))}, which is invalid"
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"has data_offsets {shown(repr(offsets))}, which are not a range"
    needed, given = math.prod(shape) * DTYPE_BYTES[dtype], offsets[1] - offsets[0]
    return None if given == needed else f"has {given} bytes, but {dtype} of shape {tuple(shape)} takes {needed}"


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < _SIZE_LIMIT for each in value)


def _tensor_info(name: str, entry: dict[str, Any], shard: str, data_start: int) -> TensorInfo:
    begin, end = entry["data_offsets"]
    return TensorInfo(name, entry["dtype"], tuple(entry["shape"]), shard, data_start + begin, end - begin)


def _check_layout(tensors: Sequence[TensorInfo], data_start: int, size: int, where: str) -> None:
    """Refuse data that overlap, leave a hole or do not end at the end of the file."""
    end = data_start
    problems = []
    for info in sorted(tensors, key=lambda each: (each.offset, each.nbytes)):
        if info.offset != end:
            kind = "overlaps" if info.offset < end else "leaves a hole after"
            problems.append(f"{shown(info.name)} {kind} the tensor before it")
        end = max(end, info.offset + info.nbytes)
    if problems:
        raise CheckpointError(listed(f"the header of {where} is damaged, download it again", problems))
    if size < end:
        raise CheckpointError(f"{where} is truncated: {size} bytes of {end}; download it again")
    if size > end:
        raise CheckpointError(f"{where} is damaged: it has {size} bytes, but its header says {end}; download it again")
