"""What to measure, and with what: the demo's checkpoint and pages, or the user's own model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import UsageError
from olmocr.model_folder import ModelFolder, read_config
from olmocr.validate.known_pages.page_set import longest_side_for

_OF_THE_CLONE = Path(__file__).parents[3] / "demo"

TURNED = ("rotated_20.pdf", "rotated_21.pdf")
BLANK = ("report_22.pdf", 3)
"""The demo's pages that an engine does not get: the pipeline turns the former, and skips the latter."""


@dataclass(frozen=True)
class Demo:
    """The demo, which is in the clone beside the package: *folder* contains its checkpoint and its pages."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """A Hugging Face checkpoint."""
        return self.folder / "checkpoint"

    @property
    def pages(self) -> Path:
        """Documents, each with its true text beside it."""
        return self.folder / "pages"

    @property
    def known_conversions(self) -> Path:
        """The known bytes of conversions of the checkpoint."""
        return self.folder / "known_conversions.json"


def find_demo(given: Path | None = None) -> Demo:
    """Return the demo in *given*, or else that of this package's clone or of the current folder.

    Raises:
        UsageError: there is no demo; a wheel does not contain it.
    """
    for folder in [given] if given else [_OF_THE_CLONE, Path("demo")]:
        demo = Demo(folder.absolute())
        if (demo.checkpoint / "config.json").is_file() and (demo.pages / "pages.json").is_file():
            return demo
    where = f"{given} has no checkpoint/ and pages/" if given else "they are not here, nor in an installed package"
    raise UsageError(
        f"measuring a machine needs the demo checkpoint and its pages: {where}; run this in the folder of a clone, or "
        "name its folder demo with `demo`"
    )


PAGES = 8
"""How many pages a reader reads in a round: the most that are ever read at once."""


@dataclass(frozen=True)
class MeasureTerms:
    """What to measure. *model* is a converted folder; without it, a conversion of the demo checkpoint reads the pages.

    *parts* names the parts to measure; if it is empty, all are. With *is_quick*, there are fewer pages and rounds, and
    no calibration.
    """

    demo: Demo
    model: Path | None = None
    parts: tuple[str, ...] = ()
    is_quick: bool = False

    @property
    def rounds(self) -> int:
        """How many rounds each reader reads."""
        return 1 if self.is_quick else 3

    @property
    def stock_pages(self) -> int:
        """How many pages mlx-vlm reads in a round; it is slow on a CPU."""
        return 1 if self.is_quick else 2

    @property
    def many_pages(self) -> int:
        """How many pages an engine reads while its memory is recorded."""
        return 24 if self.is_quick else 100

    @property
    def longest_side(self) -> int:
        """The longest side of a page's image, in pixels: what suits the model, or else the demo's.

        Raises:
            CheckpointError: the folder does not contain a model.
        """
        if self.model is not None:
            read_config(ModelFolder(self.model))
        return longest_side_for(self.model or self.demo.checkpoint)

    @property
    def limit(self) -> float:
        """The seconds after which a measuring process counts as hanging."""
        return 3600.0 if self.model is None else 14400.0
