"""SourceCheckpoint + QuantRecipe -> ConversionPlan: pure, and knows every byte before any is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from olmocr.conversion.checkpoint import DTYPE_BYTES, FLOAT_DTYPES, SourceCheckpoint, TensorInfo
from olmocr.conversion.names import PATCH_EMBED, PATCH_EMBED_AXES
from olmocr.conversion.recipe import QuantParams, QuantRecipe, why_kept
from olmocr.errors import PlanError

MAX_SHARD_BYTES = 5 << 30
"""As stock mlx-vlm splits."""


@dataclass(frozen=True)
class OutputTensor:
    """A tensor to be written; *dtype* is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class PlannedTensor:
    """What becomes of one source tensor: weight, scales and biases, or (with *kept_because*) itself."""

    source: TensorInfo
    params: QuantParams | None
    kept_because: str | None
    outputs: tuple[OutputTensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all that it becomes."""
        return sum(output.nbytes for output in self.outputs)

    @property
    def is_transposed(self) -> bool:
        """Whether MLX wants its axes in another order."""
        return self.outputs[0].name == PATCH_EMBED


@dataclass(frozen=True)
class PlannedShard:
    """One output file."""

    file_name: str
    tensors: tuple[PlannedTensor, ...]


@dataclass(frozen=True)
class ConversionPlan:
    """All that a conversion will write."""

    source: SourceCheckpoint
    recipe: QuantRecipe
    shards: tuple[PlannedShard, ...]

    @cached_property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        """Every tensor, in the order in which they will lie in the shards."""
        return tuple(tensor for shard in self.shards for tensor in shard.tensors)

    @cached_property
    def parameters(self) -> int:
        """The model's weights, counted in the source."""
        return sum(math.prod(tensor.source.shape) for tensor in self.tensors)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of all tensors' data, without the shards' headers."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for each weight, scales and biases included."""
        return self.weight_bytes * 8 / self.parameters


def make_plan(source: SourceCheckpoint, recipe: QuantRecipe) -> ConversionPlan:
    """Decide for every tensor what becomes of it, and in which shard it goes.

    Raises:
        PlanError: a matrix cannot be cut into groups; every such one is named.
    """
    dtype = _target_dtype(source)
    misfits = []
    planned = []
    for name, info in sorted(source.tensors.items()):
        kept_because = why_kept(name, info.shape, recipe)
        params = None if kept_because else recipe.params
        if params and info.shape[-1] % params.group_size:
            misfits.append(f"{name} {info.shape}")
            continue
        planned.append(_planned(name, info, params, kept_because, dtype or info.dtype))
    if misfits and recipe.params:
        raise PlanError(
            f"{len(misfits)} tensors have a last dimension that group size {recipe.params.group_size} does not divide: "
            f"{', '.join(misfits[:5])}; convert with --quantize none"
        )
    return ConversionPlan(source, recipe, _shards(planned))


def _target_dtype(source: SourceCheckpoint) -> str | None:
    """Return the dtype that the config names, which stock mlx-vlm casts every float to."""
    names = {mlx: safetensors for safetensors, mlx in FLOAT_DTYPES.items()}
    return names.get(str(source.config.get("torch_dtype")))


def _planned(
    name: str, info: TensorInfo, params: QuantParams | None, kept_because: str | None, dtype: str
) -> PlannedTensor:
    if params is None:
        shape = tuple(info.shape[axis] for axis in PATCH_EMBED_AXES) if name == PATCH_EMBED else info.shape
        return PlannedTensor(info, None, kept_because, (OutputTensor(name, dtype, shape),))
    rows, columns = info.shape
    module = name.removesuffix(".weight")
    groups = (rows, columns // params.group_size)
    outputs = (
        OutputTensor(name, "U32", (rows, columns * params.bits // 32)),
        OutputTensor(f"{module}.scales", dtype, groups),
        OutputTensor(f"{module}.biases", dtype, groups),
    )
    return PlannedTensor(info, params, None, outputs)


def _shards(planned: list[PlannedTensor]) -> tuple[PlannedShard, ...]:
    groups: list[list[PlannedTensor]] = [[]]
    size = 0
    for tensor in planned:
        if groups[-1] and size + tensor.nbytes > MAX_SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    if len(groups) == 1:
        return (PlannedShard("model.safetensors", tuple(planned)),)
    return tuple(
        PlannedShard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, 1)
    )
