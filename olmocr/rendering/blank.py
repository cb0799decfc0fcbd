"""A page's pixels and its own text -> whether it has nothing to read."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageFilter, ImageOps

_CELL = 2  # pixels a side: means of 2 x 2 keep the thinnest line and halve the noise
_PAPER_CELLS = 16  # paper is the mean of 32 x 32 pixels; it may change slowly from one to the next, as under a lamp
_WINDOW_REACH = 2  # cells around one: 10 x 10 pixels, a letter of 6 points

_DARK = 48  # of 255: what differs this much from the paper is a mark, however small
_LEAST_NOISE = 6  # of 255: blocks of a JPEG differ by this much on the cleanest paper; nobody can see so faint a line
_NOISE_MARGIN = 6  # standard deviations; of a thousand pages (300,000 cells each) not one gets so far by chance
_LARGEST_NOISE = 24  # of 255: noise that hides faint text is not paper
_LARGEST_SHADE = 64  # of 255: how far paper may change across a page
_CERTAIN_CONTRAST = 160  # of 255: more than shade and the largest noise together
_SPECK_CELLS = 4  # in one window: 3 x 3 pixels; the smallest letter covers more, and so does a line
_SPECKS_CELLS = 64  # on a page; a dotted line has more


def is_blank(pixels: Image.Image, text_layer: str | None) -> bool:
    """Return whether an RGB page shows nothing but paper, of any colour; in doubt, return False.

    A scanner's noise, slow shading, and a few light specks smaller than a letter count as paper. Text in the file, a
    line, a page number and a dark dot do not.
    """
    if text_layer or _has_contrast(pixels):
        return False
    cells = pixels.reduce(_CELL)
    paper = cells.reduce(_PAPER_CELLS)
    if max(high - low for low, high in _extrema(paper)) > _LARGEST_SHADE:
        return False
    smooth = paper.resize(cells.size, Image.Resampling.BILINEAR)
    difference = _strongest_channel(ImageChops.difference(cells, smooth))
    if _extrema(difference)[0][1] >= _DARK:
        return False
    noise = max(_LEAST_NOISE, _NOISE_MARGIN * _deviation(difference))
    return noise <= _LARGEST_NOISE and _are_specks(difference.point(lambda value: 255 * (value > noise)))


def _has_contrast(pixels: Image.Image) -> bool:
    """Return whether a glance at every 16th pixel shows more than paper can: this settles most pages in no time."""
    width, height = pixels.size
    glance = pixels.resize((-(-width // 4), -(-height // 4)), Image.Resampling.NEAREST)
    return max(high - low for low, high in _extrema(glance)) > _CERTAIN_CONTRAST


def _extrema(image: Image.Image) -> list[tuple[float, float]]:
    """Return the lowest and the highest value of each channel."""
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]


def _strongest_channel(image: Image.Image) -> Image.Image:
    """Return the largest of the three: yellow on white shows in blue alone."""
    red, green, blue = image.split()
    return ImageChops.lighter(red, ImageChops.lighter(green, blue))


def _deviation(difference: Image.Image) -> float:
    """Return the standard deviation of normal noise with this median; marks do not count, since they are fewer.

    Half a step is added, since values are integers: a median of 0 may come from anything up to that.
    """
    counts = difference.histogram()
    left, median = difference.width * difference.height / 2, 0
    while (left := left - counts[median]) > 0:
        median += 1
    return (median + 0.5) / 0.6745  # half of normal noise is within 0.6745 deviations


def _are_specks(marks: Image.Image) -> bool:
    """Return whether the marked cells (255) are few, and few in each window."""
    if marks.histogram()[255] > _SPECKS_CELLS:
        return False
    padded = ImageOps.expand(marks, _WINDOW_REACH)
    share = _extrema(padded.filter(ImageFilter.BoxBlur(_WINDOW_REACH)))[0][1] / 255
    return share * (2 * _WINDOW_REACH + 1) ** 2 < _SPECK_CELLS + 0.5
