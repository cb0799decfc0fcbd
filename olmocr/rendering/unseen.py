"""A PDF and its drawn pages -> what the pages do not show, although it would be taken for read.

pypdf is imported where it is needed, which is for few pages: it takes as long as everything else that a renderer
imports.
"""

from __future__ import annotations

import ctypes
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

_XFA_FORMS = (pdfium.FORMTYPE_XFA_FULL, pdfium.FORMTYPE_XFA_FOREGROUND)
_MADE_BY_ITS_READER = re.compile(rb"<dynamicRender[^<>]*>\s*required")
_PLEASE_WAIT = re.compile(r"please\s+wait\b.*\bPDF\s+viewer\s+may\s+not\s+be\s+able\s+to\s+display", re.I | re.S)
_MOST_XFA = 16 * 2**20  # bytes of one packet; the largest forms have three

_TEXT_FIELD = re.compile(rb"/FT\s*/Tx\b")
_PORTFOLIO = re.compile(rb"/Collection\s*(?:<<|\d+\s+\d+\s+R\b)")
_LONGEST_KEY = 64  # bytes that one of these may take, white space included

_SMALLEST_TRACE = 2  # pixels; anything drawn smaller may be lost in the paper's own pixels

_DEPTH = 15  # of nested form XObjects, where pypdfium2 stops
_SMALL_PICTURE = 32 * 32  # pixels; rules, bullets and shades of boxes are pictures, too
_LARGE_PICTURE = 40_000_000  # pixels; A4 at 600 dots an inch has 35 million; unpacking more twice takes too much memory
_MOST_PIXELS_OF_PAGE = 10 * _LARGE_PICTURE  # checking more would take longer than drawing the page
_LEAST_OF_PICTURE = 0.98  # of its rows; a careless program leaves off less
_INVISIBLE = (pdfium.FPDF_TEXTRENDERMODE_INVISIBLE, pdfium.FPDF_TEXTRENDERMODE_CLIP)
_LIGHT = 240  # of 255; text this light on white paper is not meant to be seen
_CHECKSUM = 4  # bytes at the end of deflated data
_JPEG_END = b"\xff\xd9"
_ROOM_BEHIND_JPEG = 64  # bytes that programs leave after its end

# The operators of a page that draw: ISO 32000-1, table 51.
_DRAWING = frozenset(
    (b"Tj", b"TJ", b"'", b'"', b"sh", b"S", b"s", b"f", b"F", b"f*", b"B", b"B*", b"b", b"b*", b"INLINE IMAGE")
)


def why_not_pages(document: pypdfium2.PdfDocument) -> str | None:
    """Return why a document's pages are not its content, as a predicate; None if they are.

    A dynamic XFA form's pages ask for another viewer, which makes the real ones; a portfolio's pages are its cover.
    """
    if pdfium.FPDF_GetFormType(document.raw) in _XFA_FORMS and _is_dynamic(document):
        return (
            "is a dynamic XFA form, whose pages only Adobe's readers can make; "
            "open it there, print it to a PDF and give that"
        )
    attached = int(pdfium.FPDFDoc_GetAttachmentCount(document.raw))
    if attached > 0 and _holds(document, _PORTFOLIO):
        files = "1 file is" if attached == 1 else f"{attached} files are"
        return f"is a PDF portfolio: {files} in it, and its own pages are only a cover; extract and give the files"
    return None


def has_text_fields(document: pypdfium2.PdfDocument) -> bool:
    """Return whether the document has text fields to fill in: upstream's filter calls such a document a form."""
    is_form = pdfium.FPDF_GetFormType(document.raw) != pdfium.FORMTYPE_NONE
    return is_form and _holds(document, _TEXT_FIELD)


def is_rebuilt(document: pypdfium2.PdfDocument) -> bool:
    """Return whether the file's own list of its objects was wrong, as in a cut file: some objects may be lost."""
    return not pdfium.FPDF_DocumentHasValidCrossReferenceTable(document.raw)


def why_unseen(
    document: pypdfium2.PdfDocument, page: pypdfium2.PdfPage, index: int, scale: float, *, is_blank: bool
) -> str | None:
    """Return what is on a page but was not drawn, as a predicate; None if everything was drawn, as far as can be seen.

    *page* is the page at *index*, from 0, of *document*, drawn at *scale* pixels a point. *is_blank* means that
    nothing at all is visible on it: any text that is there then has no usable font.
    """
    found, pictures = False, _Pictures(math.inf if is_blank else _LARGE_PICTURE)
    for item in page.get_objects(max_depth=_DEPTH):
        found = found or item.type != pdfium.FPDF_PAGEOBJ_FORM
        if item.type == pdfium.FPDF_PAGEOBJ_IMAGE:
            if why := pictures.why_unseen(item):
                return why
        elif is_blank and item.type == pdfium.FPDF_PAGEOBJ_TEXT and _is_meant_to_be_seen(item, page, scale):
            return "has text in a font that cannot be drawn"
    if is_blank and not found:
        return _why_content_unseen(document, index)
    return None


def why_cut(document: pypdfium2.PdfDocument, index: int, *, is_blank: bool) -> str | None:
    """Return what the page at *index* of a rebuilt file has lost, as a predicate; None if nothing."""
    copy = _PageCopy.of(document, index)
    if copy is None:
        return None
    if is_blank and not copy.contents and _names_lost_content(document, index):
        return "has lost its content: the file is damaged"
    return "has content that is damaged" if any(map(_is_cut, copy.contents)) else None


def _is_dynamic(document: pypdfium2.PdfDocument) -> bool:
    if pdfium.FPDF_GetFormType(document.raw) == pdfium.FORMTYPE_XFA_FULL:
        return True
    if any(_MADE_BY_ITS_READER.search(packet) for packet in _xfa_packets(document)):
        return True
    return len(document) == 1 and _PLEASE_WAIT.search(_text_of_first(document)) is not None


def _xfa_packets(document: pypdfium2.PdfDocument) -> Iterator[bytes]:
    for index in range(pdfium.FPDF_GetXFAPacketCount(document.raw)):
        length = ctypes.c_ulong()
        pdfium.FPDF_GetXFAPacketContent(document.raw, index, None, 0, length)
        if 0 < length.value <= _MOST_XFA:
            content = ctypes.create_string_buffer(length.value)
            pdfium.FPDF_GetXFAPacketContent(document.raw, index, content, length, length)
            yield content.raw


def _text_of_first(document: pypdfium2.PdfDocument) -> str:
    try:
        page = document[0]
        textpage = page.get_textpage()
    except pypdfium2.PdfiumError:
        return ""
    text: str = textpage.get_text_bounded()
    textpage.close()
    page.close()
    return text


class _Search(io.RawIOBase):
    """A file that keeps nothing of what is written, except whether it contained *wanted*."""

    def __init__(self, wanted: re.Pattern[bytes]) -> None:
        self._wanted = wanted
        self._end = b""
        self.is_found = False

    def write(self, piece: Any) -> int:
        text = self._end + bytes(piece)
        self.is_found = self.is_found or self._wanted.search(text) is not None
        self._end = text[-_LONGEST_KEY:]
        return len(piece)


def _holds(document: pypdfium2.PdfDocument, wanted: re.Pattern[bytes]) -> bool:
    """Return whether the document contains *wanted* in plain text, without packed objects and without encryption."""
    search = _Search(wanted)
    document.save(search, flags=pdfium.FPDF_REMOVE_SECURITY)
    return search.is_found


class _Pictures:
    """A page's pictures of at most *largest* pixels, each checked once, however often it is drawn."""

    def __init__(self, largest: float) -> None:
        self._largest = largest
        self._seen: set[tuple[object, ...]] = set()
        self._left = _MOST_PIXELS_OF_PAGE

    def why_unseen(self, item: Any) -> str | None:
        """Return what is wrong with a picture, as a predicate of its page."""
        width, height = item.get_px_size()
        what = width, height, *item.get_filters(), pdfium.FPDFImageObj_GetImageDataRaw(item.raw, None, 0)
        if not _SMALL_PICTURE <= width * height <= self._largest or what in self._seen or self._left <= 0:
            return None
        self._seen.add(what)
        self._left -= width * height
        return _why_picture_unseen(item, width, height)


def _why_picture_unseen(item: Any, width: int, height: int) -> str | None:
    bitmap = pdfium.FPDFImageObj_GetBitmap(item.raw)
    if not bitmap:
        return f"has a picture ({_packing(item)}) that cannot be unpacked"
    pdfium.FPDFBitmap_Destroy(bitmap)
    filters = item.get_filters()
    if not filters or filters[-1] in ("FlateDecode", "LZWDecode", "RunLengthDecode"):
        return _why_short(item, width, height)
    if filters == ["DCTDecode"] and _is_jpeg_cut(bytes(item.get_data())):
        return "has a picture (DCTDecode) that is cut short"
    return None


def _why_short(item: Any, width: int, height: int) -> str | None:
    """Return whether a picture has fewer rows than it says; missing rows would be black."""
    facts = item.get_metadata()
    # For a palette PDFium always says 8 bits, though the file may have 1.
    bits = 1 if facts.colorspace == pdfium.FPDF_COLORSPACE_INDEXED else facts.bits_per_pixel
    wanted = height * ((width * bits + 7) // 8)
    got = pdfium.FPDFImageObj_GetImageDataDecoded(item.raw, None, 0)
    return f"has a picture ({_packing(item)}) that is cut short" if got < wanted * _LEAST_OF_PICTURE else None


def _is_jpeg_cut(data: bytes) -> bool:
    if _JPEG_END in data[-_ROOM_BEHIND_JPEG:]:
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            image.load()
    except OSError as error:
        return "truncated" in str(error)
    except Exception:  # PDFium has drawn it; what Pillow makes of it does not matter
        return False
    return False


def _packing(item: Any) -> str:
    return ", ".join(item.get_filters()) or "unpacked"


def _is_meant_to_be_seen(item: Any, page: pypdfium2.PdfPage, scale: float) -> bool:
    """Return whether the page has text in ink, large enough to leave a trace, and outside layers, which may be off."""
    if pdfium.FPDFTextObj_GetTextRenderMode(item.raw) in _INVISIBLE or _is_in_layer(item) or _is_light(item):
        return False
    left, bottom, right, top = item.get_bounds()
    if 0 < min(right - left, top - bottom) * scale < _SMALLEST_TRACE:
        return False
    width, height = page.get_mediabox()[2:]
    return bool(right > 0 and top > 0 and left < width and bottom < height and _text_of(item, page).strip())


def _is_in_layer(item: Any) -> bool:
    return any(
        _mark_name(pdfium.FPDFPageObj_GetMark(item.raw, index)) == "OC"
        for index in range(pdfium.FPDFPageObj_CountMarks(item.raw))
    )


def _mark_name(mark: Any) -> str:
    return _wide_text(lambda buffer, size, length: pdfium.FPDFPageObjMark_GetName(mark, buffer, size, length))


def _wide_text(read: Callable[[Any, int, Any], Any]) -> str:
    length = ctypes.c_ulong()
    buffer = ctypes.create_string_buffer(64)
    read(ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), len(buffer), length)
    return buffer.raw[: length.value].decode("utf-16-le", "replace").rstrip("\0")


def _is_light(item: Any) -> bool:
    red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
    if not pdfium.FPDFPageObj_GetFillColor(item.raw, red, green, blue, alpha):
        return False
    return min(red.value, green.value, blue.value) >= _LIGHT or alpha.value <= 255 - _LIGHT


def _text_of(item: Any, page: pypdfium2.PdfPage) -> str:
    textpage = page.get_textpage()
    try:
        length = pdfium.FPDFTextObj_GetText(item.raw, textpage.raw, None, 0)
        buffer = ctypes.create_string_buffer(length)
        pdfium.FPDFTextObj_GetText(item.raw, textpage.raw, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), length)
        return buffer.raw.decode("utf-16-le", "replace").rstrip("\0")
    finally:
        textpage.close()


@dataclass(frozen=True)
class _PageCopy:
    """A page as pypdf reads it: its content streams, and what these may draw.

    PDFium copies the page into a new file, which is small and sound whatever the page's own file is.
    """

    contents: list[Any]
    resources: Any

    @classmethod
    def of(cls, document: pypdfium2.PdfDocument, index: int) -> Self | None:
        """Return the page at *index*; None if it cannot be copied or read."""
        import pypdf

        copy, single = io.BytesIO(), pypdfium2.PdfDocument.new()
        try:
            single.import_pages(document, [index])
            single.save(copy)
            page = pypdf.PdfReader(copy).pages[0]
            entry: Any = page["/Contents"].get_object() if "/Contents" in page else []
            parts = [part.get_object() for part in (entry if isinstance(entry, list) else [entry])]
            streams = [part for part in parts if isinstance(part, pypdf.generic.StreamObject)]
            return cls(streams, page.get("/Resources", {}))
        except Exception:  # each of pypdf's readers fails in its own way, and PDFium has drawn the page
            return None
        finally:
            single.close()


def _names_lost_content(document: pypdfium2.PdfDocument, index: int) -> bool:
    """Return whether a page's content is missing from the file, not just empty."""
    import pypdf

    copy = io.BytesIO()
    try:
        document.save(copy, flags=pdfium.FPDF_REMOVE_SECURITY)
        page = pypdf.PdfReader(copy).pages[index]
        return "/Contents" in page and not _is_there(page.raw_get("/Contents"))
    except Exception:
        return False


def _is_there(entry: Any) -> bool:
    import pypdf

    try:
        found = entry.get_object()
    except pypdf.errors.PyPdfError:
        return False
    return found is not None and not isinstance(found, pypdf.generic.NullObject)


def _why_content_unseen(document: pypdfium2.PdfDocument, index: int) -> str | None:
    copy = _PageCopy.of(document, index)
    if copy is None or not any(_is_cut(each) or _draws(each, copy.resources, _DEPTH) for each in copy.contents):
        return None
    return "has content that cannot be drawn: a part of the file is missing or damaged"


def _is_cut(content: Any) -> bool:
    """Return whether a deflated stream cannot be inflated to its end; a lost checksum does not matter."""
    if not content._data or content.get("/Filter") not in ("/FlateDecode", ["/FlateDecode"]):
        return False
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(content._data)
        if inflate.eof:
            return False
        inflate.decompress(bytes(_CHECKSUM))
    except zlib.error as error:
        return "data check" not in str(error)
    return True


def _draws(content: Any, resources: Any, depth: int) -> bool:
    """Return whether a stream has operators that draw, itself or through a form XObject that it draws."""
    import pypdf

    try:
        operations = pypdf.generic.ContentStream(content, None).operations
    except Exception:  # whatever it contains, nothing of it was drawn
        return True
    return any(
        _draws_named(operands, resources, depth) if operator == b"Do" else operator in _DRAWING
        for operands, operator in operations
    )


def _draws_named(operands: Any, resources: Any, depth: int) -> bool:
    try:
        drawn = resources.get_object()["/XObject"].get_object()[operands[0]].get_object()
        if drawn["/Subtype"] != "/Form" or depth == 0:
            return True
        return _is_cut(drawn) or _draws(drawn, drawn.get("/Resources", resources), depth - 1)
    except Exception:  # it is missing, or not what it should be
        return True
