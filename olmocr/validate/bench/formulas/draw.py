"""Formulas -> their drawings, by a browser and KaTeX; or why they cannot be drawn."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import MissingDependencyError
from olmocr.validate.bench.formulas.browser import Browser, BrowserError, find_browser
from olmocr.validate.bench.formulas.drawn import Drawing, Drawings
from olmocr.validate.bench.formulas.page import Drawn, NotDrawnError, formula_page, parse_drawn
from olmocr.viewer.katex import Katex, find_katex, read_katex

logger = logging.getLogger(__name__)

_AT_ONCE = 500  # formulas
_MOST_AT_ONCE = 100_000  # characters of them
_LONGEST = 10_000  # characters of a formula; the checks' formulas are shorter
_SECONDS = 60.0  # for a browser to start on a busy machine
_SECONDS_EACH = 0.1  # for a formula, which takes a few milliseconds

_TRIAL = "x"


class CannotDrawError(Exception):
    """Formulas cannot be drawn; the text says what is missing."""


@dataclass(frozen=True)
class Draftsman:
    """A browser and KaTeX that work together; *versions* are theirs."""

    browser: Browser
    katex: Katex
    versions: Mapping[str, str]

    def draw(self, formulas: Iterable[str]) -> Drawings:
        """Return the drawings of *formulas*, each drawn once.

        A formula that crashes a browser, or takes all of its time, is searched for among its neighbours and left
        undrawn.

        Raises:
            CannotDrawError: the browser no longer works.
        """
        drawings: dict[str, Drawing | None] = {}
        waiting = list(_batches(formulas))
        while waiting:
            batch = waiting.pop()
            try:
                drawings |= zip(batch, self._drawn(batch).drawings, strict=True)
            except (BrowserError, NotDrawnError) as error:
                if len(batch) > 1:
                    middle = len(batch) // 2
                    waiting += [batch[:middle], batch[middle:]]
                else:
                    drawings[batch[0]] = None
                    logger.warning("a formula was not drawn, for %s: %.60r", error, batch[0])
                _try(self.browser, self.katex)
        return drawings

    def _drawn(self, formulas: list[str]) -> Drawn:
        return _draw(self.browser, self.katex, formulas)


def find_draftsman(katex: Path | None = None, browser: str | Path | None = None) -> Draftsman:
    """Return what draws formulas: KaTeX from the given folder or its npm package, and a browser.

    Raises:
        CannotDrawError: KaTeX or a browser is missing, or does not start, and neither was given.
        InputError: one that was given is missing.
        MissingDependencyError: one was given, and the other cannot be found; or they do not work together.
    """
    try:
        return _found(katex, browser)
    except CannotDrawError as error:
        if katex is None and browser is None:
            raise
        raise MissingDependencyError(f"formulas cannot be drawn: {error}") from error


def _found(katex: Path | None, browser: str | Path | None) -> Draftsman:
    found, folder = find_browser(browser), katex or find_katex()
    if found is None:
        raise CannotDrawError("no browser was found; give a Chromium, Chrome, Edge or Brave as `browser`")
    if folder is None:
        raise CannotDrawError("no KaTeX was found; give its folder as `katex`")
    script = read_katex(folder, with_fonts=False)
    return Draftsman(found, script, _try(found, script))


def _try(browser: Browser, katex: Katex) -> Mapping[str, str]:
    """Return the versions of both, after drawing one formula."""
    try:
        drawn = _draw(browser, katex, [_TRIAL])
    except (BrowserError, NotDrawnError) as error:
        raise CannotDrawError(str(error)) from error
    if drawn.drawings[0] is None or drawn.drawings[0].characters != _TRIAL:
        raise CannotDrawError(f"{browser} with KaTeX {drawn.versions['katex']} does not draw {_TRIAL}")
    return drawn.versions


def _draw(browser: Browser, katex: Katex, formulas: list[str]) -> Drawn:
    token = f"drawn-{secrets.token_hex(8)}"
    dump = browser.dump(formula_page(formulas, katex, token), _SECONDS + _SECONDS_EACH * len(formulas))
    return parse_drawn(dump, token, len(formulas))


def _batches(formulas: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for formula in dict.fromkeys(formulas):
        if len(formula) > _LONGEST:
            continue
        if len(batch) == _AT_ONCE or sum(map(len, batch)) + len(formula) > _MOST_AT_ONCE:
            yield batch
            batch = []
        batch.append(formula)
    if batch:
        yield batch
