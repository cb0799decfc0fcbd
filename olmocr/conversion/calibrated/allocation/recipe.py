"""Sensitivities and a goal -> a recipe that spends its bytes where they matter, and an editable file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from olmocr.conversion.calibrated.allocation.bits import (
    Choice,
    PricedMatrix,
    least_bytes,
    least_nats,
    total_bytes,
    total_nats,
)
from olmocr.conversion.calibrated.allocation.sensitivities import GROUP_SIZE, Sensitivities
from olmocr.conversion.macs import MACS, limit, running_memory
from olmocr.conversion.patterns import parse_pattern
from olmocr.conversion.plan import ConversionPlan, make_plan
from olmocr.conversion.recipe import Head, Method, QuantParams, QuantRecipe, Rule, decide
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import number_of_blocks
from olmocr.errors import PlanError, UsageError
from olmocr.runtime.memory import parse_size

_LAYER = re.compile(r"(?P<before>language_model\.model\.layers\.)(?P<number>\d+)\.(?P<parent>\w+)\.(?P<name>\w+)")
_ALL_LAYERS = "language_model.model.layers.*"


@dataclass(frozen=True)
class Goal:
    """A recipe's goal: at most *file_bytes* of weights as files, or at most *max_nats* of KL an answer token.

    *mac_gib* is the memory, in GiB, of a Mac that should be able to read a page. One of the three is given. *name* is
    the recipe's, and part of a folder's name.
    """

    name: str
    file_bytes: int | None = None
    mac_gib: int | None = None
    max_nats: float | None = None


def find_goal(target_size: str | None, fit_mac: str | None, max_kl: float | None) -> Goal | None:
    """Return the user's goal, or None if none is given.

    Raises:
        UsageError: two are given, or one is not a size, not a Mac, or not a number above 0.
    """
    asked = {"target_size": target_size, "fit_mac": fit_mac, "max_kl": max_kl}
    given = [f"`{name}={value!r}`" for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are two goals; give only one")
    if target_size is not None:
        return Goal(re.sub(r"[^\w.]", "", target_size), file_bytes=parse_size(target_size, "`target_size`"))
    if fit_mac is not None:
        gib = re.fullmatch(r"(\d{1,4})\s*(?:GB|GiB|G)?", fit_mac.strip(), re.IGNORECASE)
        if not gib or int(gib[1]) not in MACS:
            sizes = ", ".join(f"{each}GB" for each in MACS)
            raise UsageError(f"`fit_mac={fit_mac[:40]!r}` is not a Mac's memory; give one of {sizes}")
        return Goal(f"mac-{gib[1]}GB", mac_gib=int(gib[1]))
    if max_kl is not None:
        if not 0 < max_kl < 100:
            raise UsageError(f"`max_kl={max_kl}` is not a number of nats; give one such as 0.002")
        return Goal(f"kl-{max_kl:g}", max_nats=max_kl)
    return None


@dataclass(frozen=True)
class Allocation:
    """A recipe that reaches a goal, its plan, and its predicted *nats*."""

    recipe: QuantRecipe
    plan: ConversionPlan
    nats: float


def allocate(
    source: SourceCheckpoint, sensitivities: Sensitivities, goal: Goal, base: QuantRecipe, method: Method
) -> Allocation:
    """Return the recipe with the least nats, or the fewest bytes, within *goal*; headers are counted exactly.

    Matrices that were not measured, or that *base* keeps, follow *base*.

    Raises:
        PlanError: nothing reaches the goal, the sensitivities are of another model, or *method* was not measured.
    """
    plan_of = _Plans(source, base, sensitivities, method)
    matrices = plan_of.matrices
    if goal.max_nats is not None:
        choice = least_bytes(matrices, goal.max_nats)
    else:
        choice = least_nats(matrices, _target(goal, plan_of), plan_of.overhead)
    nats = total_nats(matrices, choice)
    plan = plan_of(choice)
    summary = (
        f"Allocated by sensitivities: {_shown(plan.file_bytes)}, with a predicted KL of {nats:.3g} nats per answer "
        f"token with {method}."
    )
    recipe = replace(plan.recipe, name=goal.name, summary=summary, method=method)
    return Allocation(recipe, replace(plan, recipe=recipe), nats)


def _target(goal: Goal, plan_of: _Plans) -> int:
    if goal.file_bytes is not None:
        return goal.file_bytes
    gib = goal.mac_gib or MACS[0]
    # The files' headers are not loaded, so a target for complete files wastes a few kB.
    needed = running_memory(plan_of.fewest.config, 0).total
    if needed >= limit(gib):
        raise PlanError(
            f"reading a page takes {needed / 1e9:.2f} GB besides the weights, more than a Mac with {gib} GB has"
        )
    return limit(gib) - needed


def _shown(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 10**9 else f"{nbytes / 1e6:.2f} MB"


class _Plans:
    """Plans of *source* by *base*, except for the matrices whose sensitivities are known."""

    def __init__(
        self, source: SourceCheckpoint, base: QuantRecipe, sensitivities: Sensitivities, method: Method
    ) -> None:
        self._source, self._base, self._method = source, base, method
        nats = sensitivities.nats(method)
        by_base = {_module(each.name): each.params for each in make_plan(source, base, method).tensors}
        missing = [module for module in nats if module not in by_base]
        if missing:
            raise PlanError(f"the sensitivities are of another model: this one lacks {missing[0]}; measure them again")
        priced = [module for module in nats if by_base[module]]
        if not priced:
            raise PlanError(f"the recipe {base.name} keeps every measured matrix, so there is nothing to allocate")
        bits = sorted(set.intersection(*(set(nats[module]) for module in priced)))
        sizes = {each: self._sizes(dict.fromkeys(priced, each)) for each in bits}
        self.matrices = tuple(
            PricedMatrix(module, {each: sizes[each][module] for each in bits}, nats[module]) for module in priced
        )
        self.fewest = self(dict.fromkeys(priced, bits[0]))

    def __call__(self, choice: Choice) -> ConversionPlan:
        """Return the plan that gives the matrices in *choice* their bits."""
        recipe = recipe_of(choice, self._base, self._source)
        return make_plan(self._source, recipe, self._method)

    def overhead(self, choice: Choice) -> int:
        """Return the bytes of all files without the data of the matrices in *choice*."""
        return self(choice).file_bytes - total_bytes(self.matrices, choice)

    def _sizes(self, choice: Choice) -> dict[str, int]:
        return {_module(each.name): each.nbytes for each in self(choice).tensors}


def recipe_of(choice: Mapping[str, int], base: QuantRecipe, source: SourceCheckpoint) -> QuantRecipe:
    """Return *base* with the matrices in *choice* (module -> bits) decided by it, in groups of 64.

    The rules are as few as patterns allow; the most common bits among the blocks come last.
    """
    blocks = number_of_blocks(source.config)
    head: Head = "tied" if source.config["tie_word_embeddings"] else "untied"
    rules = [*_rules(choice, blocks["layers"])]
    modules = [_module(name) for name, info in source.tensors.items() if len(info.shape) == 2]
    others = [module for module in modules if module not in choice]
    kept = list(dict.fromkeys(decide(_about(base, others, blocks), others, blocks, head).values()))
    # A rule for all layers would also decide matrices that only *base* decides.
    first = [rule for rule in kept if any(rule.matches(module, blocks) for module in others if _LAYER.match(module))]
    last = [replace(rule, head=None) for rule in kept if rule not in first]
    return replace(base, rules=(*first, *rules, *last), file=None, changes=())


def _about(base: QuantRecipe, modules: Sequence[str], blocks: Mapping[str, int]) -> QuantRecipe:
    """Return *base* with only the rules that match one of *modules*."""
    return replace(
        base, rules=tuple(rule for rule in base.rules if any(rule.matches(module, blocks) for module in modules))
    )


def _rules(choice: Mapping[str, int], layers: int) -> Iterable[Rule]:
    """Yield rules for *choice*: single matrices, then those of the blocks by bits, then all others of the blocks."""
    in_blocks = {module: bits for module, bits in choice.items() if _LAYER.fullmatch(module)}
    for module, bits in choice.items():
        if module not in in_blocks:
            yield _rule([module], bits)
    if not in_blocks:
        return
    counts = Counter(in_blocks.values())
    most = max(counts, key=lambda bits: (counts[bits], -bits))
    for bits in sorted(counts, reverse=True):
        if bits != most:
            yield _rule(_patterns([module for module, each in in_blocks.items() if each == bits], layers), bits)
    yield _rule([_ALL_LAYERS], most)


def _rule(patterns: Sequence[str], bits: int) -> Rule:
    return Rule(tuple(parse_pattern(text) for text in patterns), QuantParams(bits, GROUP_SIZE), None)


def _patterns(modules: Sequence[str], layers: int) -> list[str]:
    """Return patterns that match exactly *modules*: those of a kind by runs of blocks, kinds with one run together."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for module in modules:
        found = _LAYER.fullmatch(module)
        if found:
            numbers.setdefault((found["parent"], found["name"]), []).append(int(found["number"]))
    together: dict[tuple[str, str], list[str]] = {}
    for (parent, name), of in numbers.items():
        for run in _runs(sorted(of)):
            together.setdefault((_selected(run, layers), parent), []).append(name)
    return [
        f"language_model.model.layers.{where}.{parent}.{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}"
        for (where, parent), names in together.items()
    ]


def _runs(numbers: Sequence[int]) -> list[range]:
    """Return ascending *numbers* as ranges without gaps."""
    runs = []
    for _, group in groupby(enumerate(numbers), key=lambda item: item[1] - item[0]):
        members = [number for _, number in group]
        runs.append(range(members[0], members[-1] + 1))
    return runs


def _selected(run: range, layers: int) -> str:
    if len(run) == layers:
        return "*"
    return f"[{run.start}]" if len(run) == 1 else f"[{run.start}:{run.stop}]"


def recipe_text(recipe: QuantRecipe, comments: Sequence[str] = ()) -> str:
    """Return YAML that `parse_recipe` reads as *recipe*, after lines of *comments*."""
    lines = [f"# {line}" for line in comments]
    lines += [f"name: {_quoted(recipe.name)}", f"summary: {_quoted(recipe.summary)}"]
    for key in ("dtype", "method", "vision_mlp_multiple"):
        value = getattr(recipe, key)
        lines += [f"{key}: {value}"] if value is not None else []
    lines.append("rules:")
    for rule in recipe.rules:
        lines += _rule_lines(rule)
    return "\n".join(lines) + "\n"


def _rule_lines(rule: Rule) -> list[str]:
    texts = [_quoted(pattern.text) for pattern in rule.patterns]
    lines = [f"  - match: {texts[0]}"] if len(texts) == 1 else ["  - match:", *(f"      - {text}" for text in texts)]
    fields: dict[str, Any] = {"head": rule.head, "keep": rule.kept_because and _quoted(rule.kept_because)}
    if rule.params:
        plain = QuantParams(rule.params.bits)
        fields["bits"] = rule.params.bits
        if rule.params != plain:
            fields |= {"group_size": rule.params.group_size, "mode": rule.params.mode}
    return lines + [f"    {key}: {value}" for key, value in fields.items() if value is not None]


def _quoted(text: str) -> str:
    """Return *text* in double quotes, a form that JSON and YAML share."""
    return json.dumps(text, ensure_ascii=True)


def _module(name: str) -> str:
    return name.removesuffix(".weight")
