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


def bits_per_weight(nbytes: int, weights: int) -> float:
    """Return how many bits are stored for each weight: *nbytes* of tensors' data, scales and biases included.

    *weights* are those that are stored, so what a matrix was padded with counts as weights: like this it can be counted
    from anybody's folder without its source, and MLX's own converters count like this.
    """
    return nbytes * 8 / weights


@dataclass(frozen=True)
class ComponentBits:
    """What a part of the model takes: language, head, embeddings, vision or merger.

    *parameters* are those that are stored, padding included.
    """

    component: str
    parameters: int
    nbytes: int
    bits_per_weight: float
