"""``python demo/harder_pages.py``: draw pages that the demo checkpoint reads with some errors, and their true text.

On the pages in ``pages/``, its conversions give the same answers down to 4 bits. These pages are at the edge of its
training, or a little beyond, so dropped bits show in the answers.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageFilter

from olmocr.validate.known_pages.drawing import Sheet, Type, picture, table_html, table_sheet, text_sheet, write_pdf

HARD = Path(__file__).parent / "hard"

_SCAN_SIDE = 1000  # pixels on a scan's longest side: 91 a inch
_PER_INCH = _SCAN_SIDE / 11

_FRONT_MATTER = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\nis_table: {}\nis_diagram: False\n---\n"
)

_HARBOUR = (
    "The pilot cutter Wilhelmina lay at her moorings for eleven days while the carpenters looked for a leak. They "
    "lifted the ballast, scraped the keel from stem to stern, and found nothing worse than a swollen plank.",
    "On the twelfth day the cook moved a barrel of vinegar in the galley and the bilge was dry by noon. Nobody has "
    "spoken of it since, although the bill from the yard is still pinned above the stove.",
)
_ORCHARD = (
    "Pears that are picked green keep until Candlemas if they are laid on straw and never allowed to touch. Quinces "
    "want more air, and medlars must be left until they look spoiled to anyone who does not know better.",
    "My aunt kept a ledger of every tree. Beside the oldest she had written only that the fox sleeps here, and that "
    "the children were to leave the windfalls on its northern side alone.",
)
_OBSERVATORY = (
    "Clouds covered the valley for nineteen nights, so the astronomer catalogued her lenses instead. She ground two "
    "of them again, sold a cracked prism to a jeweller, and wrote long letters to a rival in Uppsala.",
    "When the sky cleared she had forgotten which star she was following. She chose another, as bright and as far, "
    "and the rival never noticed that her figures had changed.",
)
_RAILWAY = (
    "The branch line to Kirkby was closed in autumn, but the signalman still walks to his box each morning. He oils "
    "the levers, trims a lamp that burns for nobody, and enters the weather in a book.",
    "In March a goods train came through by mistake. He gave it the road, noted its number and the hour, and asked "
    "the company in a short letter whether he might be paid for that day.",
)
_KITCHEN = (
    "Soak the beans overnight, and throw the water away. Fry an onion with a spoon of flour until both are brown, "
    "then add the beans, a bay leaf, and as much stock as will cover them by a finger.",
    "Do not salt the pot before the second hour. It is done when a bean can be crushed against the lid, and it is "
    "better on the day after, with bread that has been rubbed with garlic.",
)
_CLOCKS = (
    "A clock that gains should not be slowed at once. Watch it for a week, write down the error each evening, and "
    "turn the nut beneath the pendulum by no more than a quarter.",
    "The clock of Saint Botolph gained four minutes a month for sixty years, and the village rose early for so long "
    "that when it was mended the baker lost half of his custom.",
)
_RARE = (
    "Dr. Quetzalberg exhibited a xylographic almanac, two zeugmata by Vyazemsky, and a phylactery of chrysoprase. The"
    " subtext of Ozymandias, he quipped, is dyspeptic.",
    "Kjolnes and Mbwezi replied that ichthyosaur gizzards (cf. Wrzesniewski, p. 417) contain pyroxene, not jacinth; "
    "the sphinx of Gdynia is apocryphal. Sextus Kvothe abstained.",
)


@dataclass(frozen=True)
class HardPage:
    """A page to draw and its true text; *damage* makes a scan of it, None leaves it as drawn."""

    name: str
    sheet: Sheet
    truth: str
    damage: Callable[[Image.Image], Image.Image] | None = None
    quality: int = 60
    is_table: bool = False


def hard_pages() -> tuple[HardPage, ...]:
    """Return the pages, in order of name."""
    sans, serif = Type(17), Type(19, "Times-Roman", 0.45)
    return (
        replace(_page("blurred_scan", _CLOCKS, serif), damage=_blurred),
        _page("bold_oblique", _KITCHEN, Type(17, "Helvetica-BoldOblique", 0.55)),
        _page("condensed", _RAILWAY, Type(19, squeeze=0.67)),
        replace(_page("faint_scan", _ORCHARD, sans), damage=_faint),
        replace(_page("jpeg_scan", _KITCHEN, replace(serif, size=17)), damage=_unchanged, quality=2),
        _ledger(),
        replace(_page("noisy_scan", _OBSERVATORY, replace(serif, size=16)), damage=_noisy),
        _page("rare_words", _RARE, replace(serif, size=13.5)),
        _serials(),
        replace(_page("skewed_scan", _RAILWAY, serif), damage=_skewed),
        _page("slanted", _ORCHARD, replace(serif, slant=0.12)),
        _page("small_sans", _CLOCKS, replace(sans, size=13)),
        _page("typewriter", _HARBOUR, Type(16, "Courier-Oblique", 0.6)),
        _page("wide", _OBSERVATORY, replace(sans, size=15, squeeze=1.5)),
    )


def draw(folder: Path) -> None:
    """Write each page as ``NAME.pdf`` and ``NAME.md`` into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in hard_pages():
        path = folder / f"{page.name}.pdf"
        if page.damage is None:
            write_pdf(path, [page.sheet])
        else:
            _write_scan(path, page.damage(picture(page.sheet, _SCAN_SIDE, path).pixels.convert("L")), page.quality)
        path.with_suffix(".md").write_text(_FRONT_MATTER.format(page.is_table) + page.truth + "\n", encoding="utf-8")


def _page(name: str, paragraphs: tuple[str, ...], letters: Type) -> HardPage:
    return HardPage(name, text_sheet(paragraphs, letters), "\n\n".join(paragraphs))


def _ledger() -> HardPage:
    """Return a table of more and smaller columns than the checkpoint knows, with figures that nobody can guess."""
    chance = random.Random(1)
    names = ("Ashdown", "Birkett", "Cawley", "Dunmore", "Elswick", "Farrow", "Garside", "Hexham")
    rows: list[tuple[str, ...]] = [("Account", "Ref", "Debit", "Credit", "Balance")]
    for name in names:
        amounts = [f"{chance.randrange(100, 99999) / 100:,.2f}" for _ in range(3)]
        rows.append((name, str(chance.randrange(1000, 10000)), *amounts))
    return HardPage("ledger", table_sheet(rows, 14), table_html(rows), is_table=True)


def _serials() -> HardPage:
    chance = random.Random(2)
    lines = [f"{kind} {_grouped(chance, sizes)}" for kind, sizes in _SERIALS]
    return HardPage("serials", text_sheet(lines, Type(14)), "\n".join(lines))


_SERIALS = (
    ("Account", (4, 4, 4, 4)),
    ("Serial", (12,)),
    ("Meter", (3, 3, 3, 2)),
    ("Permit", (8, 6)),
    ("Batch", (14,)),
    ("Voucher", (5, 5, 5)),
    ("Customs", (10, 3)),
    ("Ticket", (18,)),
)


def _grouped(chance: random.Random, sizes: tuple[int, ...]) -> str:
    return " ".join("".join(chance.choice("0123456789") for _ in range(size)) for size in sizes)


def _faint(pixels: Image.Image) -> Image.Image:
    """Return grey letters on grey paper."""
    return pixels.point(lambda value: 150 + value * 45 // 255)


def _blurred(pixels: Image.Image) -> Image.Image:
    return pixels.filter(ImageFilter.GaussianBlur(1.9))


def _unchanged(pixels: Image.Image) -> Image.Image:
    return pixels


def _noisy(pixels: Image.Image) -> Image.Image:
    """Return *pixels* with grain on them, the same on every machine."""
    grain = Image.frombytes("L", pixels.size, random.Random(3).randbytes(pixels.width * pixels.height))
    return Image.blend(pixels, grain, 0.38)


def _skewed(pixels: Image.Image) -> Image.Image:
    return pixels.rotate(2.2, resample=Image.Resampling.BICUBIC, fillcolor=255)


def _write_scan(path: Path, pixels: Image.Image, quality: int) -> None:
    then = time.gmtime(0)  # not now: the same file every time
    pixels.save(path, "PDF", resolution=_PER_INCH, quality=quality, creationDate=then, modDate=then)


def main() -> None:
    """Draw the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HARD, help="folder to draw into (default: demo/hard)")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
