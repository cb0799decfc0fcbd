"""Products of numpy arrays on a CPU, and threads that share rows: with MKL, or else with the BLAS that numpy brings."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from olmocr.runtime.device import opened_blas

Floats = npt.NDArray[np.float32]

P = ParamSpec("P")
R = TypeVar("R")

Product = Callable[[Floats, Floats], Floats]
"""Matrices (…, rows, inner) and (…, inner, columns), all with the same leading axes or none -> their products."""

# The options of cblas.h.
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112

_FEW_ROWS = 64
"""With fewer rows for each thread, products would be inefficient."""


def let_be_nan(function: Callable[P, R]) -> Callable[P, R]:
    """Return *function* without numpy's warnings of a damaged model's numbers; whoever chooses tokens notices a NaN."""

    # np.errstate can decorate, too, but in numpy 1.26 such an object must not be nested or used by several threads.
    @wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> R:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return function(*arguments, **named)

    return called


class Blas(ABC):
    """A library's products of float32 matrices."""

    @abstractmethod
    def product(self, left: Floats, right: Floats) -> Floats:
        """Return *left* (…, rows, inner) times *right* (…, inner, columns); leading axes are the same, or none.

        Raises:
            ValueError: the matrices do not fit each other.
        """

    @abstractmethod
    def share(self, items: int, work: Callable[[slice], None], rows: int = 1) -> None:
        """Call *work* for all of *items*, with some of them at a time, perhaps in several threads at once.

        Each item stands for this number of *rows*: with too few of them, a thread would not be worth while.
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

    def share(self, items: int, work: Callable[[slice], None], rows: int = 1) -> None:  # noqa: D102
        let_be_nan(work)(slice(0, items))


class Mkl(Blas):
    """Intel's library. With 2 to 16 rows it is several times as fast as OpenBLAS (benchmarks/README.md).

    It divides a product among its own threads, except in :meth:`share`, where each of several threads computes alone.
    Then everything between the products is divided, too, and nobody waits after each of them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        integer, number, address = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
        sizes, matrix, several = (integer,) * 6, (address, integer), (address, integer, integer)
        self._one: Any = library.cblas_sgemm
        self._one.argtypes = [*sizes, number, *matrix, *matrix, number, *matrix]
        self._several: Any = library.cblas_sgemm_batch_strided
        self._several.argtypes = [*sizes, number, *several, *several, number, *several, integer]
        self._one.restype = self._several.restype = None
        self._threads = int(library.MKL_Get_Max_Threads())
        self._pool = ThreadPoolExecutor(
            self._threads, "olmocr-blas", initializer=partial(library.MKL_Set_Num_Threads_Local, 1)
        )

    def product(self, left: Floats, right: Floats) -> Floats:  # noqa: D102
        out = np.empty((*left.shape[:-1], right.shape[-1]), np.float32)
        if (
            left.shape[:-2] != right.shape[:-2]
            or left.shape[-1] != right.shape[-2]
            or not (left.dtype == right.dtype == np.float32)
        ):  # the library would not notice
            raise ValueError(f"{left.dtype} {left.shape} and {right.dtype} {right.shape} have no float32 product")
        self._into(out, left, right)
        return out

    def _into(self, out: Floats, left: Floats, right: Floats) -> None:
        """Write the products into *out*. Either rows or columns of *right* may be adjacent in memory."""
        if out.ndim > 3:
            for each in zip(out, left, right, strict=True):
                self._into(*each)
            return
        (rows, inner), columns = left.shape[-2:], right.shape[-1]
        left = left if left.strides[-1] == left.itemsize else np.ascontiguousarray(left)
        is_transposed = right.strides[-2] == right.itemsize != right.strides[-1]
        right = right if is_transposed or right.strides[-1] == right.itemsize else np.ascontiguousarray(right)
        sizes = _ROW_MAJOR, _AS_IT_IS, _TRANSPOSED if is_transposed else _AS_IT_IS, rows, columns, inner
        # How far it is from a line of a matrix to the next, if it has several.
        ahead = max(inner, left.strides[-2] // left.itemsize)
        across = max(right.strides[-2:]) // right.itemsize
        across = max(inner if is_transposed else columns, across)
        given, by, into = left.ctypes.data, right.ctypes.data, out.ctypes.data
        if out.ndim == 2:
            self._one(*sizes, 1.0, given, ahead, by, across, 0.0, into, columns)
            return
        first, second, third = (each.strides[0] // each.itemsize for each in (left, right, out))
        self._several(*sizes, 1.0, given, ahead, first, by, across, second, 0.0, into, columns, third, len(out))

    def share(self, items: int, work: Callable[[slice], None], rows: int = 1) -> None:  # noqa: D102
        count = min(self._threads, items, items * rows // _FEW_ROWS)
        if count <= 1:
            let_be_nan(work)(slice(0, items))
            return
        ends = [items * number // count for number in range(count + 1)]
        for _ in self._pool.map(let_be_nan(work), map(slice, ends, ends[1:])):
            pass


@cache
def find_blas() -> Blas:
    """Return the fastest BLAS for numpy arrays, given the one that was opened under MLX."""
    library = opened_blas()
    return Mkl(library) if library and hasattr(library, "MKL_Set_Num_Threads_Local") else NumpyBlas()
