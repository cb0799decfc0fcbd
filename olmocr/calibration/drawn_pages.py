"""A seed -> 24 pages to calibrate on, each a PDF with its true text beside it.

Half of them are clean; the others are blurred, skewed, faint, narrow, slanted or small. A conversion calibrated only on
clean pages preserves less of the model's output on the others.
"""

from __future__ import annotations

import random
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageFilter

from olmocr.calibration.drawn_words import Block, Writer
from olmocr.files import write_whole
from olmocr.page import make_front_matter
from olmocr.validate.known_pages.drawing import (
    HEIGHT,
    MARGIN,
    WIDTH,
    Sheet,
    Type,
    picture,
    table_html,
    table_sheet,
    write_pdf,
)
from olmocr.validate.known_pages.page_set import KnownPage

SEED = 160816
"""The seed of the pages drawn by default."""

_SIDE = 644  # the sizes below are for this longest side in pixels; type is smaller on a larger one
_SCAN = 1000 / _SIDE  # scan pixels per page pixel
_INCHES = 11
_LEADING = 1.3
_FILLED, _MOST_FILLED = 0.5, 0.8  # of the height between the margins: at that many pixels, and at more
_SCANNED = time.gmtime(0)  # not now: the same file every time

Damage = Callable[[Image.Image, random.Random], Image.Image]


@dataclass(frozen=True)
class _Look:
    """The look of a page. *size* is in points at 644 pixels; *damage* makes it a scan with this JPEG *quality*."""

    kind: str
    letters: Type
    content: str = "prose"
    language: str = "en"
    damage: Damage | None = None
    quality: int = 60


def draw_pages(folder: Path, longest_side: int, seed: int = SEED) -> tuple[KnownPage, ...]:
    """Write each page as NAME.pdf and its true answer as NAME.md into *folder*, which exists.

    *longest_side* is in pixels. Type has the same size in pixels at any side, so a model that sees more pixels gets
    more text. The same arguments give the same bytes, with the same versions of Pillow and PDFium.

    Raises:
        OutputError: a text cannot be written.
    """
    chance = random.Random(seed)  # noqa: S311
    writer = Writer(chance)
    return tuple(
        _draw(folder / f"{number:02}_{look.kind}_{look.content}.pdf", look, longest_side, writer, chance)
        for number, look in enumerate(_LOOKS, 1)
    )


def _draw(path: Path, look: _Look, longest_side: int, writer: Writer, chance: random.Random) -> KnownPage:
    letters = replace(look.letters, size=look.letters.size * _SIDE / longest_side)
    room = min(_MOST_FILLED, _FILLED * max(1.0, longest_side / _SIDE)) * (HEIGHT - 2 * MARGIN)
    sheet, text = _composed(look, letters, writer, room)
    if look.damage is None:
        write_pdf(path, [sheet], western=True)
    else:
        side = round(longest_side * _SCAN)
        pixels = look.damage(picture(sheet, side, path, western=True).pixels.convert("L"), chance)
        pixels.save(
            path, "PDF", resolution=side / _INCHES, quality=look.quality, creationDate=_SCANNED, modDate=_SCANNED
        )
    answer = front_matter(look.language, is_table=look.content == "table") + text
    write_whole(path.with_suffix(".md"), answer + "\n")
    return KnownPage(path, 1, look.kind, text, 0)


def front_matter(language: str | None, *, is_table: bool = False) -> str:
    """Return the front matter of an upright page without a diagram."""
    return make_front_matter(
        {
            "primary_language": language or "null",
            "is_rotation_valid": True,
            "rotation_correction": 0,
            "is_table": is_table,
            "is_diagram": False,
        }
    )


def _composed(look: _Look, letters: Type, writer: Writer, room: float) -> tuple[Sheet, str]:
    """Return a page and its text, which takes at most *room* points of its height."""
    if look.content == "table":
        rows = writer.table(columns=_columns(letters), rows=int(room / (1.7 * letters.size)))
        return table_sheet(rows, letters.size), table_html(rows)
    blocks: list[Block] = []
    for block in writer.blocks(look.content, look.language):
        if blocks and _height([*blocks, block], letters) > room:
            break
        blocks.append(block)
    return _sheet(blocks, letters), _markdown(blocks)


def _columns(letters: Type) -> int:
    """Return how many columns fit into a table."""
    return max(2, min(6, int((WIDTH - 2 * MARGIN) / (letters.size * 7.5))))


def _wrapped(block: Block, letters: Type) -> tuple[Type, list[str]]:
    """Return the typesetting of a block, and its lines."""
    if block.style == "heading":
        letters = replace(letters, font=_BOLD[letters.font], size=letters.size * 1.6, letter_width=0.6)
    columns = int((WIDTH - 2 * MARGIN) / (letters.size * letters.letter_width * letters.squeeze))
    bullet = "\u2022 " if block.style == "item" else ""
    return letters, textwrap.wrap(bullet + block.text, columns)


_BOLD = {
    "Helvetica": "Helvetica-Bold",
    "Helvetica-Bold": "Helvetica-Bold",
    "Times-Roman": "Times-Bold",
    "Times-Bold": "Times-Bold",
    "Courier": "Courier-Bold",
    "Courier-Bold": "Courier-Bold",
}


def _gap(block: Block, after: Block | None) -> float:
    """Return the space above *block*, in multiples of its type size."""
    if after is None:
        return 0.0
    return 0.1 if block.style == after.style in ("line", "item") else 0.6


def _height(blocks: Sequence[Block], letters: Type) -> float:
    return HEIGHT - MARGIN - _placed(blocks, letters)[1]


def _sheet(blocks: Sequence[Block], letters: Type) -> Sheet:
    return Sheet("\n".join(_placed(blocks, letters)[0]))


def _placed(blocks: Sequence[Block], letters: Type) -> tuple[list[str], float]:
    """Return the operators that write *blocks* below each other, and the position of the last line."""
    operators: list[str] = []
    y, after = float(HEIGHT - MARGIN), None
    for block in blocks:
        own, lines = _wrapped(block, letters)
        y -= _gap(block, after) * letters.size
        for line in lines:
            y -= own.size * _LEADING
            operators.append(own.line(MARGIN, y, line))
        after = block
    return operators, y


def _markdown(blocks: Sequence[Block]) -> str:
    """Return the text of *blocks* as the model's answer."""
    text, after = "", None
    for block in blocks:
        between = "" if after is None else "\n" if block.style == after.style in ("line", "item") else "\n\n"
        text += between + {"heading": "# ", "item": "- "}.get(block.style, "") + block.text
        after = block
    return text


def _copied(pixels: Image.Image, chance: random.Random) -> Image.Image:
    return pixels


def _blurred(pixels: Image.Image, chance: random.Random) -> Image.Image:
    return pixels.filter(ImageFilter.GaussianBlur(chance.uniform(1.4, 1.75)))


def _skewed(pixels: Image.Image, chance: random.Random) -> Image.Image:
    turn = chance.choice((-1, 1)) * chance.uniform(1.6, 2.1)
    return pixels.rotate(turn, resample=Image.Resampling.BICUBIC, fillcolor=255)


def _faint(pixels: Image.Image, chance: random.Random) -> Image.Image:
    """Return grey letters on grey paper, with some grain."""
    ink = chance.randint(138, 152)
    paper = ink + chance.randint(48, 60)
    pale = pixels.point(lambda value: ink + value * (paper - ink) // 255)
    grain = Image.frombytes("L", pixels.size, chance.randbytes(pixels.width * pixels.height))
    return Image.blend(pale, grain, 0.04)


_SANS, _SERIF, _TYPEWRITER = Type(18), Type(19, "Times-Roman", 0.45), Type(16, "Courier", 0.6)

_CLEAN = (
    _Look("clean", _SANS),
    _Look("clean", _SERIF, "article"),
    _Look("clean", replace(_SANS, size=17), "list"),
    _Look("clean", _TYPEWRITER),
    _Look("clean", Type(17), "table"),
    _Look("clean", replace(_SERIF, size=18), "numbers"),
    _Look("clean", replace(_SANS, size=20), "article"),
    _Look("clean", _SERIF, language="de"),
    _Look("clean", _SANS, "steps"),
    _Look("clean", replace(_SANS, size=20), language="fr"),
    _Look("clean", replace(_SERIF, size=20), damage=_copied, quality=70),
    _Look("clean", Type(18, "Times-Bold", 0.48), damage=_copied, quality=40),
)
_OTHERS = (
    _Look("blurred", _SANS, damage=_blurred),
    _Look("small", Type(14.5), "table"),
    _Look("skewed", _SERIF, damage=_skewed),
    _Look("faint", _SANS, damage=_faint, quality=40),
    _Look("narrow", replace(_SANS, squeeze=0.72)),
    _Look("slanted", replace(_TYPEWRITER, size=17, slant=0.12), language="it"),
    _Look("blurred", replace(_SERIF, size=20), "numbers", damage=_blurred),
    _Look("small", replace(_SANS, size=13)),
    _Look("skewed", replace(_SANS, size=17), "list", damage=_skewed),
    _Look("faint", replace(_SANS, size=20), "article", damage=_faint, quality=40),
    _Look("narrow", replace(_SERIF, size=20, squeeze=0.75), language="es"),
    _Look("slanted", replace(_SERIF, slant=0.1)),
)
_LOOKS = tuple(look for pair in zip(_CLEAN, _OTHERS, strict=True) for look in pair)
"""In turns, so that any first few contain both kinds."""
