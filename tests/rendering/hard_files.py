"""Files that are hard to open, each made by code, and how each must end: as pages, or as a sentence."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from pypdf import PdfReader, PdfWriter

LETTER = b"/MediaBox [0 0 612 792]"
PORTRAIT, LANDSCAPE = (996, 1288), (1288, 996)


@dataclass(frozen=True)
class HardFile:
    """*outcome* is how many pages it has, or a phrase of the sentence that refuses it (page 1, where it opens).

    *size* is that of its first page at 1288 pixels, *text* what its text layer holds, *name* the file's.
    """

    make: Callable[[], bytes]
    outcome: int | str
    size: tuple[int, int] | None = None
    text: str | None = None
    name: str | None = None

    def write(self, folder: Path, name: str) -> Path:
        path = folder / (self.name or name)
        path.write_bytes(self.make())
        return path


def assemble(*objects: bytes, trailer: bytes = b"") -> bytes:
    """Return a PDF of these objects, numbered from 1; the first is the catalog."""
    file, offsets = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), []
    for number, content in enumerate(objects, 1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    start, count = len(file), len(objects) + 1
    file += b"xref\n0 %d\n0000000000 65535 f \n" % count + b"".join(b"%010d 00000 n \n" % each for each in offsets)
    return bytes(file + b"trailer\n<< /Size %d /Root 1 0 R %b >>\nstartxref\n%d\n%%%%EOF\n" % (count, trailer, start))


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(data), entries, data)


HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
DRAWING = (
    b"2 w 20 20 572 752 re S 0.8 0.2 0.2 rg 20 672 100 100 re f 0 g "
    b"BT /F1 48 Tf 140 690 Td (Top left) Tj ET BT /F1 20 Tf 60 60 Td (bottom of the page) Tj ET"
)


def pdf(
    page: bytes = LETTER,
    content: bytes = DRAWING,
    *more: bytes,
    tree: bytes = b"",
    catalog: bytes = b"",
    resources: bytes = b"",
    font: bytes = HELVETICA,
    contents: bytes | None = None,
) -> bytes:
    """Return a PDF of one page; objects 6 and on are *more*."""
    return assemble(
        b"<< /Type /Catalog /Pages 2 0 R %b >>" % catalog,
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 %b >>" % tree,
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> %b >> %b >>"
        % (resources, page),
        stream(content) if contents is None else contents,
        font,
        *more,
    )


def box(*numbers: float, name: str = "MediaBox") -> bytes:
    return f"/{name} [{' '.join(map(str, numbers))}]".encode()


def with_kids(kids: bytes, count: int, *more: bytes) -> bytes:
    """Return a PDF whose page tree's root is made so; objects 3 and 4 are a page and its content."""
    page = b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << >> %b >>" % LETTER
    root = b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, count)
    return assemble(b"<< /Type /Catalog /Pages 2 0 R >>", root, page, stream(b"100 100 200 200 re f"), *more)


def deep_tree(depth: int) -> bytes:
    """Return a PDF whose page hangs under *depth* nodes, one below the other."""
    nodes = [
        b"<< /Type /Pages /Parent %d 0 R /Kids [%d 0 R] /Count 1 >>" % (max(2, number - 1), number + 1)
        for number in range(2, depth + 2)
    ]
    page = b"<< /Type /Page /Parent %d 0 R /Resources << >> %b >>" % (depth + 1, LETTER)
    return assemble(b"<< /Type /Catalog /Pages 2 0 R >>", *nodes, page)


def encrypted(user: str, owner: str, algorithm: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf())))
    writer.encrypt(user, owner, algorithm=algorithm)
    return saved(writer.write)


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def object_streams() -> bytes:
    """Return a PDF whose objects all lie compressed in one stream, found by a stream of references."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> %b >>" % LETTER,
        5: HELVETICA,
    }
    index, body = b"", b""
    for number, content in objects.items():
        index += b"%d %d " % (number, len(body))
        body += content + b"\n"
    packed = zlib.compress(index + body)
    entries = b"/Type /ObjStm /N %d /First %d /Filter /FlateDecode" % (len(objects), len(index))
    file = b"%PDF-1.7\n"
    content_at = len(file)
    file += b"4 0 obj\n%b\nendobj\n" % stream(DRAWING)
    packed_at = len(file)
    file += b"6 0 obj\n%b\nendobj\n" % stream(packed, entries)
    references = [(0, 0, 255), (2, 6, 0), (2, 6, 1), (2, 6, 2), (1, content_at, 0), (2, 6, 3), (1, packed_at, 0)]
    start = len(file)
    table = b"".join(struct.pack(">BHB", *each) for each in [*references, (1, start, 0)])
    return file + b"7 0 obj\n%b\nendobj\nstartxref\n%d\n%%%%EOF\n" % (
        stream(table, b"/Type /XRef /Size 8 /W [1 2 1] /Root 1 0 R"),
        start,
    )


def form(value: bytes, look: bytes | None, flags: bytes = b"") -> bytes:
    """Return a PDF with a text field that holds *value*; a viewer must draw it itself if it has no *look*."""
    appearance = b"/AP << /N 7 0 R >>" if look is not None else b""
    field = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (%b) /DA (/F1 40 Tf 0 g) /Rect [100 400 500 460] "
        b"/F 4 /P 3 0 R %b >>" % (value, appearance)
    )
    entries = b"/Type /XObject /Subtype /Form /BBox [0 0 400 60] /Resources << /Font << /F1 5 0 R >> >>"
    drawn = stream(look or b"", entries)
    catalog = b"/AcroForm << /Fields [6 0 R] /DR << /Font << /F1 5 0 R >> >> %b >>" % flags
    return pdf(LETTER + b" /Annots [6 0 R]", DRAWING, field, drawn, catalog=catalog)


def layers() -> bytes:
    """Return a PDF with a layer that is shown and one that is not."""
    content = DRAWING + (
        b" /OC /Shown BDC BT /F1 40 Tf 100 400 Td (shown layer) Tj ET EMC"
        b" /OC /Hidden BDC BT /F1 40 Tf 100 300 Td (HIDDEN layer) Tj ET EMC"
    )
    groups = [b"<< /Type /OCG /Name (%b) >>" % name for name in (b"Shown", b"Hidden")]
    catalog = b"/OCProperties << /OCGs [6 0 R 7 0 R] /D << /ON [6 0 R] /OFF [7 0 R] >> >>"
    return pdf(LETTER, content, *groups, catalog=catalog, resources=b"/Properties << /Shown 6 0 R /Hidden 7 0 R >>")


def with_image(image: bytes) -> bytes:
    """Return a PDF that is a scan: one picture over the whole page."""
    return pdf(LETTER, b"q 572 0 0 752 20 20 cm /Scan Do Q", image, resources=b"/XObject << /Scan 6 0 R >>")


def image_object(picture: Image.Image, space: bytes, bits: int = 8, **options: object) -> bytes:
    """Return a picture as PDFs hold it: a CMYK JPEG if *options* say so (Pillow inverts them), or packed pixels."""
    entries = b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /%b /BitsPerComponent %d" % (
        *picture.size,
        space,
        bits,
    )
    if options:
        return stream(
            saved(lambda file: picture.save(file, **options)),
            entries + b" /Filter /DCTDecode /Decode [1 0 1 0 1 0 1 0]",
        )
    return stream(zlib.compress(picture.tobytes()), entries + b" /Filter /FlateDecode")


def drawing(mode: str = "RGB", size: tuple[int, int] = (300, 400), paper: object = None) -> Image.Image:
    """Return a picture with its top left corner dark and a line of text."""
    image = Image.new(mode, size, "white" if paper is None else paper)
    draw = ImageDraw.Draw(image)
    ink = {"CMYK": (0, 0, 0, 255), "1": 0, "L": 0, "I;16": 0}.get(mode, "black")
    draw.rectangle((0, 0, size[0] // 4, size[1] // 4), fill=ink)
    draw.text((size[0] // 3, size[1] // 2), "a line of text", fill=ink, font_size=size[0] // 12)
    return image


def picture(image: Image.Image, kind: str, **options: object) -> bytes:
    return saved(lambda file: image.save(file, kind, **options))


def turned_photo(orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture(drawing(), kind, exif=exif)


def plain_cmyk() -> bytes:
    """Return a CMYK JPEG without Adobe's mark, which says that inks are upside down, and with inks that are not."""
    upside_down = picture(drawing("CMYK", paper=(0, 0, 0, 0)).point(lambda ink: 255 - ink), "JPEG")
    at = upside_down.index(b"\xff\xee\x00\x0eAdobe")
    return upside_down[:at] + upside_down[at + 16 :]


def grey_of_16_bits() -> bytes:
    wide = drawing("L").convert("I").point(lambda grey: grey * 257)
    return picture(wide.convert("I;16"), "PNG")


def palette_with_a_hole() -> bytes:
    image = drawing("RGB").quantize(4)
    return picture(image, "PNG", transparency=0)


def frames(kind: str, count: int, **options: object) -> bytes:
    several = [drawing(size=(300 + 20 * number, 400)) for number in range(count)]
    if kind == "WEBP":
        several = [drawing(paper=colour) for colour in ("white", "yellow", "cyan")]
    return picture(several[0], kind, save_all=True, append_images=several[1:], **options)


def looping_tiff() -> bytes:
    """Return a TIFF whose only frame says that the next one is itself."""
    content = bytearray(picture(drawing("L"), "TIFF"))
    (at,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, at)
    struct.pack_into("<I", content, at + 2 + 12 * entries, at)
    return bytes(content)


def tiff_with_thumbnail() -> bytes:
    """Return a TIFF of a page and, as scanners add it, a smaller copy of the same."""
    thumbnail = drawing(size=(30, 40))
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    return picture(drawing(), "TIFF", save_all=True, append_images=[thumbnail])


def png_of(width: int, height: int) -> bytes:
    """Return a PNG that says it has so many pixels, and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def right_to_left() -> bytes:
    """Return a PDF of Hebrew whose glyphs are drawn in the file and stand in the order in which they are seen."""
    glyphs = {b"shin": b"0 0 80 600 re 200 0 80 600 re 400 0 80 600 re 0 0 480 90 re f", b"lamed": b"0 500 400 90 re f"}
    letters = [stream(b"600 0 0 0 600 700 d1 " + shape) for shape in glyphs.values()]
    font = (
        b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 600 700] /FontMatrix [.001 0 0 .001 0 0] /CharProcs "
        b"<< /shin 6 0 R /lamed 7 0 R >> /Encoding << /Type /Encoding /Differences [97 /shin /lamed] >> "
        b"/FirstChar 97 /LastChar 98 /Widths [600 600] /ToUnicode 8 0 R /Resources << >> >>"
    )
    unicode = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <00> <FF> "
        b"endcodespacerange 2 beginbfchar <61> <05E9> <62> <05DC> endbfchar endcmap end end"
    )
    content = b"BT /F1 60 Tf 100 600 Td (ba) Tj ET"
    return pdf(LETTER, content, *letters, stream(unicode), font=font)


def damaged_xref() -> bytes:
    content = pdf()
    at = content.rindex(b"startxref")
    return content[:at] + b"startxref\n7\n%%EOF\n"


def form_in_itself() -> bytes:
    entries = b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << /XObject << /Again 6 0 R >> >>"
    again = stream(b"10 10 40 40 re f /Again Do", entries)
    return pdf(LETTER, DRAWING + b" /Again Do", again, resources=b"/XObject << /Again 6 0 R >>")


def heic() -> bytes:
    """Return a picture as telephones take them. Needs pillow-heif."""
    import pillow_heif

    return saved(pillow_heif.from_pillow(drawing()).save)


HARD_FILES = {
    "turned-90.pdf": HardFile(lambda: pdf(LETTER + b" /Rotate 90"), 1, LANDSCAPE),
    "turned-180.pdf": HardFile(lambda: pdf(LETTER + b" /Rotate 180"), 1, PORTRAIT),
    "turned-270.pdf": HardFile(lambda: pdf(LETTER + b" /Rotate 270"), 1, LANDSCAPE),
    "turned-backwards.pdf": HardFile(lambda: pdf(LETTER + b" /Rotate -90"), 1, LANDSCAPE),
    "turned-45.pdf": HardFile(lambda: pdf(LETTER + b" /Rotate 45"), 1, PORTRAIT),
    "turned-above.pdf": HardFile(lambda: pdf(LETTER, tree=b"/Rotate 90"), 1, LANDSCAPE),
    "cropped.pdf": HardFile(lambda: pdf(LETTER + box(100, 500, 300, 700, name="CropBox")), 1, PORTRAIT),
    "cropped-above.pdf": HardFile(lambda: pdf(tree=box(100, 500, 300, 700, name="CropBox")), 1, PORTRAIT),
    "cropped-beyond.pdf": HardFile(lambda: pdf(LETTER + box(-900, -900, 2000, 2000, name="CropBox")), 1, PORTRAIT),
    "cropped-outside.pdf": HardFile(lambda: pdf(LETTER + box(5000, 5000, 6000, 6000, name="CropBox")), 1, PORTRAIT),
    "media-above.pdf": HardFile(
        lambda: pdf(box(100, 100, 300, 400, name="CropBox"), tree=box(0, 0, 595, 842)), 1, (911, 1288)
    ),
    "media-negative.pdf": HardFile(lambda: pdf(box(-306, -396, 306, 396)), 1, PORTRAIT),
    "media-reversed.pdf": HardFile(lambda: pdf(box(612, 792, 0, 0)), 1, PORTRAIT),
    "media-missing.pdf": HardFile(lambda: pdf(b""), 1, PORTRAIT),
    "media-of-words.pdf": HardFile(lambda: pdf(b"/MediaBox [/a (b) null 792]"), 1),
    "media-indirect.pdf": HardFile(lambda: pdf(b"/MediaBox 6 0 R", DRAWING, b"[0 0 612 792]"), 1, PORTRAIT),
    "huge-page.pdf": HardFile(lambda: pdf(box(0, 0, 14400, 14400)), 1, (1288, 1288)),
    "absurd-page.pdf": HardFile(lambda: pdf(box(0, 0, 1e30, 1e30)), 1),
    "tiny-page.pdf": HardFile(lambda: pdf(box(0, 0, 3, 4)), 1, (966, 1288)),
    "skinny-page.pdf": HardFile(lambda: pdf(box(0, 0, 1, 10000)), 1, (1, 1288)),
    "zero-size-page.pdf": HardFile(lambda: pdf(box(0, 0, 0, 0)), 1, PORTRAIT),
    "user-unit.pdf": HardFile(lambda: pdf(LETTER + b" /UserUnit 10"), 1, PORTRAIT),
    "damaged-xref.pdf": HardFile(damaged_xref, 1, PORTRAIT),
    "truncated.pdf": HardFile(lambda: pdf()[:250], "has lost its content"),
    "half.pdf": HardFile(lambda: pdf()[:-300], "has lost its content"),
    "garbage-before.pdf": HardFile(lambda: b"HTTP/1.1 200 OK\r\n\r\n" * 20 + pdf(), 1, PORTRAIT),
    "garbage-after.pdf": HardFile(lambda: pdf() + b"\x00" * 5000, 1, PORTRAIT),
    "locked.pdf": HardFile(lambda: encrypted("secret", "owner", "RC4-128"), "is encrypted; save a copy"),
    "locked-aes.pdf": HardFile(lambda: encrypted("secret", "owner", "AES-256"), "is encrypted; save a copy"),
    "owner-only.pdf": HardFile(lambda: encrypted("", "owner", "RC4-128"), 1, PORTRAIT, "Top left"),
    "owner-only-aes.pdf": HardFile(lambda: encrypted("", "owner", "AES-256"), 1, PORTRAIT, "Top left"),
    "form.pdf": HardFile(lambda: form(b"FILLED", b"/Tx BMC BT /F1 40 Tf 0 g 5 10 Td (FILLED) Tj ET EMC"), 1, PORTRAIT),
    "form-without-look.pdf": HardFile(lambda: form(b"UNDRAWN", None, b"/NeedAppearances true"), 1, PORTRAIT),
    "layers.pdf": HardFile(layers, 1, PORTRAIT),
    "scan-1-bit.pdf": HardFile(lambda: with_image(image_object(drawing("1"), b"DeviceGray", 1)), 1, PORTRAIT),
    "scan-cmyk.pdf": HardFile(
        lambda: with_image(image_object(drawing("CMYK", paper=(0, 0, 0, 0)), b"DeviceCMYK", format="JPEG")),
        1,
        PORTRAIT,
    ),
    "right-to-left.pdf": HardFile(right_to_left, 1, PORTRAIT, "\u05e9\u05dc"),
    "no-pages.pdf": HardFile(lambda: with_kids(b"", 0), "is a damaged PDF"),
    "page-tree-loop.pdf": HardFile(lambda: with_kids(b"2 0 R", 1), "damaged"),
    "page-tree-deep.pdf": HardFile(lambda: deep_tree(5000), "damaged"),
    "page-tree-nested.pdf": HardFile(lambda: deep_tree(200), 1, PORTRAIT),
    "page-missing.pdf": HardFile(lambda: with_kids(b"9 0 R 3 0 R", 2), "page 1 of"),
    "count-too-high.pdf": HardFile(lambda: with_kids(b"3 0 R", 900_000), "has more than 100000 pages"),
    "count-negative.pdf": HardFile(lambda: with_kids(b"3 0 R", -5), 1, PORTRAIT),
    "object-streams.pdf": HardFile(object_streams, 1, PORTRAIT, "Top left"),
    "font-missing.pdf": HardFile(
        lambda: pdf(font=b"<< /Type /Font /Subtype /TrueType /BaseFont /NobodyHasThis >>"), 1, PORTRAIT, "Top left"
    ),
    "font-nowhere.pdf": HardFile(lambda: pdf(font=b"null"), 1, PORTRAIT),
    "content-damaged.pdf": HardFile(
        lambda: pdf(contents=stream(b"this is not deflated", b"/Filter /FlateDecode")), "has content that cannot be"
    ),
    "content-unbalanced.pdf": HardFile(lambda: pdf(LETTER, b"q " * 5000 + DRAWING + b" Q" * 9000), 1, PORTRAIT),
    "content-nested.pdf": HardFile(lambda: pdf(LETTER, b"[" * 20000 + b"]" * 20000 + DRAWING), 1, PORTRAIT),
    "content-none.pdf": HardFile(lambda: pdf(contents=b"null"), 1, PORTRAIT),
    "form-in-itself.pdf": HardFile(form_in_itself, 1, PORTRAIT),
    "empty.pdf": HardFile(lambda: b"", "is empty"),
    "text.pdf": HardFile(lambda: b"These are plain words.\n", "is not a PDF, and not a picture"),
    "login.pdf": HardFile(lambda: b"<!DOCTYPE html><title>Please log in</title>", "is a web page"),
    "really-a-pdf.png": HardFile(pdf, 1, PORTRAIT, "Top left"),
    "unicode.pdf": HardFile(pdf, 1, PORTRAIT, name="\u4e2d\u6587 \u00fcber \U0001f4c4.pdf"),
    "newline.pdf": HardFile(pdf, 1, PORTRAIT, name="two\nlines \x1b[31m.pdf"),
    "1-bit.png": HardFile(lambda: picture(drawing("1"), "PNG"), 1, (966, 1288)),
    "16-bit.png": HardFile(grey_of_16_bits, 1, (966, 1288)),
    "transparent.png": HardFile(lambda: picture(drawing("RGBA", paper=(0, 0, 0, 0)), "PNG"), 1, (966, 1288)),
    "grey-transparent.png": HardFile(lambda: picture(drawing("RGBA").convert("LA"), "PNG"), 1, (966, 1288)),
    "palette.png": HardFile(palette_with_a_hole, 1, (966, 1288)),
    "bomb.png": HardFile(lambda: png_of(60000, 60000), "has more than 178956970 pixels"),
    "cut.png": HardFile(lambda: picture(drawing(), "PNG")[:-500], "is a damaged picture"),
    "cut.jpg": HardFile(lambda: picture(drawing(), "JPEG")[:-500], "is a damaged picture"),
    "skinny.png": HardFile(lambda: picture(drawing(size=(5000, 1)), "PNG"), 1, (1288, 1)),
    "cmyk.jpg": HardFile(plain_cmyk, 1, (966, 1288)),
    "cmyk-adobe.jpg": HardFile(lambda: picture(drawing("CMYK", paper=(0, 0, 0, 0)), "JPEG"), 1, (966, 1288)),
    **{
        f"photo-turned-{number}.jpg": HardFile(
            lambda number=number: turned_photo(number), 1, (966, 1288) if number < 5 else (1288, 966)
        )
        for number in range(2, 9)
    },
    "turned.tif": HardFile(lambda: turned_photo(6, "TIFF"), 1, (1288, 966)),
    "turned.webp": HardFile(lambda: turned_photo(6, "WEBP"), 1, (1288, 966)),
    "frames.tif": HardFile(lambda: frames("TIFF", 3), 3, (966, 1288)),
    "fax.tif": HardFile(lambda: picture(drawing("1"), "TIFF", compression="group4"), 1, (966, 1288)),
    "loop.tif": HardFile(looping_tiff, 1, (966, 1288)),
    "thumbnail.tif": HardFile(tiff_with_thumbnail, 1, (966, 1288)),
    "animated.webp": HardFile(lambda: frames("WEBP", 3), 1, (966, 1288)),
    "plain.gif": HardFile(lambda: picture(drawing(), "GIF"), 1, (966, 1288)),
    "plain.bmp": HardFile(lambda: picture(drawing(), "BMP"), 1, (966, 1288)),
}
