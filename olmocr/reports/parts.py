"""What more than one report tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """Where a number lies with the given *confidence*: by bootstrap, pages or documents drawn *resamples* times."""

    low: float
    high: float
    confidence: float
    resamples: int


@dataclass(frozen=True)
class ComponentBits:
    """What a part of the model takes: language, head, embeddings, vision or merger.

    *parameters* are counted in the source; *bits_per_weight* is with scales, biases and padding.
    """

    component: str
    parameters: int
    nbytes: int
    bits_per_weight: float
