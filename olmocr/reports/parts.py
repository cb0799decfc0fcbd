"""Parts shared by several reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A number's interval at the given *confidence*: by bootstrap, drawing pages or documents *resamples* times."""

    low: float
    high: float
    confidence: float
    resamples: int


def bits_per_weight(nbytes: int, weights: int) -> float:
    """Return how many bits are stored for each weight: *nbytes* of tensors' data, scales and biases included.

    *weights* counts stored weights, including padding. So it can be counted from any folder without its source, and
    MLX's own converters count the same way.
    """
    return nbytes * 8 / weights


@dataclass(frozen=True)
class ComponentBits:
    """What a part of the model takes: language, head, embeddings, vision or merger.

    *parameters* are the stored ones, padding included.
    """

    component: str
    parameters: int
    nbytes: int
    bits_per_weight: float
