import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from olmocr.page import PageImage
from olmocr.rendering.figures import NAMED_SIDE, Box, cut_figures, figure_boxes, figure_names

SQUARE = (100, 100)


def link(*numbers):
    return f"![a figure](page_{'_'.join(map(str, numbers))}.png)"


def make_page(size=(512, 1024), dark=(0, 512, 256, 768)):
    """Return a page with a dark place on it."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((dark[0], dark[1], dark[2] - 1, dark[3] - 1), fill="navy")
    draw.ellipse((dark[0] + 20, dark[1] + 20, dark[2] - 20, dark[3] - 20), fill="yellow")
    return PageImage(image)


def test_names_of_figures_are_found_in_links_once_and_in_order():
    text = f"{link(1, 2, 3, 4)} ![alt [nested]](page_5_6_7_8.png) ![x](other.png) (page_9_9_9_9.png) {link(1, 2, 3, 4)}"
    assert figure_names(text) == ["page_1_2_3_4.png", "page_5_6_7_8.png"]


def test_numbers_count_in_pixels_of_a_page_whose_longest_side_has_2048():
    text = link(0, NAMED_SIDE // 2, NAMED_SIDE // 4, NAMED_SIDE // 4)
    assert figure_boxes(text, (512, 1024)) == {"page_0_1024_512_512.png": Box(0, 0.5, 0.5, 0.75)}
    figures = cut_figures(text, make_page())
    (picture,) = figures.pictures.values()
    assert picture.size == (256, 256)
    assert {color for _, color in picture.getcolors()} == {(0, 0, 128), (255, 255, 0)}, "and nothing beside it"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("page.png", "its name is not page_x_y_width_height.png"),
        ("page_startx_starty_width_height.png", "its name is not"),
        ("page_1_2_3.png", "its name is not"),
        ("page_1.5_2_300_400.png", "its name is not"),
        ("page_1_2_99999999999_400.png", "its name is not"),
        ("page_100_100_0_500.png", "0 by 500 is too small"),
        ("page_100_100_500_-500.png", "500 by -500 is too small"),
        ("page_-100_100_500_500.png", "it begins at -100, 100"),
        ("page_2048_100_500_500.png", "it begins at 2048, 100"),
        ("page_100_100_500_999999999.png", "it reaches to 600, 1000000099"),
        ("page_1800_100_500_500.png", "it reaches to 2300, 600"),
        ("page_2040_100_50_500.png", "it is almost completely outside"),
        ("page_0_0_2048_2048.png", "it covers the complete page"),
    ],
)
def test_a_box_that_cannot_be_is_not_believed(name, why):
    assert figure_boxes(f"![a]({name})", SQUARE)[name].startswith(why)


def test_a_box_that_reaches_a_little_beyond_the_page_is_cut_at_its_edge():
    assert figure_boxes(link(1024, 0, 1100, 1024), SQUARE) == {"page_1024_0_1100_1024.png": Box(0.5, 0, 1, 0.5)}


def test_two_boxes_in_one_place_are_both_not_believed_and_a_third_is():
    boxes = figure_boxes(link(0, 0, 500, 500) + link(10, 10, 500, 500) + link(1000, 1000, 500, 500), SQUARE)
    assert [isinstance(box, Box) for box in boxes.values()] == [False, False, True]
    assert boxes["page_0_0_500_500.png"] == "it covers the same place as page_10_10_500_500.png"


def test_a_part_of_a_figure_may_lie_within_it():
    assert all(
        isinstance(box, Box) for box in figure_boxes(link(0, 0, 999, 999) + link(9, 9, 300, 300), SQUARE).values()
    )


def test_one_colour_is_not_a_figure():
    figures = cut_figures(link(600, 100, 300, 300), make_page())
    assert figures.refused == {"page_600_100_300_300.png": "only one colour is there"}


def test_a_page_may_name_hundreds_of_figures():
    names = "".join(link(20 * at % 2000, 20 * (at // 100), 17, 17) for at in range(300))
    assert sum(isinstance(box, str) for box in figure_boxes(names, SQUARE).values()) == 200


@given(st.tuples(*[st.integers(-3000, 3000)] * 4), st.tuples(st.integers(1, 400), st.integers(1, 400)))
def test_what_is_believed_lies_on_the_page(numbers, size):
    for box in figure_boxes(link(*numbers), size).values():
        if isinstance(box, Box):
            assert 0 <= box.left < box.right <= 1
            assert 0 <= box.top < box.bottom <= 1
