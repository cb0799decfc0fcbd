"""The pixel size of a page is pdftoppm's, with whose pictures olmOCR was trained, over all boxes and turns."""

import shutil
import struct
import subprocess

import pytest
from pypdf import PdfWriter
from pypdf.generic import FloatObject, NameObject, RectangleObject

from olmocr.rendering.render import open_document

LONGEST = 1288

# MediaBox -> what pdftoppm 22.12 made of it, asked for 1288 pixels as upstream asks.
RECORDED = {
    (0, 0, 612, 792): (996, 1288),
    (0, 0, 595.276, 841.89): (911, 1288),
    (-10.5, 20.25, 584.776, 862.14): (911, 1288),
    (0, 0, 960, 540): (1288, 725),
    (0, 0, 500, 500): (1288, 1288),
    (0, 0, 20, 30): (859, 1288),
    (0, 0, 14400, 7200): (1288, 644),
    (0, 0, 30, 3000): (13, 1288),
    (0, 0, 612, 1008): (782, 1288),
    (612, 792, 0, 0): (996, 1288),
    # pdftoppm rounds up, and upstream reads the box with two decimals: a pixel more than was asked for.
    (0, 0, 333.33, 777.77): (552, 1289),
    (0, 0, 527.6942, 248.9396): (1288 + 1, 608),
}
TURNS = (0, 90, 180, 270)
CROPS = (None, 5, -50)  # points that the CropBox is smaller than the MediaBox, on each side


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """Return a PDF with a page for each box, crop and turn, in this order."""
    writer = PdfWriter()
    for box in RECORDED:
        for crop in CROPS:
            for turn in TURNS:
                page = writer.add_blank_page(1, 1)
                page.mediabox = RectangleObject(box)
                if crop is not None:
                    page.cropbox = RectangleObject((box[0] + crop, box[1] + crop, box[2] - crop, box[3] - crop))
                page.rotate(turn)
    path = tmp_path_factory.mktemp("sizes") / "boxes.pdf"
    writer.write(path)
    return path


def pages():
    """Return each page's number, its name and the recorded size, turned as the page is."""
    made = ((box, crop, turn) for box in RECORDED for crop in CROPS for turn in TURNS)
    for number, (box, crop, turn) in enumerate(made, 1):
        size = RECORDED[box]
        yield number, (box, crop, turn), size[::-1] if turn in (90, 270) else size


def no_longer(size):
    """Return *size* with the pixel taken off that is more than was asked for."""
    return tuple(min(side, LONGEST) for side in size)


def test_a_page_has_the_size_that_was_recorded_whatever_its_boxes_and_turn(document):
    with open_document(document, "boxes.pdf") as opened:
        sizes = {page: opened.render(number, LONGEST).pixels.size for number, page, _ in pages()}
    assert sizes == {page: no_longer(size) for _, page, size in pages()}


def test_a_user_unit_changes_no_size(tmp_path):
    writer = PdfWriter()
    writer.add_blank_page(612, 792)[NameObject("/UserUnit")] = FloatObject(3)
    writer.write(tmp_path / "a.pdf")
    with open_document(tmp_path / "a.pdf", "a.pdf") as opened:
        assert opened.render(1, LONGEST).pixels.size == (996, 1288)


@pytest.mark.skipif(not shutil.which("pdftoppm"), reason="poppler's commands are not installed")
def test_the_sizes_that_were_recorded_are_pdftoppms(document):
    asked = [page for page in pages() if page[1][2] in (0, 90)][:: 2 * len(CROPS) - 1]
    made = {page: poppler_size(document, number, page[0]) for number, page, _ in asked}
    assert made == {page: size for _, page, size in asked}


def poppler_size(path, number, box):
    """Return the size of the picture that upstream's command for *box* makes, as pdfinfo prints that: two decimals."""
    left, bottom, right, top = (round(side, 2) for side in box)
    dots_per_inch = LONGEST * 72 / max(abs(left - right), abs(top - bottom))
    command = ["pdftoppm", "-png", "-f", str(number), "-l", str(number), "-r", str(dots_per_inch), str(path)]
    return struct.unpack(">II", subprocess.run(command, capture_output=True, check=True).stdout[16:24])
