"""Codes -> words as MLX stores them, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]


def pack_codes(codes: Codes, bits: int) -> Words:
    """Pack *codes* (rows, columns) into (rows, columns * bits / 32), each row one little-endian stream.

    *columns* is a multiple of 32.
    """
    rows, columns = codes.shape
    # Eight codes always take *bits* bytes.
    eights = codes.reshape(rows, columns // 8, 8)
    stream = np.zeros((rows, columns // 8), "<u8")
    for place in range(8):
        stream |= eights[:, :, place].astype("<u8") << np.uint64(place * bits)
    octets = stream.view(np.uint8).reshape(rows, columns // 8, 8)[:, :, :bits]
    return np.ascontiguousarray(octets).reshape(rows, -1).view("<u4")


def unpack_codes(words: Words, bits: int) -> Codes:
    """Return the codes (rows, columns) that *words* (rows, columns * bits / 32) hold."""
    rows = len(words)
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(rows, -1, bits)
    stream = np.zeros((rows, octets.shape[1], 8), np.uint8)
    stream[:, :, :bits] = octets
    eights = stream.view("<u8")
    places = np.arange(8, dtype=np.uint64) * np.uint64(bits)
    codes: Codes = ((eights >> places) & np.uint64((1 << bits) - 1)).astype(np.uint8).reshape(rows, -1)
    return codes
