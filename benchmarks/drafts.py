"""Passes a token with drafts, by kind of page: what a PDF's own text gives where the answer is known.

``python benchmarks/drafts.py``. No model runs: the true text of a page is the answer, its PDF's own text is the source
of drafts, and each draft is accepted up to its first wrong token, as by a model that writes this answer. The pages are
those of the demo, and generated ones with the same prose in other layouts.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crafted import write_objects

from olmocr.doctor.measure.terms import find_demo
from olmocr.inference.draft import SIZES, Beside, Costs, Drafter, DraftSource
from olmocr.model_folder import ModelFolder
from olmocr.page import PageResponse, make_front_matter
from olmocr.rendering.render import open_document

COSTS = {
    "cuda": Costs({1: 5.2, 2: 8.8, 64: 8.8}),
    "cpu": Costs({1: 7.0, 2: 7.3, 4: 10.2, 8: 13.1, 16: 19.9, 32: 31.6}),
}
"""Milliseconds of a pass by its tokens: an H200 at the 7B shape, and 2 processors with the demo model."""

WORDS = 240  # of a generated page
PAGES = 3  # of each kind
_WIDTH = 92  # characters of a line

Line = tuple[float, float, str]
"""A text and where it begins, in points."""


@dataclass(frozen=True)
class Page:
    """The *answer* to a page, and the text that its PDF has."""

    answer: str
    own_text: str


@dataclass
class Count:
    """What the drafts of some pages gave."""

    tokens: int = 0
    passes: int = 0
    proposed: int = 0
    accepted: int = 0
    time: float = 0.0
    plain_time: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=tuple(COSTS), default="cuda", help="whose costs and sizes (default: cuda)")
    args = parser.parse_args()
    from olmocr.inference.model import load_processor

    demo = find_demo()
    tokenizer = load_processor(ModelFolder(demo.checkpoint)).tokenizer
    kinds = {**demo_pages(demo.pages), **generated_pages(demo.pages)}
    print("| pages | | tokens | passes/token | tokens proposed | right | time |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, pages in kinds.items():
        count = Count()
        for page in pages:
            read(page, tokenizer, args.device, count)
        print(_row(name, len(pages), count))


def read(page: Page, tokenizer: Any, device: str, count: Count) -> None:
    """Write the page's answer with drafts, as the engine would for one page, and add to *count*."""
    costs = COSTS[device]
    ids = tokenizer.encode(page.answer, add_special_tokens=False)
    sources = [DraftSource(page.own_text, is_exact=False)] if page.own_text else []
    drafter = Drafter(tokenizer, costs, sources, SIZES[device])
    written = 0
    while written <= len(ids):  # the last token ends the answer
        resting = drafter.is_resting
        text = tokenizer.decode(ids[:written], clean_up_tokenization_spaces=False)
        draft = [] if resting else drafter.propose(text, Beside(), len(ids) + 1 - written)
        rest = ids[written:]
        right = next((place for place, token in enumerate(draft) if rest[place : place + 1] != [token]), len(draft))
        written += right + 1
        if resting:
            drafter.rest()
        else:
            drafter.learn(len(draft), right, Beside(), rows=1)
        count.passes += 1
        count.proposed += len(draft)
        count.accepted += right
        count.time += costs.of(len(draft) + 1)
    count.tokens += len(ids) + 1
    count.plain_time += (len(ids) + 1) * costs.of(1)


def _row(name: str, pages: int, count: Count) -> str:
    right = f"{count.accepted / count.proposed:.0%}" if count.proposed else ""
    rate, time = count.passes / count.tokens, count.time / count.plain_time
    return f"| {name} | {pages} | {count.tokens:,} | {rate:.3f} | {count.proposed:,} | {right} | {time:.2f} |"


def demo_pages(folder: Path) -> dict[str, list[Page]]:
    """Return the demo's pages by the kind that their names say, and all of them together."""
    kinds: dict[str, list[Page]] = {}
    for entry in json.loads((folder / "pages.json").read_text(encoding="utf-8")):
        with open_document(folder / entry["pdf"], entry["pdf"]) as document:
            own_text = document.text(entry["page"])
        turned = not entry["is_rotation_valid"]
        fields = {name: entry[name] for name in ("primary_language", "is_table", "is_diagram")}
        upright = PageResponse(**fields, is_rotation_valid=True, rotation_correction=0, natural_text=None)
        page = Page(answer_of(upright, entry["natural_text"] or ""), own_text)
        kind = "turned pages, once upright" if turned else f"demo: {entry['pdf'].partition('_')[0]}"
        kinds.setdefault(kind, []).append(page)
    return {**kinds, "**all of the demo**": [page for pages in kinds.values() for page in pages]}


def answer_of(front_matter: PageResponse, text: str) -> str:
    return make_front_matter(vars(front_matter)) + text


def generated_pages(folder: Path) -> dict[str, list[Page]]:
    """Return pages of the demo's prose in other layouts."""
    prose = " ".join(
        re.sub(r"^---.*?---\n|^#.*?$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for path in sorted(folder.glob("d*_*.md"))
    ).split()
    parts = [prose[first : first + WORDS] for first in range(0, PAGES * WORDS, WORDS)]
    return {name: [_page(layout, words) for words in parts] for name, layout in LAYOUTS}


def _page(layout: Callable[[list[str]], tuple[str, Sequence[Line]]], words: list[str]) -> Page:
    text, lines = layout(words)
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        write_pdf(Path(file.name), lines)
        with open_document(Path(file.name), file.name) as document:
            own_text = document.text(1)
    return Page(answer_of(PageResponse("en", True, 0, False, False, None), text), own_text)


def _flowed(words: Sequence[str], width: int = _WIDTH, left: float = 50.0) -> list[Line]:
    lines = textwrap.wrap(" ".join(words), width)
    return [(left, 780 - 14 * number, line) for number, line in enumerate(lines)]


def prose(words: list[str]) -> tuple[str, Sequence[Line]]:
    return " ".join(words), _flowed(words)


def columns(words: list[str]) -> tuple[str, Sequence[Line]]:
    half = len(words) // 2
    return " ".join(words), [*_flowed(words[:half], 42), *_flowed(words[half:], 42, 310.0)]


def columns_across(words: list[str]) -> tuple[str, Sequence[Line]]:
    """Store the lines of two columns from left to right across both."""
    text, lines = columns(words)
    return text, sorted(lines, key=lambda line: (-line[1], line[0]))


def headers(words: list[str]) -> tuple[str, Sequence[Line]]:
    """Add a header, a footer and numbers of lines, which an answer leaves out."""
    lines = [line for x, y, text in _flowed(words) for line in ((20.0, y, str(int(900 - y))), (x, y, text))]
    return " ".join(words), [(200.0, 820.0, "Annual Report of the Society, 1931"), *lines, (290.0, 30.0, "page 17")]


def headings(words: list[str]) -> tuple[str, Sequence[Line]]:
    """Use a title and bold words, which an answer marks."""
    marked = [f"**{word}**" if number % 25 == 10 else word for number, word in enumerate(words[5:])]
    return f"# {' '.join(words[:5])}\n\n{' '.join(marked)}", [(50.0, 810.0, " ".join(words[:5])), *_flowed(words[5:])]


def hyphens(words: list[str]) -> tuple[str, Sequence[Line]]:
    """Break long words at the ends of lines with a hyphen."""
    text, lines, line = " ".join(words), list[str](), ""
    for word in words:
        if len(line) + len(word) > _WIDTH // 2 and len(word) > 6:
            lines.append(f"{line} {word[:3]}-".strip())
            line = word[3:]
        elif len(line) + len(word) > _WIDTH // 2:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return text, [(50.0, 810 - 11 * number, each) for number, each in enumerate([*lines, line])]


def ligatures(words: list[str]) -> tuple[str, Sequence[Line]]:
    """Use one character each for fi and fl, of which there are more than in prose."""
    told = [word.replace("re", "fi") if number % 6 == 0 else word for number, word in enumerate(words)]
    shown = [word.replace("fi", "\x01").replace("fl", "\x02") for word in told]
    return " ".join(told), _flowed(shown)


def invoice(words: list[str]) -> tuple[str, Sequence[Line]]:
    """Make a table whose first cells have one to three words and whose others are numbers."""
    items = [words[first : first + 1 + first % 3] for first in range(40)]
    rows = [[" ".join(item), f"19{30 + number}", f"{number}.{number:02}"] for number, item in enumerate(items)]
    return _as_table([["Item", "Year", "Price"], *rows])


def table(words: list[str]) -> tuple[str, Sequence[Line]]:
    """Make a table of four columns, which an answer writes in HTML."""
    return _as_table([words[first : first + 4] for first in range(0, 160, 4)])


def _as_table(rows: list[list[str]]) -> tuple[str, Sequence[Line]]:
    lines = [
        (50 + 120.0 * column, 800 - 18.0 * number, cell)
        for number, row in enumerate(rows)
        for column, cell in enumerate(row)
    ]
    html = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table>\n{html}</table>", lines


def formulas(words: list[str]) -> tuple[str, Sequence[Line]]:
    """End every other line with a formula, which an answer writes in LaTeX."""
    told, lines = list[str](), list[Line]()
    for number, (x, y, line) in enumerate(_flowed(words[:200])):
        formula = rf"$x_{{{number}}}^2 + \frac{{a_{number}}}{{b}} = \sqrt{{{number}y}}$" if number % 2 else ""
        lines += [(x, y, line)] + ([(x + 430, y, f"x{number}2 + a{number} b = {number}y")] if formula else [])
        told.append(f"{line} {formula}".strip())
    return " ".join(told), lines


def scan(words: list[str]) -> tuple[str, Sequence[Line]]:
    return " ".join(words), []


LAYOUTS: tuple[tuple[str, Callable[[list[str]], tuple[str, Sequence[Line]]]], ...] = (
    ("prose", prose),
    ("two columns", columns),
    ("two columns, stored across", columns_across),
    ("headers, footers and line numbers left out", headers),
    ("a title and bold words", headings),
    ("words with hyphens at line ends", hyphens),
    ("ligatures", ligatures),
    ("a table of four words a row", table),
    ("an invoice", invoice),
    ("formulas in every other line", formulas),
    ("a scan without text", scan),
)


def write_pdf(path: Path, lines: Sequence[Line]) -> None:
    """Write a PDF of one A4 page with *lines* in Helvetica; the characters 1 and 2 are the ligatures fi and fl."""
    shown = "\n".join(f"1 0 0 1 {x:.1f} {y:.1f} Tm ({_escaped(text)}) Tj" for x, y, text in lines)
    stream = f"BT /F1 9 Tf\n{shown}\nET".encode("latin-1", "replace")
    encoding = b"<< /Type /Encoding /BaseEncoding /WinAnsiEncoding /Differences [1 /fi /fl] >>"
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding %s >>" % encoding,
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R\n"
        b"/Resources << /Font << /F1 3 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    )
    write_objects(path, objects)


def _escaped(text: str) -> str:
    return re.sub(r"([()\\])", r"\\\1", text).replace("\x01", "\\001").replace("\x02", "\\002")


if __name__ == "__main__":
    main()
