"""A plan and what was written of it -> ConversionReport."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping

from olmocr.conversion.plan import ConversionPlan, PlannedTensor
from olmocr.conversion.recipe import QuantRecipe
from olmocr.conversion.shards import WrittenShard
from olmocr.reports.conversion import (
    CalibrationReport,
    ConversionReport,
    ConvertedSource,
    DivergenceReport,
    OutputFile,
    Processor,
    RecipeReport,
    RuleReport,
    SourceFile,
    TensorReport,
)
from olmocr.runtime.facts import versions

# Everything that could change the bytes that a conversion writes.
_MATTER = ("mlx", "mlx-vlm", "numba", "numpy", "huggingface-hub")


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
    calibration: CalibrationReport | None = None,
    divergence: DivergenceReport | None = None,
) -> ConversionReport:
    """Put together what *plan* said and what was written."""
    by_name = {shard.file_name: shard for shard in shards}
    written = [by_name[shard.file_name] for shard in plan.shards]
    errors = {name: sums for shard in written for name, sums in shard.errors.items()}
    folder = plan.source.folder
    return ConversionReport(
        source=ConvertedSource(
            folder.repo_id or folder.name,
            folder.revision,
            tuple(SourceFile(name, sha256) for name, sha256 in sorted(hashes.items())),
            folder.left_out,
        ),
        recipe=recipe_report(plan.recipe),
        method=plan.method,
        command=_command(plan, calibration),
        parameters=plan.parameters,
        weight_bytes=plan.weight_bytes,
        bits_per_weight=plan.bits_per_weight,
        components=plan.components,
        kept=dict(Counter(tensor.kept_because for tensor in plan.tensors if tensor.kept_because)),
        tensors=tuple(_tensor_report(tensor, *errors[tensor.name]) for tensor in plan.tensors),
        files=tuple(OutputFile(shard.file_name, shard.nbytes, shard.sha256) for shard in written),
        processor=processor,
        threads=threads,
        resumed_shards=resumed_shards,
        seconds=round(seconds, 3),
        peak_memory=peak_memory,
        versions=versions(_MATTER),
        calibration=calibration,
        divergence=divergence,
    )


def recipe_report(recipe: QuantRecipe) -> RecipeReport:
    """Return *recipe* as a report shows it."""
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


def _command(plan: ConversionPlan, calibration: CalibrationReport | None) -> str:
    """Return the command that makes the same bytes from the same source, without paths of this machine."""
    folder = plan.source.folder
    parts = ["python", "-m", "olmocr.convert_to_mlx", folder.repo_id or folder.name]
    if folder.revision:
        parts += ["--revision", folder.revision]
    for name in folder.left_out:
        parts += ["--leave-out", name]
    parts += ["--recipe", plan.recipe.file] if plan.recipe.file else ["--quantize", plan.recipe.name]
    parts += ["--method", plan.method]
    if calibration and not calibration.drawn:
        parts += ["--calibrate-on", "PAGES"]
    if calibration:
        parts += [f"--{'' if calibration.counted_by == 'gradient' else 'no-'}calibration-gradients"]
        parts += [f"--{'' if calibration.propagated else 'no-'}calibration-propagation"]
    for change in plan.recipe.changes:
        option, _, value = change.partition(" ")
        parts += [f"--{option.replace('_', '-')}", value]
    return shlex.join(parts)
