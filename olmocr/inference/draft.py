"""Texts that an answer may resemble -> the tokens that may come next, and how many of them are worth a try.

A draft never becomes part of an answer unchecked. The model gets it in one pass, and every token that the model would
not have written is removed. A good draft makes an answer faster, a bad one slower; neither changes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmocr.inference.table_draft import TableText
from olmocr.page import PageResponse, make_front_matter
from olmocr.text import normalized

SIZES = {
    "cpu": (1, 2, 4, 8, 16, 32),
    "metal": (1, 2, 3, 8, 16, 32),
    "cuda": (1, 3, 7, 15, 31),
}
"""The possible lengths of a draft in tokens, by the kind of device; a pass has one token more.

Metal has one attention kernel for few queries: queries times heads that share keys may be at most 32 (the 7B model has
seven such heads, so 4 queries). It has another kernel for more than 8 queries; numbers in between are slower than both.
On CUDA, tokens are padded to a power of two (:class:`~olmocr.inference.passes.cache.BatchCache`). Measurements decide
which lengths pay (``costs.py``).
"""

_TAILS = (48, 24, 12, 6)
"""How many characters of an answer's end to look up, the longest first."""

_LETTERS_A_TOKEN = 6  # more than tokens usually have, so that the text yields enough tokens

_TRIED = 12
"""The steps after which to decide whether drafts pay."""

_LEAST_GAIN = 1.1
_FIRST_REST = 48  # tokens
_LONGEST_REST = 768

_USUAL = make_front_matter(vars(PageResponse("en", True, 0, False, False, None)))
"""How nearly all answers begin."""

CLOSER = "\n---\n"
"""The end of a front matter."""

_HYPHENATED = re.compile(r"(?<=[a-z])[-\u00ad\u0002\ufffe][^\S\n]*\n\s*(?=[a-z])")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>?")
_BLANK = re.compile(r"\s+")


@dataclass(frozen=True)
class Costs:
    """How long one pass over the weights takes, by number of tokens.

    Numbers in between are interpolated, and numbers above continue the last slope.
    """

    seconds: Mapping[int, float]

    def of(self, tokens: int) -> float:
        """Return the seconds of a pass with this many *tokens*."""
        sizes = sorted(self.seconds)
        above = next((size for size in sizes if size >= tokens), sizes[-1])
        below = max((size for size in sizes if size < above), default=above)
        if above == below:
            return self.seconds[above]
        slope = (self.seconds[above] - self.seconds[below]) / (above - below)
        return self.seconds[below] + max(slope, 0.0) * (tokens - below)


@dataclass(frozen=True)
class Beside:
    """What else is in a pass: the number of *tokens*, and how many of them answers will probably keep (*expected*)."""

    tokens: int = 0
    expected: float = 0.0


class DraftSource:
    """A text that may be written next, piece by piece.

    With *is_exact*, it is an answer, including blanks and tags. Otherwise it is a page's own text, which has other line
    ends and no tags; within a table, the tags are added. The place of the last piece is remembered, and the search for
    the next begins there.
    """

    def __init__(self, text: str, is_exact: bool) -> None:
        self._is_exact = is_exact
        self._text = text if is_exact else as_written(text)
        self._table = None if is_exact else TableText(normalized("NFKC", text))
        self._at = 0

    def after(self, written: str, most: int) -> tuple[int, str]:
        """Return the length of the match with the end of *written*, and up to *most* characters of the text after it.

        *written* is the answer's body. If it is empty, the beginning of the text follows.
        """
        if self._table and (rows := self._table.after(written, most)):
            return _TAILS[0], rows[:most]
        end = written if self._is_exact else as_plain(written)
        if not end.strip():
            return _TAILS[-1], self._text[:most].lstrip()
        for length in _TAILS:
            tail = end[-length:]
            at = self._find(tail) if len(tail) == length else -1
            if at >= 0:
                self._at = at + length
                return length, self._behind(written, most)
        return 0, ""

    def _find(self, tail: str) -> int:
        at = self._text.find(tail, max(0, self._at - len(tail)))
        return at if at >= 0 else self._text.find(tail)

    def _behind(self, written: str, most: int) -> str:
        found = self._text[self._at : self._at + most]
        # A page's own text has a blank where the answer has a tag or a line break.
        return found.lstrip() if not self._is_exact and written[-1:] in ("\n", ">") else found


class Drafter:
    """Drafts for one answer, from texts that exist before it, and from its own earlier text."""

    def __init__(
        self, tokenizer: Any, costs: Costs, sources: list[DraftSource], sizes: Sequence[int] = SIZES["cpu"]
    ) -> None:
        self._tokenizer = tokenizer
        self.sizes = sizes
        self.costs = costs
        self._sources = sources
        self._agreed, self._looked_at = 4.0, 5.0  # as if 4 of 5 tokens had been right, since a try is cheap
        self._steps, self._tokens, self._seconds = 0, 0, 0.0
        self._resting, self._next_rest = 0, _FIRST_REST

    @property
    def is_resting(self) -> bool:
        """Whether drafts pause for now, since they did not pay."""
        return self._resting > 0

    def rest(self) -> None:
        """Count one token of the pause."""
        self._resting -= 1

    @property
    def right(self) -> float:
        """The probability that a token of a draft is right, if those before it are."""
        return min(self._agreed / self._looked_at, 0.99)

    def expected(self, proposed: int) -> float:
        """Return how many of *proposed* tokens will probably be right, judged by earlier drafts."""
        return sum(self.right**place for place in range(1, proposed + 1))

    def propose(self, answer: str, beside: Beside, most: int) -> list[int]:
        """Return up to *most* tokens that may follow *answer*, in a pass with others *beside* it; there may be none."""
        size = min(self._best_size(beside, self.sizes[-1]), most)
        text = self._text_after(answer, size * _LETTERS_A_TOKEN) if size > 0 else ""
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)[:size] if text else []
        if 0 < len(tokens) < size:  # fewer tokens may not pay, or only some of them
            tokens = tokens[: self._best_size(beside, len(tokens))]
        return tokens

    def learn(self, proposed: int, accepted: int, beside: Beside, rows: int) -> None:
        """Learn from a step: how many tokens were *proposed*, and how many of them were *accepted*.

        The step had *rows* rows. Its cost is that of a step without a draft, plus what the draft added to the pass.
        """
        if proposed:
            self._agreed = self._agreed * 0.9 + accepted
            self._looked_at = self._looked_at * 0.9 + min(proposed, accepted + 1)
        self._steps += 1
        self._tokens += accepted + 1
        added = self.costs.of(beside.tokens + proposed + 1) - self.costs.of(beside.tokens + 1)
        self._seconds += 1 + rows * added / self.costs.of(rows)
        if self._steps == _TRIED:
            self._decide()

    def _decide(self) -> None:
        if self._tokens / self._seconds < _LEAST_GAIN:
            self._resting = self._next_rest
            self._next_rest = min(2 * self._next_rest, _LONGEST_REST)
            self._agreed, self._looked_at = 4.0, 5.0
        else:
            self._next_rest = _FIRST_REST
        self._steps, self._tokens, self._seconds = 0, 0, 0.0

    def _best_size(self, beside: Beside, most: int) -> int:
        """Return how many of *most* tokens give the best rate, judged by how often drafts were right so far."""
        best, best_rate = 0, (beside.expected + 1) / self.costs.of(beside.tokens + 1)
        for size in [*(size for size in self.sizes if size < most), most]:
            rate = (beside.expected + 1 + self.expected(size)) / self.costs.of(beside.tokens + 1 + size)
            if rate > best_rate:
                best, best_rate = size, rate
        return best

    def _text_after(self, answer: str, most: int) -> str:
        """Return the rest of the usual front matter, or the text from the source with the longest match of the body."""
        _, closer, body = answer.partition(CLOSER)
        if not closer:
            front_matter = usual_rest(answer)
            return front_matter + self._body_after("", most) if front_matter else ""
        return self._body_after(body, most)

    def _body_after(self, body: str, most: int) -> str:
        found = [source.after(body, most) for source in self._sources]
        found.append(_repeated(body, most))
        return max(found, key=lambda match: match[0])[1]


def longest_padded(drafters: Sequence[Drafter], rows: int) -> int:
    """Return the longest draft that pays in a pass of *rows*, each padded to the longest, if *drafters* propose some.

    With 32 rows on an H200, drafts of up to 31 tokens, a tenth of them wrong, took 36 ms a pass, as long as a pass of
    all padded tokens would. Without drafts it took 11 (benchmarks/README.md).
    """
    if not drafters:
        return 0
    costs, sizes = drafters[0].costs, drafters[0].sizes
    rates = {0: rows / costs.of(rows)}
    for size in sizes:
        expected = sum(drafter.expected(size) for drafter in drafters)
        rates[size] = (rows + expected) / costs.of(rows * (size + 1))
    return max(rates, key=lambda size: rates[size])


def usual_rest(answer: str) -> str:
    """Return the usual rest of an unfinished front matter; an empty string if its last line is already unusual."""
    number, begun = answer.count("\n"), answer.rpartition("\n")[2]
    rest = "".join(_USUAL.splitlines(keepends=True)[number:])
    return rest[len(begun) :] if rest.startswith(begun) else ""


def as_written(text: str) -> str:
    """Return a page's own text in the form of an answer: without ligatures and hyphenation, with lines joined."""
    whole = _HYPHENATED.sub("", normalized("NFKC", text.replace("\r", "")))
    return _BLANK.sub(" ", whole).strip()


def as_plain(written: str) -> str:
    """Return an answer's end without tags and markup, in the form of a page's own text."""
    return _BLANK.sub(" ", _TAG.sub(" ", written[-4 * _TAILS[0] :]).replace("#", " ").replace("*", ""))


def _repeated(body: str, most: int) -> tuple[int, str]:
    """Return what followed the answer's current end where that last appeared in it; short ends are not looked up."""
    for length in _TAILS[:-1]:
        at = body.rfind(body[-length:], 0, -1) if len(body) > length else -1
        if at >= 0:
            return length - 1, body[at + length : at + length + most]
    return 0, ""
