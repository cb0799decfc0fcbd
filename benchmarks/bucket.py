"""How many requests a workspace in a store makes for each document and page, and the cost of finding all of them done.

This runs the real code over objects in this process's memory, without rendering and without a model. The first run
reads ``--documents`` documents one after the other; the second one finds each of them done. Both count requests, bytes
and processor seconds.

    python benchmarks/bucket.py --documents 20000 --pages 10
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from olmocr.inputs.sources import Source
from olmocr.page import PageResponse
from olmocr.workspace.document import PageRecord
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.opening import opened_workspace
from olmocr.workspace.records import KnownDocument

TEXT = "A line of a page as long as lines of a page are, and another one behind it.\n" * 30
PLACE = StorePlace("memory://bench/ws")


class CountedObjects:
    """Objects in a dict; counts requests as S3 bills them: a list is one for each thousand names."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.folders: dict[str, set[str]] = {}
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def get(self, name: str) -> bytes:
        """Return an object's bytes."""
        self.requests["GET"] += 1
        try:
            data = self.objects[name]
        except KeyError:
            raise FileNotFoundError(name) from None
        self.bytes["GET"] += len(data)
        return data

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        self.requests["PUT"] += 1
        self.bytes["PUT"] += len(data)
        self.objects[name] = data
        for end in (at for at, each in enumerate(name) if each == "/"):
            self.folders.setdefault(name[:end], set()).add(name)

    def create(self, name: str, data: bytes) -> None:
        """Write an object that is not there yet."""
        if name in self.objects:
            self.requests["PUT"] += 1
            raise FileExistsError(name)
        self.put(name, data)

    def names(self, folder: str) -> list[str]:
        """Return the names below a folder."""
        found = sorted(self.folders.get(folder, ()))
        self.requests["LIST"] += 1 + len(found) // 1000
        return found

    def versions(self, folder: str) -> dict[str, str]:
        """Return the names below a folder."""
        return dict.fromkeys(self.names(folder), "")

    def remove(self, name: str) -> None:
        """Remove an object."""
        self.requests["DELETE"] += 1
        self.objects.pop(name, None)
        for end in (at for at, each in enumerate(name) if each == "/"):
            self.folders.get(name[:end], set()).discard(name)


def page(number: int, text: str) -> PageRecord:
    response = PageResponse("en", True, 0, False, False, text)
    return PageRecord(number, "valid", response, model="m", attempts=1, ends=("stop",), output_tokens=600)


def read(results: Any, memory: Any, source: Source, pages: int, markdown: bool) -> None:
    sha256 = hashlib.sha256(source.name.encode()).hexdigest()
    memory.lock(sha256)
    memory.document(source.key)
    missing = set(range(1, pages + 1)) - memory.finished_numbers(sha256, with_fallback=True)
    for number in sorted(missing):
        memory.add_page(sha256, page(number, TEXT))
    metadata = {"Source-File": source.name, "source-sha256": sha256}
    results.write_result(source, {"id": sha256, "text": TEXT * pages, "metadata": metadata})
    if markdown:
        results.write_markdown(source, TEXT * pages, sha256)
    results.remove_stale(source, sha256)
    memory.replaced(sha256)
    memory.add_document(KnownDocument(source.key, source.name, "1 2 3", sha256, "", pages, "done"))
    memory.release(sha256)


def tell(what: str, objects: CountedObjects, documents: int, pages: int, seconds: float) -> None:
    asked = ", ".join(f"{count / documents:.3f} {kind}" for kind, count in sorted(objects.requests.items()))
    print(f"{what}: {seconds:.1f} s of a processor; requests a document: {asked}")
    billed = sum(count for kind, count in objects.requests.items() if kind != "DELETE")
    print(f"  {billed / documents / pages:.3f} a page without DELETE, which S3 does not bill")
    print("  bytes a page: " + ", ".join(f"{n / documents / pages:.0f} {kind}" for kind, n in objects.bytes.items()))
    objects.requests.clear()
    objects.bytes.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--pages", type=int, default=10)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    objects = CountedObjects()
    sources = [Source(f"/scans/{number:08}.pdf", Path(f"/scans/{number:08}.pdf")) for number in range(given.documents)]
    started = time.process_time()
    with opened_workspace(PLACE, objects=objects) as (results, memory):
        for source in sources:
            read(results, memory, source, given.pages, given.markdown)
    tell("read", objects, given.documents, given.pages, time.process_time() - started)
    held, started = _peak(), time.process_time()
    with opened_workspace(PLACE, objects=objects) as (results, memory):
        done = sum(
            memory.document(each.key) is not None and bool(results.result_id(each, _sha(each))) for each in sources
        )
    assert done == given.documents
    tell("found done", objects, given.documents, given.pages, time.process_time() - started)
    index = [data for name, data in objects.objects.items() if "state/documents/" in name]
    lines = sum(len(gzip.decompress(each)) if each[:2] == b"\x1f\x8b" else len(each) for each in index)
    print(f"index: {len(index)} objects, {sum(map(len, index)) / given.documents:.0f} bytes a document, ", end="")
    print(
        f"{lines / given.documents:.0f} unpacked; memory grew by {(_peak() - held) >> 20} MiB while all was found done"
    )


def _sha(source: Source) -> str:
    return hashlib.sha256(source.name.encode()).hexdigest()


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


if __name__ == "__main__":
    main()
