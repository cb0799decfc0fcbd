"""What is known about a model -> the YAML on top of its card, checked by the Hub's rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olmocr.errors import UsageError
from olmocr.model_folder import BF16_REPOSITORY
from olmocr.reports.conversion import ConversionReport

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?=[A-Za-z0-9_])){0,95}"

REPO_ID = re.compile(rf"{_PART}/(?!.*\.git$){_PART}")
"""A repository with its organisation, as the Hub allows it."""

_LONGEST_FRONT_MATTER = 100_000  # characters; a card's has a few thousand, and YAML parses about 100,000 a second
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{1,40}")


@dataclass(frozen=True)
class SourceFacts:
    """What a source's own card says, as far as it still applies. *license* and *base_model* are the Hub's names."""

    base_model: str | None
    license: str | None
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


_KNOWN = SourceFacts(BF16_REPOSITORY, "apache-2.0", ("en",), ("allenai/olmOCR-mix-1025",))


def find_facts(report: ConversionReport, base_model: str | None = None, license_id: str | None = None) -> SourceFacts:
    """Return what is known about a conversion's source; *base_model* and *license_id* come from the user.

    Raises:
        UsageError: the Hub does not allow one of them.
    """
    named = report.source.name if REPO_ID.fullmatch(report.source.name) else None
    return stated_facts(base_model or named, license_id)


def stated_facts(base: str | None, license_id: str | None) -> SourceFacts:
    """Return what is known about the source *base*, a repository, with the license that the user states.

    Raises:
        UsageError: the Hub does not allow one of them.
    """
    if base is not None and not REPO_ID.fullmatch(base):
        raise UsageError(f"--base-model {base} is not a repository's name; give one like {BF16_REPOSITORY}")
    if license_id is not None and not _LICENSE.fullmatch(license_id):
        raise UsageError(f"--license {license_id} is not a license identifier of the Hub; give one, like apache-2.0")
    if base == _KNOWN.base_model:
        return SourceFacts(base, license_id or _KNOWN.license, _KNOWN.languages, _KNOWN.datasets)
    return SourceFacts(base, license_id)


def with_earlier(facts: SourceFacts, card: str) -> SourceFacts:
    """Return *facts*; the base model or the license, if missing, come from an earlier *card* of the model."""
    data = split_card(card)[0]
    base = data.get("base_model")
    if not (isinstance(base, str) and REPO_ID.fullmatch(base)) or facts.base_model not in (None, base):
        return facts
    return stated_facts(base, facts.license or as_license(data.get("license")))


def as_license(stated: object) -> str | None:
    """Return the license in a card, or None if it is not an identifier of the Hub."""
    return stated if isinstance(stated, str) and _LICENSE.fullmatch(stated) else None


def front_matter(report: ConversionReport, facts: SourceFacts) -> str:
    """Return the YAML without its fences. The scores in the source's card (model-index) are not inherited.

    Omits ``base_model`` if the source is not a repository, and ``license`` if none is stated.
    """
    from huggingface_hub import ModelCardData

    quantized = any(tensor.bits is not None for tensor in report.tensors)
    tags = ["mlx", "mlx-vlm", "ocr", "olmocr", "pdf", "apple-silicon", *_bits_tag(report)]
    data = ModelCardData(
        language=list(facts.languages) or None,
        license=facts.license,
        library_name="mlx",
        pipeline_tag="image-text-to-text",
        base_model=facts.base_model,
        # The Hub lacks a term for a conversion that keeps the numbers; it uses "quantized" for MLX.
        base_model_relation="quantized" if facts.base_model else None,
        datasets=list(facts.datasets) or None,
        tags=[*tags, "quantized"] if quantized else tags,
    )
    return data.to_yaml()


def _bits_tag(report: ConversionReport) -> list[str]:
    """Return the tag for the bits if all quantized tensors have the same; a mixed model does not have one."""
    bits = {tensor.bits for tensor in report.tensors if tensor.bits is not None}
    return [f"{bits.pop()}-bit"] if len(bits) == 1 else []


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Return a card's front matter, and the rest; nothing and the complete text if it cannot be read."""
    import yaml
    from huggingface_hub import RepoCard

    if not text.startswith("---") or text.find("\n---", 3, _LONGEST_FRONT_MATTER) < 0:
        return {}, text
    try:
        card = RepoCard(text, ignore_metadata_errors=True)
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}, text
    data: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
    return (data, card.text) if data else ({}, text)


def corrected_front_matter(data: Mapping[str, Any], facts: SourceFacts) -> str:
    """Return a card's front matter, corrected for an MLX conversion; everything else in it stays."""
    from huggingface_hub import ModelCardData

    own = {key: value for key, value in data.items() if key not in ("model-index", "eval_results")}
    tags = own.pop("tags", None)
    found = [str(tag) for tag in tags] if isinstance(tags, list) else []
    stated = {"license": facts.license, "base_model": facts.base_model}
    corrected = {
        **own,
        **{key: value for key, value in stated.items() if value},
        "library_name": "mlx",
        "pipeline_tag": "image-text-to-text",
        "base_model_relation": "quantized" if facts.base_model or own.get("base_model") else None,
        "tags": list(dict.fromkeys([*found, "mlx", "mlx-vlm", "ocr", "olmocr"])),
    }
    return ModelCardData(**corrected).to_yaml()
