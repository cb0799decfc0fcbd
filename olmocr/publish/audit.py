"""Any MLX folder of this model -> what it really is, what is wrong in its card and settings, and a correct card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from olmocr.conversion.companions import MOST_PIXELS, most_pixels
from olmocr.conversion.source.names import Component, component_of
from olmocr.files import sha256_of
from olmocr.model_folder import ModelFolder, read_json, shard_sha256
from olmocr.page import PAGE_PROMPT
from olmocr.publish.front_matter import SourceFacts, corrected_front_matter, split_card
from olmocr.publish.gates import CheckWeights
from olmocr.publish.markup import code_block, escaped
from olmocr.publish.scan import CARD_FILE, is_ours
from olmocr.reports.parts import bits_per_weight
from olmocr.strays import files_in, in_stray
from olmocr.tensors.header import read_header
from olmocr.validate.smoke.prompts import check_templates
from olmocr.validate.weights.check import WeightsReport, check_weights
from olmocr.validate.weights.packing import PackedModules, read_packing
from olmocr.validate.weights.values import StoredTensor
from olmocr.version import __version__

_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja")
_HEAD = "language_model.lm_head"
_BEFORE_TRAINING = "Qwen/"
_UNKNOWN = SourceFacts(None, None)
_HARMLESS = {CARD_FILE, "LICENSE", ".gitattributes"}


@dataclass(frozen=True)
class StoredComponent:
    """What a part of the model takes; *packings* says in words how its matrices are stored."""

    component: Component
    parameters: int
    nbytes: int
    packings: tuple[str, ...]

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for each weight."""
        return bits_per_weight(self.nbytes, self.parameters)


@dataclass(frozen=True)
class AuditFinding:
    """One thing that was checked. *good* is None if it could not be."""

    what: str
    good: bool | None
    detail: str


@dataclass(frozen=True)
class Audit:
    """What was found in a folder. *head* says how the output head is stored."""

    name: str
    components: tuple[StoredComponent, ...]
    head: str
    findings: tuple[AuditFinding, ...]
    weights: WeightsReport

    @property
    def parameters(self) -> int:
        """How many weights are stored, padding included."""
        return sum(part.parameters for part in self.components)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(part.nbytes for part in self.components)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for each weight of the model."""
        return bits_per_weight(self.nbytes, self.parameters)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong; some checks may have been impossible."""
        return all(finding.good is not False for finding in self.findings)


def audit_model(
    model: ModelFolder,
    card: str,
    source: Path | None = None,
    check: CheckWeights | None = None,
    facts: SourceFacts = _UNKNOWN,
) -> Audit:
    """Check all of *model*, any MLX folder; with *source*, also how far its weights are from that.

    *card* is its README.md, empty if it has none; *facts* are what the user says about the source.

    Raises:
        CheckpointError: it is not a model, or its headers or its config.json are damaged.
    """
    folder = model.path
    report = check(folder) if check else check_weights(folder, source)
    config = read_json(folder / "config.json")
    tensors = {info.name: StoredTensor(path, info) for path in _shards(folder) for info in read_header(path)}
    packing = read_packing(tensors, config)
    findings = [
        *_weights_findings(report),
        *_hub_finding(model),
        *_missing(folder),
        _quantization_finding(config, packing),
        *_template_findings(folder),
        _pixels_finding(folder),
        *_card_findings(split_card(card)[0], facts),
        _foreign_finding(folder),
    ]
    head = "tied to the embeddings" if config.get("tie_word_embeddings") else _packing_of(_HEAD, packing, tensors)
    return Audit(model.name, _components(tensors, packing), head, tuple(findings), report)


def audit_lines(audit: Audit) -> list[str]:
    """Return *audit* as a person reads it."""
    lines = [f"{audit.name}: {audit.nbytes:,} bytes, {audit.bits_per_weight:.2f} bits per weight, head {audit.head}"]
    lines += [
        f"{part.component:<10}  {part.bits_per_weight:5.2f} bits per weight  {part.nbytes:>13,} bytes  "
        f"{'; '.join(part.packings)}"
        for part in audit.components
    ]
    states = {True: "ok", False: "WRONG", None: "unknown"}
    return [*lines, *(f"{states[each.good]:<7}  {each.what}: {each.detail}" for each in audit.findings)]


def corrected_card(audit: Audit, card: str, facts: SourceFacts) -> str:
    """Return *card* with a corrected front matter, and the findings before the rest of its text."""
    data, body = split_card(card)
    rows = [
        f"| {part.component} | {part.bits_per_weight:.2f} | {part.nbytes:,} | {escaped('; '.join(part.packings))} |"
        for part in audit.components
    ]
    found = [each for each in audit.findings if each.good is False and not each.what.startswith("card")]
    wrong = [f"- {escaped(each.what)}: {escaped(each.detail)}" for each in found]
    rest = body.strip()
    parts = [
        f"---\n{corrected_front_matter(data, facts)}\n---",
        f"# {escaped(audit.name)}" if not rest else "",
        f"{audit.nbytes:,} bytes, {audit.bits_per_weight:.2f} bits per weight; "
        f"the output head is {escaped(audit.head)}. Counted from the files by olmocr {__version__}.",
        "\n".join(["| | bits per weight | bytes | stored as |", "| --- | ---: | ---: | --- |", *rows]),
        "What was found wrong:\n\n" + "\n".join(wrong) if wrong else "Nothing was found wrong in the files.",
        f"The prompt that it was trained to answer, to be sent before the image:\n\n{code_block(PAGE_PROMPT)}",
        rest,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shards(folder: Path) -> list[Path]:
    return files_in(folder, ".safetensors")


def _components(tensors: dict[str, StoredTensor], packing: PackedModules) -> tuple[StoredComponent, ...]:
    packed = {f"{path}.weight": module for path, module in packing.modules.items()}
    belongs = {f"{path}.{part}" for path in packing.modules for part in ("scales", "biases")}
    found = []
    for component in get_args(Component):
        own = {name: tensor for name, tensor in tensors.items() if component_of(name) == component}
        shapes = [packed[name].shape if name in packed else own[name].shape for name in own if name not in belongs]
        words = sorted({_packing_of(name.removesuffix(".weight"), packing, tensors) for name in own if name in packed})
        nbytes = sum(tensor.info.nbytes for tensor in own.values())
        if own:
            found.append(StoredComponent(component, sum(map(math.prod, shapes)), nbytes, tuple(words or ["kept"])))
    return tuple(found)


def _packing_of(path: str, packing: PackedModules, tensors: dict[str, StoredTensor]) -> str:
    if path in packing.modules:
        return str(packing.modules[path].packing)
    tensor = tensors.get(f"{path}.weight")
    return f"kept as {tensor.info.dtype}" if tensor else "missing"


def _weights_findings(report: WeightsReport) -> Iterator[AuditFinding]:
    for check in report.checks:
        problems = "; ".join(check.problems[:3])
        yield AuditFinding(check.name, check.holds, f"{check.detail}: {problems}" if problems else check.detail)


def _hub_finding(model: ModelFolder) -> Iterator[AuditFinding]:
    """Compare the weights of a repository with the hashes that the Hub lists; a folder is not on the Hub."""
    stated = {path: shard_sha256(model, path.name) for path in _shards(model.path)}
    if any(stated.values()):
        other = [path.name for path, sha256 in stated.items() if sha256 and sha256_of(path) != sha256]
        detail = (
            f"{', '.join(other)} is not what the Hub lists" if other else "the weights are those that the Hub lists"
        )
        yield AuditFinding("hashes on the Hub", not other, detail)


def _missing(folder: Path) -> Iterator[AuditFinding]:
    names = [name for name in _NEEDED if not (folder / name).is_file()]
    detail = f"{', '.join(names)} missing" if names else "all files that a client needs are there"
    yield AuditFinding("files", not names, detail)


def _quantization_finding(config: dict[str, Any], packing: PackedModules) -> AuditFinding:
    keys = ("quantization", "quantization_config")
    absent = [key for key in keys if key not in config]
    if not packing.modules:
        return AuditFinding("config", not packing.problems, "nothing is quantized")
    if absent:
        missing = f"it has no {absent[0]}, from which {_READERS[absent[0]]} learns the bits"
        return AuditFinding("config", False, missing)
    same = config[keys[0]] == config[keys[1]]
    return AuditFinding("config", same, "quantization and quantization_config say the same")


_READERS = {"quantization": "MLX", "quantization_config": "the Hub"}


def _template_findings(folder: Path) -> Iterator[AuditFinding]:
    for each in check_templates(folder):
        yield AuditFinding(each.file, each.problem is None, each.problem or "text before image")


def _pixels_finding(folder: Path) -> AuditFinding:
    most = most_pixels(folder)
    if most is None:
        return AuditFinding("pixels", None, "the processor's files do not say how many pixels an image may have")
    return AuditFinding(
        "pixels", most <= MOST_PIXELS, f"up to {most:,} pixels are allowed; a page has {MOST_PIXELS:,} at most"
    )


def _card_findings(card: Mapping[str, Any], facts: SourceFacts) -> Iterator[AuditFinding]:
    if not card:
        yield AuditFinding("card", False, f"there is no {CARD_FILE} with a front matter")
        return
    expected = {"library_name": "mlx", "pipeline_tag": "image-text-to-text", "base_model_relation": "quantized"}
    for key, value in expected.items():
        good = card.get(key) == value
        yield AuditFinding(f"card: {key}", good, repr(value) if good else f"{card.get(key)!r} should be {value!r}")
    yield _base_finding(card.get("base_model"), facts.base_model)
    other = facts.license is not None and card.get("license") != facts.license
    detail = f"{card.get('license')!r}" + (f" should be {facts.license!r}" if other else "")
    yield AuditFinding("card: license", bool(card.get("license")) and not other, detail)
    inherited = "model-index" in card
    yield AuditFinding(
        "card: model-index", not inherited, "scores of the source are claimed" if inherited else "none claimed"
    )


def _base_finding(found: object, stated: str | None) -> AuditFinding:
    """Judge the base model in a card: it must be the *stated* one, or at least one that can read pages."""
    names = [str(each) for each in found] if isinstance(found, list) else [str(found)] if found else []
    if stated is not None:
        return AuditFinding(
            "card: base_model",
            names == [stated],
            f"{found!r}" + ("" if names == [stated] else f" should be {stated!r}"),
        )
    bare = [name for name in names if name.startswith(_BEFORE_TRAINING)]
    if bare:
        why = f"{bare[0]!r} is what olmOCR was trained from, not what this was made from; name that with --base-model"
        return AuditFinding("card: base_model", False, why)
    return AuditFinding("card: base_model", bool(names), f"{found!r}")


def _foreign_finding(folder: Path) -> AuditFinding:
    names = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and not in_stray(path, folder)
    ]
    foreign = [name for name in names if not is_ours(name) and name not in _HARMLESS]
    return AuditFinding(
        "contents", not foreign, f"{', '.join(foreign[:5])} do not belong to a model" if foreign else "as it should be"
    )
