"""What a run is asked to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import UsageError
from olmocr.page import TARGET_LONGEST_IMAGE_DIM

BACKENDS = ("mlx",)


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """What a run is asked to do; a combination that makes no sense is refused when it is made.

    Attributes:
        workspace: the folder that results go to; made if it is not there.
        pdfs: PDF, PNG and JPEG files. Each keeps the name it is given by.
        model: a converted model's folder, or a Hub repository that holds one.
        backend: what answers. ``mlx``: the model, in this process.
        markdown: also write one markdown file for each document.
        target_longest_image_dim: pixels on the longest side of a page's image.
        max_page_retries: attempts at a page, the first one counted, before its text layer is taken instead.
        max_page_error_rate: share of a document's pages, from 0 to 1, that may fall back to their text
            layer; with more, the document counts as failed.
        max_tokens: tokens in one answer; an answer that is cut there is not accepted.

    Raises:
        UsageError: a value is out of its range.
    """

    workspace: Path
    pdfs: tuple[str, ...]
    model: str
    backend: str = "mlx"
    markdown: bool = False
    target_longest_image_dim: int = TARGET_LONGEST_IMAGE_DIM
    max_page_retries: int = 8
    max_page_error_rate: float = 0.004
    max_tokens: int = 8000

    def __post_init__(self) -> None:
        if not str(self.workspace):
            raise UsageError("the workspace has no name; name a folder, or . for this one")
        object.__setattr__(self, "workspace", Path(self.workspace).expanduser())
        object.__setattr__(self, "pdfs", _names(self.pdfs))
        object.__setattr__(self, "model", str(self.model))
        if self.backend not in BACKENDS:
            raise UsageError(f"there is no backend {self.backend!r}; choose one of {', '.join(BACKENDS)}")
        self._require(bool(self.pdfs), "pdfs", "one file at least")
        self._require(28 <= self.target_longest_image_dim <= 8192, "target_longest_image_dim", "28 to 8192 pixels")
        self._require(self.max_page_retries >= 1, "max_page_retries", "1 or more")
        self._require(0 <= self.max_page_error_rate <= 1, "max_page_error_rate", "0 to 1")
        self._require(self.max_tokens >= 1, "max_tokens", "1 or more")

    def _require(self, holds: bool, name: str, range_: str) -> None:
        if not holds:
            given = getattr(self, name)
            raise UsageError(f"{name} must be {range_}, not {given!r}")


def _names(pdfs: Iterable[str | Path] | str | Path) -> tuple[str, ...]:
    """Return each file's name as it was given; one alone may come without a list around it."""
    if isinstance(pdfs, str | Path):
        return (str(pdfs),)
    return tuple(str(name) for name in pdfs)
