"""What a conversion did, as data: conversion_report.json (docs/conversion-report.md)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from olmocr.conversion.plan import ConversionPlan, PlannedTensor
from olmocr.conversion.quantizing.rows import Processor
from olmocr.conversion.recipe import QuantRecipe
from olmocr.conversion.shards import WrittenShard
from olmocr.version import __version__

REPORT_FILE = "conversion_report.json"
REPORT_VERSION = 2


@dataclass(frozen=True)
class SourceFile:
    """A shard of the source; *sha256* is what the Hub lists as its LFS hash."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """What was converted: *name* is the repository, or the folder's own name without its path."""

    name: str
    revision: str | None
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class RuleReport:
    """A rule of the recipe: *match* are patterns on MLX's module names, of which the first that matches decided."""

    match: tuple[str, ...]
    bits: int | None
    group_size: int | None
    mode: str | None
    keep: str | None
    head: str | None


@dataclass(frozen=True)
class RecipeReport:
    """The recipe, with *changes* made from the command line; enough to write its file again."""

    name: str
    summary: str
    file: str | None
    dtype: str | None
    vision_mlp_multiple: int | None
    changes: tuple[str, ...]
    rules: tuple[RuleReport, ...]


@dataclass(frozen=True)
class OutputFile:
    """A file of weights that was written."""

    name: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class ComponentReport:
    """What a part of the model takes: language, head, embeddings, vision or merger."""

    component: str
    parameters: int
    nbytes: int
    bits_per_weight: float


@dataclass(frozen=True)
class TensorReport:
    """What became of a tensor. *shape* is its shape in MLX before packing, zero padding included.

    *relative_error* is ||source - what is read back|| / ||source||, the Frobenius norm; *bits*, *group_size* and *mode*
    are None for a tensor that was kept, and *kept_because* says why it was.
    """

    name: str
    shape: tuple[int, ...]
    bits: int | None
    group_size: int | None
    mode: str | None
    kept_because: str | None
    nbytes: int
    relative_error: float


@dataclass(frozen=True)
class ConversionReport:
    """What was converted, how, and what came of it; *seconds* and *peak_memory* (bytes) are those of the last run."""

    source: Source
    recipe: RecipeReport
    method: str
    command: str
    parameters: int
    weight_bytes: int
    bits_per_weight: float
    components: tuple[ComponentReport, ...]
    kept: Mapping[str, int]
    tensors: tuple[TensorReport, ...]
    files: tuple[OutputFile, ...]
    processor: Processor
    threads: int
    resumed_shards: int
    seconds: float
    peak_memory: int
    versions: Mapping[str, str]
    version: int = REPORT_VERSION


def make_report(
    plan: ConversionPlan,
    shards: Iterable[WrittenShard],
    hashes: Mapping[str, str],
    *,
    processor: Processor,
    threads: int,
    resumed_shards: int,
    seconds: float,
    peak_memory: int,
) -> ConversionReport:
    """Put together what *plan* said with what was written."""
    by_name = {shard.file_name: shard for shard in shards}
    written = [by_name[shard.file_name] for shard in plan.shards]
    errors = {name: sums for shard in written for name, sums in shard.errors.items()}
    folder = plan.source.folder
    return ConversionReport(
        source=Source(
            folder.repo_id or folder.name,
            folder.revision,
            tuple(SourceFile(name, sha256) for name, sha256 in sorted(hashes.items())),
        ),
        recipe=recipe_report(plan.recipe),
        method=plan.method,
        command=_command(plan),
        parameters=plan.parameters,
        weight_bytes=plan.weight_bytes,
        bits_per_weight=plan.bits_per_weight,
        components=tuple(
            ComponentReport(part.component, part.parameters, part.nbytes, part.bits_per_weight)
            for part in plan.components
        ),
        kept=dict(Counter(tensor.kept_because for tensor in plan.tensors if tensor.kept_because)),
        tensors=tuple(_tensor_report(tensor, *errors[tensor.name]) for tensor in plan.tensors),
        files=tuple(OutputFile(shard.file_name, shard.nbytes, shard.sha256) for shard in written),
        processor=processor,
        threads=threads,
        resumed_shards=resumed_shards,
        seconds=round(seconds, 3),
        peak_memory=peak_memory,
        versions=_versions(),
    )


def report_json(report: ConversionReport) -> str:
    """Return *report* as JSON."""
    return json.dumps(dataclasses.asdict(report), indent=2) + "\n"


def recipe_report(recipe: QuantRecipe) -> RecipeReport:
    """Return *recipe* as a report tells it."""
    rules = tuple(
        RuleReport(
            match=tuple(pattern.text for pattern in rule.patterns),
            bits=rule.params.bits if rule.params else None,
            group_size=rule.params.group_size if rule.params else None,
            mode=rule.params.mode if rule.params else None,
            keep=rule.kept_because,
            head=rule.head,
        )
        for rule in recipe.rules
    )
    return RecipeReport(
        recipe.name, recipe.summary, recipe.file, recipe.dtype, recipe.vision_mlp_multiple, recipe.changes, rules
    )


def _tensor_report(tensor: PlannedTensor, squared_error: float, energy: float) -> TensorReport:
    params = tensor.params
    return TensorReport(
        name=tensor.name,
        shape=tensor.shape,
        bits=params.bits if params else None,
        group_size=params.group_size if params else None,
        mode=params.mode if params else None,
        kept_because=tensor.kept_because,
        nbytes=tensor.nbytes,
        relative_error=float(f"{math.sqrt(squared_error / energy) if energy else 0.0:.4g}"),
    )


def _command(plan: ConversionPlan) -> str:
    """Return the command that makes the same bytes from the same source; paths of this machine stay out of it."""
    folder = plan.source.folder
    parts = ["python", "-m", "olmocr.convert_to_mlx", folder.repo_id or folder.name]
    if folder.revision:
        parts += ["--revision", folder.revision]
    parts += ["--recipe", plan.recipe.file] if plan.recipe.file else ["--quantize", plan.recipe.name]
    parts += ["--method", plan.method]
    for change in plan.recipe.changes:
        option, _, value = change.partition(" ")
        parts += [f"--{option.replace('_', '-')}", value]
    return shlex.join(parts)


def _versions() -> dict[str, str]:
    versions = {"olmocr": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}
    for package in ("mlx", "mlx-vlm", "numba", "numpy", "huggingface-hub"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
