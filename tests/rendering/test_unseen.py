import io
import zlib

import pytest
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject, NameObject

from olmocr.errors import InputError
from olmocr.rendering.render import open_document
from tests.rendering.hard_files import DRAWING, LETTER, drawing, form, layers, pdf, picture, saved, stream, with_image


def opened(content, folder, **options):
    """Return a file's facts and its page's pixels, or the sentence that refuses them."""
    path = folder / "a.pdf"
    path.write_bytes(content)
    try:
        with open_document(path, "a.pdf", **options) as pages:
            return pages.has_form, pages.lacks_form, pages.render(1, 400).pixels
    except InputError as error:
        return str(error)


def is_read(outcome):
    return not isinstance(outcome, str)


def image(filters, data, *, bits=8, space=b"/DeviceGray", width=300, height=400):
    entries = b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace %b /BitsPerComponent %d /Filter /%b" % (
        width,
        height,
        space,
        bits,
        filters,
    )
    return stream(data, entries)


PAGE = drawing("L").tobytes()
JPEG = picture(drawing("L"), "JPEG")
NONSENSE = b"nonsense" * 50


@pytest.mark.parametrize(
    ("filters", "data", "why"),
    [
        (b"JPXDecode", NONSENSE, "has a picture (JPXDecode) that cannot be unpacked"),
        (b"JBIG2Decode", NONSENSE, "has a picture (JBIG2Decode) that cannot be unpacked"),
        (b"DCTDecode", NONSENSE, "has a picture (DCTDecode) that cannot be unpacked"),
        (b"NobodysDecode", NONSENSE, "has a picture (NobodysDecode) that cannot be unpacked"),
        (b"FlateDecode", NONSENSE, "has a picture (FlateDecode) that is cut short"),
        (b"FlateDecode", zlib.compress(PAGE)[:600], "has a picture (FlateDecode) that is cut short"),
        (b"FlateDecode", zlib.compress(PAGE[: len(PAGE) // 2]), "has a picture (FlateDecode) that is cut short"),
        (b"DCTDecode", JPEG[: len(JPEG) // 2], "has a picture (DCTDecode) that is cut short"),
    ],
)
def test_a_scan_that_cannot_be_seen_is_not_read(filters, data, why, tmp_path):
    sentence = f"page 1 of a.pdf {why}; open the file in a viewer to see what it shows"
    assert opened(with_image(image(filters, data)), tmp_path) == sentence


def test_a_scan_that_cannot_be_seen_is_not_read_though_its_page_has_a_stamp(tmp_path):
    stamped = b"q 572 0 0 752 20 20 cm /Scan Do Q BT /F1 20 Tf 60 20 Td (page 17 of 20) Tj ET"
    content = pdf(LETTER, stamped, image(b"JPXDecode", NONSENSE), resources=b"/XObject << /Scan 6 0 R >>")
    assert "cannot be unpacked" in opened(content, tmp_path)


@pytest.mark.parametrize(
    "scan",
    [
        image(b"FlateDecode", zlib.compress(PAGE)),
        image(b"FlateDecode", zlib.compress(PAGE[:-300])),  # a careless program leaves off a row
        image(b"DCTDecode", JPEG),
        image(b"DCTDecode", JPEG.removesuffix(b"\xff\xd9") + bytes(200)),
        image(b"FlateDecode", zlib.compress(bytes(300 * 50)), space=b"[/Indexed /DeviceGray 1 <00FF>]", bits=1),
        image(b"FlateDecode", zlib.compress(b""), width=1, height=1),
    ],
)
def test_a_scan_that_is_whole_is_read(scan, tmp_path):
    assert is_read(opened(with_image(scan), tmp_path))


LOST = "page 1 of a.pdf has content that cannot be drawn: a part of the file is missing or damaged; " + (
    "open the file in a viewer to see what it shows"
)


@pytest.mark.parametrize(
    "content",
    [
        pdf(contents=stream(b"this is not deflated", b"/Filter /FlateDecode")),
        pdf(contents=stream(b"nobody can read this", b"/Filter /NobodysDecode")),
        pdf(contents=stream(zlib.compress(DRAWING)[:20], b"/Filter /FlateDecode")),
        pdf(LETTER, b"q 572 0 0 752 20 20 cm /Scan Do Q", resources=b"/XObject << /Scan 9 0 R >>"),
        pdf(LETTER, b"q 572 0 0 752 20 20 cm /Scan Do Q"),
    ],
)
def test_a_page_that_is_blank_for_want_of_its_content_is_not_taken_for_a_blank_one(content, tmp_path):
    assert opened(content, tmp_path) == LOST


@pytest.mark.parametrize(
    "content",
    [
        pdf(LETTER, b""),
        pdf(LETTER, b"q 1 0 0 1 0 0 cm Q"),
        pdf(contents=b"null"),
        pdf(contents=stream(zlib.compress(b"q Q")[:-4], b"/Filter /FlateDecode")),
        pdf(LETTER, b"1 g 0 0 612 792 re f"),
        pdf(LETTER, b"BT 1 g /F1 40 Tf 100 600 Td (white on white) Tj ET"),
        pdf(LETTER, b"BT 3 Tr /F1 40 Tf 100 600 Td (never drawn) Tj ET"),
        pdf(LETTER, b"BT /F1 40 Tf 9000 600 Td (beside the page) Tj ET"),
        pdf(
            LETTER,
            b"/Empty Do",
            stream(b"q Q", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]"),
            resources=b"/XObject << /Empty 6 0 R >>",
        ),
    ],
)
def test_a_page_that_is_meant_to_be_blank_is_blank(content, tmp_path):
    _, _, pixels = opened(content, tmp_path)
    assert pixels.convert("L").getextrema() == (255, 255)


def test_a_layer_that_is_switched_off_is_not_lost_text(tmp_path):
    hidden = (
        layers().replace(DRAWING, b" " * len(DRAWING)).replace(b"/ON [6 0 R] /OFF [7 0 R]", b"/OFF [6 0 R 7 0 R]    ")
    )
    _, _, pixels = opened(hidden, tmp_path)
    assert pixels.convert("L").getextrema() == (255, 255)


def test_text_without_a_drawable_font_is_not_taken_for_a_blank_page(tmp_path):
    font = (
        b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 600 700] /FontMatrix [.001 0 0 .001 0 0] /CharProcs << >> "
        b"/Encoding << /Differences [97 /x] >> /FirstChar 97 /LastChar 98 /Widths [600 600] >>"
    )
    content = pdf(LETTER, b"BT /F1 48 Tf 140 690 Td (abab) Tj ET", font=font)
    assert opened(content, tmp_path).startswith("page 1 of a.pdf has text in a font that cannot be drawn; ")


def cut(content, at):
    return content[: content.index(at)]


def test_of_a_cut_file_a_page_whose_content_is_lost_is_not_blank(tmp_path):
    sentence = opened(cut(pdf(), b"4 0 obj"), tmp_path)
    assert sentence.startswith("page 1 of a.pdf has lost its content: the file is damaged; ")


def test_of_a_cut_file_a_page_whose_content_is_cut_is_not_read(tmp_path):
    packed = zlib.compress(DRAWING * 20)
    whole = pdf(contents=stream(packed, b"/Filter /FlateDecode"))
    assert is_read(opened(whole, tmp_path))
    damaged = whole.replace(packed[40:80], bytes(40)).replace(b"startxref", b"startxxxx")
    assert "page 1 of a.pdf has content that is damaged; " in opened(damaged, tmp_path)


XFA = b"<xdp:xdp><config><acrobat7><dynamicRender>%b</dynamicRender></acrobat7></config><template/></xdp:xdp>"
WAIT = (
    b"BT /F1 12 Tf 60 600 Td (Please wait...) Tj 0 -20 Td (If this message is not eventually replaced, your PDF) Tj "
    b"0 -20 Td (viewer may not be able to display this type of document.) Tj ET"
)


def xfa(packet, content=DRAWING, catalog=b"", entry=b"6 0 R", entries=b""):
    form = b"/AcroForm << /Fields [] /XFA %b >> %b" % (entry, catalog)
    return pdf(LETTER, content, stream(packet, entries), catalog=form)


DYNAMIC = (
    "a.pdf is a dynamic XFA form, whose pages only Adobe's readers can make; "
    "open it there, print it to a PDF and give that"
)


@pytest.mark.parametrize(
    "content",
    [
        xfa(XFA % b"required"),
        xfa(XFA % b"required", entry=b"[(config) 6 0 R]"),
        xfa(zlib.compress(XFA % b"required"), entries=b"/Filter /FlateDecode"),
        xfa(b"<xdp/>", catalog=b"/NeedsRendering true"),
        xfa(b"<xdp/>", WAIT),
    ],
)
def test_a_form_whose_pages_are_made_by_its_reader_is_refused_by_name(content, tmp_path):
    assert opened(content, tmp_path) == DYNAMIC


@pytest.mark.parametrize(
    "content",
    [
        xfa(XFA % b"forbidden"),
        xfa(b"<xdp/>"),
        xfa(b"<xdp/>", catalog=b"/NeedsRendering false"),
        pdf(LETTER, WAIT),
        pdf(catalog=b"/NeedsRendering true"),
    ],
)
def test_a_form_with_pages_of_its_own_is_read(content, tmp_path):
    assert is_read(opened(content, tmp_path))


def with_attachments(count, *, is_portfolio, password=None):
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf())))
    for number in range(count):
        writer.add_attachment(f"{number}.pdf", pdf())
    if is_portfolio:
        writer.root_object[NameObject("/Collection")] = DictionaryObject({NameObject("/View"): NameObject("/D")})
    if password is not None:
        writer.encrypt(password, "owner", algorithm="AES-256")
    return saved(writer.write)


@pytest.mark.parametrize("password", [None, ""])
def test_a_portfolio_is_not_read_for_its_cover(password, tmp_path):
    assert opened(with_attachments(2, is_portfolio=True, password=password), tmp_path) == (
        "a.pdf is a PDF portfolio: 2 files are in it, and its own pages are only a cover; extract and give the files"
    )


def test_a_document_with_attachments_is_read(tmp_path):
    assert is_read(opened(with_attachments(2, is_portfolio=False), tmp_path))


def field(kind):
    widget = b"<< /Type /Annot /Subtype /Widget /T (n) %b /Rect [100 400 500 460] /F 4 /P 3 0 R >>" % kind
    return pdf(LETTER + b" /Annots [6 0 R]", DRAWING, widget, catalog=b"/AcroForm << /Fields [6 0 R] >>")


@pytest.mark.parametrize(
    ("content", "has_form"),
    [
        (pdf(), False),
        (pdf(catalog=b"/AcroForm << /Fields [] >>"), False),
        (field(b"/FT /Sig"), False),
        (field(b"/FT /Btn"), False),
        (field(b"/FT /Ch"), False),
        (field(b"/FT /Tx"), True),
        (form(b"value", None), True),
        (
            pdf(
                LETTER + b" /Annots [7 0 R]",
                DRAWING,
                b"<< /FT /Tx /T (p) /Kids [7 0 R] >>",
                b"<< /Subtype /Widget /Parent 6 0 R /Rect [100 400 500 460] >>",
                catalog=b"/AcroForm << /Fields [6 0 R] >>",
            ),
            True,
        ),
    ],
)
def test_only_text_fields_make_a_form_as_upstream_decides(content, has_form, tmp_path):
    assert bool(PdfReader(io.BytesIO(content)).get_form_text_fields()) == has_form
    assert opened(content, tmp_path)[0] == has_form


def test_a_field_that_is_drawn_without_its_form_looks_as_the_file_says(tmp_path):
    look = b"BT /F1 40 Tf 4 12 Td (LOOK) Tj ET"
    with_form, without, nothing = (
        opened(content, tmp_path, with_form=is_with)
        for content, is_with in ((form(b"LOOK", look), True), (form(b"LOOK", look), False), (pdf(), True))
    )
    assert [lacks for _, lacks, _ in (with_form, without, nothing)] == [False, True, False]
    dark = [sum(pixels.convert("L").histogram()[:128]) for _, _, pixels in (with_form, without, nothing)]
    assert dark[1] > dark[2] + 100
    assert abs(dark[0] - dark[1]) < 100


def test_a_pdf_that_has_lost_its_first_line_is_read(tmp_path):
    assert is_read(opened(pdf().split(b"\n", 2)[2], tmp_path))


def test_the_largest_pictures_are_not_unpacked_twice(tmp_path):
    huge = image(b"FlateDecode", zlib.compress(bytes(100)), width=7000, height=7000)
    assert is_read(opened(with_image(huge), tmp_path))


def test_a_picture_that_is_drawn_a_hundred_times_is_looked_at_once(tmp_path, monkeypatch):
    from olmocr.rendering import unseen

    looked = []
    monkeypatch.setattr(unseen, "_why_picture_unseen", lambda item, width, height: looked.append(width))
    again = b"q 572 0 0 752 20 20 cm /Scan Do Q " * 100
    scan = image(b"FlateDecode", zlib.compress(PAGE))
    assert is_read(opened(pdf(LETTER, again, scan, resources=b"/XObject << /Scan 6 0 R >>"), tmp_path))
    assert looked == [300]
