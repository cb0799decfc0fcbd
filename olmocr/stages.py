"""What happens before there are pages, as data: what a run reports to whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class FindingDocuments:
    """Documents are being found; this is the number so far."""

    documents: int


@dataclass(frozen=True)
class Downloading:
    """A repository is being downloaded from the Hub: *done_bytes* of *total_bytes* are on this disk."""

    repository: str
    done_bytes: int
    total_bytes: int

    @property
    def is_done(self) -> bool:
        """Whether the download is complete."""
        return self.done_bytes >= self.total_bytes


@dataclass(frozen=True)
class Loading:
    """A model is being loaded, or a server for it is starting.

    *kernels* have been compiled for a GPU meanwhile, which happens once on a machine.
    """

    model: str
    kernels: int = 0


@dataclass(frozen=True)
class FirstText:
    """What the model has written so far of the first page."""

    text: str


Stage = FindingDocuments | Downloading | Loading | FirstText

OnStage = Callable[[Stage], None]
"""Called with each stage, and again while it lasts; a download and a model's loading call it from their own threads."""


def unwatched(stage: Stage) -> None:
    """Ignore all stages."""
