"""Where everything goes that a person looks at, in a store: the same names as in a workspace that is a folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from olmocr.inputs.places import folded
from olmocr.inputs.sources import Source
from olmocr.text import strict_json
from olmocr.workspace.document import Failure
from olmocr.workspace.folder import failures_jsonl, names_of
from olmocr.workspace.objects.place import STATE
from olmocr.workspace.objects.records import ObjectRecords
from olmocr.workspace.objects.store import ObjectStore
from olmocr.workspace.owned import ITSELF

log = logging.getLogger(__name__)

_OWNERS = f"{STATE}/owners"

# Each kind of what lies beside a result: its folder, and how it is called.
_KINDS = {
    "markdown": ("markdown", ".md"),
    "pages": ("pages", ".md"),
    "page_records": ("page_records", ".json"),
    "attached": ("markdown", ".files"),
}


class ObjectResults:
    """The results of the workspace in *store*; *records* keep what is beside each.

    A path below ``markdown/`` is the first document's that wrote there. What lay there before is left alone. What
    somebody changes there afterwards is overwritten when its document is read again.
    """

    def __init__(self, store: ObjectStore, records: ObjectRecords) -> None:
        self._store = store
        self._records = records

    def result_id(self, source: Source, sha256: str | None) -> str | None:
        """Return what the text of a document's result is known by; None if there is none of that content."""
        result = self._records.noted(source.key, "result")
        return str(result.get("id") or "") if result and result.get("sha256") == sha256 else None

    def failed_result(self, source: Source) -> dict[str, Any] | None:
        """Return the Dolma line of what could be read of a document that failed; None if nothing could."""
        try:
            line = json.loads(self._store.get(_failure(source.key)) or b"{}")["document"]
        except (ValueError, KeyError, TypeError):
            return None
        return line if isinstance(line, dict) and isinstance(line.get("text"), str) else None

    def write_result(self, source: Source, line: dict[str, Any]) -> None:
        """Keep the Dolma line of a document that was read; an earlier failure is forgotten."""
        self._store.put(_result(source.key), _encoded(strict_json(line) + "\n"))
        known = self._records.document(source.key)
        if known is not None and known.state == "failed":
            self._store.remove([_failure(source.key)])
        noted = {"sha256": line["metadata"]["source-sha256"], "id": line.get("id") or ""}
        self._records.note(source.key, "result", noted)

    def write_failure(
        self, source: Source, why: str, line: dict[str, Any] | None = None, *, keep: bool = False
    ) -> None:
        """Keep why a document failed, and what could be read of it; what was read before goes, but with *keep*."""
        failure = {"Source-File": source.name, "error": why, "document": line}
        self._store.put(_failure(source.key), _encoded(strict_json(failure) + "\n"))
        if keep:
            return
        if self._records.noted(source.key, "result"):
            self._store.remove([_result(source.key)])
            self._records.note(source.key, "result", {})
        self.remove_stale(source, None)

    def forget(self, key: str) -> None:
        """Remove all of a document whose name is another document's now."""
        self._store.remove([_result(key), _failure(key)])
        for kind, place in self._beside(key).items():
            self._store.remove(_files(place))
            self._store.remove([_owner(kind, PurePosixPath(place["path"]))])

    def remove_stale(self, source: Source, made_of: str | None) -> None:
        """Remove all beside a document's result that was not made of the same text, or so that it *made_of* begins."""
        beside = self._beside(source.key)
        stale = {
            kind: place
            for kind, place in beside.items()
            if place["files"] and (made_of is None or not place["made_of"].startswith(made_of))
        }
        for kind, place in stale.items():
            self._store.remove(_files(place))
            beside[kind] = {**place, "made_of": "", "files": []}
        if stale:
            self._records.note(source.key, "beside", beside)

    def write_markdown(self, source: Source, text: str, made_of: str = "") -> PurePosixPath:
        """Write the document's text and return where; two sources never share a path."""
        return self._write(source, "markdown", {ITSELF: text}, made_of)

    def write_pages(self, source: Source, texts: Mapping[int, str], made_of: str = "") -> None:
        """Write each page's text by its number; those of an earlier reading go."""
        self._write(source, "pages", {f"{number:04}.md": text for number, text in texts.items()}, made_of)

    def write_page_records(self, source: Source, records: dict[str, Any], made_of: str = "") -> None:
        """Write what is known of a document's pages."""
        self._write(source, "page_records", {ITSELF: strict_json(records) + "\n"}, made_of)

    def write_attached(
        self, source: Source, files: Mapping[str, str | Path], made_of: str = ""
    ) -> PurePosixPath | None:
        """Write the document's figures and tables, and return their folder; without any, those of before go."""
        if files:
            return self._write(source, "attached", files, made_of)
        beside = self._beside(source.key)
        if place := beside.get("attached"):
            self._store.remove(_files(place))
            self._records.note(source.key, "beside", {**beside, "attached": {**place, "made_of": "", "files": []}})
        return None

    def has_all_attached(self, source: Source) -> bool:
        """Say whether all figures and tables are there that were written: what is in a store stays there."""
        return True

    def markdown_made_of(self, source: Source) -> str | None:
        """Return what the document's markdown was made of; None if there is none under the source's name."""
        return self._made_of(source, "markdown")

    def pages_made_of(self, source: Source) -> str | None:
        """Return what the files of its pages were made of; None if there are none."""
        return self._made_of(source, "pages")

    def page_records_made_of(self, source: Source) -> str | None:
        """Return what the file of what is known of its pages was made of; None if there is none."""
        return self._made_of(source, "page_records")

    def markdown_path(self, source: Source) -> PurePosixPath:
        """Return the document's own markdown path, its own from now on."""
        return self._path(source, "markdown")

    def pages_path(self, source: Source) -> PurePosixPath:
        """Return the folder of the files of the document's pages."""
        return self._path(source, "pages")

    def reserve(self, source: Source, *, markdown: bool, pages: bool, page_records: bool) -> None:
        """Leave it to be decided when it is written: in a store the first that is finished has the plain name."""

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Write ``failures.jsonl``, a line each; none leaves no file."""
        text = failures_jsonl(failures)
        if text:
            self._store.put("failures.jsonl", _encoded(text))
        else:
            self._store.remove(["failures.jsonl"])

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write a run's numbers: ``metrics.json``, which is of the last run to end."""
        self._store.put("metrics.json", _encoded(strict_json(metrics, indent=2) + "\n"))

    # What lies beside a result.

    def _beside(self, key: str) -> dict[str, Any]:
        return {kind: place for kind, place in self._records.noted(key, "beside").items() if kind in _KINDS}

    def _made_of(self, source: Source, kind: str) -> str | None:
        place = self._beside(source.key).get(kind)
        if not place or not place["files"]:
            return None
        names = {str(name) for name in _paths(source, kind)}
        return str(place["made_of"]) if place["path"] in names else None

    def _path(self, source: Source, kind: str) -> PurePosixPath:
        """Return the path of a kind; who has none yet takes the first that no other has, and where nothing lies."""
        place = self._beside(source.key).get(kind)
        paths = _paths(source, kind)
        if place and place["path"] in map(str, paths):
            return PurePosixPath(place["path"])
        for path in paths[:-1]:
            owner = self._store.claim(_owner(kind, path), source.key.encode())
            if owner == "another's":
                continue
            if owner == "ours before" or not self._store.names(str(path)):
                break
            log.warning("%s/%s was not written by olmocr: it stays", self._store.place, path)
        else:
            path = paths[-1]  # it is named for the document's key, so that no other can want it
        beside = self._beside(source.key)
        beside[kind] = {"path": str(path), "made_of": "", "files": []}
        self._records.note(source.key, "beside", beside)
        return path

    def _write(self, source: Source, kind: str, files: Mapping[str, str | Path], made_of: str) -> PurePosixPath:
        path = self._path(source, kind)
        before = self._beside(source.key)[kind]
        self._store.put_all({_below(path, name): _encoded(content) for name, content in files.items()})
        new = {"path": str(path), "made_of": made_of, "files": sorted(files)}
        self._store.remove(set(_files(before)) - set(_files(new)))
        self._records.note(source.key, "beside", {**self._beside(source.key), kind: new})
        return path


def _result(key: str) -> str:
    return f"results/output_{key}.jsonl"


def _failure(key: str) -> str:
    return f"failed/{key}.json"


def _paths(source: Source, kind: str) -> tuple[PurePosixPath, ...]:
    folder, ending = _KINDS[kind]
    return tuple(folder / name for name in names_of(source, ending))


def _owner(kind: str, path: PurePosixPath) -> str:
    digest = hashlib.sha1(folded(str(path)).encode("utf-8", "surrogateescape")).hexdigest()  # noqa: S324
    return f"{_OWNERS}/{kind}/{digest}"


def _below(path: PurePosixPath, name: str) -> str:
    return f"{path}/{name}" if name != ITSELF else str(path)


def _files(place: dict[str, Any]) -> list[str]:
    return [_below(PurePosixPath(place["path"]), name) for name in place["files"]]


def _encoded(content: str | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content.encode("utf-8", "replace")
