"""A source's shards -> the weights of one block, and rows of one matrix; reads nothing else of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from olmocr.conversion.disk import Buffer, FileReader
from olmocr.conversion.quantizing.planned import typed
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.errors import CheckpointError
from olmocr.tensors.floats import Floats, widened
from olmocr.tensors.header import TensorInfo

_COMPUTED_IN = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16, "F8_E4M3": mx.bfloat16}

_LONGEST_GAP = 4096
"""The most bytes between two rows that are read with them, since another call costs more."""

Weights = dict[str, mx.array]
"""A block's tensors by their name within it, such as ``self_attn.q_proj.weight``, in the dtype used for computing."""


def computing_dtype(source: SourceCheckpoint) -> mx.Dtype:
    """Return the dtype to compute *source* in: float32 on a CPU, whose 16-bit products are slow, its own on a GPU."""
    if mx.default_device().type != mx.DeviceType.gpu:
        return mx.float32
    matrices = [info.dtype for info in source.tensors.values() if len(info.shape) == 2]
    return _COMPUTED_IN.get(max(set(matrices), key=matrices.count), mx.bfloat16)


def arrays_in(path: Path) -> dict[str, mx.array]:
    """Return the arrays of a safetensors file; each is read when it is used."""
    found = mx.load(str(path))
    assert isinstance(found, dict)  # a file of that name has several
    return found


class SourceBlocks:
    """Reads tensors of *source* by MLX's names. ``bytes_read`` counts the bytes.

    Files stay in the page cache: the weights of a block are read again when its matrices are rounded.
    """

    def __init__(self, source: SourceCheckpoint, dtype: mx.Dtype) -> None:
        self._source, self._dtype = source, dtype
        self._readers: dict[str, FileReader] = {}
        self.bytes_read = 0

    def close(self) -> None:
        """Close all files."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def weights(self, module: str) -> Weights:
        """Return all tensors below *module*, such as ``language_model.model.layers.3``, in the computing dtype.

        Raises:
            CheckpointError: they cannot be read.
        """
        below = f"{module}."
        return {
            name.removeprefix(below): mx.array(self._whole(name)).astype(self._dtype)
            for name in self._source.tensors
            if name.startswith(below)
        }

    def matrix(self, module: str) -> SourceMatrix:
        """Return the matrix of *module*; it is not read yet."""
        info = self._source.tensors[f"{module}.weight"]
        return SourceMatrix(module, (info.shape[0], info.shape[1]), self)

    def rows(self, name: str, first: int, end: int) -> Floats:
        """Return rows *first* to *end* of the tensor *name*, exactly as the source has them, its scale included.

        Raises:
            CheckpointError: they cannot be read.
        """
        info = self._source.tensors[name]
        row_bytes = info.nbytes // info.shape[0]
        raw = self._read(info, first * row_bytes, (end - first) * row_bytes)
        values = widened(typed(raw, info.dtype)).reshape(end - first, *info.shape[1:])
        if info.scale is None:
            return values
        scale = self._scale(info.scale)
        return values * (scale[first:end] if len(scale) > 1 else scale)

    def chosen_rows(self, name: str, chosen: Sequence[int]) -> Floats:
        """Return the rows *chosen*, in ascending order, of a tensor that is mostly not needed.

        Raises:
            CheckpointError: they cannot be read.
        """
        return np.concatenate([self.rows(name, first, end)[places] for first, end, places in self._runs(name, chosen)])

    def _runs(self, name: str, chosen: Sequence[int]) -> list[tuple[int, int, list[int]]]:
        """Return what to read for *chosen* rows: (first, end, which of these rows)."""
        info = self._source.tensors[name]
        gap = max(1, _LONGEST_GAP // (info.nbytes // info.shape[0]))
        runs: list[tuple[int, int, list[int]]] = []
        for row in chosen:
            if runs and row - runs[-1][1] < gap:
                first, _, places = runs.pop()
                runs.append((first, row + 1, [*places, row - first]))
            else:
                runs.append((row, row + 1, [0]))
        return runs

    def _whole(self, name: str) -> Floats:
        return self.rows(name, 0, self._source.tensors[name].shape[0])

    def _scale(self, info: TensorInfo) -> Floats:
        return widened(typed(self._read(info, 0, info.nbytes), info.dtype)).reshape(-1, 1)

    def _read(self, info: TensorInfo, offset: int, nbytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        self.bytes_read += nbytes
        # Uses a new buffer, because the result may be a view of it.
        return self._reader(info.shard).read(info.offset + offset, nbytes, Buffer())

    def _reader(self, shard: str) -> FileReader:
        if shard not in self._readers:
            folder = self._source.folder
            if folder.remote_weights:
                raise CheckpointError(f"the weights of {folder.where} are not on this disk; download them first")
            self._readers[shard] = FileReader(folder.path / shard, past_cache=False)
        return self._readers[shard]


@dataclass(frozen=True, eq=False)
class SourceMatrix:
    """A readable matrix of the source: *module* is MLX's name, *shape* (rows, columns)."""

    module: str
    shape: tuple[int, int]
    blocks: SourceBlocks

    def rows(self, first: int = 0, end: int | None = None) -> Floats:
        """Read rows *first* to *end* as float32 (rows, columns), exactly what the source has.

        Raises:
            CheckpointError: they cannot be read.
        """
        return self.blocks.rows(f"{self.module}.weight", first, self.shape[0] if end is None else end)
