"""What these tests share."""

import pytest

from olmocr.inference.model import load_model
from olmocr.model_folder import ModelFolder
from olmocr.rendering.render import open_document
from olmocr.validate.fidelity.reading import read_page
from olmocr.validate.known_pages.built_in_pages import draw_built_in_pages
from tests.conftest import CHECKPOINT, DEVICE


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a low picture of two lines, which is read in little time, beside its true text."""
    folder = tmp_path_factory.mktemp("page")
    known = draw_built_in_pages(folder, 644)[-1]
    with open_document(known.path, known.path.name) as document:
        pixels = document.render(known.page_number, 644).pixels
    path = folder / "short.png"
    pixels.crop((0, 0, pixels.width, 130)).save(path)
    path.with_suffix(".md").write_text(known.truth)
    return path


@pytest.fixture(scope="module")
def source():
    return load_model(ModelFolder(CHECKPOINT), DEVICE)


@pytest.fixture(scope="module")
def image(page):
    with open_document(page, page.name) as document:
        return document.render(1, 644)


@pytest.fixture(scope="module")
def answer(source, image):
    return read_page(source, image, 400).greedy.tokens
