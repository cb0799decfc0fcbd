"""Bytes of some rows of a source tensor, and the plan for it -> what is stored for these rows."""

from __future__ import annotations

import numpy as np

from olmocr.conversion.calibrated.store import CalibratedPart
from olmocr.conversion.plan import PlannedTensor
from olmocr.conversion.quantizing.rows import StoredRows, calibrated_rows, kept_rows, quantized_rows
from olmocr.conversion.recipe import Method
from olmocr.conversion.source.names import PATCH_EMBED_AXES, component_of
from olmocr.errors import CheckpointError, PlanError
from olmocr.reports.conversion import Processor
from olmocr.tensors.floats import NUMPY_DTYPES, Elements, Floats


def typed(raw: Elements, dtype: str) -> Elements:
    """Return bytes as elements of *dtype*."""
    kind = NUMPY_DTYPES[dtype]
    if raw.ctypes.data % kind.itemsize:  # a header whose length is not a multiple of it
        raw = raw.copy()
    return raw.view(kind)


def stored_rows(
    rows: Elements,
    first_row: int,
    tensor: PlannedTensor,
    method: Method,
    processor: Processor,
    row_scale: Floats | None = None,
    part: CalibratedPart | None = None,
) -> StoredRows:
    """Return what is stored of *rows*, from *first_row* on, of *tensor*'s source; *row_scale* has one for each, or one.

    With *part*, that is their calibrated form; everything not calibrated is made with ``fit``.

    Raises:
        CheckpointError: a value is not a number.
        PlanError: a value is too large for the dtype that it is stored in.
    """
    is_last = first_row + len(rows) == tensor.source.shape[0]
    rows, row_scale = _padded(rows, row_scale, tensor, is_last=is_last)
    if part is not None and tensor.params:
        arrays = tuple(array[first_row : first_row + len(rows)] for array in part.arrays)
        stored = calibrated_rows(rows, arrays, tensor.params, tensor.dtype, row_scale)
    elif tensor.params:
        is_table = component_of(tensor.name) in {"head", "embeddings"}
        stored = quantized_rows(rows, tensor.params, method, tensor.dtype, processor, row_scale, is_table=is_table)
    else:
        stored = kept_rows(rows.transpose(PATCH_EMBED_AXES) if tensor.is_transposed else rows, tensor.dtype, row_scale)
    _require_numbers(stored, tensor)
    return stored


def _padded(
    rows: Elements, row_scale: Floats | None, tensor: PlannedTensor, *, is_last: bool
) -> tuple[Elements, Floats | None]:
    """Append the zeros that widen the vision MLP: to every row, or as rows after the last one."""
    padding = tensor.padding
    if padding is None or (padding.axis == 0 and not is_last):
        return rows, row_scale
    widths = [(0, padding.zeros if axis == padding.axis else 0) for axis in range(rows.ndim)]
    if row_scale is not None and padding.axis == 0 and len(row_scale) > 1:
        row_scale = np.pad(row_scale, [(0, padding.zeros), (0, 0)], constant_values=1)
    return np.pad(rows, widths), row_scale


def _require_numbers(stored: StoredRows, tensor: PlannedTensor) -> None:
    source = tensor.source
    if not stored.is_finite:
        raise CheckpointError(f"{source.name} in {source.shard} has infinite values or NaN; train again")
    if not stored.fits:
        way_out = (
            f"keep it with `keep={tensor.name.removesuffix('.weight')!r}`"
            if tensor.dtype == "BF16"
            else "choose `dtype='bfloat16'`"
        )
        raise PlanError(f"{source.name} has values, or a scale, that {tensor.dtype} cannot hold; {way_out}")
