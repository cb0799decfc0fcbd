"""A workspace's name -> what keeps its results and its records, whichever kind of workspace it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from olmocr.errors import InputError, UsageError
from olmocr.files import is_file
from olmocr.workspace.folder import open_workspace, require_local
from olmocr.workspace.kept import Memory, Results
from olmocr.workspace.objects.place import MARK, StorePlace, store_place
from olmocr.workspace.objects.records import ObjectRecords
from olmocr.workspace.objects.results import ObjectResults
from olmocr.workspace.objects.store import Objects, open_store
from olmocr.workspace.objects.upstream import INDEX
from olmocr.workspace.records import RECORDS_FILE, Records, records_to_read


def workspace_place(name: str | Path | StorePlace) -> Path | StorePlace:
    """Return the place of the workspace called *name*: a folder of this machine alone, or a place in a store.

    Raises:
        UsageError: it is a URL that cannot be a workspace.
    """
    try:
        return store_place(name) or require_local(str(name), "the workspace")
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"the workspace {name!r} is not possible: {error}") from error


@contextlib.contextmanager
def opened_workspace(
    place: Path | StorePlace, output_dir: Path | None = None, *, objects: Objects | None = None
) -> Iterator[tuple[Results, Memory]]:
    """Yield a workspace's results and records; the workspace is made if it is missing.

    *output_dir* replaces a folder workspace's own place for markdown. *objects* read and write the store instead of
    what its URL names.

    Raises:
        OutputError: it cannot be made or used.
        MissingDependencyError: it is in a store for which an extra is needed.
    """
    if isinstance(place, StorePlace):
        store = open_store(place, objects=objects)
        with ObjectRecords(store) as remembered:
            yield ObjectResults(store, remembered), remembered
        return
    workspace = open_workspace(place, output_dir)
    with Records(place) as records:
        workspace = workspace.with_markdown_elsewhere(records.markdown_folders())
        if output_dir is not None:
            records.add_markdown_folder(output_dir.resolve())
        yield workspace, records


@contextlib.contextmanager
def memory_to_read(place: Path | StorePlace) -> Iterator[Memory]:
    """Yield what a workspace remembers; nothing is created, and no other process has to wait.

    Raises:
        InputError: it is not a workspace.
        OutputError: it cannot be read.
    """
    if isinstance(place, StorePlace):
        store = open_store(place, to_read=True)
        with ObjectRecords(store) as remembered:
            if store.get(MARK) is None and not store.names(INDEX):
                raise InputError(f"{place} is not a workspace: it has no {MARK}; run olmocr with it first")
            yield remembered
        return
    if not is_file(place / RECORDS_FILE):
        raise InputError(f"{place} is not a workspace: it has no {RECORDS_FILE}; run olmocr with it first")
    with records_to_read(place) as records:
        yield records
