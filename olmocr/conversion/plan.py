"""SourceCheckpoint + QuantRecipe -> ConversionPlan: pure, and knows every byte before the first is written."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

from olmocr.conversion.recipe import Method, QuantParams, QuantRecipe, Rule, collapsed, decide, listed
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import (
    LANGUAGE,
    PATCH_EMBED,
    Component,
    component_of,
    mlx_shape,
    number_of_blocks,
    vision_mlp_axis,
)
from olmocr.errors import PlanError
from olmocr.reports.parts import ComponentBits, bits_per_weight
from olmocr.tensors.dtypes import DTYPE_BYTES, FLOAT_DTYPES
from olmocr.tensors.header import TensorInfo

MAX_SHARD_BYTES = 2 << 30
"""Less than stock mlx-vlm's 5 GiB: a resumed conversion loses less, and downloads run side by side."""

_NO_MATRIX = "a norm or a bias is not a matrix"
_CONVOLUTION = "MLX does not quantize convolutions such as the patch embedding"


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
class Padding:
    """How many *zeros* are appended to the source along *axis*."""

    axis: int
    zeros: int

    def shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that *source* gets."""
        return tuple(size + self.zeros if axis == self.axis else size for axis, size in enumerate(source))


@dataclass(frozen=True)
class PlannedTensor:
    """What becomes of one source tensor, after *padding*: weight and scales, or (with *kept_because*) itself.

    The mode ``affine`` has biases, too. *dtype* (safetensors' name) is that of everything except codes.
    """

    source: TensorInfo
    params: QuantParams | None
    kept_because: str | None
    padding: Padding | None
    dtype: str
    outputs: tuple[OutputTensor, ...]

    @property
    def name(self) -> str:
        """Its name in MLX."""
        return self.outputs[0].name

    @property
    def nbytes(self) -> int:
        """Bytes of everything it becomes."""
        return sum(output.nbytes for output in self.outputs)

    @property
    def parameters(self) -> int:
        """Number of its weights as stored, padding included."""
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in MLX, padded, not packed."""
        if self.params is None:
            return self.outputs[0].shape
        return self.padding.shape(self.source.shape) if self.padding else self.source.shape

    @property
    def is_transposed(self) -> bool:
        """Whether MLX wants its axes in another order."""
        return self.name == PATCH_EMBED


@dataclass(frozen=True)
class PlannedShard:
    """One output file."""

    file_name: str
    tensors: tuple[PlannedTensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the complete file."""
        return len(shard_header(self)[0]) + sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True)
class ConversionPlan:
    """Everything a conversion will write; *vision_intermediate_size* is the padded one, None where nothing is padded.

    *predicted_nats* is the KL divergence from the source, in nats an answer token, that sensitivities predict. It is
    None where there are none.
    """

    source: SourceCheckpoint
    recipe: QuantRecipe
    method: Method
    shards: tuple[PlannedShard, ...]
    vision_intermediate_size: int | None = None
    predicted_nats: float | None = None

    @cached_property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        """Every tensor, in the order in which they lie in the source and in the shards."""
        return tuple(tensor for shard in self.shards for tensor in shard.tensors)

    @cached_property
    def parameters(self) -> int:
        """The model's weights as they are stored, padding included."""
        return sum(tensor.parameters for tensor in self.tensors)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, without the shards' headers."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def file_bytes(self) -> int:
        """Bytes of all shards as files, headers included."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for each weight."""
        return bits_per_weight(self.weight_bytes, self.parameters)

    @cached_property
    def components(self) -> tuple[ComponentBits, ...]:
        """What each part of the model takes; a tied head counts as the embeddings, not as a part of its own."""
        parts = ((component, self.tensors_of(component)) for component in get_args(Component))
        return tuple(_bits(component, tensors) for component, tensors in parts if tensors)

    def tensors_of(self, component: str) -> tuple[PlannedTensor, ...]:
        """Return the tensors of a part of the model."""
        return tuple(tensor for tensor in self.tensors if component_of(tensor.name) == component)

    @property
    def config(self) -> dict[str, Any]:
        """The converted model's config, in the source's flat form and without quantization."""
        config = dict(self.source.config)
        if self.recipe.dtype:
            config["torch_dtype"] = self.recipe.dtype
        if self.vision_intermediate_size:
            width = {"intermediate_size": self.vision_intermediate_size}
            config["vision_config"] = {**config["vision_config"], **width}
        return config


def _bits(component: str, tensors: Sequence[PlannedTensor]) -> ComponentBits:
    parameters, nbytes = sum(each.parameters for each in tensors), sum(each.nbytes for each in tensors)
    return ComponentBits(component, parameters, nbytes, bits_per_weight(nbytes, parameters))


def make_plan(source: SourceCheckpoint, recipe: QuantRecipe, method: Method = "fit") -> ConversionPlan:
    """Decide what becomes of every tensor, and which shard it goes into.

    Raises:
        PlanError: a rule matches nothing, or a matrix is left undecided or cannot be cut into groups; the message lists
        all of them.
    """
    matrices = [_module(name) for name, info in source.tensors.items() if len(info.shape) == 2]
    head: Any = "tied" if source.config["tie_word_embeddings"] else "untied"
    rules = decide(recipe, matrices, number_of_blocks(source.config), head)
    multiple = _multiple(source, recipe, rules)
    in_order = sorted(source.tensors.items(), key=lambda item: (item[1].shard, item[1].offset))
    planned = [
        _planned(name, info, rules.get(_module(name)), _padding(name, info, multiple), _dtype(source, recipe, info))
        for name, info in in_order
    ]
    _refuse_misfits(planned)
    return ConversionPlan(source, recipe, method, _shards(planned), _padded_width(planned))


def quantization_config(plan: ConversionPlan) -> dict[str, Any] | None:
    """Return what config.json says about the plan's quantization, as stock mlx-vlm reads it, or None without any.

    The parameters of most weights are listed once, those of the others by module, with ``false`` for a matrix of the
    language model that is kept. Stock mlx-vlm goes by the scales in the shards; other readers go by this.
    """
    quantized = {_module(each.name): each for each in plan.tensors if each.params}
    if not quantized:
        return None
    common = _most_common(plan)
    others: dict[str, Any] = {
        module: each.params.as_config()
        for module, each in quantized.items()
        if each.params and (each.params != common or _needs_its_own_entry(each))
    }
    others |= {
        _module(each.name): False
        for each in plan.tensors
        if each.name.startswith(LANGUAGE) and len(each.source.shape) == 2 and not each.params
    }
    return {**common.as_config(), **dict(sorted(others.items()))}


def _most_common(plan: ConversionPlan) -> QuantParams:
    weights: Counter[QuantParams] = Counter()
    for tensor in plan.tensors:
        if tensor.params:
            weights[tensor.params] += tensor.parameters
    return max(weights, key=lambda params: (weights[params], -params.bits, params.group_size, params.mode))


def _needs_its_own_entry(tensor: PlannedTensor) -> bool:
    """Return whether stock mlx-vlm would treat the matrix as not quantized, because 64 does not divide its size."""
    shape = tensor.padding.shape(tensor.source.shape) if tensor.padding else tensor.source.shape
    return math.prod(shape) % 64 != 0


def shard_header(shard: PlannedShard) -> tuple[bytes, dict[str, int]]:
    """Return the file's header, and the offset in the file of each output tensor."""
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


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _multiple(source: SourceCheckpoint, recipe: QuantRecipe, rules: dict[str, Rule]) -> int | None:
    """Return the multiple that the vision MLP's width is padded to; None if no group needs it, or none would."""
    multiple = recipe.vision_mlp_multiple
    narrow = [
        name
        for name, info in source.tensors.items()
        if multiple and vision_mlp_axis(name) == 1 and rules[_module(name)].params and info.shape[1] % multiple
    ]
    if narrow and source.config.get("model_type") == "qwen2_vl":
        raise PlanError(
            f"the vision MLP is {source.tensors[narrow[0]].shape[1]} wide, which {multiple} does not divide, and it "
            "cannot be widened in a Qwen2-VL model, whose config.json has no setting for it; "
            "add `keep='vision_tower.blocks.*.mlp.*'`"
        )
    return multiple if narrow else None


def _padding(name: str, info: TensorInfo, multiple: int | None) -> Padding | None:
    axis = vision_mlp_axis(name)
    if axis is None or multiple is None or info.shape[axis] % multiple == 0:
        return None
    return Padding(axis, -info.shape[axis] % multiple)


def _padded_width(planned: list[PlannedTensor]) -> int | None:
    widths = (each.padding.shape(each.source.shape)[each.padding.axis] for each in planned if each.padding)
    return next(widths, None)


def _dtype(source: SourceCheckpoint, recipe: QuantRecipe, info: TensorInfo) -> str:
    """Return the dtype of all but codes: the recipe's, or the config's, to which stock mlx-vlm casts floats."""
    names = {mlx: safetensors for safetensors, mlx in FLOAT_DTYPES.items()}
    own = info.dtype if info.dtype in FLOAT_DTYPES else "BF16"
    return names.get(recipe.dtype or str(source.config.get("torch_dtype")), own)


def _planned(name: str, info: TensorInfo, rule: Rule | None, padding: Padding | None, dtype: str) -> PlannedTensor:
    shape = padding.shape(info.shape) if padding else info.shape
    if rule is None or rule.params is None:
        reason = rule.kept_because if rule else _CONVOLUTION if name == PATCH_EMBED else _NO_MATRIX
        return PlannedTensor(info, None, reason, padding, dtype, (OutputTensor(name, dtype, mlx_shape(name, shape)),))
    return PlannedTensor(info, rule.params, None, padding, dtype, _quantized(name, shape, rule.params, dtype))


def _quantized(name: str, shape: tuple[int, ...], params: QuantParams, dtype: str) -> tuple[OutputTensor, ...]:
    """Return packed weight, scales and (affine only) biases; a group's bits always fill whole 32-bit words."""
    rows, columns = shape
    groups = (rows, columns // params.group_size)
    weight = OutputTensor(name, "U32", (rows, columns * params.bits // 32))
    scales = f"{_module(name)}.scales"
    if params.mode != "affine":
        return weight, OutputTensor(scales, "U8", groups)
    return weight, OutputTensor(scales, dtype, groups), OutputTensor(f"{_module(name)}.biases", dtype, groups)


def _refuse_misfits(planned: list[PlannedTensor]) -> None:
    notes = {}
    for tensor in planned:
        shape = tensor.padding.shape(tensor.source.shape) if tensor.padding else tensor.source.shape
        if tensor.params and shape[-1] % tensor.params.group_size:
            notes[_module(tensor.name)] = f" {shape}, group size {tensor.params.group_size}"
    if notes:
        number = "1 matrix has" if len(notes) == 1 else f"{len(notes)} matrices have"
        raise PlanError(
            f"{number} a last dimension that the group size does not divide:{listed(collapsed(notes, notes))}\n"
            "keep them with `keep=PATTERN`, choose another `group_size`, or, for the vision MLP, "
            "a recipe with vision_mlp_multiple"
        )


def _shards(planned: list[PlannedTensor]) -> tuple[PlannedShard, ...]:
    groups: list[list[PlannedTensor]] = [[]]
    size = 0
    for tensor in planned:
        if groups[-1] and size + tensor.nbytes > MAX_SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    shards = tuple(
        PlannedShard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, 1)
    )
    return shards if len(shards) > 1 else (replace(shards[0], file_name="model.safetensors"),)
