import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from olmocr.rendering.blank import is_blank
from olmocr.rendering.render import open_document
from tests.conftest import PAGES

SIZE = (996, 1288)
PAPERS = [(255, 255, 255), (244, 238, 220), (128, 128, 128), (20, 20, 24), (255, 255, 0)]


def paper(color=(255, 255, 255), size=SIZE):
    return Image.new("RGB", size, color)


def drawn(draw, color=(255, 255, 255)):
    image = paper(color)
    draw(ImageDraw.Draw(image))
    return image


def noisy(image, deviation, seed=0):
    values = numpy.asarray(image) + numpy.random.default_rng(seed).normal(0, deviation, (*image.size[::-1], 1))
    return Image.fromarray(values.clip(0, 255).astype(numpy.uint8))


def written(text, fill, size=13, color=(255, 255, 255)):
    return drawn(lambda draw: draw.text((480, 1230), text, fill, ImageFont.load_default(size)), color)


def test_of_the_demos_pages_the_blank_one_is_blank():
    blank = []
    for path in sorted(PAGES.glob("*.pdf")):
        with open_document(path, path.name) as pages:
            for number in range(1, pages.page_count + 1):
                if is_blank(pages.render(number, 1288).pixels, None):
                    blank.append((path.name, number))
    assert blank == [("report_22.pdf", 3)]


@pytest.mark.parametrize("color", PAPERS)
def test_paper_of_any_colour_is_blank(color):
    assert is_blank(paper(color), None)


@given(st.tuples(*[st.integers(0, 255)] * 3), st.integers(1, 90), st.integers(1, 90))
def test_paper_of_any_size_is_blank(color, width, height):
    assert is_blank(paper(color, (width, height)), None)


def test_a_page_with_text_in_the_file_is_not_blank():
    assert not is_blank(paper(), "x")


@pytest.mark.parametrize("color", PAPERS[:4])
@pytest.mark.parametrize("deviation", [1, 3, 5])
def test_a_scanners_noise_is_paper(color, deviation):
    assert is_blank(noisy(paper(color), deviation), None)


def test_noise_in_which_faint_text_could_hide_is_not_blank():
    assert not is_blank(noisy(paper((128, 128, 128)), 30), None)


def test_light_specks_are_paper():
    def specks(draw):
        for at in range(30):
            draw.point(((at * 331) % 996, (at * 197) % 1288), (215, 215, 215))

    assert is_blank(drawn(specks), None)


def test_shading_of_a_lamp_is_paper():
    values = numpy.linspace(235, 250, SIZE[0])[None, :, None] - numpy.linspace(0, 20, SIZE[1])[:, None, None]
    shaded = Image.fromarray(numpy.broadcast_to(values, (*SIZE[::-1], 3)).astype(numpy.uint8))
    assert is_blank(noisy(shaded, 2), None)


@pytest.mark.parametrize("quality", [30, 75])
def test_paper_with_the_traces_of_jpeg_is_blank(quality, tmp_path):
    noisy(paper((240, 236, 228)), 3).save(tmp_path / "a.jpg", quality=quality)
    assert is_blank(Image.open(tmp_path / "a.jpg").convert("RGB"), None)


@pytest.mark.parametrize(("fill", "color"), [((0, 0, 0), 255), ((200,) * 3, 255), ((235,) * 3, 255), ((60,) * 3, 40)])
@pytest.mark.parametrize("size", [13, 20, 40])
def test_a_page_number_is_not_blank_however_faint(fill, color, size):
    assert not is_blank(written("7", fill, size, (color,) * 3), None)


def test_a_page_number_of_five_points_is_not_blank():
    assert not is_blank(written("7", (180, 180, 180), 9), None)


def test_yellow_on_white_is_not_blank():
    assert not is_blank(written("7", (255, 255, 0)), None)


def test_a_page_number_in_noise_is_not_blank():
    assert not is_blank(noisy(written("12", (150, 150, 150)), 4), None)


@pytest.mark.parametrize("grey", [0, 128, 220, 240])
@pytest.mark.parametrize("line", [((100, 600), (900, 600)), ((500, 10), (500, 1200)), ((0, 0), (995, 1287))])
def test_a_line_of_one_pixel_is_not_blank(line, grey):
    assert not is_blank(drawn(lambda draw: draw.line(line, (grey,) * 3)), None)


def test_a_dotted_line_is_not_blank_however_faint():
    assert not is_blank(drawn(lambda draw: [draw.point((x, 600), (225,) * 3) for x in range(100, 900, 6)]), None)


@given(st.integers(0, 995), st.integers(0, 1287))
@settings(max_examples=15)
def test_one_dark_dot_is_not_blank_wherever_it_is(x, y):
    assert not is_blank(drawn(lambda draw: draw.point((x, y), (0, 0, 0))), None)


@given(st.integers(0, 900), st.integers(0, 1200), st.integers(6, 90), st.integers(20, 200))
@settings(max_examples=15)
def test_a_patch_of_another_colour_is_not_blank_wherever_it_is(x, y, side, contrast):
    patch = (x, y, x + side, y + side)
    assert not is_blank(drawn(lambda draw: draw.rectangle(patch, (255 - contrast,) * 3)), None)


def test_half_a_page_of_another_tint_is_not_blank():
    assert not is_blank(drawn(lambda draw: draw.rectangle((0, 600, 996, 1288), (240, 240, 240))), None)
