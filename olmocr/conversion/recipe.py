"""How many bits each matrix gets, and why one is kept. Recipes are data: YAML files in ``recipes/``, or yours."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from olmocr.conversion.patterns import Pattern, parse_pattern
from olmocr.errors import PlanError, UsageError
from olmocr.tensors.dtypes import FLOAT_DTYPES
from olmocr.text import one_line

Mode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]
Method = Literal["stock", "fit", "calibrated"]
Head = Literal["tied", "untied"]

BITS = (3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
DTYPES = tuple(sorted(FLOAT_DTYPES.values()))

# Each of the other modes has only one size: (bits, group size).
FIXED_MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}

_LARGEST_FILE = 100_000  # bytes; YAML parses about 100 kB a second, and a recipe has a few hundred bytes
_LARGEST_MULTIPLE = 1024


@dataclass(frozen=True)
class QuantParams:
    """How MLX quantizes a matrix: *bits* a weight, and what the *mode* stores for each *group_size* weights."""

    bits: int
    group_size: int = 64
    mode: Mode = "affine"

    def as_config(self) -> dict[str, Any]:
        """Return what config.json says about it, in MLX's words."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


@dataclass(frozen=True)
class Rule:
    """What becomes of the matrices that a pattern matches: *params*, or *kept_because*.

    With *head*, the rule applies only to checkpoints whose output head is tied to the embeddings, or is not.
    """

    patterns: tuple[Pattern, ...]
    params: QuantParams | None
    kept_because: str | None
    head: Head | None = None

    @property
    def text(self) -> str:
        """The patterns as they were written."""
        return ", ".join(pattern.text for pattern in self.patterns)

    def matches(self, module: str, blocks: Mapping[str, int]) -> bool:
        """Return whether a pattern matches *module*; *blocks* counts ``layers`` and ``blocks``."""
        return any(pattern.matches(module, blocks) for pattern in self.patterns)


@dataclass(frozen=True)
class QuantRecipe:
    """Rules; the first that matches decides.

    *dtype* is what the rest is stored as (None: the source's). *vision_mlp_multiple* widens the vision MLP with zeros
    to a multiple of it, so that groups divide it. *changes* says what the command line changed. *file* is the name
    (without its path) of the file that the recipe was read from, unless it came with this package. *method* is how it
    is converted unless the user chooses another; None leaves that to the converter.
    """

    name: str
    summary: str
    rules: tuple[Rule, ...]
    dtype: str | None = None
    vision_mlp_multiple: int | None = None
    changes: tuple[str, ...] = ()
    file: str | None = None
    method: Method | None = None

    @property
    def quantizes(self) -> bool:
        """Whether any rule quantizes anything."""
        return any(rule.params for rule in self.rules)


def recipe_names() -> tuple[str, ...]:
    """Return the names of the packaged recipes."""
    files = (Path(entry.name) for entry in _packaged().iterdir())
    return tuple(sorted(file.stem for file in files if file.suffix == ".yaml"))


def find_recipe(name: str) -> QuantRecipe:
    """Return the packaged recipe called *name*; ``4``, ``q4``, ``4-bit`` and ``int4`` are 4bit, ``16`` is bf16.

    Raises:
        UsageError: there is no such recipe.
    """
    known = recipe_names()
    official = _official(name)
    if official not in known:
        raise UsageError(f"there is no recipe {name!r}; choose one of {', '.join(known)}, or give a recipe's file")
    return parse_recipe(_packaged().joinpath(f"{official}.yaml").read_bytes(), f"{official}.yaml")


def _packaged() -> Traversable:
    return resources.files("olmocr.conversion").joinpath("recipes")


_OTHER_NAMES = {"16": "bf16", "bfloat16": "bf16", "float16": "fp16"}


def _official(name: str) -> str:
    lower = name.strip().lower()
    bits = re.fullmatch(r"(?:q|int)?(\d)(?:[-_]?bit)?", lower)
    return f"{bits[1]}bit" if bits else _OTHER_NAMES.get(lower, lower)


def read_recipe(path: Path) -> QuantRecipe:
    """Read a recipe from a YAML file (docs/recipes.md).

    Raises:
        UsageError: the file cannot be read, or is not a recipe; the message names the rule.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"the recipe {path} cannot be read: {error.strerror or error}") from error
    return dataclasses.replace(parse_recipe(content, str(path)), file=path.name)


def parse_recipe(content: bytes, where: str) -> QuantRecipe:
    """Return the recipe in the YAML *content*; *where* names it in errors.

    Raises:
        UsageError: it is not a recipe.
    """
    if len(content) > _LARGEST_FILE:
        raise UsageError(f"{where} has more than {_LARGEST_FILE:,} bytes, so it is not a recipe")
    try:
        return _recipe(_YamlFields(_load(content), _RECIPE_KEYS))
    except _RecipeError as error:
        raise UsageError(f"{where} is not a recipe: {error}; docs/recipes.md describes the format") from error


class _RecipeError(Exception):
    """What is wrong with a recipe, as the middle of a sentence."""


class _Loader(yaml.BaseLoader):
    """Keeps every scalar a string, so that YAML does not guess types; refuses aliases and repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Build a node; refuse aliases, because a few of them can expand to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise _RecipeError("it has an alias (*); a pattern that begins with * needs quotes")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a dict; plain YAML would let the last of two equal keys win."""
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            counts = Counter(str(key.value) for key, _ in node.value)
            raise _RecipeError(f"it has {_shown(next(key for key in counts if counts[key] > 1))} twice")
        return mapping


def _load(content: bytes) -> object:
    try:
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - a BaseLoader builds nothing but text
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _RecipeError(f"it is not YAML ({one_line(str(error.problem), 120)}{line})") from error
    except yaml.YAMLError as error:
        raise _RecipeError("it is not YAML (it holds characters that are not text)") from error
    except RecursionError as error:
        raise _RecipeError("it is nested too deeply") from error


_RECIPE_KEYS = ("name", "summary", "rules", "dtype", "vision_mlp_multiple", "method")
_RULE_KEYS = ("match", "keep", "bits", "group_size", "mode", "head")


class _YamlFields:
    """Turns what YAML holds into values; *rule* says where it is."""

    def __init__(self, value: object, known: tuple[str, ...], rule: str = "") -> None:
        self._rule = rule
        if not isinstance(value, dict):
            raise self.error(f"expected {', '.join(known)}, not {_shown(value)}")
        self._values = value
        unknown = [key for key in value if key not in known]
        if unknown:
            raise self.error(f"{_shown(unknown[0])} is not one of {', '.join(known)}")

    def error(self, what: str) -> _RecipeError:
        return _RecipeError(f"{self._rule}{what}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> object:
        return self._values.get(key)

    def text(self, key: str) -> str:
        value = self._values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{key} is missing" if value is None else f"{key} is {_shown(value)}, not a text")
        return " ".join(value.split())

    def number(self, key: str, allowed: Iterable[int], meaning: str) -> int:
        value = self._values[key]
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value) else None
        if number is None or number not in allowed:
            raise self.error(f"{key} is {_shown(value)}, not {meaning}")
        return number

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self._values[key]
        if value not in allowed:
            raise self.error(f"{key} is {_shown(value)}, not {_one_of(allowed)}")
        return str(value)


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_of(allowed: Iterable[object]) -> str:
    return f"one of {', '.join(map(str, allowed))}"


def _recipe(fields: _YamlFields) -> QuantRecipe:
    name = fields.text("name")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name, re.ASCII):
        raise _RecipeError(
            f"name is {_shown(name)} and becomes part of a folder's name: use letters, digits, . _ and -"
        )
    rules = fields.get("rules")
    if not isinstance(rules, list) or not rules:
        raise _RecipeError("it does not have a list of rules")
    multiple = None
    if "vision_mlp_multiple" in fields:
        meaning = f"a number from 1 to {_LARGEST_MULTIPLE}"
        multiple = fields.number("vision_mlp_multiple", range(1, _LARGEST_MULTIPLE + 1), meaning)
    return QuantRecipe(
        name=name,
        summary=fields.text("summary"),
        rules=tuple(_rule(value, number) for number, value in enumerate(rules, 1)),
        dtype=None if fields.get("dtype") in (None, "", "~", "null") else fields.choice("dtype", DTYPES),
        vision_mlp_multiple=multiple,
        method=fields.choice("method", get_args(Method)) if "method" in fields else None,  # type: ignore[arg-type]
    )


def _rule(value: object, number: int) -> Rule:
    fields = _YamlFields(value, _RULE_KEYS, f"rule {number}: ")
    patterns = _patterns(fields)
    head = fields.choice("head", get_args(Head)) if "head" in fields else None
    quantizes = [key for key in ("bits", "group_size", "mode") if key in fields]
    if "keep" in fields and quantizes:
        raise fields.error(f"it has both keep and {quantizes[0]}; leave one out")
    if "keep" in fields:
        return Rule(patterns, None, fields.text("keep"), head)  # type: ignore[arg-type]
    return Rule(patterns, _params(fields), None, head)  # type: ignore[arg-type]


def _patterns(fields: _YamlFields) -> tuple[Pattern, ...]:
    match = fields.get("match")
    given = match if isinstance(match, list) else [match]
    texts = [text for text in given if isinstance(text, str)]
    if not texts or texts != given:
        missing = "match is missing" if match is None else f"match is {_shown(match)}, not a pattern or a list of them"
        raise fields.error(missing)
    try:
        return tuple(parse_pattern(text) for text in texts)
    except UsageError as error:
        raise fields.error(str(error)) from error


def _params(fields: _YamlFields) -> QuantParams:
    mode: Any = fields.choice("mode", get_args(Mode)) if "mode" in fields else "affine"
    if mode in FIXED_MODES:
        bits, group_size = FIXED_MODES[mode]
        for key, value in (("bits", bits), ("group_size", group_size)):
            if key in fields:
                fields.number(key, (value,), f"{value}, the only one that {mode} has")
        return QuantParams(bits, group_size, mode)
    if "bits" not in fields:
        raise fields.error("it has neither keep nor bits")
    bits = fields.number("bits", BITS, _one_of(BITS))
    group_size = fields.number("group_size", GROUP_SIZES, _one_of(GROUP_SIZES)) if "group_size" in fields else 64
    return QuantParams(bits, group_size)


def changed(
    recipe: QuantRecipe, group_size: int | None = None, dtype: str | None = None, keep: tuple[str, ...] = ()
) -> QuantRecipe:
    """Return *recipe* with the command line's changes; its name stays, and ``changes`` lists them.

    *group_size* replaces every affine rule's, and the patterns in *keep* come before all rules.

    Raises:
        UsageError: a value is not allowed, or changes nothing.
    """
    changes = list(recipe.changes)
    if group_size is not None:
        recipe = _with_group_size(recipe, group_size)
        changes.append(f"group_size {group_size}")
    if dtype is not None:
        recipe = dataclasses.replace(recipe, dtype=_dtype(dtype))
        changes.append(f"dtype {recipe.dtype}")
    kept = tuple(Rule((parse_pattern(text),), None, f"kept by --keep {text}") for text in keep)
    changes += [f"keep {text}" for text in keep]
    return dataclasses.replace(recipe, rules=kept + recipe.rules, changes=tuple(changes))


def _with_group_size(recipe: QuantRecipe, group_size: int) -> QuantRecipe:
    if group_size not in GROUP_SIZES:
        raise UsageError(f"`group_size` is {group_size}, not {_one_of(GROUP_SIZES)}")
    if not any(rule.params and rule.params.mode == "affine" for rule in recipe.rules):
        raise UsageError(f"the recipe {recipe.name} does not have groups that `group_size` could change; leave it out")
    rules = tuple(
        dataclasses.replace(rule, params=QuantParams(rule.params.bits, group_size))
        if rule.params and rule.params.mode == "affine"
        else rule
        for rule in recipe.rules
    )
    multiple = recipe.vision_mlp_multiple and math.lcm(recipe.vision_mlp_multiple, group_size)
    return dataclasses.replace(recipe, rules=rules, vision_mlp_multiple=multiple)


def _dtype(text: str) -> str:
    shorter = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    dtype = shorter.get(text.lower(), text.lower())
    if dtype not in DTYPES:
        raise UsageError(f"`dtype` is {text!r}, not {_one_of(DTYPES)}")
    return dtype


def decide(recipe: QuantRecipe, modules: Iterable[str], blocks: Mapping[str, int], head: Head) -> dict[str, Rule]:
    """Return, for each of *modules* (those that hold a matrix), the first rule that matches it.

    *blocks* counts the numbered modules, ``layers`` and ``blocks``; *head* describes the checkpoint's head.

    Raises:
        PlanError: a rule matches nothing, or no rule matches a module; the message lists all of them.
    """
    rules = [rule for rule in recipe.rules if rule.head in (None, head)]
    matching = {module: [rule for rule in rules if rule.matches(module, blocks)] for module in modules}
    idle = [rule.text for rule in rules if not any(rule in found for found in matching.values())]
    if idle:
        raise PlanError(
            f"{_count(len(idle), 'rule')} of the recipe {recipe.name} {'matches' if len(idle) == 1 else 'match'} "
            f"no matrix of this model:"
            f"{listed(idle)}\ncorrect or remove them; a matrix is named by its module, "
            "like language_model.model.layers.0.mlp.down_proj"
        )
    undecided = [module for module, found in matching.items() if not found]
    if undecided:
        raise PlanError(
            f"no rule of the recipe {recipe.name} decides about "
            f"{_count(len(undecided), 'matrix', 'matrices')}:"
            f"{listed(collapsed(undecided))}\nend the rules with '*', which matches all the rest"
        )
    return {module: found[0] for module, found in matching.items()}


def listed(lines: Iterable[str]) -> str:
    """Return *lines* as the indented lines of an error."""
    return "".join(f"\n  {line}" for line in lines)


def collapsed(modules: Iterable[str], notes: Mapping[str, str] | None = None) -> list[str]:
    """Return one line, a pattern, for all modules that differ only in their numbers; *notes* on a module follow it."""
    lines: dict[str, list[str]] = {}
    for module in modules:
        note = notes[module] if notes else ""
        lines.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", module) + note, []).append(module + note)
    return [of[0] if len(of) == 1 else f"{line}, {len(of)} of them" for line, of in lines.items()]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
