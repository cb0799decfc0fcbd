import io
import struct
import zlib

import pytest
from PIL import Image, features

from olmocr.errors import InputError
from olmocr.rendering.render import open_document
from tests.rendering.deep_pictures import HEIGHT, PIXELS, WIDTH, rows, tiff
from tests.rendering.hard_files import drawing, frames, picture, saved


def pages_of(content, folder):
    """Return what comes of each page: its size, or a sentence."""
    path = folder / "a.tif"
    path.write_bytes(content)
    found = []
    with open_document(path, "a.tif") as pages:
        for number in range(1, pages.page_count + 1):
            try:
                found.append(pages.render(number, 400).pixels.size)
            except InputError as error:
                found.append(str(error))
    return found


def refusal(content, folder):
    try:
        (sentence,) = pages_of(content, folder)
    except InputError as error:
        return str(error)
    return sentence


SAVE = "; save it as an 8-bit PNG and give that"


@pytest.mark.parametrize(
    ("options", "pixels"),
    [
        ({"bits": 16, "samples": 2, "extra": (2,)}, "2 unsigned samples a pixel, 16 bits each, black is zero"),
        ({"bits": 64, "kind": 3}, "1 floating-point samples a pixel, 64 bits each, black is zero"),
        ({"bits": 32, "samples": 3, "photometric": 2}, "3 unsigned samples a pixel, 32 bits each, RGB"),
        ({"bits": 10, "photometric": 0}, "1 unsigned samples a pixel, 10 bits each, white is zero"),
        ({"bits": 16, "samples": 3, "photometric": 32845}, "3 unsigned samples a pixel, 16 bits each, LogLuv"),
    ],
)
def test_a_tiff_that_is_whole_and_of_a_rare_kind_is_refused_by_its_kind_and_not_called_damaged(
    options, pixels, tmp_path
):
    content = tiff([bytes(WIDTH * HEIGHT * 24)], **options)
    assert refusal(content, tmp_path) == f"a.tif is a TIFF of a kind that cannot be read here ({pixels}){SAVE}"


@pytest.mark.parametrize(("method", "name"), [(34661, "JBIG"), (34712, "JPEG 2000"), (34887, "LERC")])
def test_a_tiff_that_cannot_be_unpacked_here_is_refused_by_what_packed_it(method, name, tmp_path):
    content = tiff([bytes(400)], 8, compression=method)
    assert refusal(content, tmp_path) == f"a.tif is a TIFF packed with {name}, which cannot be unpacked here{SAVE}"


def test_what_pillow_takes_for_other_bytes_is_refused(tmp_path):
    plane = struct.pack(f"<{len(PIXELS)}H", *(pixel * 257 for pixel in PIXELS))
    (planes,) = pages_of(tiff([plane] * 3, 16, 2, samples=3, planar=2), tmp_path)
    assert planes.startswith("a.tif is a TIFF of a kind that cannot be read here (3 unsigned samples a pixel, 16 bits")
    signed = zlib.compress(struct.pack(f">{len(PIXELS)}h", *(pixel * 128 for pixel in PIXELS)))
    (order,) = pages_of(tiff([signed], 16, kind=2, order=">", compression=8), tmp_path)
    assert order.startswith("a.tif is a TIFF of a kind that cannot be read here (1 signed samples a pixel, 16 bits")


def test_a_picture_in_a_rare_form_of_its_format_is_not_called_damaged(tmp_path):
    bitmap = bytearray(picture(drawing("RGB"), "BMP"))
    struct.pack_into("<H", bitmap, 28, 2)  # bits of a pixel
    assert refusal(bytes(bitmap), tmp_path) == (
        "a.tif is a BMP of a kind that cannot be read here (Unsupported BMP pixel depth (2))" + SAVE
    )


def offset_of_directory(content, number):
    """Return where the offset of a TIFF's directory stands, and the offset."""
    at = 4
    for _ in range(number):
        (directory,) = struct.unpack_from("<I", content, at)
        (entries,) = struct.unpack_from("<H", content, directory)
        at = directory + 2 + 12 * entries
    return at, struct.unpack_from("<I", content, at)[0]


def value_of_tag(content, number, tag):
    """Return where the value of *tag* stands in a TIFF's directory."""
    _, directory = offset_of_directory(content, number)
    (entries,) = struct.unpack_from("<H", content, directory)
    places = range(directory + 2, directory + 2 + 12 * entries, 12)
    return next(at + 8 for at in places if struct.unpack_from("<H", content, at)[0] == tag)


def test_a_tiff_gives_the_frames_before_one_that_is_lost_and_names_that(tmp_path):
    content = bytearray(frames("TIFF", 3))
    at, _ = offset_of_directory(content, 2)
    struct.pack_into("<I", content, at, len(content) + 1000)
    first, second, third = pages_of(bytes(content), tmp_path)
    assert (first, second) == ((300, 400), (320, 400))
    assert third.startswith("page 3 of a.tif is a damaged picture")


def test_a_tiff_whose_pixels_are_cut_gives_the_frames_that_are_whole(tmp_path):
    content = bytearray(frames("TIFF", 3))
    struct.pack_into("<I", content, value_of_tag(content, 1, 273), len(content) - 10)
    first, second, third = pages_of(bytes(content), tmp_path)
    assert (first, third) == ((300, 400), (340, 400))
    assert second.startswith("page 2 of a.tif is a damaged picture")


def test_a_frame_of_a_rare_kind_does_not_hide_those_behind_it(tmp_path):
    content = bytearray(frames("TIFF", 3))
    struct.pack_into("<H", content, value_of_tag(content, 1, 262), 32803)
    first, second, third = pages_of(bytes(content), tmp_path)
    assert (first, third) == ((300, 400), (340, 400))
    assert second.startswith("page 2 of a.tif is a TIFF of a kind that cannot be read here")


def test_a_mask_of_another_frame_is_not_a_page(tmp_path):
    mask = drawing("1")
    mask.encoderinfo = {"tiffinfo": {254: 4}}
    content = picture(drawing(), "TIFF", save_all=True, append_images=[mask])
    assert pages_of(content, tmp_path) == [(300, 400)]


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF"])
def test_newer_kinds_of_picture_are_read(kind, tmp_path):
    if not features.check({"JPEG2000": "jpg_2000", "AVIF": "avif"}[kind]):
        pytest.skip(f"this Pillow reads no {kind}")
    assert pages_of(picture(drawing(), kind), tmp_path) == [(300, 400)]


def test_a_codestream_of_jpeg_2000_without_a_file_around_it_is_read(tmp_path):
    if not features.check("jpg_2000"):
        pytest.skip("this Pillow reads no JPEG 2000")
    content = saved(lambda file: drawing().save(file, "JPEG2000", no_jp2=True))
    assert content.startswith(b"\xff\x4f\xff\x51")
    assert pages_of(content, tmp_path) == [(300, 400)]


def test_jpeg_2000_that_pillow_does_not_read_is_not_said_to_be_damaged_for_certain(tmp_path):
    if not features.check("jpg_2000"):
        pytest.skip("this Pillow reads no JPEG 2000")
    sentence = refusal(picture(drawing(), "JPEG2000")[:-900], tmp_path)
    assert sentence.startswith("a.tif is in JPEG 2000, and damaged or of a kind that cannot be read here (")


def test_a_kind_that_this_pillow_was_built_without_is_refused_by_name(tmp_path, monkeypatch):
    content = picture(drawing(), "AVIF") if features.check("avif") else b"\0\0\0\x1cftypavif" + bytes(40)
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    assert refusal(content, tmp_path) == ("a.tif is a picture in AVIF, which this version of Pillow cannot read" + SAVE)


def test_rows_of_any_depth_are_packed_as_files_have_them():
    assert len(rows(lambda pixel: [1], 12)[0]) == WIDTH * 12 // 8
    with Image.open(io.BytesIO(tiff([b"".join(rows(lambda pixel: [pixel], 8))], 8))) as image:
        assert list(image.tobytes()) == PIXELS
