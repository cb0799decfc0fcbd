"""sensitivity.json: what each matrix of one source costs at each number of bits (docs/sensitivities.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from olmocr.conversion.plan import ConversionPlan
from olmocr.conversion.recipe import BITS, Method, QuantParams
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.errors import CheckpointError, InputError, PlanError
from olmocr.files import sha256_of, whole_file
from olmocr.model_folder import shard_sha256
from olmocr.reports.conversion import ConvertedSource, SourceFile
from olmocr.reports.typed_json import WrongTypeError, parse_as, report_json

SENSITIVITY_VERSION = 1
SENSITIVITY_FILE = "sensitivity.json"
GROUP_SIZE = 64
"""Weights that share a scale in all measurements."""

_LARGEST_FILE = 16 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class MeasuredPages:
    """The pages it was measured on: *sha256* is of their own hashes; *answer_tokens* counts the predicted tokens."""

    sha256: str
    pages: int
    tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class MatrixSensitivity:
    """What a matrix costs, by MLX's *module* name: method -> bits -> nats of KL an answer token, in groups of 64.

    *shape* is (rows, columns) in the source. The bits are text, since JSON keys must be.
    """

    module: str
    shape: tuple[int, int]
    nats: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Sensitivities:
    """What was measured of *source*; its files identify it, not its name. *device* is MLX's, in words."""

    source: ConvertedSource
    pages: MeasuredPages
    group_size: int
    seed: int
    device: str
    matrices: tuple[MatrixSensitivity, ...]
    versions: Mapping[str, str]
    version: int = SENSITIVITY_VERSION

    def methods(self) -> tuple[str, ...]:
        """Return the methods that every matrix was measured with."""
        return tuple(
            name for name in get_args(Method) if self.matrices and all(name in each.nats for each in self.matrices)
        )

    def nats(self, method: Method) -> dict[str, dict[int, float]]:
        """Return what each module costs at each number of bits, rounded by *method*.

        Raises:
            PlanError: *method* was not measured.
        """
        if method not in self.methods():
            raise PlanError(
                f"the sensitivities are for {' and '.join(self.methods()) or 'no method'}, not for "
                f"`method={method!r}`; choose another method, or measure them again"
            )
        return {each.module: {int(bits): nats for bits, nats in each.nats[method].items()} for each in self.matrices}


def read_sensitivities(path: Path) -> Sensitivities:
    """Read a source's sensitivities.

    Raises:
        InputError: *path* cannot be read, or holds something else, or another version of it.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path} has more than {_LARGEST_FILE:,} bytes, so it is not a {SENSITIVITY_FILE}")
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"the sensitivities {path} cannot be read: {error.strerror or error}") from error
    try:
        return parse_sensitivities(text)
    except WrongTypeError as error:
        raise InputError(
            f"{path} does not hold sensitivities: {error}; docs/sensitivities.md describes the format"
        ) from error


def parse_sensitivities(text: bytes | str) -> Sensitivities:
    """Return the sensitivities in the JSON *text*.

    Raises:
        WrongTypeError: it is something else; the message says what is wrong.
    """
    read = parse_as(Sensitivities, text)
    if read.version != SENSITIVITY_VERSION:
        raise WrongTypeError(f"version is {read.version}, and {SENSITIVITY_VERSION} is read here")
    if read.group_size != GROUP_SIZE:
        raise WrongTypeError(f"group_size is {read.group_size}, and {GROUP_SIZE} is read here")
    hashes = [read.pages.sha256, *(file.sha256 for file in read.source.files)]
    if len(hashes) == 1 or not all(_SHA256.fullmatch(each) for each in hashes):
        raise WrongTypeError("source.files or pages.sha256 does not have a SHA-256")
    modules = [each.module for each in read.matrices]
    if not modules or len(set(modules)) < len(modules):
        raise WrongTypeError("matrices are missing, or one is listed twice")
    for each in read.matrices:
        _require_nats(each)
    return read


def _require_nats(matrix: MatrixSensitivity) -> None:
    wanted = {str(bits) for bits in BITS}
    if not matrix.nats or not set(matrix.nats) <= set(get_args(Method)):
        raise WrongTypeError(f"nats of {matrix.module} are of {', '.join(matrix.nats) or 'no method'}")
    for method, by_bits in matrix.nats.items():
        if set(by_bits) != wanted:
            raise WrongTypeError(f"nats of {matrix.module} with {method} are not of {', '.join(sorted(wanted))} bits")
        if not all(math.isfinite(nats) and nats >= 0 for nats in by_bits.values()):
            raise WrongTypeError(f"nats of {matrix.module} with {method} are not all numbers from 0 on")


def write_sensitivities(path: Path, sensitivities: Sensitivities) -> None:
    """Write them to *path*, replacing a file of that name.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path) as file:
        file.write(report_json(sensitivities).encode())


def identified(source: SourceCheckpoint) -> ConvertedSource:
    """Return the identity of *source*: the SHA-256 of each shard, from the Hub's list or computed by reading it.

    Raises:
        CheckpointError: a shard cannot be read, or is on the Hub without a SHA-256.
    """
    folder = source.folder
    names = sorted({info.shard for info in source.tensors.values()})
    files = tuple(SourceFile(name, shard_sha256(folder, name) or _sha256_of(source, name)) for name in names)
    return ConvertedSource(folder.repo_id or folder.name, folder.revision, files, folder.left_out)


def _sha256_of(source: SourceCheckpoint, shard: str) -> str:
    folder = source.folder
    if folder.remote_weights:
        raise CheckpointError(f"{folder.where} does not list a SHA-256 for {shard}; download it first")
    path = folder.path / shard
    try:
        return sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def require_source(sensitivities: Sensitivities, source: ConvertedSource) -> None:
    """Refuse *sensitivities* of weights other than *source*'s, whatever its files are called.

    Raises:
        PlanError: they are of other weights.
    """
    known, given = (sorted(file.sha256 for file in each.files) for each in (sensitivities.source, source))
    if known != given:
        measured = sensitivities.source
        of = f"{measured.name} at {measured.revision}" if measured.revision else measured.name
        raise PlanError(
            f"the sensitivities were measured on {of}, whose weights (SHA-256 {known[0][:12]}… first) are not those of "
            f"{source.name} ({given[0][:12]}…); give the file for this source, or leave it out to have one made"
        )


def predicted_nats(sensitivities: Sensitivities, plan: ConversionPlan) -> float | None:
    """Return the predicted KL divergence of *plan*, in nats an answer token: the sum over its matrices.

    Matrices that were not measured (the vision tower's) count as 0, as do those that are kept. None if the plan has
    other groups or modes than were measured, or its method was not measured.
    """
    if plan.method not in sensitivities.methods():
        return None
    nats = sensitivities.nats(plan.method)
    params = {each.name.removesuffix(".weight"): each.params for each in plan.tensors if each.params}
    asked = {module: params[module] for module in nats if module in params}
    if any(
        each != QuantParams(each.bits, GROUP_SIZE) or each.bits not in nats[module] for module, each in asked.items()
    ):
        return None
    return math.fsum(nats[module][each.bits] for module, each in asked.items())
