"""A workspace's name -> what keeps its results and what remembers, whichever kind of workspace it is."""

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
    """Return where a workspace is that is called *name*: a folder of this machine alone, or a place in a store.

    Raises:
        UsageError: it is a URL of what can be no workspace.
    """
    try:
        return store_place(name) or require_local(str(name), "the workspace")
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"the workspace {name!r} cannot be: {error}") from error


@contextlib.contextmanager
def opened_workspace(
    place: Path | StorePlace, output_dir: Path | None = None, *, objects: Objects | None = None
) -> Iterator[tuple[Results, Memory]]:
    """Yield what keeps the results of a workspace, and what remembers; it is made where it is missing.

    *output_dir* is where markdown of a folder's workspace goes instead. *objects* read and write the store instead of
    what its URL says.

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
    """Yield what a workspace remembers; nothing is made, and no other process is held up.

    Raises:
        InputError: it is no workspace.
        OutputError: it cannot be read.
    """
    if isinstance(place, StorePlace):
        store = open_store(place, to_read=True)
        with ObjectRecords(store) as remembered:
            if store.get(MARK) is None and not store.names(INDEX):
                raise InputError(f"{place} is no workspace: it has no {MARK}; run olmocr with it first")
            yield remembered
        return
    if not is_file(place / RECORDS_FILE):
        raise InputError(f"{place} is no workspace: it has no {RECORDS_FILE}; run olmocr with it first")
    with records_to_read(place) as records:
        yield records
