"""A check and the text of a page -> whether it passes, as olmOCR-bench's own evaluator decides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from olmocr.validate.bench.checks import Baseline, BenchCheck, Footnote, Format, Formula, Order, Phrase, TableCell
from olmocr.validate.bench.formulas.drawn import Drawings, shows
from olmocr.validate.bench.formulas.written import formulas_in
from olmocr.validate.bench.marked import footnote_marks, texts_in
from olmocr.validate.bench.tables import CellPlace, Grid, grids_in
from olmocr.validate.bench.text import normalized
from olmocr.validate.score import partial_similarity, places, similarity

_LONGEST_REPEATED = 5  # characters
_LEAST_SIMILAR_CELL = 0.5
_BESIDE_FOOTNOTE = 200  # characters beside a footnote's mark in which to look for a text
_HEADINGS = {"top_heading": "up", "left_heading": "left"}

# Chinese characters, Japanese syllables, emoji and flags: what a derailed model writes.
_UNEXPECTED = re.compile(
    "[\u4e00-\u9fff\u3040-\u309f\u30a0-\u30ff"
    "\U0001f600-\U0001f64f\U0001f300-\U0001f5ff\U0001f680-\U0001f6ff\U0001f1e0-\U0001f1ff]"
)


def holds(check: BenchCheck, text: str, drawings: Drawings | None = None) -> bool | None:
    """Return whether *check* passes for the text of its page; None for a formula without drawings.

    *drawings* has everything that :func:`formulas_to_draw` returns.

    Raises:
        MissingDependencyError: rapidfuzz or fuzzysearch is not installed.
    """
    match check.rule:
        case Phrase() as rule:
            return _phrase_holds(rule, check.max_diffs, text)
        case Order(before, after):
            return _order_holds(normalized(text), before, after, check.max_diffs)
        case TableCell() as rule:
            return any(_table_holds(grid, rule, check.max_diffs) for grid in _grids(rule, text))
        case Baseline() as rule:
            return _baseline_holds(rule, text)
        case Formula() as rule:
            return None if drawings is None else _formula_holds(rule, text, drawings)
        case Format() as rule:
            return any(_has_phrase(rule, check.max_diffs, each) for each in texts_in(text, rule.form))
        case Footnote() as rule:
            return _footnote_holds(rule, check.max_diffs, text)


def formulas_to_draw(check: BenchCheck, text: str) -> list[str]:
    """Return the formulas whose drawings are needed to decide *check*: its own and the page's."""
    if not isinstance(check.rule, Formula):
        return []
    written = formulas_in(text, with_dollars=check.rule.with_dollars)
    return [] if check.rule.math in written else [check.rule.math, *written]


def _phrase_holds(rule: Phrase, max_diffs: int, text: str) -> bool:
    return _has_phrase(rule, max_diffs, text, rule.first_n or 0, rule.last_n or 0) != rule.absent


def _has_phrase(rule: Phrase | Format, max_diffs: int, text: str, first: int = 0, last: int = 0) -> bool:
    wanted, text = rule.text, normalized(text)
    if not rule.case_sensitive:
        wanted, text = wanted.lower(), text.lower()
    return _is_within(wanted, _ends(text, first, last), max_diffs, 1 - max_diffs / len(wanted))


def _is_within(wanted: str, text: str, max_diffs: int, threshold: float) -> bool:
    # rapidfuzz looks for the shorter of two texts in the longer one. Without this, a page with a lone space would pass
    # for any phrase of two words.
    return len(text) >= len(wanted) - max_diffs and partial_similarity(wanted, text) >= threshold


def _ends(text: str, first: int, last: int) -> str:
    if not first and not last:
        return text
    return text[:first] + (text[-last:] if last else "")


def _order_holds(text: str, before: str, after: str, max_diffs: int) -> bool:
    first, second = places(before, text, max_diffs), places(after, text, max_diffs)
    return bool(first and second) and min(first) < max(second)


def _grids(rule: TableCell, text: str) -> list[Grid]:
    return grids_in(text, with_markdown=not rule.ignore_markdown_tables)


def _table_holds(grid: Grid, rule: TableCell, max_diffs: int) -> bool:
    texts = {place: normalized(cell.text) for place, cell in grid.cells.items()}
    found = (place for place, text in texts.items() if _is_alike(rule.cell, text, max_diffs))
    return any(_has_beside(grid, texts, place, rule.relations, max_diffs) for place in found)


def _has_beside(
    grid: Grid, texts: Mapping[CellPlace, str], place: CellPlace, relations: Mapping[str, str], max_diffs: int
) -> bool:
    return all(
        any(_is_alike(wanted, texts[each], max_diffs) for each in _related(grid, place, relation))
        for relation, wanted in relations.items()
    )


def _related(grid: Grid, place: CellPlace, relation: str) -> Iterable[CellPlace]:
    if relation in _HEADINGS:
        return grid.headings(place, _HEADINGS[relation])
    return grid.beside(place, relation)


def _is_alike(wanted: str, text: str, max_diffs: int) -> bool:
    return similarity(wanted, text) >= max(_LEAST_SIMILAR_CELL, 1 - max_diffs / max(1, len(wanted)))


def _baseline_holds(rule: Baseline, text: str) -> bool:
    if rule.max_length is not None:
        counted = _without_images(text) if rule.max_length_skips_image_alt_tags else text
        return _letters(counted) <= rule.max_length
    if not _letters(text) or _repeats(text) > rule.max_repeats:
        return False
    return not (rule.check_disallowed_characters and _UNEXPECTED.search(text))


def _formula_holds(rule: Formula, text: str, drawings: Drawings) -> bool:
    written = formulas_in(text, with_dollars=rule.with_dollars)
    if rule.math in written:
        return True
    wanted = drawings.get(rule.math)
    return wanted is not None and any(
        drawing is not None and shows(drawing, wanted) for drawing in map(drawings.get, written)
    )


def _footnote_holds(rule: Footnote, max_diffs: int, text: str) -> bool:
    marks = footnote_marks(text, rule.marker)
    before = (_letters_only(text[max(0, start - _BESIDE_FOOTNOTE) : start]) for start, _ in marks)
    after = (_letters_only(text[end : end + _BESIDE_FOOTNOTE]) for _, end in marks)
    twice_before, twice_after = (2 * len(_letters_only(each)) for each in (rule.before, rule.after))
    return (
        bool(marks)
        and (not rule.before or any(_has_letters(rule.before, each[-twice_before:], max_diffs) for each in before))
        and (not rule.after or any(_has_letters(rule.after, each[:twice_after], max_diffs) for each in after))
    )


def _has_letters(wanted: str, letters: str, max_diffs: int) -> bool:
    return bool(letters) and _is_within(_letters_only(wanted), letters, max_diffs, 1 - max_diffs / len(wanted))


def _letters_only(text: str) -> str:
    return "".join(filter(str.isalnum, normalized(text))).lower()


def _without_images(text: str) -> str:
    r"""Return *text* without what ``!\[.*?\]\(.*?\)`` matches, in linear time, as the expression itself is not."""
    return "\n".join("".join(_between_images(line)) for line in text.split("\n"))


def _between_images(line: str) -> Iterator[str]:
    done = 0
    while (start := line.find("![", done)) >= 0:
        middle = line.find("](", start + 2)
        end = line.find(")", middle + 2) if middle >= 0 else -1
        if end < 0:
            break
        yield line[done:start]
        done = end + 1
    yield line[done:]


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _repeats(text: str) -> int:
    """Return how often the last 1 to 5 characters repeat at the end; the most of these five."""
    text = " ".join(re.split(r"\s+", text))
    return max(_repeats_of(text, length) for length in range(1, _LONGEST_REPEATED + 1))


def _repeats_of(text: str, length: int) -> int:
    last, count, end = text[-length:], 0, len(text)
    while end >= length and text[end - length : end] == last:
        count += 1
        end -= length
    return count
