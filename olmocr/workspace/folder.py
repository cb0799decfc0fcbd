"""What to do, what is done, and where everything is written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from olmocr.errors import OutputError, UsageError, output_error
from olmocr.files import sweep_once, write_whole
from olmocr.inputs.sources import Source
from olmocr.text import strict_json
from olmocr.workspace.document import Failure
from olmocr.workspace.outputs import write_json_line
from olmocr.workspace.owned import ITSELF, Names, OwnedFiles

METRICS_FILE = "metrics.json"

_MOST_CHARACTERS = 1 << 20  # of a file that is read to see whose it is

_LONGEST_NAME = 200  # bytes; most file systems allow 255
_LONGEST_PATH = 600  # characters of the folders below markdown/; a Mac allows 1024 bytes in all

# A URL, also one that was taken for a path: two slashes then became one.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(?:s3a?|gs|gcs|az|abfss?|hf|https?|ftp|sftp|smb|file):/", re.IGNORECASE)


@dataclass(frozen=True)
class Workspace:
    """A folder of results.

    ``results/output_<key>.jsonl`` has a document that was read; ``failed/<key>.json`` has one that was not, and why.
    *markdown* has ``<source path>.md`` with its text, *pages* ``<source path>.md/`` with its pages, *page_records*
    ``<source path>.json`` with what is known of them, if requested. *attached* has ``<source path>.files/`` beside the
    markdown, with its figures and tables. *elsewhere* lists other folders with markdown of earlier runs, which must not
    become stale.
    """

    folder: Path
    markdown: OwnedFiles
    pages: OwnedFiles
    page_records: OwnedFiles
    attached: OwnedFiles
    elsewhere: tuple[OwnedFiles, ...] = ()

    def with_markdown_elsewhere(self, folders: Iterable[Path]) -> Workspace:
        """Return this workspace, noting that earlier runs may have written its markdown into *folders*."""
        others = [_markdown_within(self.folder), _attached_within(self.folder)]
        others += [files for folder in folders for files in (_markdown_in(folder), _attached_in(folder))]
        kept = {each.claims: each for each in others if not _is_one_folder(each.root, self.markdown.root)}
        return replace(self, elsewhere=tuple(kept.values()))

    def result_path(self, source: Source) -> Path:
        """Return where the document's line is once the document has been read."""
        return self._result_path(source.key)

    def result_id(self, source: Source, sha256: str | None) -> str | None:
        """Return the hash of the text in a document's result; None if there is no result for that content."""
        line = self.result(source, sha256)
        return None if line is None else str(line.get("id") or "")

    def result(self, source: Source, sha256: str | None) -> dict[str, Any] | None:
        """Return the Dolma line of a document with that content; None if there is none, or it is damaged."""
        try:
            line = json.loads(self.result_path(source).read_text(encoding="utf-8"))
            is_same = line["metadata"]["source-sha256"] == sha256
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return line if is_same and isinstance(line.get("text"), str) else None

    def failed_result(self, source: Source) -> dict[str, Any] | None:
        """Return the Dolma line of what could be read of a failed document; None if nothing could."""
        try:
            line = json.loads(self._failure_path(source.key).read_text(encoding="utf-8"))["document"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return line if isinstance(line, dict) and isinstance(line.get("text"), str) else None

    def write_result(self, source: Source, line: dict[str, Any]) -> None:
        """Keep the Dolma line of a document that was read; an earlier failure is forgotten."""
        write_json_line(self.result_path(source), line)
        _remove(self._failure_path(source.key))

    def write_failure(
        self, source: Source, why: str, line: dict[str, Any] | None = None, *, keep: bool = False
    ) -> None:
        """Keep why a document failed, and what could be read of it, apart from the results.

        What an earlier run read of it, before the file changed, is removed, unless *keep* is true.
        """
        write_json_line(self._failure_path(source.key), {"Source-File": source.name, "error": why, "document": line})
        if not keep:
            _remove(self.result_path(source))
            for files in self._all_beside():
                files.remove(source.key)

    def forget(self, key: str) -> None:
        """Remove everything about a document whose name now belongs to another."""
        _remove(self._result_path(key))
        _remove(self._failure_path(key))
        for files in self._all_beside():
            files.forget(key)

    def remove_stale(self, source: Source, made_of: str) -> None:
        """Remove files beside a document's result, except those of the same text whose note begins with *made_of*."""
        for files in self._all_beside():
            files.remove(source.key, unless_made_of=made_of)

    def _all_beside(self) -> tuple[OwnedFiles, ...]:
        return (self.markdown, self.pages, self.page_records, self.attached, *self.elsewhere)

    def _failure_path(self, key: str) -> Path:
        return self.folder / "failed" / f"{key}.json"

    def _result_path(self, key: str) -> Path:
        return self.folder / "results" / f"output_{key}.jsonl"

    def write_markdown(self, source: Source, text: str, made_of: str = "") -> Path:
        """Write the document's text and return its path; two sources never share one. *made_of* identifies this text.

        A file that no run wrote, or that was changed since, is left alone: the text gets another name.
        """
        return self.markdown.write(source.key, names_of(source, ".md"), {ITSELF: text}, made_of)

    def write_pages(self, source: Source, texts: Mapping[int, str], made_of: str = "") -> None:
        """Write each page's text by its number; those of an earlier reading are removed."""
        files = {f"{number:04}.md": text for number, text in texts.items()}
        self.pages.write(source.key, names_of(source, ".md"), files, made_of)

    def write_page_records(self, source: Source, records: dict[str, Any], made_of: str = "") -> None:
        """Write what is known of a document's pages."""
        text = strict_json(records) + "\n"
        self.page_records.write(source.key, names_of(source, ".json"), {ITSELF: text}, made_of)

    def write_attached(self, source: Source, files: Mapping[str, str | Path], made_of: str = "") -> Path | None:
        """Write the document's figures and tables, and return their folder; earlier ones are removed in any case."""
        if not files:
            self.attached.remove(source.key)
            return None
        return self.attached.write(source.key, names_of(source, ".files"), files, made_of)

    def has_all_attached(self, source: Source) -> bool:
        """Return whether all figures and tables that were written for the document still exist."""
        return all(path.is_file() for path in self.attached_paths(source))

    def attached_paths(self, source: Source) -> list[Path]:
        """Return the figures and tables that were written for the document."""
        return self.attached.paths(source.key)

    def markdown_made_of(self, source: Source) -> str | None:
        """Return what the document's markdown was made of; None if there is none under the source's name."""
        return self.markdown.made_of(source.key, names_of(source, ".md"))

    def pages_made_of(self, source: Source) -> str | None:
        """Return what the files of its pages were made of; None if some are missing."""
        return self.pages.made_of(source.key, names_of(source, ".md"))

    def page_records_made_of(self, source: Source) -> str | None:
        """Return what the file with its pages' records was made of; None if there is none."""
        return self.page_records.made_of(source.key, names_of(source, ".json"))

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Write ``failures.jsonl``, one line each, with upstream's names as well; without failures there is no file."""
        text = failures_jsonl(failures)
        path = ours_or_beside(self.folder / "failures.jsonl", {"Source-File", "error"})
        write_whole(path, text) if text else _remove(path)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write ``metrics.json``: a run's numbers."""
        path = ours_or_beside(self.folder / METRICS_FILE, {"pages_per_minute", "attempts_ended"})
        write_whole(path, strict_json(metrics, indent=2) + "\n")

    def markdown_path(self, source: Source) -> Path:
        """Return the document's own markdown path: its source's, or one beside it if that is taken.

        The first source that requests a path owns it, in this run and in later ones.
        """
        return self.markdown.reserve(source.key, names_of(source, ".md"))

    def pages_path(self, source: Source) -> Path:
        """Return the folder of the files of the document's pages."""
        return self.pages.reserve(source.key, names_of(source, ".md"))

    def reserve(self, source: Source, *, markdown: bool, pages: bool, page_records: bool) -> None:
        """Reserve a path for the document for each kind of output that is requested."""
        if markdown:
            self.markdown_path(source)
        if pages:
            self.pages_path(source)
        if page_records:
            self.page_records.reserve(source.key, names_of(source, ".json"))


def failures_jsonl(failures: Iterable[Failure]) -> str:
    """Return failures as lines of JSON, with upstream's names as well."""
    return "".join(
        strict_json({**each.as_json, "Source-File": each.source, "error": each.why}) + "\n" for each in failures
    )


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} is in the way and could not be removed: {error.strerror}") from error


def open_workspace(folder: Path, output_dir: Path | None = None) -> Workspace:
    """Make the folder if it is missing, for its owner alone; markdown goes to *output_dir* if that is given.

    Raises:
        OutputError: it cannot be made, or is a file.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # documents may be private
    except FileExistsError as error:
        raise OutputError(f"the workspace {folder} is a file; name a folder") from error
    except OSError as error:
        raise output_error(error, f"the workspace {folder}") from error
    within = _markdown_within(folder)
    markdown, attached = within, _attached_within(folder)
    if output_dir is not None and not _is_one_folder(output_dir, within.root):
        markdown, attached = _markdown_in(output_dir), _attached_in(output_dir)
    pages = OwnedFiles(folder / "pages", folder / "pages-owners")
    for each in (folder, folder / "results", folder / "failed", markdown.root, markdown.claims):
        sweep_once(each)  # what a killed run left half written
    page_records = OwnedFiles(folder / "page_records", folder / "page_records-owners")
    return Workspace(folder, markdown, pages, page_records, attached).with_markdown_elsewhere(())


def ours_or_beside(path: Path, fields: set[str]) -> Path:
    """Return *path* if it is free, or begins with a JSON object that has our *fields*; else one with our name."""
    try:
        with path.open(encoding="utf-8") as file:
            found, _ = json.JSONDecoder().raw_decode(file.read(_MOST_CHARACTERS))
    except FileNotFoundError:
        return path
    except (OSError, ValueError, RecursionError):
        found = None
    is_ours = isinstance(found, dict) and fields <= found.keys()
    return path if is_ours else path.with_name(f"olmocr-{path.name}")


def require_local(name: str | Path, what: str) -> Path:
    """Return the folder that *name* is on this disk; errors call it *what*.

    Raises:
        UsageError: it is a URL.
    """
    if _URL.match(str(name)):
        raise UsageError(f"{what} {name} is not on this disk: name a folder here, and copy it there afterwards")
    return Path(name).expanduser()


def _markdown_within(folder: Path) -> OwnedFiles:
    return OwnedFiles(folder / "markdown", folder / "markdown-owners")


def _markdown_in(folder: Path) -> OwnedFiles:
    return OwnedFiles(folder, folder / ".olmocr-owners")


def _attached_within(folder: Path) -> OwnedFiles:
    return OwnedFiles(folder / "markdown", folder / "markdown-files-owners")


def _attached_in(folder: Path) -> OwnedFiles:
    return OwnedFiles(folder, folder / ".olmocr-files-owners")


def _is_one_folder(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve() or one.samefile(other)
    except OSError:
        return False


def names_of(source: Source, ending: str) -> Names:
    """Return paths in order of preference: the plain one, one beside it, two that no other document can want.

    The plain one is the source's path without leading slash and ``..``, with *ending* instead of its own.
    """
    path = PurePosixPath("stdin" if source.name == "-" else source.name.replace("::", "/"))
    parents = [_nameable(part) for part in path.parts[:-1] if part not in ("/", "//", "..", "~")]
    stem = _nameable(path.stem)
    own = f"{stem}-{source.key[:12]}{ending}"
    within = PurePosixPath(*parents) if sum(len(part) + 1 for part in parents) <= _LONGEST_PATH else PurePosixPath()
    return within / f"{stem}{ending}", within / own, PurePosixPath(own), PurePosixPath(f"{source.key}{ending}")


def _nameable(part: str) -> str:
    """Return a *part* of a source's path as a valid file name on any disk and in any locale."""
    encoding = sys.getfilesystemencoding()
    able = part.replace("\0", "").encode(encoding, "ignore")  # this leaves out bytes that are not text, too
    name = able[:_LONGEST_NAME].decode(encoding, "ignore")
    return "_" if name in ("", ".", "..", "~") else name
