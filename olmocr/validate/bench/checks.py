"""A benchmark folder in olmOCR-bench's layout -> BenchSet: documents, and what must be true of their pages' text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from olmocr.errors import InputError
from olmocr.strays import files_in, own_parts
from olmocr.validate.bench.marked import FORMATS
from olmocr.validate.bench.text import normalized
from olmocr.validate.pages import read_text

BASELINE = "baseline"
"""The category of the checks that every document gets."""

_SIDES = ("before", "after")

RELATIONS = ("up", "down", "left", "right", "top_heading", "left_heading")

_REVISION = re.compile(r"[0-9a-f]{40}")
_COMMON = {"pdf", "page", "id", "type", "max_diffs", "checked", "url"}


@dataclass(frozen=True)
class Phrase:
    """A text must be there, or with *absent* must not; searched for in the first and last so many characters."""

    text: str
    absent: bool = False
    case_sensitive: bool = True
    first_n: int | None = None
    last_n: int | None = None


@dataclass(frozen=True)
class Order:
    """One text must begin before another."""

    before: str
    after: str


@dataclass(frozen=True)
class TableCell:
    """A table must have a cell with this text, and next to it others: *relations* by their direction."""

    cell: str
    relations: Mapping[str, str]
    ignore_markdown_tables: bool = False


@dataclass(frozen=True)
class Baseline:
    """A page must have text, no endless repetition, no unexpected script; with *max_length* it must be blank."""

    max_length: int | None = None
    max_length_skips_image_alt_tags: bool = False
    max_repeats: int = 30
    check_disallowed_characters: bool = True


@dataclass(frozen=True)
class Formula:
    """There must be a formula that shows all of *math*; with *with_dollars*, those between dollar signs count, too."""

    math: str
    with_dollars: bool = True


@dataclass(frozen=True)
class Format:
    """A text must be in a heading, in bold or in italic type; *form* is one of :data:`FORMATS`."""

    text: str
    form: str
    case_sensitive: bool = True


@dataclass(frozen=True)
class Footnote:
    """A footnote's mark must be there, with these letters and digits, if given, right before and after it."""

    marker: str
    before: str = ""
    after: str = ""


Rule = Phrase | Order | TableCell | Baseline | Formula | Format | Footnote


@dataclass(frozen=True)
class BenchCheck:
    """What must be true of the text of one page of *document*, a path within ``pdfs``; *page* counts from 1."""

    id: str
    type: str
    category: str
    document: str
    page: int
    max_diffs: int
    rule: Rule


@dataclass(frozen=True)
class BenchSet:
    """A benchmark: *documents* are paths within *pdfs*.

    *checks_sha256* identifies the data set; *revision* is the commit it was downloaded at, if known.
    """

    pdfs: Path
    documents: tuple[str, ...]
    checks: tuple[BenchCheck, ...]
    checks_sha256: str
    revision: str | None

    def document_path(self, document: str) -> Path:
        """Return a document's path."""
        return self.pdfs / document


class CheckError(ValueError):
    """A line is not a check; the text says why."""


def read_bench_set(folder: Path) -> BenchSet:
    """Read a benchmark folder: ``pdfs`` with documents, and ``*.jsonl`` with one check a line, each a category.

    Every document without a baseline check of its own gets one for its first page.

    Raises:
        InputError: the folder, a line or a document that a check names is invalid.
    """
    pdfs = folder / "pdfs"
    if not pdfs.is_dir():
        raise InputError(
            f"{folder} is not a benchmark: it has no folder pdfs; give the one that holds pdfs and *.jsonl"
        )
    files = files_in(folder, ".jsonl")
    if not files:
        raise InputError(f"{folder} is not a benchmark: it has no *.jsonl with checks")
    documents = tuple(sorted(path.relative_to(pdfs).as_posix() for path in _documents(pdfs)))
    places: dict[str, str] = {}
    checks: list[BenchCheck] = []
    digest = hashlib.sha256()
    for file in files:
        content = read_text(file)
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content.encode())
        checks += _checks_of(file, content, set(documents), places)
    return BenchSet(pdfs, documents, (*checks, *_baselines(documents, checks)), digest.hexdigest(), _revision(files))


def parse_check(line: str, category: str) -> BenchCheck:
    """Return one line of JSON as a check.

    Raises:
        CheckError: it is not JSON, a field is missing, unknown or of another type, or the type of check is unknown.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CheckError(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckError("it is not a JSON object")
    fields = _JsonFields(value)
    kind = fields.text("type")
    max_diffs = fields.count("max_diffs", default=0)
    check = BenchCheck(
        id=fields.text("id"),
        type=kind,
        category=category,
        document=_document(fields.text("pdf")),
        page=fields.count("page", least=1),
        max_diffs=max_diffs,
        rule=_rule(fields, kind, max_diffs),
    )
    unknown = sorted(set(value) - fields.asked - _COMMON)
    if unknown:
        raise CheckError(f"a check of type {kind} does not have a field {unknown[0]!r}")
    return check


def _rule(fields: _JsonFields, kind: str, max_diffs: int) -> Rule:
    if kind in ("present", "absent"):
        return Phrase(
            fields.phrase("text"),
            absent=kind == "absent",
            case_sensitive=fields.flag("case_sensitive", default=True),
            first_n=fields.count_or_none("first_n"),
            last_n=fields.count_or_none("last_n"),
        )
    if kind == "order":
        order = Order(fields.phrase("before"), fields.phrase("after"))
        if max_diffs > min(len(order.before), len(order.after)) // 2:
            raise CheckError(f"max_diffs is {max_diffs}, more than half of the text to find")
        return order
    if kind == "table":
        found = {name: fields.text_or_nothing(name) for name in RELATIONS}
        relations = {name: normalized(text) for name, text in found.items() if text}
        markdown = fields.flag("ignore_markdown_tables", default=False)
        return TableCell(normalized(fields.text("cell", may_be_empty=True)), relations, markdown)
    if kind == "baseline":
        return Baseline(
            fields.count_or_none("max_length"),
            fields.flag("max_length_skips_image_alt_tags", default=False),
            fields.count("max_repeats", default=30),
            fields.flag("check_disallowed_characters", default=True),
        )
    if kind == "math":
        return Formula(fields.text("math"), not fields.flag("ignore_dollar_delimited", default=False))
    if kind == "format":
        return Format(fields.phrase("text"), _form(fields), fields.flag("case_sensitive", default=True))
    if kind == "footnote":
        return Footnote(_marker(fields), *(_phrase_or_nothing(fields, f"appears_{way}_marker") for way in _SIDES))
    known = ("present", "absent", "order", "table", "baseline", "math", "format", "footnote")
    raise CheckError(f"there is no type of check {kind!r}; use one of {', '.join(known)}")


def _form(fields: _JsonFields) -> str:
    found = fields.text("format")
    if found not in FORMATS:
        raise CheckError(f"format is {found!r}, not one of {', '.join(FORMATS)}")
    return found


def _marker(fields: _JsonFields) -> str:
    found = fields.text("marker")
    if " " in found:
        raise CheckError(f"marker is {found!r}, which is not a footnote's mark")
    return found


def _phrase_or_nothing(fields: _JsonFields, name: str) -> str:
    return fields.phrase(name) if fields.text_or_nothing(name) else ""


class _JsonFields:
    """A JSON object's fields, each of its required type; *asked* are those read so far."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._value = value
        self.asked: set[str] = set()

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        found = self._get(name)
        if not isinstance(found, str) or not (found.strip() or may_be_empty):
            raise CheckError(f"{name} is {self._shown(name)}, not a text")
        return found

    def phrase(self, name: str) -> str:
        found = normalized(self.text(name))
        if not found.strip():
            raise CheckError(f"{name} consists only of formatting marks")
        return found

    def text_or_nothing(self, name: str) -> str:
        return "" if self._get(name) is None else self.text(name, may_be_empty=True)

    def flag(self, name: str, *, default: bool) -> bool:
        found = self._get(name)
        if not isinstance(found, bool | None):
            raise CheckError(f"{name} is {self._shown(name)}, not true or false")
        return default if found is None else found

    def count_or_none(self, name: str) -> int | None:
        return None if self._get(name) is None else self.count(name)

    def count(self, name: str, *, default: int | None = None, least: int = 0) -> int:
        found = self._get(name)
        if found is None and default is not None:
            return default
        if type(found) is not int or found < least:
            raise CheckError(f"{name} is {self._shown(name)}, not a whole number from {least}")
        return found

    def _get(self, name: str) -> Any:
        self.asked.add(name)
        return self._value.get(name)

    def _shown(self, name: str) -> str:
        return repr(self._value[name])[:60] if name in self._value else "missing"


def _document(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise CheckError(f"pdf is {name!r}, which is not inside pdfs")
    return path.as_posix()


def _checks_of(file: Path, content: str, documents: set[str], places: dict[str, str]) -> Iterator[BenchCheck]:
    """Yield a file's checks; *places* says where each id was, and is added to."""
    if file.stem == BASELINE:
        raise InputError(f"{file} has the name of the checks that every document gets; rename it")
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            check = parse_check(line, file.stem)
        except CheckError as error:
            raise InputError(f"{place} is not a check: {error}; correct or remove the line") from error
        if check.document not in documents:
            raise InputError(
                f"{place} is about {check.document!r}, which is not in pdfs; download it or remove the line"
            )
        if check.id in places:
            raise InputError(f"{place} has the same id as {places[check.id]}, {check.id!r}; each check needs its own")
        places[check.id] = place
        yield check


def _baselines(documents: tuple[str, ...], checks: list[BenchCheck]) -> Iterator[BenchCheck]:
    have = {check.document for check in checks if check.type == BASELINE}
    ids = {check.id for check in checks}
    for document in documents:
        if document not in have:
            name = f"{document}_baseline"
            if name in ids:
                raise InputError(
                    f"a check has the id {name!r}, which is reserved for a document's own check; give it another"
                )
            yield BenchCheck(name, BASELINE, BASELINE, document, 1, 0, Baseline())


def _documents(pdfs: Path) -> Iterator[Path]:
    found = [
        path for path in pdfs.rglob("*") if path.suffix.lower() == ".pdf" and path.is_file() and own_parts(path, pdfs)
    ]
    if not found:
        raise InputError(f"{pdfs} does not hold PDFs")
    yield from found


def _revision(files: list[Path]) -> str | None:
    """Return the commit at which all files were downloaded, from what huggingface_hub left beside them."""
    found = {_downloaded_at(file) for file in files}
    return found.pop() if len(found) == 1 else None


def _downloaded_at(file: Path) -> str | None:
    for root in (file.parent, file.parent.parent):
        notes = root / ".cache" / "huggingface" / "download" / file.relative_to(root)
        try:
            commit, etag, *_ = notes.with_name(f"{notes.name}.metadata").read_text(encoding="utf-8").split("\n")
            content = file.read_bytes()
        except (OSError, ValueError):
            continue
        return commit if _REVISION.fullmatch(commit) and etag in _etags(content) else None
    return None


def _etags(content: bytes) -> set[str]:
    """Return the Hub's possible names for a file with this content: git's hash, or its large file storage's."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return {git.hexdigest(), hashlib.sha256(content).hexdigest()}
