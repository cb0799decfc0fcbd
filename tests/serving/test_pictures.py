import io

import pytest
from PIL import Image

from olmocr.rendering.levels import on_white, upright_picture
from olmocr.serving.pictures import check_picture, read_picture
from olmocr.serving.refusals import RequestError
from tests.serving.servers import picture


def why_refused(content):
    with pytest.raises(RequestError) as caught:
        check_picture(content)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")
    return str(caught.value)


@pytest.mark.parametrize(("kind", "name"), [("GIF", "GIF"), ("TIFF", "TIFF"), ("BMP", "BMP"), ("PDF", "PDF")])
def test_a_picture_of_another_kind_is_called_what_it_is_with_what_reads_it(kind, name):
    why = why_refused(picture((80, 60), kind))
    assert f"it is a {name}, and no PNG, JPEG or WebP" in why
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
