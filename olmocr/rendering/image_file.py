"""A picture's file -> PageImage, page by page. Here Pillow opens files; only this module imports pillow-heif."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from olmocr.errors import InputError, reason_of
from olmocr.inputs.kinds import Kind
from olmocr.page import PageImage
from olmocr.rendering.levels import on_white, pixel_shape, upright_picture
from olmocr.runtime.extras import install_command

MOST_PAGES = 100_000
"""A document with more is refused: the number is probably made up."""

MOST_PIXELS = 2 * 89_478_485
"""A picture with more is refused. This is also Pillow's limit: 13,000 by 13,000 fit."""

_PILLOW_FORMATS = {Kind.WEBP: "WEBP", Kind.HEIC: "HEIF", Kind.JPEG2000: "JPEG2000"}

_SUBFILE_TYPE, _REDUCED, _MASK = 254, 1, 4  # TIFF's NewSubfileType: a smaller copy of another frame; its mask
_OLD_SUBFILE_TYPE, _OLD_REDUCED = 255, 2

_BITS, _COMPRESSION, _PLANAR, _SAMPLE_FORMAT = 258, 259, 284, 339
_SEPARATE, _SIGNED = 2, 2

_NOT_SUPPORTED = "not supported"

# What Pillow says of a complete file that is packed in a way that it does not know.
_UNKNOWN = (
    "unsupported",
    "unknown pixel mode",
    "unknown raw mode",
    "unknown compression method",
    _NOT_SUPPORTED,
    "cannot handle",
    "not available",
    "too large",
)

_SAVE_AS_PNG = "save it as an 8-bit PNG and give that"


def open_image(path: Path, name: str, kind: Kind) -> ImageFile:
    """Open the picture at *path*; errors call it *name*.

    Raises:
        InputError: it is damaged, or packed in a way that cannot be read here.
    """
    if kind == Kind.HEIC:
        _learn_heic(name)
    elif not _is_known(_PILLOW_FORMATS.get(kind, kind)):
        raise InputError(f"{name} is a picture in {kind}, which this version of Pillow cannot read; {_SAVE_AS_PNG}")
    if kind != Kind.TIFF:
        return ImageFile(path, name, kind, (0,))  # an animation is one page: its first picture
    with _picture(path, name, kind) as image:
        return ImageFile(path, name, kind, tuple(_frames(image)) or (0,))


class ImageFile:
    """A picture; each of *frames* is a page. It is opened again for each page, since it is large."""

    def __init__(self, path: Path, name: str, kind: Kind, frames: tuple[int, ...]) -> None:
        self._path = path
        self._name = name
        self._kind = kind
        self._frames = frames
        self.page_count = len(frames)
        self.lacks_form = False

    @property
    def has_form(self) -> bool:
        """Whether it has text fields: a picture does not."""
        return False

    def render(self, page_number: int, longest_side: int) -> PageImage:
        """Return the page as RGB pixels, its longer side *longest_side*, whatever the shape of the file's own pixels.

        Raises:
            InputError: this page is damaged, or packed in a way that cannot be read here.
        """
        which = f"page {page_number} of {self._name}" if self.page_count > 1 else self._name
        with _picture(self._path, which, self._kind) as image:
            image.seek(self._frames[page_number - 1])
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if why := _why_misread(image):
                raise ValueError(f"{why}: {_NOT_SUPPORTED}")
            upright = upright_picture(image)
            sides = [pixels * each for pixels, each in zip(upright.size, pixel_shape(image), strict=True)]
            width, height = (max(1, round(side * longest_side / max(sides))) for side in sides)
            return PageImage(on_white(upright.resize((width, height), Image.Resampling.LANCZOS)))

    def text(self, page_number: int) -> str | None:
        """Return None: a picture has no text of its own."""
        return None

    def edges(self, page_number: int) -> tuple[list[str], list[str]]:
        """Return no lines: a picture has no text of its own."""
        return [], []


def _learn_heic(name: str) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{name} is an HEIC picture, which needs an extra: {install_command('heic')}") from error
    pillow_heif.register_heif_opener(thumbnails=False)


def _is_known(pillows: str) -> bool:
    if pillows not in Image.OPEN:
        Image.init()
    return pillows in Image.OPEN


def _frames(image: Image.Image) -> Iterator[int]:
    """Yield the frames of a TIFF that are pages: all except smaller copies of others, and masks.

    A frame that cannot be read is a page that will fail. One that hides the next frame's position is the last.
    """
    for number in range(MOST_PAGES + 1):
        try:
            image.seek(number)
        except EOFError:
            return
        except Exception as error:  # each of Pillow's decoders fails in its own way
            yield number
            if _is_unknown(reason_of(error)):
                continue
            return
        if not _is_copy(image):
            yield number


def _is_copy(image: Image.Image) -> bool:
    tags = image.tag_v2  # type: ignore[attr-defined]
    new, old = (tags.get(tag, 0) for tag in (_SUBFILE_TYPE, _OLD_SUBFILE_TYPE))
    return bool(isinstance(new, int) and new & (_REDUCED | _MASK)) or old == _OLD_REDUCED


def _why_misread(image: Image.Image) -> str | None:
    """Return which bytes of a TIFF Pillow would silently misread; it still has the fault."""
    tags = getattr(image, "tag_v2", None)
    if tags is None or max(tags.get(_BITS, (8,))) <= 8:
        return None
    is_packed = tags.get(_COMPRESSION, 1) != 1
    if not is_packed and tags.get(_PLANAR) == _SEPARATE:
        return "a plane for each colour"
    if is_packed and tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED and tags.prefix == b"MM":
        return "signed numbers, the highest byte first"
    return None


@contextlib.contextmanager
def _picture(path: Path, name: str, kind: Kind) -> Iterator[Image.Image]:
    """Open a picture, and turn what Pillow raises into a sentence: each of its decoders fails in its own way."""
    pillows = _PILLOW_FORMATS.get(kind, kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large scans; our own limit decides
            with Image.open(path, formats=(pillows,)) as image:
                yield image
    except InputError as error:
        raise InputError(f"{name} {error}; {_SAVE_AS_PNG}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} has more than {MOST_PIXELS} pixels; save a smaller copy and give that") from error
    except UnidentifiedImageError as error:  # its text only names the file
        raise InputError(_why_unread(name, kind, path, _why_unidentified(path, pillows))) from error
    except Exception as error:
        raise InputError(_why_unread(name, kind, path, reason_of(error))) from error


def _why_unidentified(path: Path, pillows: str) -> str:
    """Return why Pillow's reader for this kind does not accept a file."""
    try:
        with path.open("rb") as file:
            Image.OPEN[pillows][0](file, str(path))
    except Exception as error:
        return reason_of(error)
    return ""


def _is_unknown(reason: str) -> bool:
    return any(each in reason.lower() for each in _UNKNOWN)


def _why_unread(name: str, kind: Kind, path: Path, reason: str) -> str:
    """Return the sentence for a picture that Pillow does not read for *reason*; only an incomplete one is damaged."""
    packing = _tiff_packing(path) if kind == Kind.TIFF else None
    if packing is not None and packing.method and ("decoder error" in reason or packing.is_foreign):
        return f"{name} is a TIFF packed with {packing.method}, which cannot be unpacked here; {_SAVE_AS_PNG}"
    if _is_unknown(reason):
        detail = packing.pixels if packing is not None else reason
        return f"{name} is a {kind} of a kind that cannot be read here ({detail}); {_SAVE_AS_PNG}"
    if kind == Kind.JPEG2000:  # Pillow reads only its usual kinds, and does not say so about the others
        return f"{name} is in {kind}, and damaged or of a kind that cannot be read here ({reason}); {_SAVE_AS_PNG}"
    return f"{name} is a damaged picture" + (f": {reason}" if reason else "")


@dataclass(frozen=True)
class _TiffPacking:
    """How a TIFF's first frame is packed. Not every libtiff knows *method*; *pixels* describes the rest."""

    method: str | None
    is_foreign: bool
    pixels: str


_RARE_METHODS = {
    34661: "JBIG",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG (DNG)",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
}
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "undefined", 5: "complex signed", 6: "complex"}
_PHOTOMETRIC = {
    0: "white is zero",
    1: "black is zero",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "inks",
    6: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}


def _tiff_packing(path: Path) -> _TiffPacking | None:
    """Return how a TIFF says that it is packed; None if not even that can be read."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = file.read(8)
            if header[2:3] == b"\x2b" or header[3:4] == b"\x2b":
                header += file.read(8)
            tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(tags.next)
            tags.load(file)
            method = tags.get(259, 1)
            bits, formats = tags.get(258, (1,)), tags.get(339, (1,))
            sizes = ", ".join(sorted({str(each) for each in bits}))
            kind = _FORMATS.get(formats[0], str(formats[0]))
            colours = _PHOTOMETRIC.get(tags.get(262, -1), f"photometric {tags.get(262)}")
            pixels = f"{len(bits)} {kind} samples a pixel, {sizes} bits each, {colours}"
    except Exception:
        return None
    return _TiffPacking(_RARE_METHODS.get(method), method not in TiffImagePlugin.COMPRESSION_INFO, pixels)
