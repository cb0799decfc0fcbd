"""No model was named -> the model chosen before, or, after a question, the best one that fits this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from olmocr.conversion.macs import limit
from olmocr.errors import OutputError, UsageError
from olmocr.files import cache_folder, write_whole
from olmocr.hub.find import find_settings, missing_files
from olmocr.hub.known_models import KnownModel, best_for, known_models
from olmocr.runtime.machine import hub_cache, total_memory
from olmocr.runtime.memory import shown_size

_GIB = 1 << 30
_NAMED = "name a model with --model, or a server that has one with --server"

Confirm = Callable[[str], bool]
"""Asks a person a question, and returns whether the answer is yes."""


@dataclass(frozen=True)
class Offer:
    """A model to download: how many bytes are missing, and about how many *seconds* they take; None if unknown."""

    model: KnownModel
    missing_bytes: int
    seconds: float | None

    def __str__(self) -> str:
        rate = f", about {_minutes(self.seconds)} at this network's rate" if self.seconds is not None else ""
        return (
            f"{self.model.repository}, {self.model.bits} bits: {shown_size(self.missing_bytes)} to download{rate}, "
            f"kept in {hub_cache()}"
        )


def default_model(
    *, is_agreed: bool, confirm: Confirm | None, memory: int | None = None, remembered: Path | None = None
) -> str:
    """Return the model to read with, and remember it.

    Args:
        is_agreed: the model may be downloaded without a question.
        confirm: asks the person at the terminal; None if there is nobody to ask.
        memory: bytes of memory to assume, instead of this machine's.
        remembered: the file that keeps the choice, instead of the user's own.

    Raises:
        HubError: the Hub cannot be reached.
        UsageError: no model fits, or nobody agreed to the download.
    """
    kept = remembered or cache_folder("model.txt")
    before = _read(kept)
    if before:
        return before
    model = _best(memory if memory is not None else total_memory())
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise UsageError(
            f"no model is named, and HF_HUB_OFFLINE forbids downloading one; download {model.repository} where there "
            "is a network, and name its folder with --model"
        )
    if not is_agreed and confirm is None:
        size = shown_size(model.weight_bytes)
        raise UsageError(f"no model is named; --yes downloads {model.repository} ({size}), or {_NAMED}")
    offer = _offer(model)
    if offer.missing_bytes and not is_agreed and confirm is not None and not confirm(f"{offer}. Download it?"):
        raise UsageError(f"nothing was downloaded; {_NAMED}")
    _write(kept, model.repository)
    return model.repository


def usable_memory(total: int) -> int:
    """Return how many of a machine's *total* bytes a model may take: what Metal allows on a Mac, else nine tenths."""
    return limit(total // _GIB) if sys.platform == "darwin" else total * 9 // 10


def _best(total: int) -> KnownModel:
    model = best_for(usable_memory(total), known_models())
    if model is None:
        raise UsageError(
            f"no model is named, and no known model fits into {shown_size(total)} of memory; make one that does: "
            "olmocr convert allenai/olmOCR-2-7B-1025 --quantize mixed-small --low-disk"
        )
    return model


def _offer(model: KnownModel) -> Offer:
    """Ask the Hub what is missing; the time that the small files take shows the network's rate."""
    started = time.monotonic()
    folder = find_settings(model.repository)
    seconds = time.monotonic() - started
    missing = sum(file.size for file in missing_files(folder))
    small = sum(path.stat().st_size for path in folder.path.iterdir() if path.is_file())
    is_told = bool(missing) and seconds > 0.5  # if faster, they were in the cache already
    return Offer(model, missing, missing * seconds / small if is_told and small else None)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _write(path: Path, model: str) -> None:
    try:
        write_whole(path, model + "\n")
    except OutputError:  # it is chosen again the next time
        return
