"""TIFF and PNG files of any depth, written byte by byte: what a scanner, a camera or another program may leave."""

from __future__ import annotations

import struct
import zlib

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 120, 160
INK_SHARE = 0.25


def grey_page():
    """Return the pixels, 0 or 255, of a white page with a dark box over a quarter of it."""
    page = Image.new("L", (WIDTH, HEIGHT), 255)
    ImageDraw.Draw(page).rectangle((20, 20, 99, 79), fill=0)
    return list(page.tobytes())


PIXELS = grey_page()


def packed(values, bits, order=">"):
    """Return *values* as they lie in a file, each of so many bits."""
    if bits in (8, 16, 32):
        return struct.pack(f"{order}{len(values)}{ {8: 'B', 16: 'H', 32: 'I'}[bits] }", *values)
    text = "".join(f"{value:0{bits}b}" for value in values)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def rows(values_of, bits, order=">"):
    """Return the rows of a page whose pixel of 0 or 255 is written as *values_of* it."""
    lines = [PIXELS[at : at + WIDTH] for at in range(0, len(PIXELS), WIDTH)]
    return [packed([each for pixel in line for each in values_of(pixel)], bits, order) for line in lines]


def png(bits, colour_type, values_of, *chunks):
    """Return a PNG; *chunks* are (kind, data) that stand before its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour_type, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in rows(values_of, bits))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(strips, bits, photometric=1, *, order="<", samples=1, kind=1, compression=1, planar=1, extra=(), more=()):
    """Return a TIFF of these *strips*; *kind* is its SampleFormat, *more* are (tag, type, values)."""
    tags = {
        256: ("I", [WIDTH]),
        257: ("I", [HEIGHT]),
        258: ("H", [bits] * samples),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        277: ("H", [samples]),
        278: ("I", [HEIGHT]),
        284: ("H", [planar]),
        339: ("H", [kind] * samples),
    }
    tags |= {338: ("H", list(extra))} if extra else {}
    tags |= {tag: (form, values) for tag, form, values in more}
    file = bytearray({"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 0))
    offsets = []
    for strip in strips:
        offsets.append(len(file))
        file += strip + bytes(len(strip) % 2)
    tags |= {273: ("I", offsets), 279: ("I", [len(strip) for strip in strips])}
    entries = b""
    for tag, (form, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{form}", *values)
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[form], len(values))
        if len(data) > 4:
            entries += struct.pack(f"{order}I", len(file))
            file += data + bytes(len(data) % 2)
        else:
            entries += data.ljust(4, b"\0")
    struct.pack_into(f"{order}I", file, 4, len(file))
    return bytes(file + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
