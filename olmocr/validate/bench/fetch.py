"""A benchmark in a bucket -> a copy on this disk; only changed files are fetched again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from olmocr.errors import InputError
from olmocr.files import whole_file, write_whole
from olmocr.inputs.origins import StoredFile
from olmocr.inputs.stores import WEB_SCHEMES, find_below, read_stored, scheme_of

logger = logging.getLogger(__name__)

_VERSIONS = ".versions.json"


def bench_folder(place: str, work: Path) -> Path:
    """Return the folder of the benchmark at *place*: that folder, or a copy in *work* of what a URL of a store names.

    A copy that was interrupted is gone on with, file by file; what the bucket has no longer is removed from it.

    Raises:
        InputError: the bucket cannot be read, or has no benchmark there.
        MissingDependencyError: the extra for this kind of store is not installed.
        OutputError: the copy cannot be written.
    """
    if scheme_of(place) is None:
        return Path(place).expanduser()
    if scheme_of(place) in WEB_SCHEMES:
        raise InputError(f"{place}: a web server has no list of its files; give a folder, or a place in a bucket")
    url = place.rstrip("/")
    there = find_below(url, _is_of_benchmark)
    copy = work / "sets" / hashlib.sha256(url.encode()).hexdigest()[:16] / PurePosixPath(url).name
    copy.mkdir(parents=True, exist_ok=True)
    have = _versions_of(copy)
    for name in have.keys() - there.keys():
        (copy / name).unlink(missing_ok=True)
    have = {name: version for name, version in have.items() if name in there}
    wanted = {name: file for name, file in there.items() if not file.version or have.get(name) != file.version}
    logger.info("fetching %d of the %d files at %s", len(wanted), len(there), url)
    try:
        for name, file in wanted.items():
            _fetch(file, f"{url}/{name}", copy / name)
            have[name] = file.version
    finally:
        write_whole(copy / _VERSIONS, json.dumps(have, indent=1))
    return copy


def _is_of_benchmark(name: str) -> bool:
    parts = name.split("/")
    if {"", ".", ".."} & set(parts):
        return False
    is_of_checks = len(parts) == 1 and name.endswith(".jsonl")
    return is_of_checks or (parts[0] == "pdfs" and name.lower().endswith(".pdf"))


def _fetch(file: StoredFile, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as copy:
        copy.writelines(read_stored(file, name))


def _versions_of(copy: Path) -> Mapping[str, str]:
    """Return the versions of the files that lie there as they were fetched."""
    try:
        found = json.loads((copy / _VERSIONS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{copy / _VERSIONS} is damaged ({error}); remove the folder") from error
    return {name: version for name, version in found.items() if (copy / name).is_file()}
