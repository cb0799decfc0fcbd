"""What calibration makes, on disk until the shards are written: data and a journal for each block.

A block's journal is written after its data and renamed into place, so a block that has one is complete. A later run of
the same calibration takes over every complete block; everything else in the folder is worthless.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from olmocr.conversion.plan import PlannedTensor
from olmocr.conversion.recipe import QuantParams
from olmocr.errors import OutputError, output_error
from olmocr.files import flushed, sha256_of, write_whole
from olmocr.reports.typed_json import parse_as

Bytes = npt.NDArray[np.uint8]

_STATE_FILE = "calibration.json"
_STATES_FOLDER = "states"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartKey:
    """What a matrix becomes: *tensor* is its MLX name, *dtype* the safetensors name of the type of scales and biases.

    *zeros* rows or columns widen it. Recipes with the same result for a matrix share it: *before* identifies how
    everything before it is rounded, and is empty where that does not matter.
    """

    tensor: str
    bits: int
    group_size: int
    dtype: str
    zeros: int = 0
    before: str = ""

    @property
    def params(self) -> QuantParams:
        """How it is quantized."""
        return QuantParams(self.bits, self.group_size)


def key_of(tensor: PlannedTensor, before: str = "") -> PartKey | None:
    """Return what *tensor* becomes; None where it is kept, or its format does not have scales to choose."""
    params = tensor.params
    if params is None or params.mode != "affine":
        return None
    zeros = tensor.padding.zeros if tensor.padding else 0
    return PartKey(tensor.name, params.bits, params.group_size, tensor.dtype, zeros, before)


@dataclass(frozen=True)
class MatrixLoss:
    """The distance between a matrix's output and the source's on the calibration pages.

    The sum over tokens of their weight times the squared difference: *fit* with ``fit``'s codes, *stored* with those
    that are stored. *rows_of_fit* of its *rows* keep ``fit``'s rounding because it is not worse there; if columns are
    cut into slices, the rows of each slice count.
    """

    fit: float
    stored: float
    rows_of_fit: int
    rows: int


@dataclass(frozen=True, eq=False)
class CalibratedPart:
    """What is stored for one matrix, padded rows included.

    *arrays* are packed codes, scales and biases as bytes, each uint8 (rows, bytes of a row).
    """

    key: PartKey
    arrays: tuple[Bytes, Bytes, Bytes]
    loss: MatrixLoss


@dataclass(frozen=True)
class _PlacedPart:
    """Where a part is in its block's file: the bytes of a row of each array, which follow one another."""

    key: PartKey
    rows: int
    row_bytes: tuple[int, int, int]
    loss: MatrixLoss

    @property
    def nbytes(self) -> int:
        return self.rows * sum(self.row_bytes)


@dataclass(frozen=True)
class _Journal:
    sha256: str
    parts: tuple[_PlacedPart, ...]


@dataclass(frozen=True)
class _Identity:
    fingerprint: str


class CalibrationFolder:
    """The folder *path*, with what calibration has made so far; *fingerprint* identifies the calibration."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self._blocks: dict[str, _Journal] = {}

    @property
    def states(self) -> Path:
        """The folder for the hidden states between two blocks."""
        return self.path / _STATES_FOLDER

    def resume(self) -> None:
        """Take over what an earlier run of the same calibration completed, and remove everything else.

        Raises:
            OutputError: the folder cannot be written.
        """
        try:
            if self.path.is_symlink():  # what it leads to is not ours to clear
                raise OutputError(f"{self.path} is a link; remove it, or choose another `output`")
            if not self._is_same():
                shutil.rmtree(self.path, ignore_errors=True)
            self.states.mkdir(parents=True, exist_ok=True)
            write_whole(self.path / _STATE_FILE, json.dumps({"fingerprint": self._fingerprint}))
            for journal in sorted(self.path.glob("*.parts.json")):
                self._take_over(journal)
        except OSError as error:
            raise output_error(error, str(self.path)) from error
        if self._blocks:
            _log.info("calibration resumes in %s: %d blocks are complete", self.path, len(self._blocks))

    def _is_same(self) -> bool:
        try:
            state = parse_as(_Identity, (self.path / _STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return state.fingerprint == self._fingerprint

    def _take_over(self, path: Path) -> None:
        block = path.name.removesuffix(".parts.json")
        try:
            journal = parse_as(_Journal, path.read_text(encoding="utf-8"))
            is_intact = sha256_of(self._data(block)) == journal.sha256
        except (OSError, ValueError):
            is_intact = False
        if is_intact:
            self._blocks[block] = journal
        else:
            path.unlink(missing_ok=True)

    def _data(self, block: str) -> Path:
        return self.path / f"{block}.parts"

    def missing(self, block: str, keys: Iterable[PartKey]) -> list[PartKey]:
        """Return the *keys* that *block* (a name of letters, digits and dashes) does not have yet."""
        there = {entry.key for entry in self._blocks[block].parts} if block in self._blocks else set()
        return [key for key in keys if key not in there]

    def add(self, block: str, parts: Sequence[CalibratedPart]) -> None:
        """Write *parts* of *block* beside those it has.

        Raises:
            OutputError: they cannot be written.
        """
        earlier = [part for key in self._keys(block) if (part := self.part(key)) is not None]
        digest = hashlib.sha256()
        beside = self.path / f"{block}.new"
        everything = [*earlier, *parts]
        try:
            with beside.open("wb") as file:
                for part in everything:
                    for array in part.arrays:
                        content = np.ascontiguousarray(array).data
                        digest.update(content)
                        file.write(content)
                file.flush()
                flushed(file.fileno())
            journal = _Journal(digest.hexdigest(), tuple(_entry(part) for part in everything))
            # A kill between the two renames leaves data that the old journal's hash does not fit, so it is made again.
            beside.replace(self._data(block))
            write_whole(self.path / f"{block}.parts.json", json.dumps(dataclasses.asdict(journal)))
        except OSError as error:
            raise output_error(error, str(self.path)) from error
        self._blocks[block] = journal

    def _keys(self, block: str) -> list[PartKey]:
        return [entry.key for entry in self._blocks[block].parts] if block in self._blocks else []

    def part(self, key: PartKey) -> CalibratedPart | None:
        """Return what was made for *key*, mapped from the disk; None if calibration does not make it."""
        for block, journal in self._blocks.items():
            offset = 0
            for entry in journal.parts:
                if entry.key == key:
                    return _mapped(self._data(block), offset, entry)
                offset += entry.nbytes
        return None

    def parts(self) -> CalibratedParts:
        """Return everything that was made."""
        keys = [entry.key for journal in self._blocks.values() for entry in journal.parts]
        return CalibratedParts({key: part for key in keys if (part := self.part(key)) is not None})

    def remove(self) -> None:
        """Remove the folder: its content is in the shards."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class CalibratedParts:
    """Results, by what was requested. *before* identifies a recipe's rounding, as in `PartKey`."""

    by_key: Mapping[PartKey, CalibratedPart]
    before: str = ""

    def for_rounding(self, before: str) -> CalibratedParts:
        """Return the results for a recipe whose rounding *before* identifies."""
        return dataclasses.replace(self, before=before)

    def find(self, tensor: PlannedTensor) -> CalibratedPart | None:
        """Return the result for *tensor*, or None if it is not calibrated."""
        for before in (self.before, ""):
            key = key_of(tensor, before)
            if key and key in self.by_key:
                return self.by_key[key]
        return None


NO_PARTS = CalibratedParts({})
"""For a conversion that is not calibrated."""


def _entry(part: CalibratedPart) -> _PlacedPart:
    codes, scales, biases = part.arrays
    return _PlacedPart(part.key, len(codes), (codes.shape[1], scales.shape[1], biases.shape[1]), part.loss)


def _mapped(path: Path, offset: int, entry: _PlacedPart) -> CalibratedPart:
    arrays = []
    for row_bytes in entry.row_bytes:
        arrays.append(np.memmap(path, np.uint8, "r", offset, (entry.rows, row_bytes)))
        offset += entry.rows * row_bytes
    codes, scales, biases = arrays
    return CalibratedPart(entry.key, (codes, scales, biases), entry.loss)
