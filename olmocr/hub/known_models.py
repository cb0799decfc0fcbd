"""Known repositories with olmOCR models for MLX, as data."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A repository on the Hub. *peak_bytes* is the memory for reading the largest page, weights included.

    *warning* says what is wrong with it, if known.
    """

    repository: str
    source: str
    bits: int
    weight_bytes: int
    peak_bytes: int
    warning: str | None = None


def known_models() -> tuple[KnownModel, ...]:
    """Return all known models, the best first."""
    text = Path(__file__).with_name("known_models.toml").read_text(encoding="utf-8")
    return tuple(KnownModel(**each) for each in tomllib.loads(text)["models"])


def best_for(memory: int, models: Sequence[KnownModel]) -> KnownModel | None:
    """Return the first of *models* that reads a page within *memory* bytes; None if none does."""
    return next((each for each in models if each.warning is None and each.peak_bytes <= memory), None)


def warning_of(repository: str, models: Sequence[KnownModel]) -> str | None:
    """Return what is known to be wrong with a repository."""
    return next((each.warning for each in models if each.repository.lower() == repository.lower()), None)


def converted_from(source: str, models: Sequence[KnownModel]) -> KnownModel | None:
    """Return the smallest of *models* made from the repository *source*, or None."""
    made = [each for each in models if each.warning is None and each.source.lower() == source.lower()]
    return min(made, key=lambda each: each.weight_bytes, default=None)
