"""A clock of work done, not of seconds: lines of Python that run, and steps of a matcher of regular expressions.

The matcher is one that goes back and tries again, as Python's is; it is slow, and counts. What it may spare that
Python's does not is nothing: a pattern that is linear here is linear there.
"""

import contextlib
import functools
import random
import re
import sys
from re import _constants as op  # what a pattern consists of is told nowhere else
from re import _parser

MANY = 8
"""Of a repetition that has a bound, this many at most: a bound is a factor, and no growth."""


def lines_run(function, *args):
    """Return how many lines of Python *function* takes for *args*, whatever it returns or raises."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(Exception):
            function(*args)
    finally:
        sys.settrace(before)
    return count


class _TooMany(Exception):
    """A pattern took more steps than are counted."""


class Steps:
    """Counts the steps of *pattern*: in a search through the whole text, or, *anchored*, from its first character."""

    def __init__(self, pattern, *, anchored=False, whole=False, most=20_000):
        self._flags = pattern.flags
        self._has_lines = bool(self._flags & re.MULTILINE)
        text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
        self.tree = _parser.parse(text, self._flags & ~(re.UNICODE | re.DEBUG))
        self._anchored, self._whole, self.most = anchored, whole, most
        self._compound = {
            op.AT: self._place,
            op.BRANCH: self._branch,
            op.SUBPATTERN: self._group,
            op.GROUPREF: self._again,
            op.MAX_REPEAT: self._repeat,
            op.MIN_REPEAT: functools.partial(self._repeat, lazy=True),
            op.POSSESSIVE_REPEAT: self._alone,
            op.ATOMIC_GROUP: self._alone,
            op.ASSERT: self._look,
            op.ASSERT_NOT: functools.partial(self._look, wanted=False),
        }

    def of(self, text):
        """Return how many steps *text* takes; *most* where it is that many."""
        self._text, self._steps, self._groups = text, 0, {}
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(20_000)
        try:
            at, nodes = 0, self.tree.data
            while at <= len(text):
                end = self._match(nodes, 0, at, self._at_end if self._whole else lambda place: place)
                if self._anchored:
                    break
                at = end if end is not None and end > at else at + 1
        except _TooMany:
            return self.most
        finally:
            sys.setrecursionlimit(before)
        return self._steps

    def _at_end(self, place):
        return place if place == len(self._text) else None

    def _tick(self):
        self._steps += 1
        if self._steps >= self.most:
            raise _TooMany

    def _match(self, nodes, index, at, then):
        if index == len(nodes):
            return then(at)
        self._tick()
        kind, value = nodes[index]

        def rest(place):
            return self._match(nodes, index + 1, place, then)

        if _is_character(kind):
            return rest(at + 1) if self._is_here(kind, value, at) else None
        return self._compound[kind](value, at, rest)

    def _is_here(self, kind, value, at):
        return at < len(self._text) and _fits(
            kind, value if kind is not op.IN else tuple(value), self._text[at], self._flags
        )

    def _place(self, value, at, rest):
        text, has_lines = self._text, self._has_lines
        holds = {
            op.AT_BEGINNING: at == 0 or (has_lines and text[at - 1] == "\n"),
            op.AT_BEGINNING_STRING: at == 0,
            op.AT_END: at == len(text) or text[at:] == "\n" or (has_lines and text[at] == "\n"),
            op.AT_END_STRING: at == len(text),
        }
        is_edge = _is_word(text[at - 1 : at] if at else "") != _is_word(text[at : at + 1])
        holds |= {op.AT_BOUNDARY: is_edge, op.AT_NON_BOUNDARY: not is_edge}
        return rest(at) if holds[value] else None

    def _branch(self, value, at, rest):
        return _first(self._match(branch.data, 0, at, rest) for branch in value[1])

    def _group(self, value, at, rest):
        number, _, _, inner = value

        def after(place):
            before, self._groups[number] = self._groups.get(number), self._text[at:place]
            found = rest(place)
            if found is None:
                self._groups[number] = before
            return found

        return self._match(inner.data, 0, at, after)

    def _again(self, value, at, rest):
        known = self._groups.get(value) or ""
        return rest(at + len(known)) if self._text.startswith(known, at) else None

    def _repeat(self, value, at, rest, lazy=False):
        least, most, inner = value
        least, most = min(least, MANY), len(self._text) + 1 if most is op.MAXREPEAT else min(most, MANY)
        nodes = inner.data
        if len(nodes) == 1 and _is_character(nodes[0][0]):
            return self._repeat_character(nodes[0], least, most, at, rest, lazy)

        def more(place, count):
            self._tick()

            def once(new):
                return None if new == place and count >= least else more(new, count + 1)

            again = (lambda: self._match(nodes, 0, place, once)) if count < most else (lambda: None)
            stop = (lambda: rest(place)) if count >= least else (lambda: None)
            return _first(each() for each in ((stop, again) if lazy else (again, stop)))

        return more(at, 0)

    def _repeat_character(self, node, least, most, at, rest, lazy):
        count = 0
        if lazy:
            while count <= most:
                self._tick()
                if count >= least and (found := rest(at + count)) is not None:
                    return found
                if not self._is_here(*node, at + count):
                    return None
                count += 1
            return None
        while count < most and self._is_here(*node, at + count):
            self._tick()
            count += 1
        while count >= least:
            self._tick()
            if (found := rest(at + count)) is not None:
                return found
            count -= 1
        return None

    def _alone(self, value, at, rest):
        """Match what is never tried again: a possessive repetition, or an atomic group."""
        nodes = [(op.MAX_REPEAT, value)] if isinstance(value, tuple) else value.data
        end = self._match(nodes, 0, at, lambda place: place)
        return None if end is None else rest(end)

    def _look(self, value, at, rest, wanted=True):
        direction, inner = value
        start = at if direction > 0 else at - inner.getwidth()[0]
        goal = (lambda place: place) if direction > 0 else (lambda place: place if place == at else None)
        found = self._match(inner.data, 0, start, goal) if start >= 0 else None
        return rest(at) if (found is not None) == wanted else None


def _first(results):
    return next((result for result in results if result is not None), None)


def _is_word(character):
    return character.isalnum() or character == "_"


def _is_character(kind):
    return kind in (op.LITERAL, op.NOT_LITERAL, op.IN, op.ANY)


@functools.lru_cache(100_000)
def _fits(kind, value, character, flags):
    if flags & re.IGNORECASE and character.swapcase() != character and len(character.swapcase()) == 1:
        return _is(kind, value, character, flags) or _is(kind, value, character.swapcase(), flags)
    return _is(kind, value, character, flags)


def _is(kind, value, character, flags):
    if kind is op.ANY:
        return bool(flags & re.DOTALL) or character != "\n"
    if kind is op.LITERAL:
        return value == ord(character)
    if kind is op.NOT_LITERAL:
        return value != ord(character)
    return any(_is_item(item, character, flags) for item in value if item[0] is not op.NEGATE) != (
        value[0][0] is op.NEGATE
    )


_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}


def _is_item(item, character, flags):
    kind, value = item
    if kind is op.RANGE:
        return value[0] <= ord(character) <= value[1]
    if kind is op.CATEGORY:
        return re.fullmatch(_CATEGORIES[value], character, flags & re.ASCII) is not None
    return value == ord(character)


# What may be slow: a beginning of what the pattern matches, and then a piece of it again and again, which ends wrongly.


def attacks(steps, count):
    """Return functions of a length, each of which makes a text that may be slow for a pattern, from its own pieces."""
    pieces = sorted(_pieces(steps.tree) | {"\n", " ", "a", "1"})
    pairs = [first + second for first in pieces for second in pieces if first != second]
    chosen = random.Random(1).sample(pairs, min(len(pairs), count))
    beginnings = dict.fromkeys(_sample(list(steps.tree)[:length]) for length in range(len(steps.tree) + 1))
    return [
        functools.partial(_text, beginning, piece) for beginning in beginnings for piece in [*pieces[:count], *chosen]
    ]


def _text(beginning, piece, length):
    return beginning + piece * (length // min(len(piece), 4)) + "\0"


def _pieces(tree):
    """Return characters that a pattern's parts match, and the texts that stand in it as they are."""
    found, literal = set(), ""
    for kind, value in tree:
        if kind is op.LITERAL:
            literal += chr(value)
            found.add(chr(value))
            continue
        found.add(literal)
        literal = ""
        found |= _pieces_in(kind, value)
    return (found | {literal}) - {""}


def _pieces_in(kind, value):
    if kind is op.IN:
        return set(_examples(value))
    if kind is op.BRANCH:
        return set().union(*map(_pieces, value[1]))
    inner = [each for each in value if isinstance(each, _parser.SubPattern)] if isinstance(value, tuple) else []
    samples = {_sample(list(each)) for each in inner}
    return samples.union(*map(_pieces, inner)) - {""}


def _examples(items):
    """Return a character for each item of a class; a few that stand for all others where it is negated."""
    if items[0][0] is op.NEGATE:
        flags = re.DOTALL
        return [each for each in "az 1\n<-_.\"'/" if _is(op.IN, items, each, flags)][:4]
    named = {op.CATEGORY_DIGIT: "1", op.CATEGORY_SPACE: " ", op.CATEGORY_WORD: "a"}
    return [
        chr(value[0] if kind is op.RANGE else value) if kind is not op.CATEGORY else named.get(value, "-")
        for kind, value in items
    ]


def _sample(nodes):
    """Return a short text that *nodes* match, or nearly."""
    return "".join(_sample_of(kind, value) for kind, value in nodes)


def _sample_of(kind, value):
    if kind is op.LITERAL:
        return chr(value)
    if kind is op.IN:
        return _examples(value)[0]
    if kind in (op.ANY, op.NOT_LITERAL):
        return "z"
    if kind is op.BRANCH:
        return _sample(list(value[1][0]))
    if kind is op.SUBPATTERN:
        return _sample(list(value[3]))
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        return _sample(list(value[2])) * max(1, min(value[0], MANY))
    if kind is op.ASSERT and value[0] < 0:
        return _sample(list(value[1]))
    return _sample(list(value)) if kind is op.ATOMIC_GROUP else ""
