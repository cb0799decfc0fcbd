"""Waiting pages -> their images, which threads cut into patches before the thread that owns MLX needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from itertools import islice

from olmocr.inference.prompt import CutImage
from olmocr.inference.row import Asked
from olmocr.page import PageRequest
from olmocr.runtime.threads import in_a_lasting_thread

_MOST = 2
"""How many images to cut ahead, each in its own thread; one of 1288 pixels takes 28 MB."""


class Ahead:
    """The images of the next pages; *cut* makes them, in other threads."""

    def __init__(self, cut: Callable[[PageRequest], CutImage]) -> None:
        self._cut = cut
        self._begun: dict[int, Future[CutImage]] = {}

    def begin(self, waiting: Iterable[Asked]) -> None:
        """Begin to cut the first of the *waiting* pages, in their order, and forget pages that no longer wait."""
        self._begun = {id(asked): self._begun.get(id(asked)) or self._of(asked) for asked in islice(waiting, _MOST)}

    def take(self, asked: Asked) -> CutImage:
        """Return the image of a page that no longer waits.

        Raises:
            InputError: the model cannot take it.
        """
        return (self._begun.pop(id(asked), None) or self._of(asked)).result()

    def _of(self, asked: Asked) -> Future[CutImage]:
        return in_a_lasting_thread(partial(self._cut, asked.request))
