"""What a workspace in a store remembers: pages, documents, who reads what; by objects alone (docs/bucket.md)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from olmocr.inputs.sources import Source
from olmocr.reports.typed_json import WrongTypeError, parse_as
from olmocr.text import strict_json
from olmocr.workspace.document import Failure, PageRecord
from olmocr.workspace.objects import pages as stored
from olmocr.workspace.objects.claims import Claims
from olmocr.workspace.objects.index import Entry, ShardedIndex
from olmocr.workspace.objects.pages import DocumentPages
from olmocr.workspace.objects.place import STATE
from olmocr.workspace.objects.store import ObjectStore
from olmocr.workspace.objects.upstream import UpstreamWorkspace
from olmocr.workspace.records import KnownDocument
from olmocr.workspace.tally import Tally, tally_of

T = TypeVar("T")

RECENT_SECONDS = 30.0
"""So old may be what is known of the documents of others."""

_RUNS = "metrics"
_AT_ONCE = 32
_MODELS_OF = 100  # documents


class ObjectRecords:
    """The memory of the workspace in *store*; use it as a context manager. Any thread may use it.

    *clock* tells seconds that go by, whatever the time of day.
    """

    is_shared = True

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._claims = Claims(store, clock)
        self._documents = ShardedIndex(store, f"{STATE}/documents", clock)
        self._spellings = ShardedIndex(store, f"{STATE}/spellings", clock)
        self._upstream = UpstreamWorkspace(store)
        self._held: dict[str, DocumentPages] = {}
        self._amended: dict[str, Entry] = {}
        self._models: Counter[str] = Counter()
        self._looked = clock()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="workspace")

    def __enter__(self) -> ObjectRecords:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        try:
            self._write_amended()
            if exception[:1] == (None,):
                self._documents.tidy()
        finally:
            self.release_all()
            self._store.close()
            self._documents.close()
            self._spellings.close()

    async def away(self, call: Callable[[], T]) -> T:
        """Return what *call* returns, made in another thread: a store takes its time."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def end_waiting(self) -> None:
        """Have requests that are waited for fail at once, since the run is ended."""
        self._store.end_waiting()

    @property
    def owner(self) -> str:
        """What this process is called in the workspace."""
        return self._claims.owner

    def look_again(self) -> None:
        """Take up what other processes have done since the last look, as soon as it is asked for."""
        self._looked = self._clock()

    def has_company(self) -> bool:
        """Say whether other machines may work on the same documents."""
        return self._claims.has_company()

    # Pages.

    def add_page(self, sha256: str, page: PageRecord) -> None:
        """Keep a page; one that fell back replaces none that was read."""
        stored.add_page(self._store, sha256, self._pages(sha256), page)
        if page.status == "valid" and page.model:
            self._models[page.model] += 1

    def page(self, sha256: str, number: int) -> PageRecord | None:
        """Return what is known of one page."""
        return self._pages(sha256).pages.get(number)

    def pages(self, sha256: str) -> dict[int, PageRecord]:
        """Return what is known of a document's pages, by number, in order; what cannot be read is left out."""
        return self._pages(sha256).pages

    def finished_numbers(self, sha256: str, *, with_fallback: bool) -> set[int]:
        """Return the numbers of the pages that need no model any more; those that are flagged do, unless told so."""
        found = self._pages(sha256)
        finished = {number for number, page in found.pages.items() if with_fallback or not page.is_flagged}
        return finished - found.to_replace

    def readings(self, sha256: str) -> set[tuple[str, str]]:
        """Return by which models, and how asked, a document's pages were read that have an answer."""
        for entry in self._noted_of(sha256):
            if isinstance(entry.get("readings"), list):
                return {(str(model), str(asked)) for model, asked in entry["readings"]}
        return _readings_of(self._pages(sha256))

    def only_model(self) -> str | None:
        """Return the model that read the pages of the first documents; None if there were several, or none."""
        models = {model for model, _ in self._readings_of_some()} | set(self._models)
        return models.pop() if len(models) == 1 else None

    def _readings_of_some(self) -> set[tuple[str, str]]:
        entries = self._documents.first(_MODELS_OF)
        return {(str(model), str(asked)) for entry in entries for model, asked in entry.get("readings", ())}

    def read_anew(self, sha256: str, numbers: Iterable[int]) -> None:
        """Have pages be read again, by this run or a later one; what is known of each stays until then."""
        stored.read_anew(self._store, sha256, self._pages(sha256), numbers)
        for entry in self._documents.with_sha256(sha256):
            self._documents.put(entry["key"], {**entry, "is_read_anew": True})

    def numbers_to_replace(self, sha256: str) -> set[int]:
        """Return the numbers of the pages that are to be read again."""
        entries = self._noted_of(sha256)
        if entries and not any(entry.get("is_read_anew") for entry in entries):
            return set()
        return self._pages(sha256).to_replace

    def replaced(self, sha256: str) -> None:
        """Have no page be read again any more: what could be read better was."""
        stored.replaced(self._store, self._pages(sha256))

    def tally(self, sha256: str) -> Tally:
        """Return a document's pages, counted."""
        for entry in self._noted_of(sha256):
            if isinstance(entry.get("tally"), dict):
                return Counter({str(name): int(count) for name, count in entry["tally"].items()})
        return tally_of(self.pages(sha256).values())

    def _noted_of(self, sha256: str) -> list[Entry]:
        """Return what is noted of a document's pages, which saves reading them; nothing while they may change."""
        return [] if sha256 in self._held else self._documents.with_sha256(sha256)

    def _pages(self, sha256: str) -> DocumentPages:
        """Return a document's pages: as they were when it was locked and what was added since, or as they are now."""
        held = self._held.get(sha256)
        return held if held is not None else stored.read_pages(self._store, sha256)

    # Documents.

    def document(self, key: str) -> KnownDocument | None:
        """Return what came of a source, None if it was never finished."""
        entry = self._entry(key)
        return None if entry is None else _known(entry)

    def documents(self) -> Iterator[KnownDocument]:
        """Yield all documents by name."""
        return (known for entry in self._documents.entries() if (known := _known(entry)) is not None)

    def failures(self) -> Iterator[Failure]:
        """Yield all documents that failed, by name, and why."""
        return (Failure(each.name, each.why or "") for each in self.documents() if each.state == "failed")

    def add_document(self, document: KnownDocument) -> None:
        """Keep what came of a source, instead of what was known of it; its pages become one object."""
        entry: Entry = {"is_read_anew": False, **dataclasses.asdict(document), "updated": time.time()}
        if (sha256 := document.sha256) is not None and document.state != "filtered":
            found = self._pages(sha256)
            entry["tally"] = dict(tally_of(found.pages.values()))
            entry["readings"] = sorted(_readings_of(found))
            entry["is_read_anew"] = bool(found.to_replace)
            if sha256 in self._held:
                stored.put_together(self._store, sha256, found)
        kept = {
            name: value for name, value in (self._entry(document.key) or {}).items() if name in ("result", "beside")
        }
        self._documents.put(document.key, {**kept, **self._amended.pop(document.key, {}), **entry})

    def add_run(self, numbers: dict[str, Any]) -> None:
        """Keep the numbers of the run that ends, in a file of its own."""
        self._store.put(f"{_RUNS}/{self.owner}.json", (strict_json(numbers, indent=2) + "\n").encode())

    def runs(self) -> Iterator[dict[str, Any]]:
        """Yield the numbers of each run that ended here."""
        for _, data in sorted(self._store.get_all(self._store.names(_RUNS)).items()):
            with contextlib.suppress(ValueError):
                numbers = json.loads(data)
                if isinstance(numbers, dict):
                    yield numbers

    def forget_document(self, key: str) -> None:
        """Forget what came of a source; its pages stay."""
        self._amended.pop(key, None)
        if self._documents.get(key) is not None:
            self._documents.put(key, {"state": "forgotten"})

    def led_elsewhere(self, key: str, spellings: Iterable[str]) -> set[str]:
        """Note that *spellings* are of the document *key*; return the documents that have no name any more."""
        gone, spellings = set(), tuple(spellings)
        is_plain = spellings == (key,)
        for spelling in spellings:
            entry = self._spellings.get(spelling)
            before = str(entry["to"]) if entry else spelling
            if before == key and (entry or is_plain):  # what is called by its own name alone is not noted
                continue
            self._spellings.put(spelling, {"to": key})
            if before != key and not self._has_a_name(before):
                gone.add(before)
        return gone

    def _has_a_name(self, key: str) -> bool:
        own = self._spellings.get(key)
        is_plain = own is None and self._documents.get(key) is not None and _known(self._documents.get(key)) is not None
        return is_plain or any(entry.get("to") == key for entry in self._spellings.entries())

    def _entry(self, key: str) -> Entry | None:
        return self._documents.get(key, no_older_than=min(RECENT_SECONDS, self._clock() - self._looked))

    # What lies beside a document's result.

    def noted(self, key: str, what: str) -> dict[str, Any]:
        """Return *what* is noted beside a document: its ``result``, or what is ``beside`` it; nothing if nothing is."""
        amended = self._amended.get(key, {})
        found = amended[what] if what in amended else (self._documents.get(key) or {}).get(what)
        return found if isinstance(found, dict) else {}

    def note(self, key: str, what: str, noted: dict[str, Any]) -> None:
        """Note something beside a document, with what comes of it next, or when this is closed."""
        self._amended.setdefault(key, {})[what] = noted

    def _write_amended(self) -> None:
        while self._amended:
            key, amended = self._amended.popitem()
            if (entry := self._documents.get(key)) is not None:
                self._documents.put(key, {**entry, **amended})

    # What upstream's program has done here.

    def done_by_others(self, source: Source) -> bool:
        """Say whether upstream's program has read a document here."""
        return self._upstream.has_done(source.name)

    def others_done(self) -> int:
        """Return how many documents upstream's program has read here."""
        return self._upstream.count()

    # Locks.

    def lock(self, name: str) -> bool:
        """Take a lock if it is free, ours, or that of a process that is dead or has been silent for long."""
        is_ours = self._claims.take(name)
        if is_ours and name not in self._held:
            self._held[name] = stored.read_pages(self._store, name)
        return is_ours

    def beat(self) -> None:
        """Say that the owner of this process's locks is alive."""
        self._claims.beat()

    def release(self, name: str) -> None:
        """Give a lock back."""
        self._held.pop(name, None)
        self._claims.release(name)

    def release_all(self) -> None:
        """Give all locks of this process back."""
        self._held.clear()
        self._claims.release_all()


def _readings_of(found: DocumentPages) -> set[tuple[str, str]]:
    return {(page.model, page.asked) for page in found.pages.values() if page.status == "valid" and page.model}


def _known(entry: Entry | None) -> KnownDocument | None:
    if entry is None or entry.get("state") == "forgotten":
        return None
    with contextlib.suppress(WrongTypeError):
        return parse_as(KnownDocument, json.dumps(entry))
    return None
