"""``olmocr x.pdf``: documents -> their markdown on standard output, in a file, or in a folder.

The workspace lies in the user's cache, so that the same command resumes after an interruption.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from olmocr.errors import OutputError, UsageError
from olmocr.files import cache_folder, is_file, is_folder, is_there, sha256_of, write_whole
from olmocr.inputs.kinds import ENDINGS
from olmocr.inputs.places import folded
from olmocr.inputs.sources import STANDARD_INPUT, Source, path_of
from olmocr.inputs.stores import scheme_of
from olmocr.pipeline.config import PipelineConfig
from olmocr.terminal.command import complain
from olmocr.text import visible
from olmocr.workspace.folder import Workspace, open_workspace
from olmocr.workspace.records import RECORDS_FILE

KEPT_DAYS = 30
"""Days that a workspace in the cache is kept after its last use."""

_WRITTEN_FILE = "written.json"
_MARKDOWN_ENDINGS = {".md", ".markdown", ".txt"}


def names_documents(name: str) -> bool:
    """Say whether *name*, in place of a workspace, is that of documents: a file, a URL, or a folder of documents.

    A folder counts as one of documents if it is not a workspace and is not empty.
    """
    if name == STANDARD_INPUT or scheme_of(name) in ("http", "https"):
        return True
    path = path_of(name)
    with contextlib.suppress(OSError):
        if path.is_file():
            return True
        if path.is_dir():
            is_empty = next(path.iterdir(), None) is None
            return not is_empty and not (path / RECORDS_FILE).exists() and not (path / "results").exists()
    return path.suffix.lower() in ENDINGS or "::" in name or (glob.has_magic(name) and not is_there(path))


def require_no_workspace(names: Sequence[str]) -> None:
    """Make sure that no workspace is among the *names* of documents that are read without one.

    Raises:
        UsageError: there is one.
    """
    for name in names:
        if is_file(path_of(name) / RECORDS_FILE):
            raise UsageError(f"{name} is a workspace and must come first: olmocr {name} {names[0]}")


def workspace_of(sources: Sequence[Source], settings: dict[str, Any], root: Path | None = None) -> Path:
    """Return the workspace for *sources* that are read with these *settings*, in the user's cache.

    Each combination of settings that change the text has its own workspace, so that one model's text is never taken
    for another's.
    """
    places = sorted(source.key for source in sources)
    what = {"documents": places, **{name: str(settings.get(name)) for name in _CHANGES_THE_TEXT}}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return (root or cache_folder("read")) / digest[:16]


_CHANGES_THE_TEXT = ("model", "server", "prompt", "target_longest_image_dim")


def sweep(root: Path | None = None, now: float | None = None) -> None:
    """Remove workspaces of the cache that nobody has used for :data:`KEPT_DAYS` days."""
    before = (time.time() if now is None else now) - KEPT_DAYS * 86400
    with contextlib.suppress(OSError):
        for folder in (root or cache_folder("read")).iterdir():
            if folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Text:
    """A document's markdown; *file_name* is a name for its file.

    *attached* are the figures and tables that it links to, all in one folder.
    """

    file_name: str
    markdown: str
    attached: tuple[Path, ...] = ()


class Destination:
    """Where markdown goes: standard output, a file, or a folder.

    A file that this command did not write is never replaced.
    """

    def __init__(
        self, output: str | None, sources: Sequence[Source], workspace: Path, *, attaches: bool = False
    ) -> None:
        """Look at *output*, a file or a folder, before anything is read.

        Raises:
            OutputError: it is a file that this command did not write.
            UsageError: it is one file for several documents, or neither a folder nor a markdown file; or it is missing
                although the markdown *attaches* files.
        """
        if output is None and attaches:
            raise UsageError("--figures and --tables csv make files: say where with --output FILE or FOLDER")
        self._workspace = workspace
        self._path = Path(output).expanduser() if output is not None else None
        self._written = _read_written(workspace)
        self._taken: set[str] = set()
        self._is_folder = output is not None and _is_folder(output)
        if self._path is not None and self._is_folder and _is_another_file(self._path):
            raise UsageError(f"--output {output} is neither a folder nor a markdown file; name FILE.md or a folder")
        if self._path is None or self._is_folder:
            return
        if len(sources) > 1:
            raise UsageError(f"--output {output} is one file, but there are several documents; name a folder")
        if not self._is_ours(self._path):
            raise OutputError(f"{self._path} exists, and this command did not write it; name another, or remove it")

    def write(self, texts: Iterator[Text]) -> None:
        """Write the documents' *texts*.

        Raises:
            OutputError: it cannot be written.
        """
        if self._path is None:
            _print(_separated(text.markdown for text in texts))
        elif self._is_folder:
            for text in texts:
                self._write_with_files(self._free_path(text.file_name), text)
        else:
            for text in texts:  # there is one
                self._write_with_files(self._path, replace(text, markdown="".join(_separated(iter([text.markdown])))))

    def _write_with_files(self, path: Path, text: Text) -> None:
        """Write a document's markdown, and the files it links to in a folder beside it; remove earlier ones."""
        folder, before = self._free_folder(path), _files_beside(path)
        new = {folder / file.name: file for file in text.attached}
        for place, file in new.items():
            self._write(place, file.read_bytes())
        markdown = text.markdown
        if text.attached:
            markdown = markdown.replace(f"]({quote(text.attached[0].parent.name)}/", f"]({quote(folder.name)}/")
        self._write(path, [markdown])
        for place in before - new.keys():
            if self._is_ours(place):
                place.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                place.parent.rmdir()

    def _free_folder(self, path: Path) -> Path:
        """Return a folder beside *path* that holds nothing except what an earlier command wrote."""
        first = f"{path.stem}.files"
        names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
        folders = map(path.with_name, names)
        return next(each for each in folders if not os.path.lexists(each) or self._has_only_ours(each))

    def _has_only_ours(self, folder: Path) -> bool:
        try:
            return not folder.is_symlink() and all(map(self._is_ours, folder.iterdir()))
        except OSError:
            return False

    def _write(self, path: Path, content: bytes | Iterable[str]) -> None:
        write_whole(path, content)
        self._written[_key(path)] = sha256_of(path)
        write_whole(self._workspace / _WRITTEN_FILE, json.dumps(self._written))

    def _free_path(self, file_name: str) -> Path:
        """Return a path in the folder that no other document of this run and no other file has."""
        assert self._path is not None
        name = Path(file_name)
        for number in itertools.count(1):
            path = self._path / (file_name if number == 1 else f"{name.stem}-{number}{name.suffix}")
            if _key(path) not in self._taken and self._is_ours(path):
                break
        if number > 1:
            complain(f"{self._path / file_name} is taken; this document goes to {path}")
        self._taken.add(_key(path))
        return path

    def _is_ours(self, path: Path) -> bool:
        """Say whether *path* may be written: nothing is there, or only what an earlier command wrote."""
        if not os.path.lexists(path):
            return True
        try:
            return path.is_file() and self._written.get(_key(path)) == sha256_of(path)
        except OSError:
            return False


def _files_beside(path: Path) -> set[Path]:
    """Return the files in folders whose names mark them as those of the markdown at *path*."""
    is_named_so = re.compile(re.escape(path.stem) + r"\.files(-\d+)?").fullmatch
    with contextlib.suppress(OSError):
        return {file for each in path.parent.iterdir() if is_named_so(each.name) for file in each.iterdir()}
    return set()


def _is_folder(output: str) -> bool:
    path = Path(output).expanduser()
    return is_folder(path) or output.endswith(os.sep) or path.suffix.lower() not in _MARKDOWN_ENDINGS


def _is_another_file(path: Path) -> bool:
    """Say whether *path* is a file, or has the ending of a document."""
    return not is_folder(path) and (is_there(path) or path.suffix.lower() in ENDINGS)


def _key(path: Path) -> str:
    """Return one key for each file, as on a file system that ignores case and Unicode composition."""
    return folded(str(path.absolute()))


def _read_written(workspace: Path) -> dict[str, str]:
    """Return the hash of each file that an earlier command wrote, by its key."""
    try:
        found = json.loads((workspace / _WRITTEN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def texts_of(config: PipelineConfig, sources: Iterable[Source]) -> Iterator[Text]:
    """Yield the markdown of each of *sources*, in this order; for one that failed, what was read."""
    assert isinstance(config.workspace, Path)  # one of this command's own
    workspace = open_workspace(config.workspace, config.output_dir)
    for source in sources:
        path = workspace.markdown_path(source)
        markdown = _read(path)
        if markdown is None:
            markdown = _failed_text(workspace, source)
        if markdown is not None:
            yield Text(path.name, markdown, tuple(workspace.attached_paths(source)))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _failed_text(workspace: Workspace, source: Source) -> str | None:
    line = workspace.failed_result(source)
    if line is None:
        return None
    complain(f"{source.name}: some pages have the file's own text, since the model gave no good answer for them")
    return str(line["text"])


def _separated(texts: Iterator[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield "\n"
        yield text.removesuffix("\n") + "\n"


def _print(texts: Iterator[str]) -> None:
    """Print text that a model wrote: unchanged to a file or a pipe, but without control characters to a terminal."""
    is_terminal = sys.stdout.isatty()
    for text in texts:
        sys.stdout.write(visible(text) if is_terminal else text)
    sys.stdout.flush()
