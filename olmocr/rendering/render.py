"""PDF or image -> PageImage. The one door to pypdfium2, and where Pillow opens files."""

from __future__ import annotations

import contextlib
import math
import mmap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pypdfium2
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from olmocr.errors import InputError
from olmocr.inputs.kinds import FIRST_BYTES, Kind, kind_of
from olmocr.page import PageImage

MOST_PAGES = 100_000
"""A document with more is refused: the number is likely to be made up."""

MOST_PIXELS = 2 * 89_478_485
"""A picture with more is refused, which is where Pillow draws its line: 13,000 by 13,000 fit."""

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD of fpdfview.h
_SECURITY_ERROR = 5  # FPDF_ERR_SECURITY

_FAR = 1e6  # points; no page reaches so far

_PILLOW_FORMATS = {Kind.WEBP: "WEBP", Kind.HEIC: "HEIF"}

_SUBFILE_TYPE, _REDUCED = 254, 1  # TIFF's NewSubfileType, and its bit for a smaller copy of another frame

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class Pages(Protocol):
    """A document that is open. Page numbers begin at 1."""

    page_count: int
    has_form: bool
    """Whether it has fields to be filled in."""

    def render(self, page_number: int, longest_side: int) -> PageImage:
        """Return the page as RGB pixels, its longer side *longest_side*.

        Raises:
            InputError: this page is damaged.
        """

    def text(self, page_number: int) -> str | None:
        """Return the text that the file itself holds for the page; None if it holds none.

        Raises:
            InputError: this page is damaged.
        """


@contextlib.contextmanager
def open_document(path: Path, name: str) -> Iterator[Pages]:
    """Open the PDF or picture at *path*, told by its first bytes and not by its name; *name* stands in sentences.

    Raises:
        InputError: encrypted, damaged, empty, without pages or with too many, or of another kind.
    """
    try:
        with path.open("rb") as file:
            start = file.read(FIRST_BYTES)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a name with a null byte
        raise InputError(f"{name!r} cannot be read: {error}") from error
    kind = kind_of(start)
    if kind is None:
        raise InputError(f"{name} {_what_instead(start)}")
    if kind != Kind.PDF:
        yield _few(_open_image(path, name, kind), name)
        return
    with _open_pdf(path, name) as pages:
        yield _few(pages, name)


def _few(pages: Pages, name: str) -> Pages:
    if pages.page_count > MOST_PAGES:
        raise InputError(f"{name} has more than {MOST_PAGES} pages; split it")
    return pages


# RFC 1740, appendix B: AppleDouble's magic number.
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


def _what_instead(start: bytes) -> str:
    if not start:
        return "is empty"
    if start.startswith(_APPLE_DOUBLE):
        return "is what macOS keeps beside a file on a disk of another system; give the file without ._ in its name"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page, no PDF and no picture"
    return f"is no PDF and no picture of a kind that can be read ({', '.join(Kind)})"


@contextlib.contextmanager
def _open_pdf(path: Path, name: str) -> Iterator[Pages]:
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise InputError(f"{name} {_why_not_opened(path, error.err_code)}") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    with contextlib.closing(document):
        try:
            document.init_forms()  # before the first page is opened, or what was filled into a form is not drawn
        except pypdfium2.PdfiumError as error:
            raise InputError(f"{name} has a damaged form: {error}") from error
        if len(document) == 0:
            raise InputError(f"{name} is a PDF without pages")
        yield _PdfFile(name, document)


def _why_not_opened(path: Path, code: int | None) -> str:
    if code == _SECURITY_ERROR:
        return "is protected in a way that no password opens here; save a copy without protection and give that"
    if code == _PASSWORD_ERROR and _names_encryption(path):
        return "is encrypted; save a copy without its password and give that"
    return "is a damaged PDF; open it in a viewer and save it again"


def _names_encryption(path: Path) -> bool:
    """Say whether the file mentions an encryption at all: PDFium reports some damaged ones as locked, too."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"/Encrypt") >= 0


class _PdfFile:
    def __init__(self, name: str, document: pypdfium2.PdfDocument) -> None:
        self._name = name
        self._document = document
        self.page_count = len(document)
        self.has_form = bool(document.get_formtype())

    def render(self, page_number: int, longest_side: int) -> PageImage:
        with self._page(page_number) as page:
            scale = _scale(page.get_size(), longest_side, f"page {page_number} of {self._name}")
            bitmap = page.render(scale=scale, may_draw_forms=True)
            return PageImage(bitmap.to_pil().convert("RGB"))

    def text(self, page_number: int) -> str | None:
        with self._page(page_number) as page, contextlib.closing(page.get_textpage()) as textpage:
            return _plain(textpage.get_text_bounded()) or None

    @contextlib.contextmanager
    def _page(self, page_number: int) -> Iterator[pypdfium2.PdfPage]:
        """Open a page with its whole MediaBox in view, as the model's training pages were rendered."""
        try:
            with contextlib.closing(self._document[page_number - 1]) as page:
                if page.get_mediabox(fallback_ok=False) == page.get_bbox():
                    yield page
                    return
                # A CropBox, or a MediaBox further up in the page tree, which PDFium does not tell: of
                # all that can be seen through the widest CropBox, the MediaBox is what is left.
                page.set_cropbox(-_FAR, -_FAR, _FAR, _FAR)
            with contextlib.closing(self._document[page_number - 1]) as page:  # the size is read when it is opened
                yield page
        except pypdfium2.PdfiumError as error:
            raise InputError(f"page {page_number} of {self._name} is damaged: {error}") from error


def _scale(size: tuple[float, float], longest_side: int, which: str) -> float:
    """Return pixels a point such that the longer side, which is rounded up, has *longest_side* pixels."""
    longest = max(size)
    if not (min(size) > 0 and longest < math.inf):
        raise InputError(f"{which} has no usable size: {size[0]:g} by {size[1]:g} points")
    scale = longest_side / longest
    while math.ceil(longest * scale) > longest_side:
        scale = math.nextafter(scale, 0)
    return scale


def _plain(text: str) -> str:
    """Return PDFium's text with plain line ends, and its mark for a hyphen at a line's end as a hyphen."""
    return text.replace("\r\n", "\n").replace("\ufffe", "-").replace("\x00", "").strip()


def _open_image(path: Path, name: str, kind: Kind) -> _ImageFile:
    if kind == Kind.HEIC:
        _learn_heic(name)
    if kind != Kind.TIFF:
        return _ImageFile(path, name, kind, (0,))  # an animation is a page, too: its first picture
    with _picture(path, name, kind) as image:
        return _ImageFile(path, name, kind, _frames(image))


def _learn_heic(name: str) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{name} is an HEIC picture, which needs an extra: pip install 'olmocr[heic]'") from error
    pillow_heif.register_heif_opener(thumbnails=False)


def _frames(image: Image.Image) -> tuple[int, ...]:
    """Return which frames of a TIFF are pages: all that are no smaller copies of others."""
    frames = []
    for number in range(min(getattr(image, "n_frames", 1), MOST_PAGES + 1)):
        image.seek(number)
        if not int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & _REDUCED:  # type: ignore[attr-defined]
            frames.append(number)
    return tuple(frames) or (0,)


@contextlib.contextmanager
def _picture(path: Path, name: str, kind: Kind) -> Iterator[Image.Image]:
    """Open a picture, and make a sentence of what Pillow raises: each of its decoders stumbles in its own way."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large scans; ours is the limit that counts
            with Image.open(path, formats=(_PILLOW_FORMATS.get(kind, kind),)) as image:
                yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} has more than {MOST_PIXELS} pixels; save a smaller copy and give that") from error
    except UnidentifiedImageError as error:  # which says no more than where the file lies
        raise InputError(f"{name} is a damaged picture") from error
    except Exception as error:
        raise InputError(f"{name} is a damaged picture: {error or type(error).__name__}") from error


class _ImageFile:
    """A picture, opened anew for each page, since it is large; each of *frames* is a page."""

    def __init__(self, path: Path, name: str, kind: Kind, frames: tuple[int, ...]) -> None:
        self._path = path
        self._name = name
        self._kind = kind
        self._frames = frames
        self.page_count = len(frames)
        self.has_form = False

    def render(self, page_number: int, longest_side: int) -> PageImage:
        which = f"page {page_number} of {self._name}" if self.page_count > 1 else self._name
        with _picture(self._path, which, self._kind) as image:
            image.seek(self._frames[page_number - 1])
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            upright = upright_picture(image)
            factor = longest_side / max(upright.size)
            size = (max(1, round(upright.width * factor)), max(1, round(upright.height * factor)))
            return PageImage(on_white(upright.resize(size, Image.Resampling.LANCZOS)))

    def text(self, page_number: int) -> str | None:
        return None


def upright_picture(image: Image.Image) -> Image.Image:
    """Return a picture as its camera was held, with pixels that can be averaged: L, RGB or RGBA."""
    return _resizable(ImageOps.exif_transpose(_inks_upright(image)))


def _inks_upright(image: Image.Image) -> Image.Image:
    """Return *image*; inks that Pillow turned upside down as Adobe does, but that Adobe did not write, turned back."""
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        return ImageChops.invert(image)
    return image


def _resizable(image: Image.Image) -> Image.Image:
    """Return *image* with pixels that can be averaged, of as few bytes as it takes: a large scan has many."""
    if image.mode.startswith("I"):  # 16 bits of grey become 8
        return image.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Return RGB; what is transparent becomes paper, not black."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


def turned(image: PageImage, degrees: int) -> PageImage:
    """Return *image* turned counter-clockwise by *degrees* (0, 90, 180 or 270), as olmOCR means a correction."""
    if degrees == 0:
        return image
    return PageImage(image.pixels.transpose(_TURNS[degrees]), (image.rotation + degrees) % 360)
