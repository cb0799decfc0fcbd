"""The bytes of a picture that came with a question -> PageImage."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from olmocr.inputs.kinds import FIRST_BYTES, Kind, kind_of
from olmocr.page import PageImage
from olmocr.rendering.levels import on_white, upright_picture
from olmocr.serving.refusals import RequestError, bad_request

KINDS = (Kind.PNG, Kind.JPEG, Kind.WEBP)

MOST_PIXELS = 40_000_000
"""A letter page at 600 dots per inch has 34 million; a model's own limit is a third of that."""

_BAND_PIXELS = 1_000_000

_JPEG_SCAN, _MOST_SCANS = b"\xff\xda", 200
"""How a scan of a JPEG begins. Each may take as long as the complete picture; a usual picture has 1 to 12."""


def check_picture(content: bytes) -> int:
    """Return how many pixels a picture has, from its first bytes.

    Raises:
        RequestError: it is not a picture that can be read, or has too many pixels.
    """
    with _opened(content) as image:
        return image.width * image.height


def read_picture(content: bytes) -> PageImage:
    """Return a picture as it is shown: upright, with white for what is transparent. It takes a tenth of a second.

    Raises:
        RequestError: as of :func:`check_picture`, or it is damaged.
    """
    with _opened(content) as image:
        return PageImage(_on_white(upright_picture(image)))


def _on_white(image: Image.Image) -> Image.Image:
    """Return what `on_white` returns, band by band: it makes several copies of what it is given."""
    result = Image.new("RGB", image.size)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(on_white(band), (0, top))
    return result


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    kind = kind_of(content[:FIRST_BYTES])
    if kind not in KINDS:
        raise _refused(
            f"it is {f'a {kind}' if kind else 'something else'}, not a {', '.join(KINDS[:-1])} or {KINDS[-1]}; "
            "POST /v1/ocr reads a PDF, and pictures of other kinds"
        )
    if kind is Kind.JPEG and content.count(_JPEG_SCAN) > _MOST_SCANS:
        raise _refused("it is drawn over more often than any camera or scanner does")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large ones; our own limit decides
            with Image.open(io.BytesIO(content), formats=(kind.upper(),)) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise _refused(f"it has more than {MOST_PIXELS} pixels; send a smaller one")
                yield image
    except RequestError:
        raise
    except Image.DecompressionBombError as error:
        raise _refused(f"it has more than {MOST_PIXELS} pixels; send a smaller one") from error
    except Exception as error:  # each of Pillow's decoders fails in its own way
        raise _refused("it is damaged") from error


def _refused(why: str) -> RequestError:
    return bad_request(f"the picture cannot be read: {why}", code="invalid_image")
