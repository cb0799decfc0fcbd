"""A page as the pipeline reads it."""

import pytest
from PIL import Image

from olmocr.page import PageImage
from olmocr.validate.fidelity.reading import read_page


def test_a_page_that_the_model_cannot_take_is_refused(source):
    from olmocr.errors import InputError

    with pytest.raises(InputError, match="cannot take this page's image"):
        read_page(source, PageImage(Image.new("RGB", (3000, 10))), 10)
