"""PDF or image -> PageImage. Only this module imports pypdfium2."""

from __future__ import annotations

import contextlib
import math
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pypdfium2
from PIL import Image

from olmocr.errors import InputError
from olmocr.inputs.kinds import FIRST_BYTES, Kind, kind_of
from olmocr.page import PageImage
from olmocr.rendering.blank import is_blank
from olmocr.rendering.image_file import MOST_PAGES, open_image
from olmocr.rendering.unseen import has_text_fields, is_rebuilt, why_cut, why_not_pages, why_unseen

_FORMAT_ERROR = 3  # FPDF_ERR_FORMAT of fpdfview.h
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_SECURITY_ERROR = 5  # FPDF_ERR_SECURITY

_OBJECT = re.compile(rb"(\d{1,10})\s+(\d{1,5})\s+obj\b")
_MOST_CATALOGS, _LONGEST_CATALOG = 20, 8192  # the second in bytes

EDGE = 0.12
"""In parts of a page's height: where running heads and page numbers stand; an inch of margin and a line take less."""

_FAR = 1e6  # points; no page reaches so far

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class Pages(Protocol):
    """An open document. Page numbers begin at 1."""

    page_count: int
    lacks_form: bool
    """Whether it has a form that is not drawn: its fields look as the file says, or are missing."""

    @property
    def has_form(self) -> bool:
        """Whether it has text fields to fill in."""

    def render(self, page_number: int, longest_side: int) -> PageImage:
        """Return the page as RGB pixels, its longer side *longest_side*.

        Raises:
            InputError: this page is damaged.
        """

    def text(self, page_number: int) -> str | None:
        """Return the text that the file itself has for the page; None if it has none.

        Raises:
            InputError: this page is damaged.
        """

    def edges(self, page_number: int) -> tuple[list[str], list[str]]:
        """Return the lines of the same text at the page's upper edge, and at its lower edge.

        Raises:
            InputError: this page is damaged.
        """


@contextlib.contextmanager
def open_document(path: Path, name: str, *, with_form: bool = True) -> Iterator[Pages]:
    """Open the PDF or picture at *path*, recognised by its first bytes, not by its name; errors call it *name*.

    Without its form (not *with_form*) a PDF's fields look as the file says; a field without an appearance is not drawn.

    Raises:
        InputError: encrypted, damaged, empty, without pages or with too many, a form or a portfolio whose pages are
            not its content, or of another kind.
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
        yield _few(open_image(path, name, kind), name)
        return
    with _open_pdf(path, name, with_form) as pages:
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
        return "is what macOS keeps beside a file on another system's disk; give the file without ._ in its name"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a PDF or a picture"
    return f"is not a PDF, and not a picture of a kind that can be read ({', '.join(Kind)})"


@contextlib.contextmanager
def _open_pdf(path: Path, name: str, with_form: bool) -> Iterator[Pages]:
    try:
        document = _opened(path)
    except pypdfium2.PdfiumError as error:
        raise InputError(f"{name} {_why_not_opened(path, error.err_code)}") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    with contextlib.closing(document):
        if with_form:
            # Before the first page is opened, or what was filled into a form is not drawn. A damaged form is not.
            with contextlib.suppress(pypdfium2.PdfiumError):
                document.init_forms()
        if len(document) == 0:
            raise InputError(f"{name} is a PDF without pages")
        if why := why_not_pages(document):
            raise InputError(f"{name} {why}")
        yield _PdfFile(name, document)


def _opened(path: Path) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == _FORMAT_ERROR and (mended := _mended(path)) is not None:
            return pypdfium2.PdfDocument(mended)
        raise


def _mended(path: Path) -> bytes | None:
    """Return a PDF's bytes with the first line and the end that it has lost, which locate everything else; or None.

    A download that was cut has lost its end; other readers search what is left for the catalog, too.
    """
    content = path.read_bytes()
    end = len(content)
    for _ in range(_MOST_CATALOGS):
        end = content.rfind(b"/Catalog", 0, end)
        if end < 0:
            return None
        before = content[max(0, end - _LONGEST_CATALOG) : end]
        begun = list(_OBJECT.finditer(before))
        if begun and b"endobj" not in before[begun[-1].end() :]:
            number, generation = begun[-1].groups()
            trailer = b"\ntrailer\n<< /Root %b %b R >>\nstartxref\n0\n%%%%EOF\n" % (number, generation)
            return b"%PDF-1.7\n" + content + trailer
    return None


def _why_not_opened(path: Path, code: int | None) -> str:
    if _mentions(path, b"/BrotliDecode"):
        return "is packed with Brotli, which cannot be unpacked here; save it in another way and give that"
    if code == _SECURITY_ERROR:
        return "is protected in a way that no password opens here; save a copy without protection and give that"
    # PDFium reports some damaged files as locked, too.
    if code == _PASSWORD_ERROR and _mentions(path, b"/Encrypt"):
        return "is encrypted; save a copy without its password and give that"
    return "is a damaged PDF; open it in a viewer and save it again"


def _mentions(path: Path, word: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(word) >= 0


class _PdfFile:
    def __init__(self, name: str, document: pypdfium2.PdfDocument) -> None:
        self._name = name
        self._document = document
        self._is_rebuilt = is_rebuilt(document)
        self.lacks_form = document.formenv is None and document.get_formtype() != pypdfium2.raw.FORMTYPE_NONE
        self.page_count = len(document)

    @property
    def has_form(self) -> bool:
        return has_text_fields(self._document)

    def render(self, page_number: int, longest_side: int) -> PageImage:
        which = f"page {page_number} of {self._name}"
        with self._page(page_number) as page:
            scale = _scale(page.get_size(), longest_side, which)
            pixels = page.render(scale=scale, may_draw_forms=True).to_pil().convert("RGB")
            if why := self._why_unseen(page, page_number - 1, scale, pixels):
                raise InputError(f"{which} {why}; open the file in a viewer to see what it shows")
            return PageImage(pixels)

    def _why_unseen(self, page: pypdfium2.PdfPage, index: int, scale: float, pixels: Image.Image) -> str | None:
        empty = is_blank(pixels, None)
        if self._is_rebuilt and (why := why_cut(self._document, index, is_blank=empty)):
            return why
        return why_unseen(self._document, page, index, scale, is_blank=empty)

    def text(self, page_number: int) -> str | None:
        with self._page(page_number) as page, contextlib.closing(page.get_textpage()) as textpage:
            return _plain(textpage.get_text_bounded()) or None

    def edges(self, page_number: int) -> tuple[list[str], list[str]]:
        with self._page(page_number) as page, contextlib.closing(page.get_textpage()) as textpage:
            height = page.get_height()
            if not math.isfinite(height):
                return [], []
            top = textpage.get_text_bounded(bottom=height * (1 - EDGE))
            bottom = textpage.get_text_bounded(top=height * EDGE)
            return _plain(top).splitlines(), _plain(bottom).splitlines()

    @contextlib.contextmanager
    def _page(self, page_number: int) -> Iterator[pypdfium2.PdfPage]:
        """Open a page with its full MediaBox in view, as the model's training pages were rendered."""
        try:
            if self.lacks_form:
                self._flatten(page_number)
            with contextlib.closing(self._document[page_number - 1]) as page:
                if page.get_mediabox(fallback_ok=False) == page.get_bbox():
                    yield page
                    return
                # A CropBox, or a MediaBox further up in the page tree, which PDFium does not report: within the widest
                # possible CropBox, all that can be seen is the MediaBox.
                page.set_cropbox(-_FAR, -_FAR, _FAR, _FAR)
            with contextlib.closing(self._document[page_number - 1]) as page:  # the size is read when it is opened
                yield page
        except pypdfium2.PdfiumError as error:
            raise InputError(f"page {page_number} of {self._name} is damaged: {error}") from error

    def _flatten(self, page_number: int) -> None:
        """Draw the appearance of a page's fields into the page itself."""
        with contextlib.closing(self._document[page_number - 1]) as page:
            pypdfium2.raw.FPDFPage_Flatten(page.raw, pypdfium2.raw.FLAT_NORMALDISPLAY)


def _scale(size: tuple[float, float], longest_side: int, which: str) -> float:
    """Return the pixels for each point at which the longer side, which is rounded up, has *longest_side* pixels."""
    longest = max(size)
    if not (min(size) > 0 and longest < math.inf):
        raise InputError(f"{which} has no usable size: {size[0]:g} by {size[1]:g} points")
    scale = longest_side / longest
    while math.ceil(longest * scale) > longest_side:
        scale = math.nextafter(scale, 0)
    return scale


def _plain(text: str) -> str:
    """Return PDFium's text with plain line ends, and with a hyphen for its mark of a hyphen at a line's end."""
    return text.replace("\r\n", "\n").replace("\ufffe", "-").replace("\x00", "").strip()


def turned(image: PageImage, degrees: int) -> PageImage:
    """Return *image* turned counter-clockwise by *degrees* (0, 90, 180 or 270), as olmOCR means a correction."""
    if degrees == 0:
        return image
    return PageImage(image.pixels.transpose(_TURNS[degrees]), (image.rotation + degrees) % 360)
