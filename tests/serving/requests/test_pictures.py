""""""

import io
import struct
import zlib

import pytest
from PIL import Image

from olmocr.rendering.levels import on_white, upright_picture
from olmocr.serving.refusals import RequestError
from olmocr.serving.requests.pictures import MOST_PIXELS, check_picture, read_picture
from tests.serving.bodies import parsed, refused, with_parts
from tests.serving.servers import chat, data_uri, picture


def why_refused(content):
    with pytest.raises(RequestError) as caught:
        check_picture(content)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")
    return str(caught.value)


@pytest.mark.parametrize(("kind", "name"), [("GIF", "GIF"), ("TIFF", "TIFF"), ("BMP", "BMP"), ("PDF", "PDF")])
def test_a_picture_of_another_kind_is_called_what_it_is_with_what_reads_it(kind, name):
    why = why_refused(picture((80, 60), kind))
    assert f"it is a {name}, not a PNG, JPEG or WebP" in why
    assert "POST /v1/ocr" in why


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_takes_minutes():
    content = picture((80, 60), "JPEG", progressive=True)
    assert read_picture(content).pixels.size == (80, 60)
    start = content.index(b"\xff\xda")
    assert "drawn over" in why_refused(content[:start] + content[start:-2] * 201 + content[-2:])


def test_two_bytes_that_begin_a_scan_of_a_jpeg_are_any_two_bytes_of_another_picture():
    content = picture((80, 60)) + b"\xff\xda" * 1000
    assert read_picture(content).pixels.size == (80, 60)


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L", "P"])
def test_a_large_picture_is_read_in_bands_as_it_is_at_once(mode):
    noise = Image.effect_noise((1100, 1003), 90).convert(mode)
    if mode == "RGBA":
        noise.putalpha(Image.effect_noise(noise.size, 90))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    with Image.open(buffer) as image:
        assert read_picture(buffer.getvalue()).pixels == on_white(upright_picture(image))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_of_three_kinds_are_read(kind):
    question = parsed(chat(data_uri(picture((80, 60), kind), "image/whatever")))
    assert question.page_request().image.pixels.size == (80, 60)


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.png", "http://169.254.169.254/", "file:///etc/passwd", "/etc/passwd", "a.png", "", 7, None,
     {"url": "ftp://a/b"}, {"file_id": "x"}, "data:image/png,raw", "DATA:text/html,<b>"],
)  # fmt: skip
def test_no_url_and_no_file_is_ever_opened(url):
    error = refused(with_parts({"type": "image_url", "image_url": url}))
    assert error.code == "invalid_image_url"
    assert "opens no files and no URLs" in str(error)


def bomb(width, height):
    """Return a PNG that says it has so many pixels, and has none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a PNG, JPEG or WebP"),
        (b"GIF89a" + bytes(50), "not a PNG, JPEG or WebP"),
        (b"%PDF-1.4", "not a PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged"),
        (bomb(60_000, 60_000), f"more than {MOST_PIXELS} pixels"),
        (bomb(7_000, 6_000), f"more than {MOST_PIXELS} pixels"),
        (bomb(0, 5), "damaged"),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused_at_the_door(content, words):
    assert words in str(refused(chat(data_uri(content))))


def test_a_picture_that_breaks_off_is_refused_when_it_is_read():
    question = parsed(chat(data_uri(picture((300, 300), "JPEG")[:-200])))
    with pytest.raises(RequestError, match="damaged"):
        question.page_request()
