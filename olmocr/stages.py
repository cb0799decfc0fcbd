"""What happens before there are pages, as data: what a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class FindingDocuments:
    """Documents are being found; so many are."""

    documents: int


@dataclass(frozen=True)
class Downloading:
    """A repository is on its way from the Hub: *done_bytes* of *total_bytes* are on this disk."""

    repository: str
    done_bytes: int
    total_bytes: int

    @property
    def is_done(self) -> bool:
        """Whether all of it is here."""
        return self.done_bytes >= self.total_bytes


@dataclass(frozen=True)
class Loading:
    """A model is being loaded, or a server of it is being started.

    Meanwhile so many *kernels* were compiled for a GPU, which happens once on a machine.
    """

    model: str
    kernels: int = 0


@dataclass(frozen=True)
class FirstText:
    """What the model has written so far of the first page that it was asked for."""

    text: str


Stage = FindingDocuments | Downloading | Loading | FirstText

OnStage = Callable[[Stage], None]
"""Called with each stage, and again while it lasts; a download and a model's loading call it in threads of theirs."""


def unwatched(stage: Stage) -> None:
    """Tell nobody."""
