"""Products of numpy arrays on a CPU, and threads that share rows: with MKL, or else with the BLAS that numpy brings."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from olmocr.runtime.device import opened_blas

Floats = npt.NDArray[np.float32]

Product = Callable[[Floats, Floats], Floats]
"""Matrices (…, rows, inner) and (…, inner, columns), all with the same leading axes or none -> their products."""

# The options of cblas.h.
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112

_FEW_ROWS = 64
"""With fewer rows for each thread, products would be inefficient."""


class Blas(ABC):
    """A library's products of float32 matrices."""

    @abstractmethod
    def product(self, left: Floats, right: Floats) -> Floats:
        """Return *left* (…, rows, inner) times *right* (…, inner, columns); leading axes are the same, or none.

        Raises:
            ValueError: the matrices do not fit each other.
        """

    @abstractmethod
    def share(self, rows: int, work: Callable[[slice], None]) -> None:
        """Call *work* for all of *rows* rows, with some of them at a time, perhaps in several threads at once.

        In *work*, no other library's product may be used: threads of two would get in each other's way.
        """


class NumpyBlas(Blas):
    """The BLAS that numpy uses, with its own threads."""

    def product(self, left: Floats, right: Floats) -> Floats:  # noqa: D102
        # For few rows, OpenBLAS takes about half the time this way round.
        if left.ndim == 2 and 1 < len(left) <= _FEW_ROWS:
            return np.ascontiguousarray((right.T @ left.T).T)
        out: Floats = left @ right
        return out

    def share(self, rows: int, work: Callable[[slice], None]) -> None:  # noqa: D102
        work(slice(0, rows))


class Mkl(Blas):
    """Intel's library. With 2 to 16 rows it is several times as fast as OpenBLAS (benchmarks/README.md).

    It divides a product among its own threads, except in :meth:`share`, where each of several threads computes alone.
    Then everything between the products is divided, too, and nobody waits after each of them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        integer, number, matrix = ctypes.c_int, ctypes.c_float, (ctypes.c_void_p, ctypes.c_int)
        self._sgemm: Any = library.cblas_sgemm
        self._sgemm.argtypes = [*(integer,) * 6, number, *matrix, *matrix, number, *matrix]
        self._sgemm.restype = None
        self._threads = int(library.MKL_Get_Max_Threads())
        self._pool = ThreadPoolExecutor(
            self._threads, "olmocr-blas", initializer=partial(library.MKL_Set_Num_Threads_Local, 1)
        )

    def product(self, left: Floats, right: Floats) -> Floats:  # noqa: D102
        out = np.empty((*left.shape[:-1], right.shape[-1]), np.float32)
        if left.ndim == 2:
            self._into(out, left, right)
        else:
            for each in zip(out, left, right, strict=True):
                self._into(*each)
        return out

    def _into(self, out: Floats, left: Floats, right: Floats) -> None:
        """Write the product of two matrices into *out*. Rows or columns of *right* may be adjacent in memory."""
        (rows, inner), columns = left.shape, right.shape[1]
        if len(right) != inner or not left.dtype == right.dtype == np.float32:  # the library would not notice
            raise ValueError(f"{left.dtype} {left.shape} and {right.dtype} {right.shape} have no float32 product")
        if left.strides[1] != left.itemsize:
            left = np.ascontiguousarray(left)
        is_transposed = right.strides[0] == right.itemsize and right.strides[1] != right.itemsize
        if not is_transposed and right.strides[1] != right.itemsize:
            right = np.ascontiguousarray(right)
        self._sgemm(
            *(_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED if is_transposed else _AS_IT_IS),
            *(rows, columns, inner, 1.0),
            *(left.ctypes.data, max(inner, left.strides[0] // left.itemsize)),
            right.ctypes.data,
            max(inner if is_transposed else columns, max(right.strides) // right.itemsize),
            *(0.0, out.ctypes.data, columns),
        )

    def share(self, rows: int, work: Callable[[slice], None]) -> None:  # noqa: D102
        count = max(1, min(self._threads, rows // _FEW_ROWS))
        ends = [rows * number // count for number in range(count + 1)]
        for _ in self._pool.map(work, map(slice, ends, ends[1:])):
            pass


@cache
def find_blas() -> Blas:
    """Return the fastest BLAS for numpy arrays, given the one that was opened under MLX."""
    library = opened_blas()
    return Mkl(library) if library and hasattr(library, "MKL_Set_Num_Threads_Local") else NumpyBlas()
