"""What is to do, what is done, and where everything goes."""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from olmocr.errors import OutputError, output_error
from olmocr.files import NOT_THERE, write_whole
from olmocr.inputs.sources import Source
from olmocr.workspace.outputs import write_json_line

_LONGEST_NAME = 200  # bytes; most file systems allow 255

# What memory cards, network disks and synchronized folders answer that have no second names for files.
_NO_LINKS = NOT_THERE | {errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Workspace:
    """A folder of results.

    ``results/output_<key>.jsonl`` holds a document that was read, ``failed/<key>.json`` one that was not and
    why; *markdown* has ``<source path>.md`` with its text, and *owners* remembers which source each of those is of.
    ``pages/<source path>.md/`` and ``page_records/<source path>.json`` have its pages, where that is asked for.
    """

    folder: Path
    markdown: Path
    owners: Path

    def result_path(self, source: Source) -> Path:
        """Return where the document's line lies once it is read."""
        return self.folder / "results" / f"output_{source.key}.jsonl"

    def result(self, source: Source, sha256: str | None) -> dict[str, Any] | None:
        """Return the Dolma line of a document with that content; None if there is none, or it is damaged."""
        try:
            line = json.loads(self.result_path(source).read_text(encoding="utf-8"))
            is_same = line["metadata"]["source-sha256"] == sha256
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return line if is_same and isinstance(line.get("text"), str) else None

    def write_result(self, source: Source, line: dict[str, Any]) -> None:
        """Keep the Dolma line of a document that was read; an earlier failure is forgotten."""
        write_json_line(self.result_path(source), line)
        _remove(self._failure_path(source))

    def write_failure(
        self, source: Source, why: str, line: dict[str, Any] | None = None, *, keep: bool = False
    ) -> None:
        """Keep why a document failed, and what could be read of it, apart from the results.

        What an earlier run read of it, before the file changed, is removed, but with *keep*.
        """
        write_json_line(self._failure_path(source), {"Source-File": source.name, "error": why, "document": line})
        if keep:
            return
        _remove(self.result_path(source))
        for name in _markdown_names(source):
            if self._owner(name) == source.key:
                _remove(self.markdown / name)
                _remove(self._page_records_path(name))
                for path in (self.folder / "pages" / name).glob("*.md"):
                    _remove(path)

    def _failure_path(self, source: Source) -> Path:
        return self.folder / "failed" / f"{source.key}.json"

    def write_markdown(self, source: Source, text: str) -> Path:
        """Write the document's text and return where; two sources never share a path."""
        path = self.markdown_path(source)
        write_whole(path, text)
        return path

    def write_pages(self, source: Source, texts: Mapping[int, str]) -> None:
        """Write each page's text by its number; those of an earlier reading go."""
        folder = self.folder / "pages" / self._own_name(source)
        for number, text in texts.items():
            write_whole(folder / f"{number:04}.md", text)
        for path in folder.glob("*.md"):
            if not (path.stem.isdecimal() and int(path.stem) in texts):
                _remove(path)

    def write_page_records(self, source: Source, records: dict[str, Any]) -> None:
        """Write what is known of a document's pages."""
        write_json_line(self._page_records_path(self._own_name(source)), records)

    def _page_records_path(self, name: PurePosixPath) -> Path:
        return self.folder / "page_records" / name.with_suffix(".json")

    def write_failures(self, failures: Iterable[tuple[str, str]]) -> None:
        """Write ``failures.jsonl``: names and reasons, a line each; none leaves no file."""
        lines = [json.dumps({"Source-File": name, "error": why}) + "\n" for name, why in failures]
        path = self.folder / "failures.jsonl"
        write_whole(path, "".join(lines)) if lines else _remove(path)

    def markdown_path(self, source: Source) -> Path:
        """Return the document's own markdown path: its source's, or, where another source has that, one beside it.

        The first source that asks for a path owns it, in this run and in later ones.
        """
        return self.markdown / self._own_name(source)

    def _own_name(self, source: Source) -> PurePosixPath:
        *wanted, own = _markdown_names(source)
        free = (name for name in wanted if not self._is_blocked(name) and self._claim(source, name))
        return next(free, own)

    def _is_blocked(self, name: PurePosixPath) -> bool:
        """Say whether a folder has the name already, or a file the name of one of its folders."""
        return (self.markdown / name).is_dir() or any((self.markdown / parent).is_file() for parent in name.parents)

    def _claim(self, source: Source, name: PurePosixPath) -> bool:
        """Make *source* the owner of *name*, if it has none, whoever else may be about to."""
        claim = self._claim_path(name)
        try:
            if not claim.exists():
                claim.parent.mkdir(parents=True, exist_ok=True)
                _write_first(claim, source.key)
        except OSError as error:
            raise output_error(error, str(claim)) from error
        return self._owner(name) == source.key

    def _owner(self, name: PurePosixPath) -> str | None:
        path = self._claim_path(name)
        try:
            return path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None

    def _claim_path(self, name: PurePosixPath) -> Path:
        # Folded, since a Mac's disk does not tell A.md from a.md.
        digest = hashlib.sha1(str(name).casefold().encode("utf-8", "surrogateescape")).hexdigest()  # noqa: S324
        return self.owners / digest


def _write_first(path: Path, text: str) -> None:
    """Write a file unless it is there by now. It is whole from the first: a run may be killed at any moment."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        temporary.write_text(text, encoding="ascii")
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} is in the way and could not be removed: {error.strerror}") from error


def open_workspace(folder: Path, output_dir: Path | None = None) -> Workspace:
    """Make the folder where it is missing; markdown goes to *output_dir* if that is given.

    Raises:
        OutputError: it cannot be made, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"the workspace {folder} is a file; name a folder") from error
    except OSError as error:
        raise output_error(error, f"the workspace {folder}") from error
    if output_dir is None:
        return Workspace(folder, folder / "markdown", folder / "markdown-owners")
    return Workspace(folder, output_dir, output_dir / ".olmocr-owners")


def _markdown_names(source: Source) -> tuple[PurePosixPath, PurePosixPath, PurePosixPath]:
    """Return paths below markdown/ in order of preference: the plain one, one beside it, one that no other can want.

    The plain one is the source's, without leading slash and ``..``, and with ``.md`` for its ending.
    """
    path = PurePosixPath("stdin" if source.name == "-" else source.name.replace("::", "/"))
    parents = [part for part in path.parts[:-1] if part not in ("/", "//", "..", "~")]
    stem = path.stem.encode("utf-8", "surrogateescape")[:_LONGEST_NAME].decode("utf-8", "ignore")
    own = f"{stem}-{source.key[:12]}.md"
    return PurePosixPath(*parents, f"{stem}.md"), PurePosixPath(*parents, own), PurePosixPath(own)
