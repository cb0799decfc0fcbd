"""A picture's bytes as they came with a question -> PageImage."""

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


def check_picture(content: bytes) -> None:
    """Look at the first bytes of a picture, which tell its kind and size.

    Raises:
        RequestError: it is none that can be read, or has too many pixels.
    """
    with _opened(content):
        pass


def read_picture(content: bytes) -> PageImage:
    """Return a picture as it is shown: upright, what is transparent white. It takes a tenth of a second.

    Raises:
        RequestError: as of :func:`check_picture`, or it is damaged.
    """
    with _opened(content) as image:
        return PageImage(on_white(upright_picture(image)))


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    kind = kind_of(content[:FIRST_BYTES])
    if kind not in KINDS:
        raise _refused(f"it is no {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large ones; ours is the limit that counts
            with Image.open(io.BytesIO(content), formats=(kind.upper(),)) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise _refused(f"it has more than {MOST_PIXELS} pixels; send a smaller one")
                yield image
    except RequestError:
        raise
    except Image.DecompressionBombError as error:
        raise _refused(f"it has more than {MOST_PIXELS} pixels; send a smaller one") from error
    except Exception as error:  # each of Pillow's decoders stumbles in its own way
        raise _refused("it is damaged") from error


def _refused(why: str) -> RequestError:
    return bad_request(f"the picture cannot be read: {why}", code="invalid_image")
