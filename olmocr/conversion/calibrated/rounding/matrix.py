"""One matrix and the second moments of its inputs -> codes, scales and biases that change its outputs least."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from olmocr.conversion.calibrated.rounding.factor import Factor, prepare
from olmocr.conversion.calibrated.rounding.packing import Codes, pack_codes, unpack_codes
from olmocr.conversion.quantizing.rows import quantized_rows
from olmocr.conversion.recipe import QuantParams
from olmocr.errors import CheckpointError, PlanError
from olmocr.reports.conversion import Processor
from olmocr.runtime.device import start_mlx
from olmocr.tensors.floats import NUMPY_DTYPES, Floats, not_finite, widened

__all__ = ["Factor", "RoundedMatrix", "pack_codes", "prepare", "round_matrix"]

Losses = npt.NDArray[np.float64]
RoundRows = Callable[[Floats, Factor, QuantParams, str], tuple[Codes, Floats, Floats]]
LossesOf = Callable[[Floats, Floats], Losses]

_ELEMENTS = {"numba": 1 << 22, "cpu": 1 << 22, "gpu": 1 << 26}
"""How many elements of a matrix are worked on at once: each takes about 20 bytes."""

_LEAST_ROWS = 256


@dataclass(frozen=True)
class RoundedMatrix:
    """What is stored for one matrix, and its cost.

    *codes* are uint8 (rows, columns); *scales* and *biases* float32 (rows, columns / group_size), each exact in the
    stored dtype. *loss* is the sum over rows of (w - w') H (w - w')^T, with H undamped, *fit_loss* the same for
    ``fit``. *rows_of_fit* counts the rows that keep ``fit``'s rounding because it is not worse: for the held-out
    Hessians if they were given, otherwise for H.
    """

    codes: Codes
    scales: Floats
    biases: Floats
    loss: float
    fit_loss: float
    rows_of_fit: int = 0


def round_matrix(
    weight: Floats,
    factors: Sequence[Factor],
    params: QuantParams,
    dtype: str,
    processor: Processor,
    *,
    held_out: Sequence[Floats] = (),
    threads: int = 1,
) -> RoundedMatrix:
    """Round *weight*, float32 (rows, columns), for the inputs in *factors*.

    *factors* has one `Factor`, or several for consecutive slices of the columns, between which H is taken to be zero.
    *held_out* has, for the same slices, Hessians of inputs that *factors* did not see. *dtype*
    (safetensors' name: BF16, F16 or F32) is that of scales and biases. Rows are independent: with numba, *threads* of
    them are processed at once, and a part of a matrix's rows gives that part of the result.

    Raises:
        CheckpointError: a value of *weight* is infinite or NaN.
        PlanError: *dtype* cannot hold a scale or bias.
    """
    if not_finite(np.ascontiguousarray(weight)).any():
        raise CheckpointError("a matrix has infinite values or NaN; train again")
    slices = _slices(weight.shape[1], factors, params)
    chunks = list(_chunks(weight.shape, processor))

    def rounded(chunk: slice) -> _Rows:
        # Weights beyond 1e18 lead to losses beyond float32: such rows keep `fit`'s rounding.
        with np.errstate(over="ignore", invalid="ignore"):
            return _round_chunk(weight[chunk], factors, slices, params, dtype, processor, held_out)

    if processor == "numba" and threads > 1:
        with _one_blas_thread(), ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(rounded, chunks))
    else:
        parts = [rounded(chunk) for chunk in chunks]
    return RoundedMatrix(
        codes=np.concatenate([part.codes for part in parts]),
        scales=np.concatenate([part.scales for part in parts]),
        biases=np.concatenate([part.biases for part in parts]),
        loss=float(sum(part.loss.sum() for part in parts)),
        fit_loss=float(sum(part.fit_loss.sum() for part in parts)),
        rows_of_fit=sum(part.rows_of_fit for part in parts),
    )


def _one_blas_thread() -> AbstractContextManager[object]:
    """Limit each of numpy's products to one thread: our threads already use every core.

    With 16 threads of both on 16 cores, a matrix took more than ten times as long.
    """
    if importlib.util.find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


@dataclass(frozen=True)
class _Rows:
    """Some rows rounded; *loss* and *fit_loss* of each row."""

    codes: Codes
    scales: Floats
    biases: Floats
    loss: Losses
    fit_loss: Losses
    rows_of_fit: int = 0


def _slices(columns: int, factors: Sequence[Factor], params: QuantParams) -> list[slice]:
    ends = np.cumsum([len(factor.pivots) for factor in factors]).tolist()
    starts = [0, *ends[:-1]]
    if not ends or ends[-1] != columns or any(end % params.group_size for end in ends):
        widths = [len(factor.pivots) for factor in factors]
        raise ValueError(f"factors of {widths} columns do not cover {columns} in groups of {params.group_size}")
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def _chunks(shape: tuple[int, ...], processor: Processor) -> Iterator[slice]:
    rows, columns = shape
    step = max(_LEAST_ROWS, _ELEMENTS[processor] // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _round_chunk(
    weight: Floats,
    factors: Sequence[Factor],
    slices: Sequence[slice],
    params: QuantParams,
    dtype: str,
    processor: Processor,
    held_out: Sequence[Floats],
) -> _Rows:
    round_rows, losses = _implementation(processor)
    parts = [
        round_rows(weight[:, columns], factor, params, dtype) for columns, factor in zip(slices, factors, strict=True)
    ]
    codes, scales, biases = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    fit_codes, fit_scales, fit_biases = _fitted(weight, params, dtype, processor)
    errors = [
        weight - _read_back(codes, scales, biases, params),
        weight - _read_back(fit_codes, fit_scales, fit_biases, params),
    ]

    def losses_of(hessians: Sequence[Floats]) -> list[Losses]:
        return [
            sum((losses(error[:, c], h) for c, h in zip(slices, hessians, strict=True)), np.zeros(len(error)))
            for error in errors
        ]

    loss, fit_loss = losses_of([factor.hessian for factor in factors])
    judged, fit_judged = losses_of(held_out) if held_out else (loss, fit_loss)
    # Not `>=`: NaN is not smaller either.
    is_fit = ~(judged < fit_judged)
    return _Rows(
        np.where(is_fit[:, None], fit_codes, codes),
        np.where(is_fit[:, None], fit_scales, scales),
        np.where(is_fit[:, None], fit_biases, biases),
        np.where(is_fit, fit_loss, loss),
        fit_loss,
        int(is_fit.sum()),
    )


def _implementation(processor: Processor) -> tuple[RoundRows, LossesOf]:
    if processor == "numba":
        from olmocr.conversion.calibrated.rounding import compiled

        return compiled.round_rows, compiled.losses
    start_mlx()
    from olmocr.conversion.calibrated.rounding import arrays

    return arrays.on(processor)


def _fitted(weight: Floats, params: QuantParams, dtype: str, processor: Processor) -> tuple[Codes, Floats, Floats]:
    stored = quantized_rows(np.ascontiguousarray(weight), params, "fit", dtype, processor)
    if not stored.fits:
        raise PlanError(f"a matrix has a scale or bias that {dtype} cannot hold; choose `dtype='bfloat16'`")
    codes = unpack_codes(stored.parts[0].view(np.uint32).reshape(len(weight), -1), params.bits)
    scales, biases = (widened(part.view(NUMPY_DTYPES[dtype])).reshape(len(weight), -1) for part in stored.parts[1:])
    return codes, scales, biases


def _read_back(codes: Codes, scales: Floats, biases: Floats, params: QuantParams) -> Floats:
    """Return the weights that codes, scales and biases represent."""
    rows, columns = codes.shape
    values = codes.reshape(rows, -1, params.group_size).astype(np.float32)
    with np.errstate(over="ignore"):  # weights near float32's end
        values *= scales[:, :, None]
        values += biases[:, :, None]
    return values.reshape(rows, columns)
