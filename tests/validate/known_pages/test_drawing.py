"""Text that is drawn at places of a page is in the PDF, and in its picture."""

import numpy as np
import pytest

from olmocr.rendering.render import open_document
from olmocr.validate.known_pages.drawing import (
    HEIGHT,
    WIDTH,
    Type,
    picture,
    table_html,
    table_sheet,
    text_sheet,
    turned_90,
    turned_180,
    write_pdf,
)

ROWS = [("Item", "Price"), ("Lamp", "12"), ("Chair", "48")]


def text_of(path, sheet, **options):
    with open_document(write_pdf(path, [sheet], **options), path.name) as document:
        return document.text(1)


def ink_of(page):
    """Return how dark each pixel is, from 0 to 255."""
    return 255 - np.asarray(page.pixels.convert("L"), np.float32)


def test_paragraphs_can_be_read_in_the_pdf_and_are_wrapped_within_the_margins(tmp_path):
    paragraph = "Every word of this paragraph is found again, " * 4
    assert text_of(tmp_path / "a.pdf", text_sheet([paragraph], Type(12))).split() == paragraph.split()


def test_signs_that_pdf_has_a_use_for_are_text(tmp_path):
    assert text_of(tmp_path / "a.pdf", text_sheet([r"f(x) = \y (z"], Type(12))).strip() == r"f(x) = \y (z"


def test_letters_of_western_languages_are_drawn_and_can_be_read(tmp_path):
    sheet = text_sheet(["Größe, façade, niño: 3 € – “più”"], Type(12))  # noqa: RUF001
    assert text_of(tmp_path / "a.pdf", sheet, western=True) == "Größe, façade, niño: 3 € – “più”"  # noqa: RUF001
    plain = ink_of(picture(text_sheet(["u u u"], Type(12)), HEIGHT, tmp_path / "b.pdf", western=True)).sum()
    accented = ink_of(picture(text_sheet(["ü ú ù"], Type(12)), HEIGHT, tmp_path / "b.pdf", western=True)).sum()
    assert accented > plain


def test_every_cell_of_a_table_can_be_read_in_the_pdf_and_in_its_html(tmp_path):
    words = [cell for row in ROWS for cell in row]
    assert text_of(tmp_path / "a.pdf", table_sheet(ROWS, 12)).split() == words
    assert table_html(ROWS).splitlines()[1] == "<tr><th>Item</th><th>Price</th></tr>"
    assert table_html(ROWS).count("<td>") == 4


def test_every_sheet_is_a_page(tmp_path):
    sheets = [text_sheet([str(number)], Type(12)) for number in range(5)]
    with open_document(write_pdf(tmp_path / "a.pdf", sheets), "a.pdf") as document:
        assert [document.text(number).strip() for number in range(1, 6)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(("turn", "quarters"), [(turned_90, 1), (turned_180, 2)])
def test_a_turned_sheet_is_the_upright_one_after_turning_it_back(tmp_path, turn, quarters):
    sheet = text_sheet(["Up and down are not the same. " * 20], Type(24))
    upright = ink_of(picture(sheet, HEIGHT, tmp_path / "a.pdf"))
    turned = ink_of(picture(turn(sheet), HEIGHT, tmp_path / "b.pdf"))
    assert upright.shape == (HEIGHT, WIDTH)
    right, wrong = (np.abs(np.rot90(turned, by) - upright).mean() for by in (quarters, quarters + 2))
    assert right < upright.mean() / 2 < upright.mean() < wrong
