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
from PIL import Image, ImageOps, UnidentifiedImageError

from olmocr.errors import InputError
from olmocr.page import PageImage
from olmocr.pipeline.sources import Source

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD of fpdfview.h

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class Pages(Protocol):
    """A document that is open. Page numbers begin at 1."""

    page_count: int

    def render(self, page_number: int, longest_side: int) -> PageImage:
        """Return the page as RGB pixels, its longer side *longest_side*.

        Raises:
            InputError: this page is damaged.
        """

    def text(self, page_number: int) -> str | None:
        """Return the text that the file itself holds for the page; None if it holds none."""


@contextlib.contextmanager
def open_document(path: Path, name: str) -> Iterator[Pages]:
    """Open a PDF, PNG or JPEG, told by its first bytes and not by its name; errors call it *name*.

    Raises:
        InputError: encrypted, damaged, empty, or of another kind.
    """
    source = Source(name, path)
    try:
        with source.path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise InputError(f"{source.name} cannot be read: {error.strerror}") from error
    if b"%PDF-" in start:
        with _open_pdf(source) as pages:
            yield pages
    elif start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        yield _ImageFile(source)
    else:
        kind = "is empty" if not start else "is no PDF, PNG or JPEG"
        raise InputError(f"{source.name} {kind}")


@contextlib.contextmanager
def _open_pdf(source: Source) -> Iterator[Pages]:
    try:
        document = pypdfium2.PdfDocument(source.path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == _PASSWORD_ERROR and _names_encryption(source):
            raise InputError(f"{source.name} is encrypted; save a copy without its password and give that") from error
        raise InputError(f"{source.name} is a damaged PDF; open it in a viewer and save it again") from error
    with contextlib.closing(document):
        if len(document) == 0:
            raise InputError(f"{source.name} is a PDF without pages")
        document.init_forms()  # before the first page is opened, or what was filled into a form is not drawn
        yield _PdfFile(source, document)


def _names_encryption(source: Source) -> bool:
    """Say whether the file mentions an encryption at all: PDFium reports some damaged ones as locked, too."""
    with source.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"/Encrypt") >= 0


class _PdfFile:
    def __init__(self, source: Source, document: pypdfium2.PdfDocument) -> None:
        self._source = source
        self._document = document
        self.page_count = len(document)

    def render(self, page_number: int, longest_side: int) -> PageImage:
        with self._page(page_number) as page:
            bitmap = page.render(scale=_scale(page.get_size(), longest_side), may_draw_forms=True)
            return PageImage(bitmap.to_pil().convert("RGB"))

    def text(self, page_number: int) -> str | None:
        with self._page(page_number) as page, contextlib.closing(page.get_textpage()) as textpage:
            return _plain(textpage.get_text_bounded()) or None

    @contextlib.contextmanager
    def _page(self, page_number: int) -> Iterator[pypdfium2.PdfPage]:
        """Open a page with its whole MediaBox in view, as the model's training pages were rendered."""
        try:
            with contextlib.closing(self._document[page_number - 1]) as page:
                media_box = page.get_mediabox()
                if page.get_cropbox() == media_box:
                    yield page
                    return
                page.set_cropbox(*media_box)
            with contextlib.closing(self._document[page_number - 1]) as page:  # the size is read when it is opened
                yield page
        except pypdfium2.PdfiumError as error:
            raise InputError(f"page {page_number} of {self._source.name} is damaged: {error}") from error


def _scale(size: tuple[float, float], longest_side: int) -> float:
    """Return pixels a point such that the longer side, which is rounded up, has *longest_side* pixels."""
    longest = max(size)
    if not 0 < longest < math.inf:
        raise InputError(f"the page has no usable size: {size[0]} by {size[1]} points")
    scale = longest_side / longest
    while math.ceil(longest * scale) > longest_side:
        scale = math.nextafter(scale, 0)
    return scale


def _plain(text: str) -> str:
    """Return PDFium's text with plain line ends, and its mark for a hyphen at a line's end as a hyphen."""
    return text.replace("\r\n", "\n").replace("\ufffe", "-").replace("\x00", "").strip()


class _ImageFile:
    page_count = 1

    def __init__(self, source: Source) -> None:
        self._source = source

    def render(self, page_number: int, longest_side: int) -> PageImage:
        try:
            with warnings.catch_warnings():
                # Large scans are warned of, and only what is twice as large is an error: 179 million pixels.
                warnings.simplefilter("ignore")
                with Image.open(self._source.path, formats=("PNG", "JPEG")) as image:
                    upright = _on_white(ImageOps.exif_transpose(image))
        except (
            OSError,
            UnidentifiedImageError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:
            raise InputError(f"{self._source.name} is a damaged or oversized image: {error}") from error
        factor = longest_side / max(upright.size)
        size = (max(1, round(upright.width * factor)), max(1, round(upright.height * factor)))
        return PageImage(upright.resize(size, Image.Resampling.LANCZOS))

    def text(self, page_number: int) -> str | None:
        return None


def _on_white(image: Image.Image) -> Image.Image:
    """Return RGB; what is transparent becomes paper, not black, and 16 bits of grey become 8."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


def turned(image: PageImage, degrees: int) -> PageImage:
    """Return *image* turned counter-clockwise by *degrees* (0, 90, 180 or 270), as olmOCR means a correction."""
    if degrees == 0:
        return image
    return PageImage(image.pixels.transpose(_TURNS[degrees]), (image.rotation + degrees) % 360)
