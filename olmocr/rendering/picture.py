"""A page's image -> a picture that HTML can contain: a data URI."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from olmocr.page import PageImage


@dataclass(frozen=True)
class Picture:
    """A page as an image: its bytes as *uri*, its *width* and *height* in pixels."""

    uri: str
    width: int
    height: int


def make_picture(image: PageImage, quality: int = 70) -> Picture:
    """Return *image* as WebP of *quality*, from 0 to 100; at 70 small print stays sharp."""
    encoded = io.BytesIO()
    image.pixels.save(encoded, "WEBP", quality=quality, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(encoded.getbuffer()).decode("ascii")
    return Picture(uri, image.pixels.width, image.pixels.height)
