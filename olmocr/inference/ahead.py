"""Pages that wait -> their images, cut into patches by threads ahead of the one that owns MLX."""

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
"""Images that are cut ahead, each by a thread of its own; one of 1288 pixels takes 28 MB."""


class Ahead:
    """Images of the pages that are next: *cut* makes them, in other threads."""

    def __init__(self, cut: Callable[[PageRequest], CutImage]) -> None:
        self._cut = cut
        self._begun: dict[int, Future[CutImage]] = {}

    def begin(self, waiting: Iterable[Asked]) -> None:
        """Begin with the first of the pages that are *waiting*, in their order, and forget those that no longer are."""
        self._begun = {id(asked): self._begun.get(id(asked)) or self._of(asked) for asked in islice(waiting, _MOST)}

    def take(self, asked: Asked) -> CutImage:
        """Return the image of a page, which waits no more.

        Raises:
            InputError: the model cannot take it.
        """
        return (self._begun.pop(id(asked), None) or self._of(asked)).result()

    def _of(self, asked: Asked) -> Future[CutImage]:
        return in_a_lasting_thread(partial(self._cut, asked.request))
