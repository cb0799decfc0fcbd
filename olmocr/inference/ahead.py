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

_PAGES = 8
"""The pages in work for each image that is cut ahead, in its own thread; one of 1288 pixels takes 28 MB."""

_LEAST, _MOST = 2, 4


class Ahead:
    """The images of the next pages; *cut* makes them, in other threads. Up to *pages* are in work at once."""

    def __init__(self, cut: Callable[[PageRequest], CutImage], pages: int) -> None:
        self._cut = cut
        self._most = min(max(_LEAST, pages // _PAGES), _MOST)
        self._begun: dict[int, Future[CutImage]] = {}

    def begin(self, waiting: Iterable[Asked]) -> None:
        """Begin to cut the first of the *waiting* pages, in their order, and forget pages that no longer wait."""
        self._begun = {
            id(asked): self._begun.get(id(asked)) or self._of(asked) for asked in islice(waiting, self._most)
        }

    def take(self, asked: Asked) -> CutImage:
        """Return the image of a page that no longer waits.

        Raises:
            InputError: the model cannot take it.
        """
        return (self._begun.pop(id(asked), None) or self._of(asked)).result()

    def _of(self, asked: Asked) -> Future[CutImage]:
        return in_a_lasting_thread(partial(self._cut, asked.request))
