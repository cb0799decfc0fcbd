"""A converted folder against the checkpoint it was made from: how far each tensor is from its source."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import PATCH_EMBED, PATCH_EMBED_AXES, mlx_shape, vision_mlp_axis
from olmocr.errors import CheckpointError
from olmocr.tensors.dtypes import DTYPE_BYTES
from olmocr.tensors.floats import Floats
from olmocr.tensors.header import TensorInfo
from olmocr.validate.weights.packing import PackedModule
from olmocr.validate.weights.values import BytesRead, StoredTensor, as_float32, read_rows, rounded, row_steps

# Two bits in groups of 128 still keep four fifths of a weight; a weight of another tensor differs by 1 and more.
_NOTHING_LEFT = 0.7


@dataclass(frozen=True)
class TensorError:
    """How far a tensor is from its source: *relative_error* is ``||w - w'|| / ||w||``.

    It is None if undefined: values that are not finite, or a source of zeros that did not stay zeros.
    *group_size* is None for a tensor that was kept; *bits* are then those of its dtype.
    """

    tensor: str
    relative_error: float | None
    bits: int
    group_size: int | None
    padded: bool


@dataclass(frozen=True)
class WeightsDifference:
    """The errors, worst first, and the problems."""

    errors: tuple[TensorError, ...]
    problems: tuple[str, ...]


def bytes_to_compare(source: SourceCheckpoint, tensors: Mapping[str, StoredTensor]) -> int:
    """Return how many bytes a comparison will read, if nothing is missing."""
    return sum(info.nbytes for info in source.tensors.values()) + sum(each.info.nbytes for each in tensors.values())


def compare(
    source: SourceCheckpoint,
    tensors: Mapping[str, StoredTensor],
    modules: Mapping[str, PackedModule],
    read: BytesRead,
    threads: int = 1,
) -> WeightsDifference:
    """Compare every tensor with its source, some rows at a time, on *threads* cores."""
    errors: list[TensorError] = []
    problems: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        for name, info in source.tensors.items():
            try:
                pair = _paired(name, info, source, tensors, modules)
                error, found = _compare_pair(pair, read, pool, threads)
                errors.append(error)
                problems += found
            except CheckpointError as error:
                problems.append(f"{name}: {error}")
    parts = {f"{path}.{part}" for path in modules for part in ("scales", "biases")}
    problems += [f"{name} is not in the source" for name in tensors if name not in source.tensors and name not in parts]
    worst_first = sorted(errors, key=lambda each: math.inf if each.relative_error is None else each.relative_error)
    return WeightsDifference(tuple(reversed(worst_first)), tuple(problems))


@dataclass(frozen=True)
class _Pair:
    """A tensor of the folder (*module* if it is packed) and its source; *shape* is the model's, padding included."""

    name: str
    stored: StoredTensor
    module: PackedModule | None
    source: StoredTensor
    scale: StoredTensor | None
    shape: tuple[int, ...]

    @property
    def is_transposed(self) -> bool:
        return self.name == PATCH_EMBED

    @property
    def source_shape(self) -> tuple[int, ...]:
        """The source's shape in MLX's layout."""
        return mlx_shape(self.name, self.source.shape)

    @property
    def is_padded(self) -> bool:
        return self.shape != self.source_shape


def _paired(
    name: str,
    info: TensorInfo,
    source: SourceCheckpoint,
    tensors: Mapping[str, StoredTensor],
    modules: Mapping[str, PackedModule],
) -> _Pair:
    """Find the counterpart of a source tensor.

    Raises:
        CheckpointError: it is missing, or its shape differs by more than padding.
    """
    stored, module = tensors.get(name), modules.get(name.removesuffix(".weight"))
    if stored is None:
        raise CheckpointError("it is missing, but the source has it")
    if module is None and stored.info.dtype == "U32":
        raise CheckpointError("it cannot be compared, because its packing is broken")
    pair = _Pair(
        name,
        stored,
        module,
        _stored(info, source),
        _stored(info.scale, source) if info.scale else None,
        module.shape if module else stored.shape,
    )
    if pair.is_padded and not _may_be_padding(pair):
        raise CheckpointError(f"its shape is {pair.shape}, its source's {pair.source_shape}")
    return pair


def _stored(info: TensorInfo, source: SourceCheckpoint) -> StoredTensor:
    return StoredTensor(source.folder.path / info.shard, info)


def _may_be_padding(pair: _Pair) -> bool:
    """Return whether only the vision MLP's width grew: the additions meet an activation that is zero."""
    axis = vision_mlp_axis(pair.name)
    mine, theirs = pair.shape, pair.source_shape
    if axis is None or len(mine) != len(theirs):
        return False
    return mine[axis] > theirs[axis] and (*mine[:axis], *mine[axis + 1 :]) == (*theirs[:axis], *theirs[axis + 1 :])


@dataclass(frozen=True)
class _Sums:
    """Sums over the rows of a pair."""

    difference: float = 0.0
    source: float = 0.0
    changed: int = 0
    padding: int = 0

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.difference + other.difference,
            self.source + other.source,
            self.changed + other.changed,
            self.padding + other.padding,
        )


def _compare_pair(pair: _Pair, read: BytesRead, pool: Executor, at_once: int) -> tuple[TensorError, list[str]]:
    """Compare a pair *at_once* pieces at a time: *pool* adds up some while this thread dequantizes the next."""
    sums = _Sums()
    adding: list[Future[_Sums]] = []
    for steps in _batches(row_steps(pair.shape), at_once):
        pieces = _rows(pair, steps, read)
        # Waits for the pieces before, so that memory never holds more than two batches. The order keeps sums exact.
        sums = sum((each.result() for each in adding), sums)
        adding = [pool.submit(_sums, pair, rows, first, read) for rows, (first, _) in zip(pieces, steps, strict=True)]
    sums = sum((each.result() for each in adding), sums)
    error = _tensor_error(pair, sums)
    return error, _problems(pair, sums, error)


def _batches(steps: Iterable[tuple[int, int]], count: int) -> Iterator[list[tuple[int, int]]]:
    """Yield *count* of *steps* at a time."""
    left = iter(steps)
    while batch := list(islice(left, count)):
        yield batch


def _rows(pair: _Pair, steps: Sequence[tuple[int, int]], read: BytesRead) -> list[Floats]:
    """Return rows of the folder's tensor as numbers: for each of *steps*, so many from the first on."""
    module = pair.module
    if module is None:
        dtype = pair.stored.info.dtype
        return [as_float32(read_rows(pair.stored, first, count, read), dtype) for first, count in steps]
    from olmocr.validate.weights.stock import PackedRows, dequantized

    def packed(first: int, count: int) -> PackedRows:
        weight, scales = (read_rows(tensor, first, count, read) for tensor in (module.weight, module.scales))
        if module.biases is None:
            return PackedRows(weight, scales, None)
        biases = as_float32(read_rows(module.biases, first, count, read), module.biases.info.dtype)
        return PackedRows(weight, as_float32(scales, module.scales.info.dtype), biases)

    return dequantized([packed(*step) for step in steps], module.packing)


def _source_rows(pair: _Pair, first: int, count: int, read: BytesRead) -> Floats:
    """Return the source's rows as numbers in MLX's layout, without any padding."""
    count = max(0, min(count, pair.source.shape[0] - first)) if pair.source.shape else count
    rows = as_float32(read_rows(pair.source, first, count, read), pair.source.info.dtype)
    if pair.scale:
        rows = rows * _scale_of_rows(pair, pair.scale, first, count, read)
    return rows.transpose(PATCH_EMBED_AXES) if pair.is_transposed else rows


def _scale_of_rows(pair: _Pair, scale: StoredTensor, first: int, count: int, read: BytesRead) -> Floats:
    """Return the factor of FP8 values: one number for the tensor, or one for each row.

    Raises:
        CheckpointError: it is something else.
    """
    size = math.prod(scale.shape)
    if size not in (1, pair.source.shape[0]):
        raise CheckpointError(f"its source has scales of shape {scale.shape}, which are not read here")
    rows = read_rows(scale, first, count, read) if size > 1 else read_rows(scale, 0, 1, read)
    return as_float32(rows, scale.info.dtype).reshape(-1, *(1,) * (len(pair.source.shape) - 1))


def _sums(pair: _Pair, mine: Floats, first: int, read: BytesRead) -> _Sums:
    """Return the sums over some rows, *mine* in the folder, from the *first* on."""
    theirs = _source_rows(pair, first, len(mine), read)
    inside = tuple(slice(0, length) for length in theirs.shape)
    expected = theirs
    if pair.is_padded:
        expected = np.zeros_like(mine)
        expected[inside] = theirs
    with np.errstate(invalid="ignore", over="ignore"):
        difference, source = _squares(mine, expected), _squares(theirs)
    is_kept = pair.module is None
    return _Sums(
        difference,
        source,
        int((mine[inside] != rounded(theirs, pair.stored.info.dtype)).sum()) if is_kept else 0,
        int(np.count_nonzero(mine) - np.count_nonzero(mine[inside])) if pair.is_padded else 0,
    )


def _squares(values: Floats, away: Floats | None = None) -> float:
    """Return the sum of the squares of *values*, or of what they are away from others, in float64."""
    doubles = values.astype(np.float64)
    if away is not None:
        doubles -= away
    return float(np.vdot(doubles, doubles))


def _tensor_error(pair: _Pair, sums: _Sums) -> TensorError:
    ratio = 0.0 if sums.difference == 0 else sums.difference / sums.source if sums.source else math.inf
    relative = math.sqrt(ratio)
    packing = pair.module.packing if pair.module else None
    return TensorError(
        pair.name,
        relative if math.isfinite(relative) else None,
        packing.bits if packing else 8 * DTYPE_BYTES.get(pair.stored.info.dtype, 0),
        packing.group_size if packing else None,
        pair.is_padded,
    )


def _problems(pair: _Pair, sums: _Sums, error: TensorError) -> list[str]:
    problems = []
    if sums.changed:
        problems.append(
            f"{pair.name} was kept, but {sums.changed} of its {math.prod(pair.source.shape)} values "
            f"differ from the source's in {pair.stored.info.dtype}"
        )
    if sums.padding and _padding_must_be_zero(pair):
        problems.append(f"{pair.name} is padded to {pair.shape}, but {sums.padding} of the added values are not zero")
    if pair.module and error.relative_error is None:
        problems.append(f"{pair.name} has no relative error: values that are not finite, or a source of zeros")
    elif pair.module and error.relative_error is not None and error.relative_error > _NOTHING_LEFT:
        problems.append(f"{pair.name} does not match its source: its relative error is {error.relative_error:.2g}")
    return problems


def _padding_must_be_zero(pair: _Pair) -> bool:
    """Return whether padding must be exactly zero.

    Added rows make activations, which must be zero. Added columns only meet those. If they are packed in a group with
    other values, their zeros become almost zero, which is harmless.
    """
    return pair.module is None or pair.shape[0] != pair.source_shape[0]
