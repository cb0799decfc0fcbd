"""A model, by folder or by Hub repository -> a folder on this disk. Its weights may stay on the Hub."""

from __future__ import annotations

import contextlib
import glob
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from olmocr.errors import CheckpointError, HubError, OutputError, UsageError
from olmocr.hub.listing import ListedFile, Listing, as_cached, list_files, require_names
from olmocr.hub.sentences import is_unreachable, not_a_model, reading_errors, says_no
from olmocr.model_folder import (
    HASHES_FILE,
    WHOLE_FILE,
    ModelFolder,
    RemoteShard,
    index_is_stale,
    indexed_shards,
    read_config,
    refuse_links_out,
)
from olmocr.stages import Downloading, OnStage, unwatched
from olmocr.strays import is_passed_over
from olmocr.text import one_line

# The files of a checkpoint. Pickles (*.bin, *.pt) and code (*.py) are never downloaded.
_ALL_BUT_WEIGHTS = ("*.json", "*.txt", "*.jinja", "LICENSE*", HASHES_FILE)
_CHECKPOINT_FILES = ("*.safetensors", *_ALL_BUT_WEIGHTS)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# Bytes of a settings file; the largest, a tokenizer, has about 20 million.
_LARGEST_SETTINGS = 500_000_000

_INCOMPLETE = ".incomplete"  # ends the name of a file that huggingface_hub has not finished
_LOOKS_EVERY = 0.25  # seconds, while something is downloaded

_REVISION = re.compile(r"(?!.*(?:\.\.|//|@\{))[\w][\w./+@=-]{0,250}(?<![./])")

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model(model: str, revision: str | None = None, on_stage: OnStage = unwatched) -> ModelFolder:
    """Return the folder of *model*: a local folder, or a repository, which is downloaded from the Hub.

    Respects ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE``. *on_stage* is called, in a separate
    thread, with the download's progress.

    Raises:
        CheckpointError: *model* is not a readable folder or a repository's name, or has links out of it.
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
        UsageError: a revision is given for a folder.
    """
    return _folder_here(model, revision) or _download(model, revision, _CHECKPOINT_FILES, on_stage)


def find_settings(model: str, revision: str | None = None) -> ModelFolder:
    """Return the folder of *model* without downloading weights: all its other files, at one commit.

    The weights are still on the Hub (*remote_weights*), unless all are in the cache, or *model* is a folder.

    Raises:
        CheckpointError: *model* is not a folder or a repository's name, or is a repository without safetensors files.
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
        UsageError: a revision is given for a folder.
    """
    here = _folder_here(model, revision)
    if here is not None:
        return here
    folder = _download(model, revision, _ALL_BUT_WEIGHTS)
    if _has_weights(folder):
        return folder
    return replace(folder, remote_weights=True, remote_files=_list_weights(folder))


def require_model(model: str) -> None:
    """Make sure that *model* exists, downloading at most its config.

    If the Hub cannot be reached, do not raise.

    Raises:
        CheckpointError: it is not a repository's name, and not a folder with a config of a known family.
        HubError: the Hub says that there is no such repository, or that the token may not read it.
    """
    here = _folder_here(model, None)
    if here is not None:
        read_config(here)
        return
    try:
        _download(model, None, ("config.json",))
    except HubError as error:
        if says_no(error):
            raise


def missing_files(folder: ModelFolder) -> tuple[RemoteShard, ...]:
    """Return the weights of *folder* to download: those in the index that are not in the Hub's cache."""
    shards = _names(folder)
    return tuple(file for file in folder.remote_files if file.name in shards and not (folder.path / file.name).exists())


def download_weights(folder: ModelFolder, on_stage: OnStage = unwatched) -> ModelFolder:
    """Download all shards of *folder* into the Hub's cache; a second call resumes where the first one stopped.

    *on_stage* is called, in a separate thread, with the progress.

    Raises:
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
    """
    if not folder.remote_weights:
        return folder
    shards = _names(folder)
    _download(folder.where, folder.revision, tuple(glob.escape(shard) for shard in shards), on_stage)
    # huggingface_hub 1 returns what it has, without an error, if the Hub cannot be reached.
    _require_complete(folder, shards)
    return replace(folder, remote_weights=False)


def _require_complete(folder: ModelFolder, names: Sequence[str]) -> None:
    missing = [name for name in names if not (folder.path / name).is_file()]
    if missing:
        raise HubError(
            f"{folder.where} is incomplete in {folder.path}, which lacks {', '.join(missing[:5])}; "
            "check the network (and HF_HUB_OFFLINE), then run it again"
        )


def require_model_name(model: str) -> None:
    """Make sure that *model* is a local folder, or may be the name of a repository, without asking the Hub.

    Raises:
        CheckpointError: it is not.
    """
    _folder_here(model, None)


def _folder_here(model: str, revision: str | None) -> ModelFolder | None:
    """Return *model* as a local folder; None if it is the name of a repository."""
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            if revision is not None:
                raise UsageError(
                    f"{model} is a local folder, which does not have a revision {revision}; leave the revision out"
                )
            refuse_links_out(path)
            return ModelFolder(path)
        if path.exists() or not _REPO_ID.fullmatch(model):
            raise not_a_model(model)
    except (OSError, RuntimeError) as error:  # a folder that may not be read, a name that is too long, ~nobody
        raise not_a_model(model) from error
    return None


def _download(
    repo_id: str, revision: str | None, patterns: tuple[str, ...], on_stage: OnStage = unwatched
) -> ModelFolder:
    """Download what matches *patterns*, and check every byte against the Hub's listing."""
    if revision is not None and not _REVISION.fullmatch(revision):
        raise HubError(f"{repo_id} has no revision {one_line(revision, 100)}; choose an existing branch, tag or commit")
    listing = None if _is_offline() else _listing(repo_id, revision)
    missing = _missing_bytes(repo_id, listing, patterns) if listing else 0
    with reading_errors(repo_id, revision), _watched(repo_id, missing, on_stage):
        from huggingface_hub import snapshot_download  # a ValueError where HF_ENDPOINT is malformed

        before = _in_cache(repo_id)
        path = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns)))
    if listing and path.name != listing.sha:  # the branch has moved meanwhile
        listing = _listing(repo_id, path.name)
    refuse_links_out(path)
    folder = ModelFolder(path, repo_id, revision=path.name)
    if listing:
        files = _matching(listing, patterns)
        _require_complete(folder, [file.name for file in files])
        _require_intact(folder, files, before)
    else:
        here = [each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()]
        found = [as_cached(path, name) for name in here if any(fnmatchcase(name, pattern) for pattern in patterns)]
        _require_intact(folder, found, frozenset(path.rglob("*")))
    return folder


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _listing(repo_id: str, revision: str | None) -> Listing | None:
    """Return the Hub's listing, or None if nobody answers, so that the cache is used."""
    try:
        return list_files(repo_id, revision)
    except HubError as error:
        if is_unreachable(error.__cause__):
            return None
        raise


def _matching(listing: Listing, patterns: Sequence[str]) -> list[ListedFile]:
    return [file for file in listing.files if any(fnmatchcase(file.name, pattern) for pattern in patterns)]


def _missing_bytes(repo_id: str, listing: Listing, patterns: Sequence[str]) -> int:
    """Return what to download. Refuse impossible names and sizes, and a disk that is too small."""
    files = _matching(listing, patterns)
    require_names(repo_id, [file.name for file in files])
    for file in files:
        if not file.name.endswith(".safetensors") and (file.size or 0) > _LARGEST_SETTINGS:
            raise HubError(
                f"{file.name} of {repo_id} has {file.size:,} bytes according to the Hub, far too many for such a file; "
                "choose another revision"
            )
    cache = _cache_of(repo_id)
    here = cache / "snapshots" / listing.sha
    missing = sum(file.size or 0 for file in files if not (here / file.name).exists())
    disk = next(place for place in cache.absolute().parents if place.is_dir())
    free = shutil.disk_usage(disk).free
    if missing > free:
        raise OutputError(
            f"{repo_id} has {missing / 1e9:.2f} GB to download, and the Hub's cache (HF_HOME) has {free / 1e9:.2f} GB "
            "free; make room, or set HF_HOME to a folder on another disk"
        )
    return missing


@contextlib.contextmanager
def _watched(repo_id: str, missing: int, on_stage: OnStage) -> Iterator[None]:
    """Report how many of the *missing* bytes have arrived while the block downloads them.

    Looks at the disk, because each version of huggingface_hub reports progress differently.
    """
    if not missing or on_stage is unwatched:
        yield
        return
    blobs = _cache_of(repo_id) / "blobs"
    before = _whole_files(blobs)
    is_over = threading.Event()

    def look() -> None:
        most = 0
        while not is_over.wait(_LOOKS_EVERY):
            most = max(most, min(_bytes_beside(blobs, before), missing - 1))
            on_stage(Downloading(repo_id, most, missing))

    on_stage(Downloading(repo_id, min(_bytes_beside(blobs, before), missing - 1), missing))
    thread = threading.Thread(target=look, name="olmocr-download", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    on_stage(Downloading(repo_id, missing, missing))


def _whole_files(blobs: Path) -> frozenset[str]:
    return frozenset(path.name for path in blobs.glob("*") if path.suffix != _INCOMPLETE)


def _bytes_beside(blobs: Path, before: frozenset[str]) -> int:
    """Return the bytes of all files except those in *before*; for an unfinished one, what is written of it."""
    total = 0
    for path in blobs.glob("*"):
        if path.name not in before:
            with contextlib.suppress(OSError):  # renamed meanwhile
                found = path.stat()
                written = found.st_blocks * 512 if path.suffix == _INCOMPLETE else found.st_size
                total += min(found.st_size, written)
    return total


def _cache_of(repo_id: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"


def _in_cache(repo_id: str) -> frozenset[Path]:
    """Return what the Hub's cache already has of a repository."""
    snapshots = _cache_of(repo_id) / "snapshots"
    return frozenset(snapshots.rglob("*")) if snapshots.is_dir() else frozenset()


def _require_intact(folder: ModelFolder, files: Sequence[ListedFile], before: frozenset[Path]) -> None:
    """Refuse files that do not match the listing; remove one that was just downloaded, but not an older one."""
    for file in files:
        path = folder.path / file.name
        try:
            if file.is_same(path):
                continue
        except OSError as error:
            raise OutputError(f"{path} cannot be read again: {error.strerror or error}") from error
        if path in before:
            advice = f"remove {path.resolve()} and run it again to download a new copy"
        else:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            advice = "it has been removed, so run it again to download a new copy"
        raise HubError(
            f"{file.name} of {folder.where} is not the file that the Hub lists (by size, SHA-256 or SHA-1); {advice}"
        )


def _has_weights(folder: ModelFolder) -> bool:
    return all((folder.path / shard).is_file() for shard in indexed_shards(folder) or (WHOLE_FILE,))


def _list_weights(folder: ModelFolder) -> tuple[RemoteShard, ...]:
    """Ask the Hub for the safetensors files of a repository, without those in its folders."""
    files = list_files(folder.where, folder.revision).files
    weights = [file for file in files if _is_shard(file.name)]
    if not weights:
        raise _no_safetensors(folder, [file.name for file in files if file.name.endswith(_PICKLES)])
    require_names(folder.where, [file.name for file in weights])
    return tuple(_as_remote_shard(folder, file) for file in weights)


def _is_shard(name: str) -> bool:
    return name.endswith(".safetensors") and not set(name) & set("/\\") and not is_passed_over(name)


def _as_remote_shard(folder: ModelFolder, file: ListedFile) -> RemoteShard:
    if file.size is None:
        raise HubError(f"the Hub does not list the size of {file.name} in {folder.where}; try another HF_ENDPOINT")
    return RemoteShard(file.name, file.size, file.sha256, file.git_sha1)


def _no_safetensors(folder: ModelFolder, pickles: list[str]) -> CheckpointError:
    if pickles:
        return CheckpointError(
            f"{folder.where} has its weights only as pickle files ({pickles[0]}), which can run code and are never "
            "loaded; choose a repository with *.safetensors files"
        )
    return CheckpointError(f"{folder.where} is not a checkpoint: it has no *.safetensors files")


def _names(folder: ModelFolder) -> tuple[str, ...]:
    """Return *folder*'s files of weights: those that its index names, or all."""
    indexed = () if index_is_stale(folder) else indexed_shards(folder)
    return indexed or tuple(sorted(file.name for file in folder.remote_files))
