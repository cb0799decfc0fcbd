"""Hidden states between blocks, page by page, in files: memory does not grow with pages, and a later run resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import mlx.core as mx
import numpy as np

from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.errors import OutputError, output_error
from olmocr.files import flushed, whole_file


class HiddenStates:
    """The states (rows, width) of all pages before each block, in *dtype*, one file for a block in *folder*.

    Their names contain a *fingerprint* of what they were computed from, so that states of other pages are not used.
    """

    def __init__(self, folder: Path, fingerprint: str, dtype: mx.Dtype) -> None:
        self._folder, self._fingerprint, self._dtype = folder, fingerprint, dtype

    def path(self, number: int) -> Path:
        """Return the file of the states before block *number*."""
        return self._folder / f"{_beginning(number)}{self._fingerprint}.bin"

    def is_there(self, number: int) -> bool:
        """Say whether the states before block *number* are on the disk."""
        return self.path(number).is_file()

    @contextmanager
    def writing(self, number: int) -> Iterator[Callable[[mx.array], None]]:
        """Yield a function that takes the states before block *number*, page by page; the file appears at the end.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.path(number)
        with whole_file(path) as file:
            yield lambda hidden: _write(file, hidden.astype(self._dtype), path)
            file.flush()
            flushed(file.fileno())

    def read(self, number: int, rows: Sequence[int], page: int) -> mx.array:
        """Return the states before block *number* of one *page*; *rows* are how many each page has.

        Raises:
            OutputError: the file is missing or damaged.
        """
        path = self.path(number)
        size = self._dtype.size
        try:
            width, rest = divmod(path.stat().st_size, size * sum(rows))
            count = rows[page] * width
            values = np.fromfile(path, f"u{size}", count, offset=size * width * sum(rows[:page]))
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror}; remove its folder and start over") from error
        if rest or len(values) != count:
            raise OutputError(f"{path} is damaged; remove its folder and start over")
        return mx.array(values).view(self._dtype).reshape(rows[page], width)

    def remove(self, number: int) -> None:
        """Remove the states before block *number*, if they are there."""
        self.path(number).unlink(missing_ok=True)


def any_are_there(folder: Path, number: int) -> bool:
    """Say whether *folder* has states before block *number*, of any pages."""
    return any(folder.glob(f"{_beginning(number)}*.bin"))


def _beginning(number: int) -> str:
    return f"hidden-{number:04}-"


def fingerprint(pages: Sequence[CalibrationPage], *terms: object) -> str:
    """Return 16 hexadecimal digits that identify *pages*, in this order, and all else that matters."""
    digest = hashlib.sha256(repr(terms).encode())
    for page in pages:
        for part in (page.token_ids, page.position_ids, page.pixel_values, page.grid_thw):
            digest.update(repr((part.shape, part.dtype)).encode())
            digest.update(np.ascontiguousarray(part).data)
        digest.update(repr(page.answer_start).encode())
    return digest.hexdigest()[:16]


def _write(file: BinaryIO, hidden: mx.array, path: Path) -> None:
    bits = hidden.view(mx.uint16 if hidden.dtype.size == 2 else mx.uint32)
    try:
        file.write(np.ascontiguousarray(np.asarray(bits)).data)
    except OSError as error:
        raise output_error(error, str(path)) from error
