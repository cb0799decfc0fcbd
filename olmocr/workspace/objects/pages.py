"""The pages of documents in a store: each is an object as soon as it is read; a finished document's are one object.

A page's object is named for its number, how often the page was kept before, its status and a hash of its content. Of
several, all machines choose the same one, whoever wrote them: a page that was read before one that fell back, then the
one that was kept last. Pages to be read again are noted in an object beside them, until they are read.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from olmocr.reports.typed_json import WrongTypeError, parse_as
from olmocr.workspace.document import PageRecord
from olmocr.workspace.objects.place import STATE
from olmocr.workspace.objects.store import ObjectStore

FOLDER = f"{STATE}/pages"

_PAGE = re.compile(r"p(\d+)-(\d+)-[a-z]+-[0-9a-f]+\.json")
_ANEW = re.compile(r"anew-[0-9a-f]+\.json")

_Kept = tuple[int, PageRecord]  # how often it was kept before, and the page


@dataclass
class DocumentPages:
    """What a store has of one document: pages by number, the objects they are in, and which to read again.

    For each page to be read again, *anew* has how often it had been kept by then.
    """

    kept: dict[int, _Kept] = field(default_factory=dict)
    anew: dict[int, int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    @property
    def pages(self) -> dict[int, PageRecord]:
        """The pages by number, in order."""
        return {number: self.kept[number][1] for number in sorted(self.kept)}

    @property
    def to_replace(self) -> set[int]:
        """The numbers of the pages to be read again."""
        return {number for number, turn in self.anew.items() if self.turn_of(number) <= turn}

    def turn_of(self, number: int) -> int:
        """Return how often a page was kept before its current version; -1 if it was never kept."""
        return self.kept[number][0] if number in self.kept else -1

    def take(self, turn: int, page: PageRecord) -> None:
        """Take a page, unless the existing one counts more."""
        there = self.kept.get(page.page_number)
        if there is None or _rank(turn, page) > _rank(*there):
            self.kept[page.page_number] = turn, page


def read_pages(store: ObjectStore, sha256: str) -> DocumentPages:
    """Return what there is of the document with this content; what cannot be read is left out."""
    found = DocumentPages()
    for look in range(3):
        names = set(store.names(_folder(sha256)))
        data = store.get_all(names - found.names)
        for name, content in data.items():
            _take(found, name.rpartition("/")[2], content)
        found.names |= data.keys()
        if names <= found.names or look == 2:
            break  # otherwise pages were put together meanwhile
    found.names &= names
    return found


def add_page(store: ObjectStore, sha256: str, document: DocumentPages, page: PageRecord) -> None:
    """Keep a page; a page that fell back does not replace one that was read."""
    number = page.page_number
    there = document.kept.get(number)
    if page.is_fallback and there is not None and not there[1].is_fallback:
        return
    turn = document.turn_of(number) + 1
    data = _line(turn, page)
    name = f"{_folder(sha256)}/p{number:06}-{turn:03}-{page.status}-{_digest(data)}.json"
    store.put(name, data)
    document.names.add(name)
    document.kept[number] = turn, page


def read_anew(store: ObjectStore, sha256: str, document: DocumentPages, numbers: Iterable[int]) -> None:
    """Note that pages are to be read again."""
    turns = {number: document.turn_of(number) for number in numbers if number not in document.to_replace}
    if not turns:
        return
    data = json.dumps(turns).encode()
    name = f"{_folder(sha256)}/anew-{_digest(data)}.json"
    store.put(name, data)
    document.names.add(name)
    document.anew |= turns


def replaced(store: ObjectStore, document: DocumentPages) -> None:
    """Note that no pages are to be read again any more."""
    names = {name for name in document.names if _ANEW.fullmatch(name.rpartition("/")[2])}
    if names:
        store.remove(names)
    document.names -= names
    document.anew.clear()


def put_together(store: ObjectStore, sha256: str, document: DocumentPages) -> None:
    """Put a document's pages together into one object, and remove the objects in it."""
    parts = {name for name in document.names if not _ANEW.fullmatch(name.rpartition("/")[2])}
    if len(parts) < 2:
        return
    data = b"".join(_line(*document.kept[number]) for number in sorted(document.kept))
    name = f"{_folder(sha256)}/all-{_digest(data)}.jsonl.gz"
    store.put(name, gzip.compress(data, mtime=0))
    store.remove(parts - {name})
    document.names = (document.names - parts) | {name}


def _rank(turn: int, page: PageRecord) -> tuple[bool, int, bytes]:
    return not page.is_fallback, turn, _line(turn, page)


def _take(found: DocumentPages, name: str, content: bytes) -> None:
    try:
        if _ANEW.fullmatch(name):
            for number, turn in json.loads(content).items():
                found.anew[int(number)] = max(int(turn), found.anew.get(int(number), -1))
            return
        text = gzip.decompress(content) if name.endswith(".gz") else content
        lines = text.decode().split("\n")
    except (OSError, EOFError, ValueError, TypeError, AttributeError):
        return
    number = int(match[1]) if (match := _PAGE.fullmatch(name)) else None
    for line in lines:
        kept = _parsed(line)
        if kept is not None and number in (None, kept[1].page_number):
            found.take(*kept)


def _parsed(line: str) -> _Kept | None:
    try:
        turn, record = json.loads(line)
        return int(turn), parse_as(PageRecord, json.dumps(record))
    except (ValueError, TypeError, RecursionError, WrongTypeError):
        return None


def _line(turn: int, page: PageRecord) -> bytes:
    return json.dumps([turn, dataclasses.asdict(page)]).encode() + b"\n"


def _folder(sha256: str) -> str:
    return f"{FOLDER}/{sha256[:2]}/{sha256}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
