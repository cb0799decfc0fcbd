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
    """Return how many bits are stored per weight; *nbytes* is the size of all tensors, with scales and biases.

    *weights* counts stored weights, including padding. So any folder's number is known without its source, and is
    comparable with that of MLX's own converters.
    """
    return nbytes * 8 / weights


@dataclass(frozen=True)
class ComponentBits:
    """The size of a part of the model: language, head, embeddings, vision or merger.

    *parameters* counts the stored ones, including padding.
    """

    component: str
    parameters: int
    nbytes: int
    bits_per_weight: float
