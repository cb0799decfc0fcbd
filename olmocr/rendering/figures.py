"""A page's text and its picture -> the figures that the text names, cut out of the picture.

olmOCR-2 is asked to write ``![what it shows](page_startx_starty_width_height.png)``. Nothing says in which units the
numbers are, and models place boxes badly (allenai/olmocr, issues 408 and 437), so a box is checked before it is cut.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from olmocr.page import PageImage
from olmocr.rendering.blank import is_blank

if TYPE_CHECKING:
    from PIL.Image import Image

NAMED_SIDE = 2048
"""Pixels on the longest side of the picture that a figure's numbers refer to, from its upper left corner.

GPT-4.1 wrote the texts that olmOCR-2 was trained on. It was shown each page at this size and was given its width and
height in these pixels (allenai/olmocr, ``olmocr/data/build_openai_batch_from_olmocrmix.py``, with the prompt
``build_openai_silver_data_prompt_v3_simple``). In training and in use a page has 1288 pixels, and ``dataloader.py``
leaves the numbers as they are.
"""

SMALLEST = 16
"""In the same pixels: a narrower or lower box, less than 0.8 per cent of a page, contains no figure."""

OUTSIDE = 0.05
"""How far beyond the page a box may reach, in parts of the page's longest side; it is then cut at the edge."""

WHOLE = 0.95
"""In parts of a page's area: a larger box cuts nothing out."""

SAME = 0.5
"""In parts of the area that two boxes cover together: if they share more, they are one place with two names."""

_NAME = re.compile(r"(?<=\]\()page[^\s()<>\[\]]{0,80}\.png(?=\))", re.IGNORECASE)
_BOX = re.compile(r"page_(-?\d{1,9})_(-?\d{1,9})_(-?\d{1,9})_(-?\d{1,9})\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Box:
    """Where on a page a figure is, in parts of the page's width and height, from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """The part of the page that it covers."""
        return (self.right - self.left) * (self.bottom - self.top)

    def shares(self, other: Box) -> float:
        """Return the area that both cover, as a part of what one of them covers."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        both = max(0.0, wide) * max(0.0, high)
        return both / (self.area + other.area - both)


@dataclass(frozen=True)
class Figures:
    """The figures that a page's text names, by name: their pictures, or why there are none."""

    pictures: dict[str, Image]
    refused: dict[str, str]


def figure_names(text: str) -> list[str]:
    """Return the files that the links in *text* name as figures, each once, in order."""
    return list(dict.fromkeys(found[0] for found in _NAME.finditer(text)))


def with_links(text: str, links: Mapping[str, str]) -> str:
    """Return *text* with its figures pointing to *links*, which are keyed by name; other figures stay as they are."""
    return _NAME.sub(lambda found: links.get(found[0], found[0]), text)


def cut_figures(text: str, image: PageImage) -> Figures:
    """Cut the figures that a page's *text* names out of *image*: the page as it was turned for reading, of any size."""
    found = dict(figures_of(text, image))
    return Figures(
        {name: each for name, each in found.items() if not isinstance(each, str)},
        {name: each for name, each in found.items() if isinstance(each, str)},
    )


def figures_of(text: str, image: PageImage) -> Iterator[tuple[str, Image | str]]:
    """Yield what :func:`cut_figures` returns, one by one: all figures together may have many times a page's pixels."""
    width, height = image.pixels.size
    for name, box in figure_boxes(text, image.pixels.size).items():
        if isinstance(box, str):
            yield name, box
            continue
        edges = (box.left * width, box.top * height, box.right * width, box.bottom * height)
        left, top, right, bottom = map(round, edges)
        picture = image.pixels.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        yield name, "only one colour is there" if is_blank(picture, None) else picture


def figure_boxes(text: str, size: tuple[int, int]) -> dict[str, Box | str]:
    """Return where each figure that *text* names is, or why its name is not believed.

    *size* is the width and height of the page's picture, turned as it was read, in any unit.
    """
    boxes: dict[str, Box | str] = {name: _box(name, size) for name in figure_names(text)}
    believed = {name: box for name, box in boxes.items() if isinstance(box, Box)}
    for (one, its), (other, others) in itertools.combinations(list(believed.items())[:_MOST], 2):
        if its.shares(others) > SAME:
            boxes[one] = f"it covers the same place as {other}"
            boxes[other] = f"it covers the same place as {one}"
    for name in list(believed)[_MOST:]:
        boxes[name] = f"the page names more than {_MOST} figures"
    return boxes


_MOST = 100  # figures of one page


def _box(name: str, size: tuple[int, int]) -> Box | str:
    found = _BOX.fullmatch(name)
    if found is None:
        return "its name is not page_x_y_width_height.png with four numbers"
    x, y, wide, high = map(int, found.groups())
    page_wide, page_high = (side * NAMED_SIDE / max(size) for side in size)
    if wide < SMALLEST or high < SMALLEST:
        return f"{wide} by {high} is too small for a figure"
    if x < 0 or y < 0 or x >= page_wide or y >= page_high:
        return f"it begins at {x}, {y}, and the page has {page_wide:.0f} by {page_high:.0f}"
    allowed = OUTSIDE * NAMED_SIDE
    if x + wide > page_wide + allowed or y + high > page_high + allowed:
        return f"it reaches to {x + wide}, {y + high}, and the page has {page_wide:.0f} by {page_high:.0f}"
    box = Box(x / page_wide, y / page_high, min(1.0, (x + wide) / page_wide), min(1.0, (y + high) / page_high))
    if (box.right - box.left) * page_wide < SMALLEST or (box.bottom - box.top) * page_high < SMALLEST:
        return "it is almost completely outside the page"
    return "it covers the complete page" if box.area > WHOLE else box
