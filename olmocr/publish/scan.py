"""A folder -> the files of it that may be published, with their hashes, or all reasons why it must not be published."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError
from olmocr.hub.write import LocalFile
from olmocr.model_folder import HASHES_FILE, INDEX_FILE
from olmocr.publish.secrets import secrets_in
from olmocr.reports.bench import BENCH_CHECKS_FILE, BENCH_REPORT_FILE
from olmocr.reports.conversion import REPORT_FILE
from olmocr.reports.fidelity import FIDELITY_REPORT_FILE
from olmocr.reports.smoke import SMOKE_REPORT_FILE
from olmocr.strays import is_stray
from olmocr.tensors.header import LONGEST_HEADER

CARD_FILE = "README.md"
CHART_FILE = "size-fidelity.svg"
VARIANTS_FILE = "variants.json"
EVAL_RESULTS_FILE = ".eval_results/olmocrbench.yaml"

# All files of a model, and files that we publish beside it. Other files are not published.
_NAMES = {
    "LICENSE",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    HASHES_FILE,
    INDEX_FILE,
    REPORT_FILE,
    SMOKE_REPORT_FILE,
    FIDELITY_REPORT_FILE,
    BENCH_REPORT_FILE,
    BENCH_CHECKS_FILE,
}
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")

# Made anew from the reports when a model is published, whatever is in the folder.
_MADE = {CARD_FILE, CHART_FILE, EVAL_RESULTS_FILE, VARIANTS_FILE}

_HOMES = re.compile(r"/(?:home|Users)/[\w.-]+|/root/|[A-Za-z]:\\+Users\\+\w+")

# A JSON string without its quotes, to its end or the line's; an escape outside a string does not begin one.
# A vocabulary has a hundred thousand that are too short to hold a secret.
_STRING = re.compile(r'\\.|"((?:[^"\\]|\\.)*+)(?:"|\\?\Z)')
_SHORTEST_SECRET = 20  # characters

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Scan:
    """The files to publish, by name, and the problems to fix first."""

    files: tuple[LocalFile, ...]
    problems: tuple[str, ...]


def scan_folder(folder: Path) -> Scan:
    """Look at everything in *folder*: known kinds of files only, no links out, no tokens, no home paths.

    Strays, which a system or another program keeps for itself, are ignored and never published.
    Problems name the file and the line, never the text found.

    Raises:
        InputError: the folder or a file in it cannot be read.
    """
    files, problems = [], []
    try:
        for path in _entries(folder):
            name = path.relative_to(folder).as_posix()
            problem = _refusal(path, name, folder)
            if problem:
                problems.append(problem)
            elif name not in _MADE:
                files.append(_local_file(path, name))
                problems += _text_problems(path, name)
    except OSError as error:
        raise InputError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    return Scan(tuple(files), tuple(problems))


def is_ours(name: str) -> bool:
    """Return whether a push may delete a repository's file of this name: not a license, not the card."""
    made = _MADE - {CARD_FILE}
    return name in (_NAMES | made) - {"LICENSE"} or WEIGHTS.fullmatch(name) is not None


def made_file(name: str, text: str) -> LocalFile:
    """Return a file that is not in the folder."""
    content = text.encode()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return LocalFile(name, len(content), hashlib.sha256(content).hexdigest(), git.hexdigest(), content=content)


def text_problems(name: str, text: str) -> list[str]:
    """Return which lines of *text* look like a secret, or hold a path into a home folder."""
    text = text.replace("\\/", "/")  # JSON may have a backslash there
    lines = text.split("\n")
    found = {*secrets_in(text), *_secrets_in_strings(lines)}
    problems = [f"{name}:{number} holds what looks like {what}; take it out" for number, what in sorted(found)]
    home = f"{Path.home()}{os.sep}"
    for number, line in enumerate(lines, 1):
        if _HOMES.search(line) or home in line:
            problems.append(f"{name}:{number} holds a path into a home folder; take it out")
    return problems


def _secrets_in_strings(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield the same for the content of one JSON string, which may be a complete file with escaped line ends."""
    for number, line in enumerate(lines, 1):
        for string in _STRING.findall(line):
            if len(string) >= _SHORTEST_SECRET:
                inside = string.replace("\\n", "\n").replace('\\"', '"')
                yield from ((number, what) for _, what in secrets_in(inside))


def _entries(folder: Path) -> Iterator[Path]:
    """Yield everything except folders and strays, in order, and folders that are links; do not follow links."""
    for root, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not is_stray(name))
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        yield from sorted(Path(root) / name for name in [*files, *links] if not is_stray(name))


def _raise(error: OSError) -> None:
    raise error


def _refusal(path: Path, name: str, folder: Path) -> str | None:
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return f"{name} is a link out of the folder; replace it by a copy if you want to publish that"
    if not path.is_file():
        return f"{name} is not a plain file; remove it"
    if name not in _NAMES | _MADE and not WEIGHTS.fullmatch(name):
        return f"{name} is not part of a model; take it out of the folder"
    return None


def _local_file(path: Path, name: str) -> LocalFile:
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            git.update(chunk)
    return LocalFile(name, size, sha256.hexdigest(), git.hexdigest(), path=path)


def _text_problems(path: Path, name: str) -> list[str]:
    """Check a text, or the header of weights, where a program may have written more."""
    content = _header(path) if WEIGHTS.fullmatch(name) else path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return [f"{name} is not UTF-8 text, as it should be; make it again"]
    if "\0" in text:
        return [f"{name} holds bytes that are not text; make it again"]
    if name.endswith(".json") and not _is_json(text):
        return [f"{name} is not JSON, as it should be; make it again", *text_problems(name, text)]
    return text_problems(name, text)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        return file.read(min(length, LONGEST_HEADER))
