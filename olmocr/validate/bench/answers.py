"""A folder with existing answers -> the text of each page of a benchmark, whoever read it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from olmocr.errors import InputError
from olmocr.rendering.render import open_document
from olmocr.strays import own_parts
from olmocr.validate.bench.checks import BenchSet
from olmocr.validate.pages import read_text

Page = tuple[str, int]
"""A document, as a path within ``pdfs``, and the number of one of its pages, from 1."""

Readings = Mapping[Page, tuple[str | None, ...]]
"""The text of each page: one per reading, None for a reading without a good answer."""

# STEM_pg1_repeat1.md as in olmOCR-bench, and STEM.md/0001.md as with --page-files.
_BY_PAGE = (
    re.compile(r"_pg(?P<page>[0-9]{1,9})_repeat(?P<repeat>[0-9]{1,9})\.md\Z"),
    re.compile(r"\.md/(?P<page>[0-9]{1,9})\.md\Z"),
)


@dataclass(frozen=True)
class AnswersFound:
    """The answers found, and a *sha256* of all that counted."""

    readings: Readings
    sha256: str


def read_answers(folder: Path, bench: BenchSet) -> AnswersFound:
    """Return *folder*'s answers to the pages that *bench* checks.

    For ``old/a.pdf`` that is ``old/a_pg1_repeat1.md`` and further repeats, or ``old/a.md/0001.md``, or ``old/a.md`` if
    the document has one page. The first kind found counts; its text is used unchanged.

    Raises:
        InputError: there is no such folder, an answer is not text, or none is about these pages.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; `answers` must be a folder with an answer for each page")
    by_page, whole = _by_name(folder)
    digest, readings = hashlib.sha256(), {}
    for document, number in sorted({(check.document, check.page) for check in bench.checks}):
        stem = PurePosixPath(document).with_suffix("").as_posix()
        paths = by_page.get((stem, number), [])
        if not paths and stem in whole and _has_one_page(bench.document_path(document)):
            paths = [whole[stem]]
        texts = tuple(map(read_text, paths))
        for path, text in zip(paths, texts, strict=True):
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\0{len(text)}\0".encode("utf-8", "surrogateescape") + text.encode())
        readings[document, number] = texts
    if not any(readings.values()):
        raise InputError(
            f"{folder} does not have an answer for any page of this benchmark; it should have files like "
            f"{PurePosixPath(bench.documents[0]).with_suffix('')}_pg1_repeat1.md"
        )
    return AnswersFound(readings, digest.hexdigest())


def _by_name(folder: Path) -> tuple[dict[Page, list[Path]], dict[str, Path]]:
    """Return the files for one page each, by the document's name without its ending, and those for a document."""
    found: dict[Page, dict[int, Path]] = {}
    whole: dict[str, Path] = {}
    for path in sorted(_markdown(folder)):
        name = path.relative_to(folder).as_posix()
        of_page = next((match for form in _BY_PAGE if (match := form.search(name))), None)
        if of_page is None:
            whole[name.removesuffix(".md")] = path
        else:
            page = (name[: of_page.start()], int(of_page["page"]))
            found.setdefault(page, {}).setdefault(int(of_page.groupdict().get("repeat") or 0), path)
    return {page: [paths[repeat] for repeat in sorted(paths)] for page, paths in found.items()}, whole


def _markdown(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*.md") if path.is_file() and own_parts(path, folder))


def _has_one_page(path: Path) -> bool:
    try:
        with open_document(path, str(path)) as pages:
            return pages.page_count == 1
    except InputError:
        return False
