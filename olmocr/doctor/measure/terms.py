"""What is to be measured, and on what: the demo's checkpoint and pages, and a model of a person's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import UsageError
from olmocr.model_folder import ModelFolder, read_config
from olmocr.validate.known_pages.page_set import longest_side_for

_OF_THE_CLONE = Path(__file__).parents[3] / "demo"

TURNED = ("rotated_20.pdf", "rotated_21.pdf")
BLANK = ("report_22.pdf", 3)
"""The demo's pages that an engine is not asked about: the pipeline turns the ones and passes over the other."""


@dataclass(frozen=True)
class Demo:
    """The demo that lies in the clone beside the package: *folder* has its checkpoint and its pages."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """A Hugging Face checkpoint."""
        return self.folder / "checkpoint"

    @property
    def pages(self) -> Path:
        """Documents, and beside each the text that is true of it."""
        return self.folder / "pages"

    @property
    def known_conversions(self) -> Path:
        """Which bytes conversions of the checkpoint are known to have."""
        return self.folder / "known_conversions.json"


def find_demo(given: Path | None = None) -> Demo:
    """Return the demo in *given*, or that of the clone which this package runs from, or which is the current folder.

    Raises:
        UsageError: there is none; a wheel does not bring it.
    """
    for folder in [given] if given else [_OF_THE_CLONE, Path("demo")]:
        demo = Demo(folder.absolute())
        if (demo.checkpoint / "config.json").is_file() and (demo.pages / "pages.json").is_file():
            return demo
    where = f"{given} holds no checkpoint/ and pages/" if given else "it is not here, and not part of what is installed"
    raise UsageError(
        f"a machine is measured with the demo checkpoint and its pages: {where}; run this in the folder of a clone, or "
        "name its folder demo with `demo`"
    )


PAGES = 8
"""How many pages a reader reads in a round: as many as are ever read at once."""


@dataclass(frozen=True)
class MeasureTerms:
    """What is measured. Without *model*, a converted folder, pages are read by a conversion of the demo checkpoint.

    *parts* are the names of some parts, all where there are none. *is_quick* has fewer pages and rounds, and does not
    calibrate.
    """

    demo: Demo
    model: Path | None = None
    parts: tuple[str, ...] = ()
    is_quick: bool = False

    @property
    def rounds(self) -> int:
        """How often each reader reads."""
        return 1 if self.is_quick else 3

    @property
    def stock_pages(self) -> int:
        """How many of them are read by mlx-vlm, which is slow on a CPU."""
        return 1 if self.is_quick else 2

    @property
    def many_pages(self) -> int:
        """How many pages an engine reads while its memory is looked at."""
        return 24 if self.is_quick else 100

    @property
    def longest_side(self) -> int:
        """How large a page's image is, in pixels: what suits the model, or the demo's.

        Raises:
            CheckpointError: there is no model in the folder.
        """
        if self.model is not None:
            read_config(ModelFolder(self.model))
        return longest_side_for(self.model or self.demo.checkpoint)

    @property
    def limit(self) -> float:
        """After so many seconds a process that measures something is taken for one that hangs."""
        return 3600.0 if self.model is None else 14400.0
