"""Tensors + config.json -> which modules are quantized and how, and where the two disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olmocr.conversion.recipe import FIXED_MODES, GROUP_SIZES
from olmocr.tensors.dtypes import FLOAT_DTYPES
from olmocr.validate.weights.values import StoredTensor

# MLX's modes: bits and group size if a module's entry omits them. Only affine allows others.
_DEFAULTS = {"affine": (4, 64), **FIXED_MODES}
_AFFINE_BITS = (1, 2, 3, 4, 5, 6, 8)
_GLOBAL_SETTINGS = ("bits", "group_size", "mode")


@dataclass(frozen=True)
class Packing:
    """How a module's weight is packed, in config.json's words; includes what our recipes do not make."""

    bits: int
    group_size: int
    mode: str

    def __str__(self) -> str:
        return f"{self.mode} with {self.bits} bits in groups of {self.group_size}"


@dataclass(frozen=True)
class PackedModule:
    """A quantized module whose tensors fit each other. *biases* is None in modes that have none."""

    packing: Packing
    weight: StoredTensor
    scales: StoredTensor
    biases: StoredTensor | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the packed weight."""
        return (*self.weight.shape[:-1], self.weight.shape[-1] * 32 // self.packing.bits)


@dataclass(frozen=True)
class PackedModules:
    """The quantized modules by path, without those that have a problem."""

    modules: dict[str, PackedModule]
    problems: tuple[str, ...]


def read_packing(tensors: Mapping[str, StoredTensor], config: dict[str, Any]) -> PackedModules:
    """Match the tensors with the quantization in *config*."""
    settings, problems = _settings(config)
    modules = {}
    packed = [name.removesuffix(".scales") for name in tensors if name.endswith(".scales")]
    for path in packed:
        found = _module(path, tensors, settings)
        if isinstance(found, PackedModule):
            modules[path] = found
        else:
            problems += found
    problems += _unmatched_settings(settings, tensors)
    problems += _unmatched_tensors(tensors)
    if settings and not packed:
        problems.append("config.json says that the model is quantized, but no module has scales")
    return PackedModules(modules, tuple(problems))


def _settings(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the quantization in *config*, or an empty one. MLX writes it twice, since the Hub reads one."""
    names = [name for name in ("quantization", "quantization_config") if config.get(name) is not None]
    problems = [
        f"config.json has a {name} that is not a group of settings" for name in names if not _is_group(config[name])
    ]
    found = [config[name] for name in names if _is_group(config[name])]
    if len(found) == 2 and found[0] != found[1]:
        differ = sorted(key for key in {*found[0], *found[1]} if found[0].get(key) != found[1].get(key))
        problems.append(f"config.json's quantization and quantization_config differ in {', '.join(differ[:5])}")
    return (found[0] if found else {}), problems


def _is_group(value: object) -> bool:
    return isinstance(value, dict)


def _module(path: str, tensors: Mapping[str, StoredTensor], settings: dict[str, Any]) -> PackedModule | list[str]:
    """Return the quantized module at *path*, or what is wrong with it."""
    packing = _packing(path, settings)
    if isinstance(packing, str):
        return [packing]
    weight = tensors.get(f"{path}.weight")
    if weight is None:
        return [f"{path} has scales but no weight"]
    scales, biases = tensors[f"{path}.scales"], tensors.get(f"{path}.biases")
    problems = [*_shape_problems(path, packing, weight, scales), *_part_problems(path, packing, scales, biases)]
    return problems or PackedModule(packing, weight, scales, biases)


def _packing(path: str, settings: dict[str, Any]) -> Packing | str:
    """Return how *path* is packed according to *settings*, or why they do not say."""
    if not settings:
        return f"{path} has scales, but config.json does not name a quantization"
    # A text model's own config, copied unchanged, has paths without the wrapper's prefix.
    entry = settings.get(path, settings.get(path.removeprefix("language_model.")))
    if entry is False:
        return f"{path} has scales, but config.json says that it is not quantized"
    entry = entry if isinstance(entry, dict) else settings
    mode = entry.get("mode", "affine")
    if not isinstance(mode, str) or mode not in _DEFAULTS:
        return f"{path} has mode {mode!r} in config.json, not one of {', '.join(_DEFAULTS)}"
    default_bits, default_group = _DEFAULTS[mode]
    bits, group_size = entry.get("bits", default_bits), entry.get("group_size", default_group)
    if type(bits) is not int or type(group_size) is not int or not _exists(bits, group_size, mode):
        return f"{path} has {bits!r} bits in groups of {group_size!r} in config.json, which {mode} does not support"
    return Packing(bits, group_size, mode)


def _exists(bits: int, group_size: int, mode: str) -> bool:
    if mode == "affine":
        return bits in _AFFINE_BITS and group_size in GROUP_SIZES
    return (bits, group_size) == _DEFAULTS[mode]


def _shape_problems(path: str, packing: Packing, weight: StoredTensor, scales: StoredTensor) -> list[str]:
    if weight.info.dtype != "U32":
        return [f"{path}.weight has scales, but dtype {weight.info.dtype}: packed weights are U32"]
    groups = (*weight.shape[:-1], weight.shape[-1] * 32 // packing.bits // packing.group_size) if weight.shape else ()
    whole = len(groups) > 1 and groups[-1] * packing.group_size * packing.bits == weight.shape[-1] * 32
    if whole and groups == scales.shape:
        return []
    return [f"{path} has a weight of shape {weight.shape} and scales of shape {scales.shape}, which is not {packing}"]


def _part_problems(path: str, packing: Packing, scales: StoredTensor, biases: StoredTensor | None) -> list[str]:
    """Return what is wrong with dtypes, and with the biases."""
    dtypes = list(FLOAT_DTYPES) if packing.mode == "affine" else ["U8"]
    problems = []
    if scales.info.dtype not in dtypes:
        problems.append(f"{path}.scales has dtype {scales.info.dtype}; {packing.mode} has {' or '.join(dtypes)}")
    if packing.mode != "affine":
        return [*problems, f"{path} has biases, but {packing.mode} has none"] if biases else problems
    if biases is None:
        return [*problems, f"{path} has scales but no biases"]
    if biases.shape != scales.shape:
        problems.append(f"{path}.biases has shape {biases.shape}, its scales {scales.shape}")
    if biases.info.dtype not in dtypes:
        problems.append(f"{path}.biases has dtype {biases.info.dtype}; {packing.mode} has {' or '.join(dtypes)}")
    return problems


def _unmatched_settings(settings: dict[str, Any], tensors: Mapping[str, StoredTensor]) -> list[str]:
    problems = []
    for path, entry in settings.items():
        names = [f"{prefix}{path}" for prefix in ("", "language_model.")]
        if path in _GLOBAL_SETTINGS or not (isinstance(entry, dict) or (entry is False and "." in path)):
            continue
        if not any(f"{name}.weight" in tensors for name in names):
            problems.append(f"config.json names {path} in its quantization, but there is no such module")
        elif entry is not False and not any(f"{name}.scales" in tensors for name in names):
            problems.append(f"config.json says that {path} is quantized, but it has no scales")
    return problems


def _unmatched_tensors(tensors: Mapping[str, StoredTensor]) -> list[str]:
    problems = []
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if f"{module}.scales" in tensors:
            continue
        if part == "biases":
            problems.append(f"{name} has no scales beside it")
        elif part == "weight" and tensor.info.dtype == "U32":
            problems.append(f"{name} is packed (U32) but has no scales")
    return problems
