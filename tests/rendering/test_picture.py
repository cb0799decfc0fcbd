"""A page's image becomes a picture that stands in the HTML itself."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from olmocr.page import PageImage
from olmocr.rendering.picture import make_picture


def decoded(picture):
    head, _, data = picture.uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


@pytest.mark.parametrize("size", [(1, 1), (60, 20), (21, 63)])
def test_a_picture_has_the_size_of_its_page(size):
    picture = make_picture(PageImage(Image.new("RGB", size, "white")))
    assert (picture.width, picture.height) == decoded(picture).size == size


def test_a_picture_shows_what_its_page_shows():
    page = Image.new("RGB", (64, 64), "white")
    page.paste("navy", (0, 0, 32, 64))
    shown = np.asarray(decoded(make_picture(PageImage(page))).convert("RGB"), np.int16)
    assert np.abs(shown - np.asarray(page, np.int16))[:, [4, 60]].max() < 12


def test_a_lower_quality_takes_fewer_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    page = PageImage(Image.fromarray(noise))
    assert len(make_picture(page, 20).uri) < len(make_picture(page, 90).uri)
