"""A workspace -> a folder of HTML: an index, and one file for each document; what did not change is left as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError, OutputError
from olmocr.files import sha256_of, write_whole
from olmocr.text import visible
from olmocr.viewer.catalogue import Catalogue, Choice, Entry, Totals
from olmocr.viewer.katex import Katex
from olmocr.viewer.pages import AT_ONCE, DocumentPage, IndexPage, Look, count_of_index_pages, index_name


@dataclass(frozen=True)
class Site:
    """What there is to see: *index* is the file to open, *totals* are of the chosen documents.

    *written* and *unchanged* count the documents' files, *removed* those of documents that are gone.
    """

    index: Path
    totals: Totals
    written: int = 0
    unchanged: int = 0
    removed: int = 0


OnDocument = Callable[[int, int], None]
"""Called with the number of documents written so far, and how many there are."""


def write_site(
    workspace: Path,
    folder: Path,
    *,
    katex: Katex | None = None,
    choice: Choice = Choice(),  # noqa: B008  # it is frozen
    at_once: int = AT_ONCE,
    on_index: Callable[[Site], None] = lambda site: None,
    on_document: OnDocument = lambda done, total: None,
) -> Site:
    """Write HTML for the chosen documents of *workspace* into *folder*, which is made if it is missing.

    The index comes first, with *at_once* documents a page, and *on_index* is called. Only one document is in memory at
    a time, with one of its pictures. Files of documents that left the workspace are removed, unless somebody changed
    them.

    Raises:
        InputError: the folder is not a workspace, cannot be read, or has no document with a given name.
        OutputError: *folder* cannot be written.
    """
    with opened_catalogue(workspace, folder, choice) as catalogue:
        look = Look(title_of(workspace), str(choice), katex, at_once=at_once)
        totals = catalogue.totals()
        _write_index(catalogue, folder, look, totals)
        on_index(Site(folder / "index.html", totals))
        written = unchanged = 0
        for done, page in enumerate(_document_pages(catalogue, look), 1):
            if _write_changed(catalogue, folder, page.name, page):
                written += 1
            else:
                unchanged += 1
            on_document(done, totals.documents)
        removed = _remove_gone(catalogue, folder)
    return Site(folder / "index.html", totals, written, unchanged, removed)


def opened_catalogue(workspace: Path, folder: Path, choice: Choice) -> Catalogue:
    """Return the catalogue in *folder*, up to date, with the documents of a *choice* chosen.

    Raises:
        InputError: the folder is not a workspace, cannot be read, or has no document with a given name.
        OutputError: *folder* cannot be written.
    """
    catalogue = Catalogue(folder)
    try:
        catalogue.update(workspace)
        catalogue.choose(choice)
        if choice.names and not catalogue.totals().documents:
            also = Choice(choice.failed, choice.poor)
            raise InputError(
                f"{workspace} has no {f'{also} ' if str(also) else ''}document called "
                f"{' or '.join(map(visible, choice.names))}; give its path as in the run, its file's name, "
                "or a pattern like '*/2024/*'"
            )
    except BaseException:
        catalogue.__exit__()
        raise
    return catalogue


def title_of(workspace: Path) -> str:
    """Return a site's name for a workspace."""
    return visible(workspace.resolve().name)


def _document_pages(catalogue: Catalogue, look: Look) -> Iterator[DocumentPage]:
    before: Entry | None = None
    now: Entry | None = None
    for after in catalogue.entries():
        if now is not None:
            yield DocumentPage(look, now, (before, after))
        before, now = now, after
    if now is not None:
        yield DocumentPage(look, now, (before, None))


def _write_changed(catalogue: Catalogue, folder: Path, name: str, page: DocumentPage | IndexPage) -> bool:
    """Write a page, and return True, if it was made from something else than the existing file."""
    made_of = page.made_of
    if catalogue.is_as_written(folder, name, made_of):
        return False
    pieces = page.pieces()
    if pieces is None:
        return False  # a continuing run has moved its record
    write_whole(folder / name, pieces)
    catalogue.note_written(folder, name, made_of, _sha256(folder / name))
    return True


def _write_index(catalogue: Catalogue, folder: Path, look: Look, totals: Totals) -> None:
    count = count_of_index_pages(totals, look)
    for at in range(1, count + 1):
        _write_changed(catalogue, folder, index_name(at), IndexPage(catalogue, look, at))
    kept = {index_name(at) for at in range(1, count + 1)}
    for name, sha256 in catalogue.written("index*.html"):
        if name not in kept:
            _remove(catalogue, folder, name, sha256)


def _remove_gone(catalogue: Catalogue, folder: Path) -> int:
    """Remove the files of documents that are gone, and return how many; one that somebody changed stays."""
    return sum(
        _remove(catalogue, folder, name, sha256)
        for name, sha256 in catalogue.written("documents/*.html")
        if not catalogue.has(Path(name).stem)
    )


def _remove(catalogue: Catalogue, folder: Path, name: str, sha256: str) -> bool:
    path = folder / name
    catalogue.forget(name)
    try:
        if sha256_of(path) != sha256:
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(f"{path}, of a document that is gone, could not be removed: {error.strerror}") from error
    return True


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise OutputError(f"{path} could not be read after it was written: {error.strerror}") from error
