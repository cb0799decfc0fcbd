import struct
import zlib

import pytest
from PIL import Image, ImageDraw

from olmocr.errors import InputError
from olmocr.rendering.levels import on_white, pixel_shape
from olmocr.rendering.render import open_document
from tests.rendering.deep_pictures import INK_SHARE, PIXELS, png, rows, tiff


def shown(content, folder, longest_side=160):
    path = folder / "a"
    path.write_bytes(content)
    with open_document(path, "a") as pages:
        return pages.render(1, longest_side).pixels


def is_right(image):
    """Say whether a page shows dark ink over its quarter, and light paper."""
    counts = image.convert("L").histogram()
    dark, light = (sum(part) / sum(counts) for part in (counts[:60], counts[200:]))
    return abs(dark - INK_SHARE) < 0.03 and abs(light - (1 - INK_SHARE)) < 0.03 and min(image.getpixel((5, 150))) > 200


def numbers(form, white, order, photometric=1, black=0):
    values = [(black if bool(pixel) == (photometric == 0) else white) for pixel in PIXELS]
    return struct.pack(f"{order}{len(values)}{form}", *values)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_shallow_tiff_shows_ink_dark_whichever_is_zero(bits, photometric, tmp_path):
    values = rows(lambda pixel: [2**bits - 1 if bool(pixel) == bool(photometric) else 0], bits)
    assert is_right(shown(tiff([b"".join(values)], bits, photometric), tmp_path))


@pytest.mark.parametrize(
    ("form", "bits", "kind", "white", "black", "photometrics", "orders"),
    [
        ("H", 16, 1, 65535, 0, (1,), "<>"),
        ("H", 16, 1, 65535, 0, (0,), "<"),
        ("H", 16, 1, 4095, 0, (1,), "<>"),
        ("H", 16, 1, 4095, 0, (0,), "<"),
        ("h", 16, 2, 32767, -32768, (1,), "<>"),
        ("h", 16, 2, 32767, 0, (1,), "<>"),
        ("b", 8, 2, 127, -128, (1,), "<"),
        ("I", 32, 1, 2**32 - 1, 0, (1,), "<"),
        ("I", 32, 1, 65535, 0, (1,), "<"),
        ("i", 32, 2, 2**31 - 1, -(2**31), (1,), "<>"),
        ("i", 32, 2, 2**31 - 1, 0, (1,), "<>"),
        ("f", 32, 3, 1.0, 0.0, (0, 1), "<>"),
        ("f", 32, 3, 1.02, -0.01, (0, 1), "<>"),
        ("f", 32, 3, 255.0, 0.0, (0, 1), "<>"),
        ("f", 32, 3, 0.02, 0.0, (1,), "<>"),
    ],
)
def test_a_deep_tiff_shows_ink_dark_and_paper_light(form, bits, kind, white, black, photometrics, orders, tmp_path):
    for photometric in photometrics:
        for order in orders:
            data = numbers(form, white, order, photometric, black)
            is_misread_by_pillow = kind == 2 and order == ">" and bits > 8  # and so it is refused
            for strips, compression in [([data], 1), ([zlib.compress(data)], 8)][: 1 if is_misread_by_pillow else 2]:
                content = tiff(strips, bits, photometric, order=order, kind=kind, compression=compression)
                assert is_right(shown(content, tmp_path)), (photometric, order, compression)


def test_a_tiff_of_12_bits_is_not_black(tmp_path):
    values = rows(lambda pixel: [pixel * 4095 // 255], 12)
    assert is_right(shown(tiff([b"".join(values)], 12), tmp_path))


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize(("bits", "samples"), [(8, 2), (8, 4), (16, 4)])
def test_what_is_transparent_in_a_tiff_is_paper_whatever_its_depth(bits, samples, extra, tmp_path):
    full = 2**bits - 1
    paper = [full] * samples if extra == 0 else [0] * samples
    ink = [0] * (samples - 1) + [full]
    values = b"".join(rows(lambda pixel: paper if pixel else ink, bits, "<"))
    photometric = 1 if samples == 2 else 2
    assert is_right(shown(tiff([values], bits, photometric, samples=samples, extra=(extra,)), tmp_path))


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("paper", ["white", "nearly black"])
def test_a_grey_that_stands_for_transparent_is_paper_in_a_png_of_any_depth(bits, paper, tmp_path):
    hole = 1 if paper == "nearly black" else 2**bits - 1
    content = png(bits, 0, lambda pixel: [hole if pixel else 0], (b"tRNS", struct.pack(">H", hole)))
    assert is_right(shown(content, tmp_path))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_that_stands_for_transparent_is_paper_in_a_png_of_any_depth(bits, tmp_path):
    hole = (2**bits - 1) // 3
    content = png(bits, 2, lambda pixel: [hole if pixel else 0] * 3, (b"tRNS", struct.pack(">HHH", hole, hole, hole)))
    assert is_right(shown(content, tmp_path))


@pytest.mark.parametrize(("bits", "colour_type", "samples"), [(8, 4, 1), (16, 4, 1), (8, 6, 3), (16, 6, 3)])
def test_a_png_with_a_channel_of_transparency_shows_its_ink(bits, colour_type, samples, tmp_path):
    content = png(bits, colour_type, lambda pixel: [0] * samples + [0 if pixel else 2**bits - 1])
    assert is_right(shown(content, tmp_path))


@pytest.mark.parametrize("samples", [1, 3])
def test_a_png_that_keeps_12_bits_in_16_is_not_black(samples, tmp_path):
    content = png(16, 2 if samples == 3 else 0, lambda pixel: [pixel * 4095 // 255] * samples)
    assert is_right(shown(content, tmp_path))


def test_a_png_that_holds_light_itself_is_shown_as_a_display_shows_it(tmp_path):
    light = png(8, 0, lambda pixel: [50], (b"gAMA", struct.pack(">I", 100_000)))
    plain = png(8, 0, lambda pixel: [50], (b"gAMA", struct.pack(">I", 45_455)))
    standard = png(8, 0, lambda pixel: [50], (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000)))
    levels = [shown(content, tmp_path).getpixel((9, 9))[0] for content in (light, plain, standard)]
    assert levels == [122, 50, 50]


@pytest.mark.parametrize("white", [float("inf"), float("nan")])
def test_pixels_that_are_no_numbers_are_refused(white, tmp_path):
    with pytest.raises(InputError, match="a has pixels that are not numbers; save it as an 8-bit PNG and give that"):
        shown(tiff([numbers("f", white, "<")], 32, kind=3), tmp_path)


def test_light_ink_on_nothing_is_shown_on_black_since_white_would_hide_it():
    image = Image.new("RGBA", (60, 60), (255, 255, 255, 0))
    ImageDraw.Draw(image).rectangle((10, 10, 30, 30), fill=(255, 255, 255, 255))
    assert on_white(image).getpixel((20, 20)) == (255, 255, 255)
    assert on_white(image).getpixel((50, 50)) == (0, 0, 0)


def test_a_channel_of_transparency_that_was_left_empty_hides_nothing():
    image = Image.new("RGBA", (60, 60), (255, 255, 255, 0))
    ImageDraw.Draw(image).rectangle((10, 10, 30, 30), fill=(0, 0, 0, 0))
    assert on_white(image).getpixel((20, 20)) == (0, 0, 0)
    assert on_white(image).getpixel((50, 50)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("kind", "options", "size"),
    [
        ("TIFF", {"dpi": (204, 98)}, (96, 250)),
        ("TIFF", {"dpi": (204, 391)}, (250, 163)),
        ("TIFF", {"dpi": (300, 300)}, (200, 250)),
        ("TIFF", {"dpi": (300, 1)}, (200, 250)),
        ("TIFF", {}, (200, 250)),
        ("PNG", {"dpi": (204, 98)}, (96, 250)),
        ("JPEG", {"dpi": (204, 98)}, (96, 250)),
        ("BMP", {"dpi": (204, 98)}, (96, 250)),
    ],
)
def test_a_fax_has_the_shape_of_its_paper(kind, options, size, tmp_path):
    Image.new("L", (200, 250), 200).save(tmp_path / "a", kind, **options)
    assert shown((tmp_path / "a").read_bytes(), tmp_path, 250).size == size


def test_a_fax_that_lies_on_its_side_has_the_shape_of_its_paper_when_it_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (250, 200), 200).save(tmp_path / "a", "JPEG", dpi=(98, 204), exif=exif)
    with Image.open(tmp_path / "a") as image:
        assert pixel_shape(image) == (pytest.approx(98 / 204), 1.0)
    assert shown((tmp_path / "a").read_bytes(), tmp_path, 250).size == (96, 250)
