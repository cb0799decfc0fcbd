"""What a conversion did, as data: conversion_report.json (docs/conversion-report.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from olmocr.reports.parts import ComponentBits

REPORT_FILE = "conversion_report.json"
REPORT_VERSION = 2

Processor = Literal["numba", "gpu", "cpu"]
"""The code that quantized: compiled by numba, MLX on a GPU, or MLX on the CPU."""


@dataclass(frozen=True)
class SourceFile:
    """A shard of the source; *sha256* equals the LFS hash that the Hub lists."""

    name: str
    sha256: str


@dataclass(frozen=True)
class ConvertedSource:
    """What was converted: *name* is the repository, or the folder's name without its path.

    *left_out* are the names, or patterns, of ignored files.
    """

    name: str
    revision: str | None
    files: tuple[SourceFile, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleReport:
    """A rule of the recipe: *match* are patterns on MLX's module names; the first that matches decided."""

    match: tuple[str, ...]
    bits: int | None
    group_size: int | None
    mode: str | None
    keep: str | None
    head: str | None


@dataclass(frozen=True)
class RecipeReport:
    """The recipe, with *changes* made from the command line; enough to write its file again."""

    name: str
    summary: str
    file: str | None
    dtype: str | None
    vision_mlp_multiple: int | None
    changes: tuple[str, ...]
    rules: tuple[RuleReport, ...]


@dataclass(frozen=True)
class OutputFile:
    """A written file of weights."""

    name: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class TensorReport:
    """The result for one tensor. *shape* is its shape in MLX before packing, including zero padding.

    *relative_error* is ||source - stored|| / ||source|| in the Frobenius norm. *bits*, *group_size* and *mode* are None
    for a tensor that was kept; *kept_because* says why.
    """

    name: str
    shape: tuple[int, ...]
    bits: int | None
    group_size: int | None
    mode: str | None
    kept_because: str | None
    nbytes: int
    relative_error: float


@dataclass(frozen=True)
class CalibrationPageReport:
    """A page used for calibration; *answer_tokens* of its *tokens* are the answer, whose origin is *whose_text*.

    *sha256* is of the model's input: token ids and pixels.
    """

    name: str
    sha256: str
    kind: str
    whose_text: str
    tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class MatrixLossReport:
    """The distance between a matrix's output and the source's on the calibration pages.

    The sum over tokens of weight times squared difference, with ``fit``'s codes and with the stored ones. *rows_of_fit*
    of its *rows* keep ``fit``'s rounding because it was not worse on held-out pages.
    """

    tensor: str
    fit: float
    stored: float
    rows_of_fit: int
    rows: int


@dataclass(frozen=True)
class CalibrationReport:
    """The inputs and result of calibrated rounding: its pages, the *device* that computed, and the distances.

    *drawn* means that the pages are those that this package draws. *predicted_nats* is the mean divergence from the
    source, in nats a token, predicted by sensitivities, if there were any. *counted_by* is ``kind`` if tokens of the
    language model counted by their kind, ``gradient`` if by how much an error there changes the model's output.
    *propagated* means that each of its blocks was rounded to make up for the rounding before it. *seconds* are those
    of the last run.
    """

    drawn: bool
    pages: tuple[CalibrationPageReport, ...]
    tokens: int
    answer_tokens: int
    device: str
    matrices: tuple[MatrixLossReport, ...]
    seconds: float
    predicted_nats: float | None = None
    counted_by: Literal["kind", "gradient"] = "kind"
    propagated: bool = False


@dataclass(frozen=True)
class DivergenceReport:
    """The distance of a model with allocated bits from its source, in nats of KL an answer token.

    *predicted_nats* comes from sensitivities. *measured_nats* was measured on *pages* pages with *answer_tokens* that
    were not used for calibration. Only the language model is compared.
    """

    predicted_nats: float
    measured_nats: float
    pages: int
    answer_tokens: int


@dataclass(frozen=True)
class ConversionReport:
    """What was converted, how, and the result; *seconds* and *peak_memory* (bytes) are those of the last run.

    *calibration* is None unless the method is ``calibrated``, *divergence* unless bits were allocated by sensitivities.
    """

    source: ConvertedSource
    recipe: RecipeReport
    method: str
    command: str
    parameters: int
    weight_bytes: int
    bits_per_weight: float
    components: tuple[ComponentBits, ...]
    kept: Mapping[str, int]
    tensors: tuple[TensorReport, ...]
    files: tuple[OutputFile, ...]
    processor: Processor
    threads: int
    resumed_shards: int
    seconds: float
    peak_memory: int
    versions: Mapping[str, str]
    calibration: CalibrationReport | None = None
    divergence: DivergenceReport | None = None
    version: int = REPORT_VERSION
