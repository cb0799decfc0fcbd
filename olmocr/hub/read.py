"""Parts of a repository on the Hub: a weight file's header, or one such file, downloaded without the cache."""

from __future__ import annotations

import struct
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from olmocr.errors import CheckpointError, HubError
from olmocr.hub.listing import ListedFile
from olmocr.hub.sentences import reading_errors
from olmocr.model_folder import ModelFolder, RemoteShard
from olmocr.tensors.header import LONGEST_HEADER

# A shard's header is some 30 KB, a single file's 100 KB: one request is enough for either.
_FIRST_REQUEST = 1 << 17


def remote_header(folder: ModelFolder, shard: str) -> tuple[bytes, int]:
    """Return a remote safetensors file's first bytes (header length, header) and its size; the rest is not downloaded.

    Raises:
        CheckpointError: the repository has no such file, or it does not begin with a possible length.
        HubError: the file cannot be read.
    """
    file = _remote_shard(folder, shard)
    with reading_errors(folder.where, folder.revision):
        beginning = _read(folder, file, 0, min(_FIRST_REQUEST, file.size)) if file.size else b""
        end = _header_end(folder, file, beginning)
        if end > len(beginning):
            beginning += _read(folder, file, len(beginning), end)
    return beginning[:end], file.size


def fetch_shard(
    folder: ModelFolder, shard: str, into: Path, patience: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
) -> Path:
    """Download one remote shard into the folder *into*, without the cache; return its path there.

    Resumes from what a broken connection leaves (``.incomplete``): after each pause in *patience* (seconds) within one
    call, and in the next call. The shard appears once its size, and its SHA-256 if the Hub lists one, are right.

    Raises:
        CheckpointError: the repository has no such file.
        HubError: the shard cannot be downloaded, or is not what the Hub lists.
        OutputError: *into* cannot be written, or the disk is full.
    """
    file = _remote_shard(folder, shard)
    target, incomplete = into / shard, into / f"{shard}.incomplete"
    with reading_errors(folder.where, folder.revision, written=str(incomplete)):
        into.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            target.replace(incomplete)  # to be checked again: it may be another revision's, or damaged since
        _complete(folder, file, incomplete, patience)
        _require_intact(folder, file, incomplete)
        incomplete.replace(target)
    return target


def _remote_shard(folder: ModelFolder, shard: str) -> RemoteShard:
    for file in folder.remote_files:
        if file.name == shard:
            return file
    raise CheckpointError(f"{folder.where} lacks the shard {shard}; choose a complete repository or revision")


def _header_end(folder: ModelFolder, file: RemoteShard, beginning: bytes) -> int:
    """Return where the header of a safetensors file ends, by the eight bytes at its start."""
    (length,) = struct.unpack("<Q", beginning[:8].ljust(8, b"\0"))
    if length > min(LONGEST_HEADER, file.size - 8):
        raise CheckpointError(
            f"{file.name} in {folder.where} is damaged or not a safetensors file: a header of {length} bytes "
            f"does not fit into its {file.size}; choose another revision"
        )
    return 8 + int(length)


def _read(folder: ModelFolder, file: RemoteShard, first: int, end: int) -> bytes:
    with closing(_part(folder, file, first, end)) as chunks:
        return b"".join(chunks)


def _part(folder: ModelFolder, file: RemoteShard, first: int, end: int) -> Generator[bytes]:
    """Yield the bytes from *first* to *end* of a remote file, even from a server that does not support ranges."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(folder.where, file.name, revision=folder.revision)
    # If compressed, the bytes would have other positions.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={first}-{end - 1}"}
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        position = first if response.status_code == 206 else 0
        for chunk in response.iter_bytes():
            yield chunk[max(first - position, 0) : end - position]
            position += len(chunk)
            if position >= end:
                return
    raise HubError(f"{folder.where} could not be downloaded: {file.name} ended after {position} bytes; run it again")


def _complete(folder: ModelFolder, file: RemoteShard, incomplete: Path, patience: tuple[float, ...]) -> None:
    """Download what *incomplete* lacks; an attempt that makes progress restores all of the *patience*."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    pauses = iter(patience)
    incomplete.touch()
    while (first := incomplete.stat().st_size) < file.size:
        try:
            with incomplete.open("ab") as output, closing(_part(folder, file, first, file.size)) as chunks:
                output.writelines(chunks)
        except HTTPError as error:
            if incomplete.stat().st_size > first:
                pauses = iter(patience)
            pause = next(pauses, None)
            if pause is None or not _may_pass(error):
                raise
            time.sleep(pause)


def _may_pass(error: Exception) -> bool:
    """Return whether a failure may pass soon: a broken connection or a busy Hub, not a refusal."""
    from huggingface_hub.errors import HfHubHTTPError

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    return status is None or status in (408, 429) or status >= 500


def _require_intact(folder: ModelFolder, file: RemoteShard, path: Path) -> None:
    """Remove a download that is not what the Hub lists, and report it."""
    if not ListedFile(file.name, file.size, file.sha256, file.git_sha1).is_same(path):
        path.unlink()
        raise HubError(
            f"{file.name} of {folder.where} is not the file that the Hub lists (by size or SHA-256); "
            "it has been removed, so run it again to download a new copy"
        )
