import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfReader, PdfWriter
from pypdf.generic import RectangleObject

from olmocr.errors import InputError
from olmocr.page import PageImage
from olmocr.rendering.render import _scale, open_document, turned
from tests.conftest import PAGES
from tests.pipeline.doubles import write_form, write_image, write_pdf


def rendered(path, longest_side=1288, page_number=1):
    with open_document(path, str(path)) as pages:
        return pages.render(page_number, longest_side).pixels


def refusal(path):
    with pytest.raises(InputError) as error:
        rendered(path)
    return str(error.value)


def test_a_letter_page_has_the_size_that_olmocr_was_trained_on(tmp_path):
    assert rendered(write_pdf(tmp_path / "a.pdf")).size == (996, 1288)


def test_a_page_with_a_turn_of_its_own_is_rendered_upright(tmp_path):
    assert rendered(write_pdf(tmp_path / "a.pdf", rotate=90)).size == (1288, 996)


def test_the_crop_box_is_ignored_as_in_training(tmp_path):
    write_pdf(tmp_path / "whole.pdf")
    writer = PdfWriter(clone_from=PdfReader(tmp_path / "whole.pdf"))
    writer.pages[0].cropbox = RectangleObject((0, 0, 100, 100))
    writer.write(tmp_path / "cropped.pdf")
    assert rendered(tmp_path / "cropped.pdf").size == (996, 1288)


@given(st.floats(1, 20000), st.floats(1, 20000), st.integers(28, 4096))
def test_no_page_is_a_pixel_longer_than_asked(width, height, longest_side):
    scale = _scale((width, height), longest_side, "page 1 of a.pdf")
    assert longest_side - 1 <= math.ceil(max(width, height) * scale) <= longest_side


def test_an_image_is_scaled_to_the_same_side(tmp_path):
    assert rendered(write_image(tmp_path / "a.png")).size == (1288, 644)


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6
    assert rendered(write_image(tmp_path / "a.jpg", exif=orientation)).size == (644, 1288)


def test_what_is_transparent_becomes_paper(tmp_path):
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert rendered(tmp_path / "a.png").getpixel((9, 9)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "RGB", "CMYK"])
def test_every_kind_of_pixel_becomes_rgb(mode, tmp_path):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (60, 40)).save(path)
    assert rendered(path).mode == "RGB"


def test_grey_of_16_bits_is_not_bleached(tmp_path):
    Image.new("I;16", (60, 40), 30000).save(tmp_path / "a.png")
    assert rendered(tmp_path / "a.png").getpixel((9, 9)) == (117, 117, 117)


def test_a_large_scan_is_read_without_a_warning(tmp_path):
    Image.new("1", (10000, 9100)).save(tmp_path / "a.png")
    assert rendered(tmp_path / "a.png").size == (1288, 1172)


def test_what_was_filled_into_a_form_is_drawn(tmp_path):
    with_value, without = (write_form(tmp_path / f"{value}.pdf", value) for value in ("FILLED", ""))
    dark = [sum(rendered(path).convert("L").histogram()[:128]) for path in (with_value, without)]
    assert dark[0] > dark[1] + 100


def test_the_kind_of_a_file_is_told_by_its_content_and_not_its_name(tmp_path):
    write_image(tmp_path / "a.png").rename(tmp_path / "a.pdf")
    assert rendered(tmp_path / "a.pdf").size == (1288, 644)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"hello", "is not a PDF, and not a picture of a kind that can be read (PDF, PNG"),
        (b"%PDF-1.7\nnonsense", "is a damaged PDF"),
        (b"\x89PNG\r\n\x1a\nnonsense", "is a damaged picture"),
        (b"\xff\xd8\xff\xe0nonsense", "is a damaged picture"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(content, sentence, tmp_path):
    (tmp_path / "a.pdf").write_bytes(content)
    assert f"a.pdf {sentence}" in refusal(tmp_path / "a.pdf")


def test_a_truncated_image_is_refused(tmp_path):
    path = write_image(tmp_path / "a.png", (400, 400))
    path.write_bytes(path.read_bytes()[:-200])
    assert "is a damaged picture" in refusal(path)


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path):
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    assert "bomb.png has more than 178956970 pixels" in refusal(tmp_path / "bomb.png")


def test_an_encrypted_pdf_is_refused_with_what_to_do(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", password="secret")
    assert refusal(path).endswith("a.pdf is encrypted; save a copy without its password and give that")


def test_a_pdf_that_is_encrypted_without_a_password_is_read(tmp_path):
    assert rendered(write_pdf(tmp_path / "a.pdf", password="")).size == (996, 1288)


def test_a_pdf_without_pages_is_refused_and_not_taken_for_an_encrypted_one(tmp_path):
    assert "is a damaged PDF" in refusal(write_pdf(tmp_path / "a.pdf", pages=0))


def test_the_text_that_a_pdf_holds_is_found():
    path = PAGES / "digital_01.pdf"
    with open_document(path, str(path)) as pages:
        text = pages.text(1)
    assert text.startswith("Harbour Library Newsletter\nThe reading room")


def test_a_scan_holds_no_text():
    path = PAGES / "scan_17.pdf"
    with open_document(path, str(path)) as pages:
        assert pages.text(1) is None


@pytest.mark.parametrize(("degrees", "corner"), [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_an_image_is_turned_counter_clockwise(degrees, corner):
    image = Image.new("RGB", (3, 2), "white")
    image.putpixel((0, 0), (0, 0, 0))
    result = turned(PageImage(image), degrees)
    at = tuple(side - 1 if place == -1 else 0 for place, side in zip(corner, result.pixels.size, strict=True))
    assert result.rotation == degrees
    assert result.pixels.getpixel(at) == (0, 0, 0)
