"""The number formats of safetensors files, by their names there."""

from __future__ import annotations

# Bytes of one element. Formats of less than a byte are left out: we do not read them.
DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}

FLOAT_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The formats of unquantized model weights, with their names in config.json, MLX and numpy."""

FP8_DTYPE = "F8_E4M3"
"""Weights that are multiplied by a scale."""
