"""A converted folder -> a model in memory, in the form with which this machine computes fastest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_vlm
import mlx_vlm.models.qwen2_5_vl  # registers the family's processor, which does not need torch
import mlx_vlm.utils
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from olmocr.errors import CheckpointError, reason_of
from olmocr.inference.passes.cpu_forward import CpuLanguage
from olmocr.inference.passes.forward import Language
from olmocr.inference.vision import WHOLE, CpuVisionTower, VisionTower
from olmocr.inference.vision_mlx import MlxVisionTower, StockVisionTower, is_as_expected, pad_mlps
from olmocr.model_folder import ModelFolder, read_config
from olmocr.page import END_OF_TURN, MOST_PAGE_PIXELS
from olmocr.runtime.device import Device, gpu_limit
from olmocr.runtime.memory import physical_memory
from olmocr.tokenizer_file import require_tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """mlx-vlm's model and processor. *dtype* is the type of the computation; *stop_tokens* end an answer.

    *language* is the model's language half in the form that passes use, and *vision* computes image features.
    """

    model: Any
    language: Language | CpuLanguage
    processor: Any
    device: Device
    dtype: str
    stop_tokens: frozenset[int]
    vision: VisionTower

    def __str__(self) -> str:
        return f"{self.device}, computing in {self.dtype}"


def load_model(
    folder: ModelFolder, device: Device, *, stock_vision: bool = False, is_dense: bool | None = None
) -> LoadedModel:
    """Load *folder* for *device*. MLX reads each weight once, into its own memory; it does not map files.

    With *stock_vision*, images go through mlx-vlm's own vision tower. They also do if that tower is not as expected.

    MLX's CPU kernels for quantized and 16-bit matrices are scalar loops, about ten times slower than float32, which
    BLAS computes. So on a CPU, every matrix is dequantized once to float32, if memory allows: the numbers are the
    quantized model's, the speed is that of BLAS. Numpy then computes the vision tower.

    CUDA's quantized products are slower than 16-bit ones, and many times slower for more than a single token
    (benchmarks/README.md). So on CUDA, every matrix is dequantized once to the 16 bits of the computation, if that
    takes at most half of the GPU's memory. *is_dense* overrides this decision for any device and memory.

    Raises:
        CheckpointError: *folder* does not contain a model that can be loaded.
    """
    config = read_config(folder)
    require_tokenizer(folder.path, config)
    try:
        model, processor = mlx_vlm.load(str(folder.path), lazy=True)
    except Exception as error:  # mlx-vlm has no error classes: a bad folder can raise any built-in error
        raise CheckpointError(
            f"{folder.path} cannot be loaded: {reason_of(error)}; convert the checkpoint again"
        ) from error
    dtype = mx.float32 if device.kind == "cpu" else model.language_model.model.norm.weight.dtype
    if is_dense is None:
        is_dense = _dense_bytes(model, dtype) < _dense_room(device)
    if is_dense:
        _make_dense(model, dtype)
    if device.kind == "cuda":
        pad_mlps(model.vision_tower)
    mx.eval(model.parameters())
    _bound_pixels(processor)
    stop_tokens = frozenset(processor.tokenizer.stopping_criteria.eos_token_ids) | _end_of_turn(processor.tokenizer)
    vision = _vision_tower(model, device, is_dense, stock_vision)
    if is_dense and device.kind == "cpu":
        language: Language | CpuLanguage = CpuLanguage(model)
    else:
        language = Language(model, has_kernels=device.kind != "cpu")
    return LoadedModel(model, language, processor, device, _dtype_name(model), stop_tokens, vision)


def load_processor(folder: ModelFolder) -> Any:
    """Load the processor that turns pages into token ids and pixel values, as :func:`load_model` does, without weights.

    Raises:
        CheckpointError: *folder* does not contain a model that can be loaded, or a processor.
    """
    config = read_config(folder)
    require_tokenizer(folder.path, config)
    try:
        processor = mlx_vlm.utils.load_processor(folder.path, True, eos_token_ids=config.get("eos_token_id"))
    except Exception as error:  # as above
        raise CheckpointError(f"the processor in {folder.path} cannot be loaded: {reason_of(error)}") from error
    _bound_pixels(processor)
    return processor


def _bound_pixels(processor: Any) -> None:
    """Limit every image to the patches of a page, whichever of a folder's files sets the limit of pixels.

    A folder that was not converted here may allow as many pixels as a base model.
    """
    parts: list[Any] = [processor.image_processor, getattr(processor, "video_processor", None)]
    for part in parts:
        most = getattr(part, "max_pixels", None)
        if isinstance(most, int | float) and most > MOST_PAGE_PIXELS:
            part.max_pixels = MOST_PAGE_PIXELS
        size = getattr(part, "size", None)
        if isinstance(size, dict) and (size.get("longest_edge") or 0) > MOST_PAGE_PIXELS:
            part.size = {**size, "longest_edge": MOST_PAGE_PIXELS}


def _end_of_turn(tokenizer: Any) -> frozenset[int]:
    """Return the token that ends a turn in the trained prompt; a folder's settings may leave it out."""
    token = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    return frozenset() if token is None or token == tokenizer.unk_token_id else frozenset({token})


def _vision_tower(model: Any, device: Device, is_dense: bool, stock_vision: bool) -> VisionTower:
    if stock_vision or not is_as_expected(model.vision_tower):
        return StockVisionTower(model)
    if device.kind == "cuda":  # here an image takes only as long as a few steps, and least in one piece
        return MlxVisionTower(model, WHOLE)
    return CpuVisionTower(model) if is_dense and device.kind == "cpu" else MlxVisionTower(model)


def _dense_room(device: Device) -> int:
    """Return the limit in bytes for weights that are dequantized once; it is 0 where memory is scarce, as on a Mac."""
    if device.kind == "cpu":
        return physical_memory()
    return (gpu_limit() or 0) // 2 if device.kind == "cuda" else 0


def _dense_bytes(model: nn.Module, dtype: mx.Dtype) -> int:
    packed = [module for _, module in model.named_modules() if hasattr(module, "bits")]
    inside: int = sum(module.weight.size * 32 // module.bits for module in packed)
    outside: int = sum(array.size for _, array in tree_flatten(model.parameters()))
    outside -= sum(array.size for module in packed for array in _packed_arrays(module))
    return dtype.size * (inside + outside)


def _packed_arrays(module: Any) -> list[mx.array]:
    """Return the arrays of a quantized matrix; mxfp4, mxfp8 and nvfp4 have no biases."""
    return [array for array in (module.weight, module.scales, module.biases) if array is not None]


def _make_dense(model: nn.Module, dtype: mx.Dtype) -> None:
    """Replace quantized modules by dense ones and cast the rest, module by module, to keep the peak of memory low."""
    modules = model.named_modules()
    while modules:  # not a for loop, which would keep the replaced modules in memory
        place, packed = modules.pop()
        dense = _dense(packed, dtype)
        if dense is not None:
            model.update_modules(tree_unflatten([(place, dense)]))
    for _, module in model.named_modules():
        module.update(
            tree_map(
                partial(_cast, dtype=dtype),
                {name: array for name, array in module.items() if isinstance(array, mx.array)},
            )
        )
        mx.eval(module.parameters())


def _dense(module: Any, dtype: mx.Dtype) -> nn.Module | None:
    if not isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return None
    # Modes without biases store their scales as bytes in their own format, which must not be cast like numbers.
    scales, biases = module.scales, module.biases
    if biases is not None:
        scales, biases = scales.astype(dtype), biases.astype(dtype)
    weight = mx.dequantize(
        module.weight,
        scales,
        biases,
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
        dtype=dtype,
    )
    mx.eval(weight)
    dense = nn.Linear(1, 1, bias="bias" in module) if isinstance(module, nn.QuantizedLinear) else nn.Embedding(1, 1)
    dense.weight = weight
    if "bias" in module:
        dense.bias = module.bias
    return dense


def _cast(array: mx.array, dtype: mx.Dtype) -> mx.array:
    return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array


def _dtype_name(model: nn.Module) -> str:
    packed = next((module for _, module in model.named_modules() if hasattr(module, "bits")), None)
    dtype = str(model.language_model.model.norm.weight.dtype).removeprefix("mlx.core.")
    return f"{dtype} on {packed.bits}-bit weights" if packed else dtype
