"""A picture's pixels, of any depth and colours -> pixels to look at: upright, 8 bits, ink dark and paper light."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Self, cast

from PIL import Image, ImageChops, ImageFile, ImageOps

from olmocr.errors import InputError

_ORIENTATION = 0x0112  # of EXIF; from 5 on, rows and columns are swapped
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF 6.0
_WHITE_IS_ZERO, _SIGNED = 0, 2

_MOST_UNEQUAL = 4.0  # times; a fax has 204 by 98 dots an inch, and a larger ratio is a mistake
_DISPLAY_GAMMA = 1 / 2.2  # what a PNG is made for if it does not say
_GAMMAS = (0.2, 2.5)  # a file's gamma outside this range is a mistake, too
_SAME_GAMMA = 0.1  # a relative difference that nobody can see
_DIMMED = 4  # times darker than its depth allows; a deep picture whose brightest pixel is darker is brightened
_FLAT = 2  # of 255: less is one colour


@dataclass(frozen=True)
class _Depth:
    """What a file says about its numbers; Pillow reports it only before it has read them.

    *bits* is the number of bits of a channel, 0 if the file does not say. *hole* is the colour that means transparent.
    """

    bits: int
    is_signed: bool
    is_white_zero: bool
    hole: object

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        raw = _raw_mode(image)
        tags = getattr(image, "tag_v2", {})
        hole = image.info.get("transparency")
        if raw in ("L;2", "L;4") and isinstance(hole, int):
            hole *= {"L;2": 85, "L;4": 17}[raw]
        elif raw.startswith("RGB;16") and isinstance(hole, tuple):
            hole = tuple(value >> 8 for value in hole)
        return cls(
            _first(tags.get(_BITS)) or (16 if ";16" in raw else 0),
            _first(tags.get(_SAMPLE_FORMAT)) == _SIGNED,
            _first(tags.get(_PHOTOMETRIC)) == _WHITE_IS_ZERO,
            hole,
        )


def upright_picture(image: Image.Image) -> Image.Image:
    """Return a picture as its camera was held, with pixels that can be averaged: L, RGB or RGBA.

    Raises:
        InputError: its pixels are not numbers; the text is a predicate.
    """
    depth = _Depth.of(image)
    if depth.hole is not None:
        image.info["transparency"] = depth.hole
    upright = ImageOps.exif_transpose(_inks_upright(image))
    return _for_display(_in_8_bits(upright, depth), image)


def on_white(image: Image.Image) -> Image.Image:
    """Return RGB; what is transparent becomes paper: white, or black where white would hide everything that is drawn.

    If no pixel is opaque, a program that does not know transparency left its channel empty: then colours are shown.
    """
    if image.mode != "RGBA":
        return image.convert("RGB")
    colours = image.convert("RGB")
    if image.getchannel("A").getextrema() == (0, 0) and not _is_flat(colours):
        return colours
    shown = _on_paper(image, "white")
    if _is_flat(shown) and not _is_flat(image.getchannel("A")):
        return _on_paper(image, "black")
    return shown


def pixel_shape(image: Image.Image) -> tuple[float, float]:
    """Return a pixel's width and height relative to each other once the picture is upright: a fax's may be 1 by 2."""
    per_inch = image.info.get("dpi") or image.info.get("resolution") or image.info.get("aspect")
    if not per_inch and image.info.get("jfif_unit") == 0:
        per_inch = image.info.get("jfif_density")
    try:
        across, down = (float(each) for each in per_inch or (1, 1))
        height = across / down
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0, 1.0
    if not 1 / _MOST_UNEQUAL <= height <= _MOST_UNEQUAL:  # also true if it is not a number
        return 1.0, 1.0
    return (height, 1.0) if image.getexif().get(_ORIENTATION, 1) >= 5 else (1.0, height)


def _raw_mode(image: Image.Image) -> str:
    """Return how the file packs its pixels, in Pillow's words."""
    arguments = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _first(value: object) -> int | None:
    """Return the first number of a TIFF's tag; None if it has none."""
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else None


def _inks_upright(image: Image.Image) -> Image.Image:
    """Return *image*, with inks turned back that Pillow inverted as Adobe's although Adobe did not write them."""
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        return ImageChops.invert(image)
    return image


def _in_8_bits(image: Image.Image, depth: _Depth) -> Image.Image:
    """Return *image* with pixels that can be averaged, in as few bytes as possible: a large scan has many."""
    if image.mode.startswith("I") or image.mode == "F":
        return _with_hole(_grey(image, depth), image, depth.hole)
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.has_transparency_data:
        return image.convert("RGBA")
    if depth.is_signed and image.mode == "L":
        return image.point(lambda value: value ^ 0x80)  # the sign's bit: negative numbers are darkest
    shown = image.convert("L" if image.mode in ("1", "L") else "RGB")
    return _brightened(shown) if depth.bits > 8 else shown


def _grey(image: Image.Image, depth: _Depth) -> Image.Image:
    """Return a picture of one wide channel as L, from black to white as its numbers are meant."""
    if image.mode not in ("I", "F"):
        depth = replace(depth, bits=depth.bits or 16)
        image = image.convert("I")
    low, high = cast(tuple[float, float], image.getextrema())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("has pixels that are not numbers")
    if image.mode == "I" and low < 0 and not depth.is_signed:  # Pillow's I is signed, the file's numbers are not
        shown = Image.frombytes("L", image.size, image.tobytes()[(3 if sys.byteorder == "little" else 0) :: 4])
    else:
        black, white = _ends(image.mode, low, high, depth)
        scale, offset = 255 / (white - black), 0.5 - 255 * black / (white - black)
        shown = image.convert("F").point(lambda value: value * scale + offset).convert("L")
    return ImageChops.invert(shown) if depth.is_white_zero else shown


def _ends(mode: str, low: float, high: float, depth: _Depth) -> tuple[float, float]:
    """Return the values of black and white for a picture whose own values range from *low* to *high*.

    The depth defines white (or black, if white is zero). Many cameras, though, keep 12 bits in 16, and nobody can read
    ink of 255 on paper of 4095 if white is 65535. A picture that stays far below the depth, or goes beyond it, is
    therefore shown relative to its highest number.
    """
    full = 1.0 if mode == "F" else 2.0 ** ((depth.bits or 32) - depth.is_signed) - 1
    if low < 0 and mode != "F":
        return -full - 1, full
    black = min(0.0, low)
    return black, full if full / _DIMMED <= high <= full or high <= black else high


def _with_hole(shown: Image.Image, wide: Image.Image, hole: object) -> Image.Image:
    """Return *shown*, as RGBA if the *wide* picture that it comes from has pixels of the colour *hole*."""
    if not isinstance(hole, int) or not 0 <= hole < 2**16 or wide.mode == "F":
        return shown
    pixels = (wide if wide.mode == "I;16" else wide.convert("I").convert("I;16")).tobytes()
    halves = (Image.frombytes("L", wide.size, pixels[at::2]) for at in (0, 1))  # I;16 has the lower byte first
    lower, upper = (
        half.point([255 * (value == wanted) for value in range(256)])
        for half, wanted in zip(halves, (hole & 0xFF, hole >> 8), strict=True)
    )
    shown = shown.convert("RGBA")
    shown.putalpha(ImageChops.invert(ImageChops.darker(lower, upper)))
    return shown


def _brightened(image: Image.Image) -> Image.Image:
    """Return *image*, brightened if a deeper file uses only its darkest values, such as 12 bits in 16."""
    brightest = max(cast(tuple[int, int], band.getextrema())[1] for band in image.split())
    if not 0 < brightest < 256 // _DIMMED:
        return image
    return image.point(lambda value: value * 255 // brightest)


def _for_display(shown: Image.Image, file: Image.Image) -> Image.Image:
    """Return *shown* as a display shows it: a PNG may say that its numbers are light, not what a display is sent."""
    gamma = file.info.get("gamma")
    if file.format != "PNG" or not isinstance(gamma, float) or {"srgb", "icc_profile"} & file.info.keys():
        return shown
    exponent = _DISPLAY_GAMMA / gamma if gamma else 1.0
    if abs(exponent - 1) <= _SAME_GAMMA or not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        return shown
    curve = [round(255 * (value / 255) ** exponent) for value in range(256)]
    bands = shown.split()
    return Image.merge(shown.mode, [band.point(curve) if at < 3 else band for at, band in enumerate(bands)])


def _on_paper(image: Image.Image, colour: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image).convert("RGB")


def _is_flat(image: Image.Image) -> bool:
    extrema = (cast(tuple[int, int], band.getextrema()) for band in image.split())
    return all(high - low < _FLAT for low, high in extrema)
