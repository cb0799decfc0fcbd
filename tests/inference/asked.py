"""Pages and small pictures that the tests of the engine ask about."""

from PIL import Image

from olmocr.page import PageImage, PageRequest
from olmocr.rendering.render import open_document
from tests.conftest import PAGES


def page_image(name="sparse_14.pdf", number=1, longest_side=644):
    with open_document(PAGES / name, name) as pages:
        return pages.render(number, longest_side)


def small(seed=0, **options):
    return PageRequest(PageImage(Image.new("RGB", (56, 84), (seed % 256, 90, 30))), seed=seed, **options)
