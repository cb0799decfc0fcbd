"""Plan -> safetensors shards and their index. Sizes are known first, so headers go first and rows stream."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from olmocr.conversion.checkpoint import INDEX_FILE, read_header
from olmocr.conversion.names import PATCH_EMBED_AXES
from olmocr.conversion.plan import ConversionPlan, PlannedShard, PlannedTensor
from olmocr.conversion.quantize import Bytes, cast, quantized, to_mlx
from olmocr.errors import CheckpointError

# Bytes of source rows in memory at once. Larger chunks are slower: they leave the processor's cache.
_CHUNK_BYTES = 4 << 20

Progress = Callable[[int], None]
"""Called with the number of source bytes that were just finished."""


def write_shards(plan: ConversionPlan, folder: Path, progress: Progress) -> None:
    """Write every shard of *plan* into *folder*, and the index; nothing in memory grows with the model."""
    for shard in plan.shards:
        _write_shard(shard, folder / shard.file_name, plan.source.folder.path, progress)
    weight_map = {
        output.name: shard.file_name for shard in plan.shards for tensor in shard.tensors for output in tensor.outputs
    }
    index = {"metadata": {"total_size": plan.weight_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def check_shards(plan: ConversionPlan, folder: Path) -> None:
    """Read the written headers again and compare them with the plan."""
    for shard in plan.shards:
        written = {(info.name, info.dtype, info.shape) for info in read_header(folder / shard.file_name)}
        planned = {(out.name, out.dtype, out.shape) for tensor in shard.tensors for out in tensor.outputs}
        if written != planned:
            raise AssertionError(f"{shard.file_name} differs from its plan")


def _write_shard(shard: PlannedShard, path: Path, source: Path, progress: Progress) -> None:
    header, places = _header(shard)
    with path.open("xb") as file:
        file.write(header)
        file.truncate(len(header) + sum(tensor.nbytes for tensor in shard.tensors))
        # In the source's order, so that its disk is read from front to back.
        for tensor in sorted(shard.tensors, key=lambda each: (each.source.shard, each.source.offset)):
            offsets = [places[output.name] for output in tensor.outputs]
            for parts, nbytes in _converted(tensor, source):
                for index, part in enumerate(parts):
                    file.seek(offsets[index])
                    file.write(part.data)
                    offsets[index] += part.nbytes
                progress(nbytes)
        file.flush()
        os.fsync(file.fileno())


def _header(shard: PlannedShard) -> tuple[bytes, dict[str, int]]:
    """Return the file's header, and where in the file each output tensor begins."""
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    begins = {}
    end = 0
    for tensor in shard.tensors:
        for output in tensor.outputs:
            begins[output.name] = end
            end += output.nbytes
            entries[output.name] = {
                "dtype": output.dtype,
                "shape": output.shape,
                "data_offsets": [begins[output.name], end],
            }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return header, {name: len(header) + begin for name, begin in begins.items()}


def _converted(tensor: PlannedTensor, source: Path) -> Iterator[tuple[list[Bytes], int]]:
    """Yield what becomes of the tensor, some rows at a time, with the number of source bytes that went in."""
    dtype = tensor.outputs[-1].dtype
    axes = PATCH_EMBED_AXES if tensor.is_transposed else None
    for raw, shape in _read_rows(tensor, source):
        rows = to_mlx(raw, tensor.source.dtype, shape)
        parts = quantized(rows, tensor.params, dtype) if tensor.params else cast(rows, dtype, axes)
        yield parts, len(raw)


def _read_rows(tensor: PlannedTensor, folder: Path) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """Yield whole rows (slices of the first axis), about ``_CHUNK_BYTES`` at a time."""
    source = tensor.source
    row_bytes = source.nbytes // source.shape[0]
    step = max(1, _CHUNK_BYTES // row_bytes)
    for row in range(0, source.shape[0], step):
        count = min(step, source.shape[0] - row)
        yield (
            _read(folder / source.shard, source.offset + row * row_bytes, count * row_bytes),
            (count, *source.shape[1:]),
        )


def _read(path: Path, offset: int, nbytes: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            raw = file.read(nbytes)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if raw is None or len(raw) != nbytes:
        raise CheckpointError(f"{path} became shorter while it was read; download it again")
    return raw
