"""A converted folder -> a model in memory, in the form that this machine computes fastest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_vlm
import numpy as np
from mlx.utils import tree_flatten, tree_map

from olmocr.device import Device
from olmocr.errors import CheckpointError
from olmocr.inference.vision import CpuVisionTower
from olmocr.memory import physical_memory
from olmocr.model_folder import ModelFolder, read_config


@dataclass(frozen=True)
class LoadedModel:
    """mlx-vlm's model and processor. *dtype* is what is computed in; *stop_tokens* end an answer.

    *vision* makes image features instead of the model's own tower, where it is not None.
    """

    model: Any
    processor: Any
    device: Device
    dtype: str
    stop_tokens: frozenset[int]
    vision: CpuVisionTower | None

    def __str__(self) -> str:
        return f"{self.device}, computing in {self.dtype}"


def load_model(folder: ModelFolder, device: Device) -> LoadedModel:
    """Load *folder* for *device*. Weights that are used as they are stay mapped until they are needed.

    MLX's CPU kernels for quantized and for 16-bit matrices are scalar loops, about ten times slower than
    float32, which goes to BLAS. So on a CPU every matrix is dequantized once to float32, if memory allows:
    the numbers are the quantized model's, the speed is BLAS's. The vision tower is then computed with numpy.

    Raises:
        CheckpointError: *folder* holds no model that can be loaded.
    """
    read_config(folder)
    try:
        model, processor = mlx_vlm.load(str(folder.path), lazy=True)
    except Exception as error:  # mlx-vlm has no errors of its own: a bad folder surfaces as any built-in one
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{folder.path} cannot be loaded: {reason}; convert the checkpoint again") from error
    vision = None
    if device.kind == "cpu" and _float32_bytes(model) < physical_memory():
        _compute_in_float32(model)
        vision = CpuVisionTower(model)
    _without_empty_windows(model.vision_tower)
    mx.eval(model.parameters())
    stop_tokens = frozenset(processor.tokenizer.stopping_criteria.eos_token_ids)
    return LoadedModel(model, processor, device, _dtype_name(model), stop_tokens, vision)


def _without_empty_windows(tower: Any) -> None:
    """Have mlx-vlm's vision tower leave out windows with no patch in them.

    It cuts some where an image's side is a multiple of a window's, and attention over nothing ends the process on CUDA
    (a division by zero, MLX 0.32.4). They add nothing to the features.
    """
    with_empty = tower.get_window_index

    def without_empty(grid_thw: mx.array) -> tuple[mx.array, mx.array]:
        order, ends = with_empty(grid_thw)
        return order, mx.array(np.unique(np.array(ends)))

    tower.get_window_index = without_empty


def _float32_bytes(model: nn.Module) -> int:
    packed = [module for _, module in model.named_modules() if hasattr(module, "bits")]
    inside: int = sum(module.weight.size * 32 // module.bits for module in packed)
    outside: int = sum(array.size for _, array in tree_flatten(model.parameters()))
    outside -= sum(module.weight.size + module.scales.size + module.biases.size for module in packed)
    return 4 * (inside + outside)


def _compute_in_float32(model: nn.Module) -> None:
    """Replace quantized modules by dense ones and cast the rest, module by module, so that memory peaks low."""
    for _, parent in model.named_modules():
        for name, child in parent.children().items():
            dense = _dense(child)
            if dense is not None:
                setattr(parent, name, dense)
    for _, module in model.named_modules():
        module.update(
            tree_map(_to_float32, {name: array for name, array in module.items() if isinstance(array, mx.array)})
        )
        mx.eval(module.parameters())


def _dense(module: Any) -> nn.Module | None:
    if not isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return None
    weight = mx.dequantize(
        module.weight,
        module.scales.astype(mx.float32),
        module.biases.astype(mx.float32),
        group_size=module.group_size,
        bits=module.bits,
    )
    mx.eval(weight)
    dense = nn.Linear(1, 1, bias="bias" in module) if isinstance(module, nn.QuantizedLinear) else nn.Embedding(1, 1)
    dense.weight = weight
    if "bias" in module:
        dense.bias = module.bias
    return dense


def _to_float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def _dtype_name(model: nn.Module) -> str:
    packed = next((module for _, module in model.named_modules() if hasattr(module, "bits")), None)
    dtype = str(model.language_model.model.norm.weight.dtype).removeprefix("mlx.core.")
    return f"{dtype} on {packed.bits}-bit weights" if packed else dtype
