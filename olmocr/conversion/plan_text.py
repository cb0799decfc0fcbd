"""ConversionPlan -> what a person reads before the plan is carried out, and the same as JSON (docs/recipes.md)."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from olmocr.conversion.macs import MACS, fitting_macs, limit, running_memory, smallest_mac
from olmocr.conversion.plan import ConversionPlan, PlannedTensor, quantization_config
from olmocr.conversion.recipe import QuantParams
from olmocr.page import MAX_TOTAL_TOKENS, TARGET_LONGEST_IMAGE_DIM
from olmocr.reports.parts import ComponentBits

PLAN_VERSION = 1
"""The version of ``plan_json``'s fields. Readers may rely on those of their version; new ones may appear."""

_WIDTH = 100

# A space where a line must not be broken; a table prints it as a plain one.
_HARD_SPACE = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Resources:
    """What carrying out a plan takes, in bytes; None where that is unknown."""

    disk_needed: int | None = None
    disk_free: int | None = None
    peak_memory: int | None = None


def plan_tables(plan: ConversionPlan, resources: Resources = Resources()) -> str:
    """Return everything *plan* will do as plain text, in lines of at most 100 characters."""
    parts = (_heading(plan), _components(plan), _kept(plan), _totals(plan, resources), _running(plan))
    return "\n\n".join(parts) + "\n"


def plan_json(plan: ConversionPlan, resources: Resources = Resources()) -> dict[str, Any]:
    """Return *plan* for machines; ``version`` says which fields it has."""
    memory = running_memory(plan.config, plan.weight_bytes)
    fits = fitting_macs(memory.total)
    return {
        "version": PLAN_VERSION,
        "source": _source_name(plan),
        "revision": plan.source.folder.revision,
        "recipe": plan.recipe.name,
        "summary": plan.recipe.summary,
        "changes": list(plan.recipe.changes),
        "method": plan.method,
        "dtype": plan.config.get("torch_dtype"),
        "vision_intermediate_size": plan.vision_intermediate_size,
        "predicted_nats": plan.predicted_nats,
        "quantization": quantization_config(plan),
        "parameters": plan.parameters,
        "bits_per_weight": plan.bits_per_weight,
        "weight_bytes": plan.weight_bytes,
        "file_bytes": plan.file_bytes,
        "files": [{"name": shard.file_name, "bytes": shard.nbytes} for shard in plan.shards],
        "components": [_component(plan, each) for each in plan.components],
        "kept": [
            {"reason": reason, "tensors": len(tensors), "bytes": sum(each.nbytes for each in tensors)}
            for reason, tensors in _by_reason(plan).items()
        ],
        "running_memory": {**asdict(memory), "total": memory.total},
        "macs": [{"memory_gib": gib, "limit_bytes": limit(gib), "fits": fits[gib]} for gib in MACS],
        "smallest_mac_gib": smallest_mac(memory.total),
        "conversion": asdict(resources),
        "tensors": [_tensor(tensor) for tensor in plan.tensors],
    }


def _component(plan: ConversionPlan, size: ComponentBits) -> dict[str, Any]:
    tensors = plan.tensors_of(size.component)
    return {
        **asdict(size),
        "quantized": [{**params.as_config(), "tensors": count} for params, count in _counts(tensors)],
        "kept": sum(tensor.params is None for tensor in tensors),
    }


def _tensor(tensor: PlannedTensor) -> dict[str, Any]:
    params = tensor.params
    return {
        "name": tensor.name,
        "shape": list(tensor.source.shape),
        "padding": asdict(tensor.padding) if tensor.padding else None,
        "bits": params.bits if params else None,
        "group_size": params.group_size if params else None,
        "mode": params.mode if params else None,
        "kept_because": tensor.kept_because,
        "bytes": tensor.nbytes,
    }


def _source_name(plan: ConversionPlan) -> str:
    return plan.source.folder.repo_id or plan.source.folder.name


def _heading(plan: ConversionPlan) -> str:
    revision = plan.source.folder.revision
    rows = [
        ("source", _source_name(plan) + (f" at {revision}" if revision else "")),
        ("recipe", f"{plan.recipe.name}: {plan.recipe.summary}"),
        ("changed", "; ".join(plan.recipe.changes)),
        ("method", plan.method if plan.recipe.quantizes else ""),
        ("padding", _padding(plan)),
        ("predicted", _prediction(plan)),
    ]
    return _table([row for row in rows if row[1]], "<<")


def _prediction(plan: ConversionPlan) -> str:
    nats = plan.predicted_nats
    return (
        "" if nats is None else f"a KL divergence of {nats:.3g} nats per answer token from the source, by sensitivities"
    )


def _padding(plan: ConversionPlan) -> str:
    if plan.vision_intermediate_size is None:
        return ""
    zeros = next(tensor.padding.zeros for tensor in plan.tensors if tensor.padding)
    width = plan.vision_intermediate_size
    return f"the vision MLP, {width - zeros:,} wide, is widened to {width:,} with zeros, which change no result"


def _components(plan: ConversionPlan) -> str:
    rows = [("component", "parameters", "bits/weight", "bytes", "becomes")]
    rows += [
        (
            each.component,
            f"{each.parameters:,}",
            f"{each.bits_per_weight:.2f}",
            f"{each.nbytes:,}",
            _becomes(plan.tensors_of(each.component)),
        )
        for each in plan.components
    ]
    rows.append(("all", f"{plan.parameters:,}", f"{plan.bits_per_weight:.2f}", f"{plan.weight_bytes:,}", ""))
    return _table(rows, "<>>><")


def _becomes(tensors: Sequence[PlannedTensor]) -> str:
    """Return how many matrices get each number of bits, and how many tensors are kept."""
    texts = [
        f"{f'{params.bits}-bit g{params.group_size}' if params.mode == 'affine' else params.mode} x {count}"
        for params, count in _counts(tensors)
    ]
    kept = sum(tensor.params is None for tensor in tensors)
    texts += [f"kept {kept}"] if kept else []
    return ", ".join(text.replace(" ", _HARD_SPACE) for text in texts)


def _counts(tensors: Sequence[PlannedTensor]) -> list[tuple[QuantParams, int]]:
    """Return how many of *tensors* have which parameters, fewest bits first."""
    counts = Counter(tensor.params for tensor in tensors if tensor.params)
    return sorted(counts.items(), key=lambda item: (item[0].bits, item[0].group_size, item[0].mode))


def _by_reason(plan: ConversionPlan) -> dict[str, list[PlannedTensor]]:
    reasons: dict[str, list[PlannedTensor]] = {}
    for tensor in plan.tensors:
        if tensor.kept_because:
            reasons.setdefault(tensor.kept_because, []).append(tensor)
    return dict(sorted(reasons.items(), key=lambda item: -sum(each.nbytes for each in item[1])))


def _kept(plan: ConversionPlan) -> str:
    rows = [("kept", "bytes", "because")]
    rows += [
        (f"{len(tensors):,}", f"{sum(each.nbytes for each in tensors):,}", reason)
        for reason, tensors in _by_reason(plan).items()
    ]
    return _table(rows, ">><")


def _totals(plan: ConversionPlan, resources: Resources) -> str:
    files = "1 file" if len(plan.shards) == 1 else f"{len(plan.shards)} files"
    rows = [("output", f"{_gb(plan.file_bytes)} ({plan.file_bytes:,} bytes) in {files}")]
    if resources.disk_needed is not None:
        free = "" if resources.disk_free is None else f", {_gb(resources.disk_free)} free"
        rows.append(("disk", f"{_gb(resources.disk_needed)} needed{free}"))
    if resources.peak_memory is not None:
        rows.append(("memory", f"{_gb(resources.peak_memory)} at most during the conversion"))
    return _table(rows, "<<")


def _running(plan: ConversionPlan) -> str:
    memory = running_memory(plan.config, plan.weight_bytes)
    fits = fitting_macs(memory.total)
    activations = max(memory.vision, memory.prefill)
    needs = (
        f"{_gb(memory.total)} to read one page: {_gb(memory.weights)} weights, {_gb(memory.kv_cache)} cache for "
        f"{MAX_TOTAL_TOKENS:,} tokens, {_gb(activations)} activations with a page of {TARGET_LONGEST_IMAGE_DIM} px; "
        "computed, not measured"
    )
    macs = [
        ("Macs with", *(f"{gib} GB" for gib in MACS)),
        ("it fits", *("yes" if fits[gib] else "no" for gib in MACS)),
    ]
    return _table([("running", needs)], "<<") + "\n\n" + _table(macs, "<" + ">" * len(MACS))


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"


def _table(rows: Sequence[Sequence[str]], alignments: str) -> str:
    """Return *rows* in columns; the last is wrapped where a line would be longer than ``_WIDTH``."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(alignments))]
    room = _WIDTH - sum(width + 2 for width in widths[:-1])
    lines = []
    for row in rows:
        *cells, last = (f"{cell:{side}{width}}" for cell, side, width in zip(row, alignments, widths, strict=True))
        for number, part in enumerate(textwrap.wrap(last, room) or [""]):
            start = cells if number == 0 else [" " * width for width in widths[:-1]]
            lines.append("  ".join([*start, part]).rstrip().replace(_HARD_SPACE, " "))
    return "\n".join(lines)
