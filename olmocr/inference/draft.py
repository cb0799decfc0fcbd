"""Texts that an answer may be alike -> the tokens that may come next, and how many of them are worth a try.

A draft is never part of an answer by itself: the model is given it in one pass, and what it would not have written
is taken back. A good draft makes an answer faster, a bad one slower; none changes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmocr.page import PageResponse, make_front_matter
from olmocr.text import normalized

SIZES = {
    "cpu": (1, 2, 4, 8, 16, 32),
    "metal": (1, 2, 3, 8, 16, 32),
    "cuda": (1, 3, 7, 15, 31),
}
"""Tokens of a draft that are considered, by the kind of device; a pass has one more.

Metal has one kernel for attention of few queries, as many as fit into 32 with the heads that share keys (seven in the
7B model: 4), and one for more than 8; what lies between is slower than both. On CUDA tokens are filled up to a power
of two (:class:`~olmocr.inference.passes.cache.BatchCache`). Which of them pay is measured (``costs.py``).
"""

_TAILS = (48, 24, 12, 6)
"""Characters of an answer's end that are looked up, the longest first."""

_LETTERS_A_TOKEN = 6  # more than tokens have in a text, so that enough of them are found

_TRIED = 12
"""Steps after which it is asked whether drafts pay."""

_LEAST_GAIN = 1.1
_FIRST_REST = 48  # tokens
_LONGEST_REST = 768

_USUAL = make_front_matter(vars(PageResponse("en", True, 0, False, False, None)))
"""What nearly all answers begin with."""

CLOSER = "\n---\n"
"""What ends a front matter."""

_HYPHENATED = re.compile(r"(?<=[a-z])[-\u00ad\u0002\ufffe][^\S\n]*\n\s*(?=[a-z])")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>?")
_BLANK = re.compile(r"\s+")


@dataclass(frozen=True)
class Costs:
    """How long one pass over the weights takes, by how many tokens it is given; between these it is interpolated."""

    seconds: Mapping[int, float]

    def of(self, tokens: int) -> float:
        """Return the seconds of a pass with so many tokens."""
        sizes = sorted(self.seconds)
        above = next((size for size in sizes if size >= tokens), sizes[-1])
        below = max((size for size in sizes if size < above), default=above)
        if above == below:
            return self.seconds[above]
        slope = (self.seconds[above] - self.seconds[below]) / (above - below)
        return self.seconds[below] + max(slope, 0.0) * (tokens - below)


@dataclass(frozen=True)
class Beside:
    """What else a pass has in it: so many *tokens*, of which the answers will keep so many (*expected*)."""

    tokens: int = 0
    expected: float = 0.0


class DraftSource:
    """A text that may be written next, piece by piece.

    *is_exact* says that it is an answer, blanks and tags and all; else it is a page's own text, whose lines end
    elsewhere and which has no tags. Where the last piece was found is remembered: the next is looked for from there.
    """

    def __init__(self, text: str, is_exact: bool) -> None:
        self._is_exact = is_exact
        self._text = text if is_exact else as_written(text)
        self._at = 0

    def after(self, written: str, most: int) -> tuple[int, str]:
        """Return what stands behind the end of *written*, at most *most* characters, and how long a match it was.

        *written* is the answer's body. Of an empty one, the text's beginning follows.
        """
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
        # In a page's own text a blank stands where the answer has a tag or a new line.
        return found.lstrip() if not self._is_exact and written[-1:] in ("\n", ">") else found


class Drafter:
    """Drafts for one answer: from texts that are there before it, and from its own earlier text."""

    def __init__(
        self, tokenizer: Any, costs: Costs, sources: list[DraftSource], sizes: Sequence[int] = SIZES["cpu"]
    ) -> None:
        self._tokenizer = tokenizer
        self._sizes = sizes
        self._costs = costs
        self._sources = sources
        self._agreed, self._looked_at = 4.0, 5.0  # as if 4 of 5 tokens had been right: a try is cheap
        self._steps, self._tokens, self._seconds = 0, 0, 0.0
        self._resting, self._next_rest = 0, _FIRST_REST

    @property
    def is_resting(self) -> bool:
        """Whether drafts are left alone for now, since they did not pay."""
        return self._resting > 0

    def rest(self) -> None:
        """Let one token pass."""
        self._resting -= 1

    @property
    def right(self) -> float:
        """How likely a token of a draft is the right one, if those before it are."""
        return min(self._agreed / self._looked_at, 0.99)

    def expected(self, proposed: int) -> float:
        """Return how many of so many proposed tokens will be right, by how it went so far."""
        return sum(self.right**place for place in range(1, proposed + 1))

    def propose(self, answer: str, beside: Beside, most: int) -> list[int]:
        """Return at most *most* tokens that may follow *answer*, in a pass with others *beside* it; perhaps none."""
        size = min(self._best_size(beside, self._sizes[-1]), most)
        text = self._text_after(answer, size * _LETTERS_A_TOKEN) if size > 0 else ""
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)[:size] if text else []
        if 0 < len(tokens) < size:  # fewer may not pay, or not all of them
            tokens = tokens[: self._best_size(beside, len(tokens))]
        return tokens

    def learn(self, proposed: int, accepted: int, beside: Beside, rows: int) -> None:
        """Take in how a step went: so many tokens were proposed, and so many of them the model wrote itself.

        It was one of so many *rows*. What it took is what it added to the pass, beside a plain one's part.
        """
        if proposed:
            self._agreed = self._agreed * 0.9 + accepted
            self._looked_at = self._looked_at * 0.9 + min(proposed, accepted + 1)
        self._steps += 1
        self._tokens += accepted + 1
        added = self._costs.of(beside.tokens + proposed + 1) - self._costs.of(beside.tokens + 1)
        self._seconds += 1 + rows * added / self._costs.of(rows)
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
        """Return how many of *most* tokens give the most for their time, by how often they were right so far."""
        best, best_rate = 0, (beside.expected + 1) / self._costs.of(beside.tokens + 1)
        for size in [*(size for size in self._sizes if size < most), most]:
            rate = (beside.expected + 1 + self.expected(size)) / self._costs.of(beside.tokens + 1 + size)
            if rate > best_rate:
                best, best_rate = size, rate
        return best

    def _text_after(self, answer: str, most: int) -> str:
        """Return the usual front matter's rest, or else what the source says that knows most of the body's end."""
        _, closer, body = answer.partition(CLOSER)
        if not closer:
            front_matter = usual_rest(answer)
            return front_matter + self._body_after("", most) if front_matter else ""
        return self._body_after(body, most)

    def _body_after(self, body: str, most: int) -> str:
        found = [source.after(body, most) for source in self._sources]
        found.append(_repeated(body, most))
        return max(found, key=lambda match: match[0])[1]


def usual_rest(answer: str) -> str:
    """Return how a front matter usually goes on, whose last line has only begun; nothing if that is an unusual one."""
    number, begun = answer.count("\n"), answer.rpartition("\n")[2]
    rest = "".join(_USUAL.splitlines(keepends=True)[number:])
    return rest[len(begun) :] if rest.startswith(begun) else ""


def as_written(text: str) -> str:
    """Return a page's own text as an answer may have it: ligatures and words in one piece, lines joined."""
    whole = _HYPHENATED.sub("", normalized("NFKC", text.replace("\r", "")))
    return _BLANK.sub(" ", whole).strip()


def as_plain(written: str) -> str:
    """Return an answer's end without tags and markup, as a page's own text has it."""
    return _BLANK.sub(" ", _TAG.sub(" ", written[-4 * _TAILS[0] :]).replace("#", " ").replace("*", ""))


def _repeated(body: str, most: int) -> tuple[int, str]:
    """Return what followed the last time that the answer had what it ends with now; short ends are not looked up."""
    for length in _TAILS[:-1]:
        at = body.rfind(body[-length:], 0, -1) if len(body) > length else -1
        if at >= 0:
            return length - 1, body[at + length : at + length + most]
    return 0, ""
