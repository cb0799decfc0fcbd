"""A workspace in a store -> a copy of its results on this disk; what did not change is not copied again."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from olmocr.errors import InputError
from olmocr.files import write_whole
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.objects.store import Objects, open_store

_VERSIONS = "versions.json"
_FOLDERS = ("results", "failed")
_NAME = re.compile(r"(results|failed)/[^/\\\0]*[^/\\\0.][^/\\\0]*")
_AT_ONCE = 256


def copied_results(place: StorePlace, folder: Path, *, objects: Objects | None = None) -> Path:
    """Return a folder with ``results/`` and ``failed/`` as at *place*: the shared one, or a copy in *folder*.

    Raises:
        InputError: it is not a workspace.
        OutputError: it cannot be read, or there is no room for the copy.
    """
    if place.local_folder is not None:
        return place.local_folder
    store = open_store(place, to_read=True, objects=objects)
    try:
        there = {
            name: version
            for each in _FOLDERS
            for name, version in store.versions(each).items()
            if _NAME.fullmatch(name)  # a store allows names with dots that would lead out of the copy
        }
        if not there:
            raise InputError(f"{place} is not a workspace: it has no results/ and no failed/; name the place of a run")
        copy = folder / (place.name or "workspace")
        before = _read(copy / _VERSIONS)
        changed = [name for name, version in there.items() if before.get(name) != version]
        for start in range(0, len(changed), _AT_ONCE):
            for name, data in store.get_all(changed[start : start + _AT_ONCE]).items():
                write_whole(copy / name, data)
        for name in before.keys() - there.keys():
            with contextlib.suppress(OSError):
                (copy / name).unlink()
        write_whole(copy / _VERSIONS, json.dumps(there))
    finally:
        store.close()
    return copy


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
