"""A model, by folder or by Hub repository -> a folder on this disk, of a family that we support.

The one door to huggingface_hub. Weights may stay on the Hub: headers are read there, shards fetched one by one.
"""

from __future__ import annotations

import glob
import json
import re
import struct
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmocr.errors import CheckpointError, HubError, OlmocrError, UsageError, output_error
from olmocr.files import sha256_of

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
MODEL_TYPE = "qwen2_5_vl"
BF16_REPOSITORY = "allenai/olmOCR-2-7B-1025"

INDEX_FILE = "model.safetensors.index.json"

# What a checkpoint consists of. No pickle (*.bin, *.pt) and no code (*.py) is ever asked for.
_ALL_BUT_WEIGHTS = ("*.json", "*.txt", "*.jinja", "LICENSE*", "SHA256SUMS")
CHECKPOINT_FILES = ("*.safetensors", *_ALL_BUT_WEIGHTS)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# A shard's header is some 30 KB, a single file's 100 KB: one request is enough for either.
_FIRST_REQUEST = 1 << 17
# What the safetensors library refuses, too.
_LONGEST_HEADER = 100_000_000

# Settings by which a folder has the libraries that read it run its own Python, and the files that may hold them.
_CODE_SETTINGS = ("auto_map", "model_file", "custom_pipelines")
_SETTINGS_FILES = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)

# Checkpoints of the same architecture that were trained to answer other prompts.
_OTHER_PROMPT = re.compile(r"olmOCR-7B-(0225|0725|0825)", re.IGNORECASE)

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_SHA256 = re.compile(r"[0-9a-f]{64}")

_CACHE = "the Hub's cache (HF_HOME)"

# What the text of a client's error can carry: a header that could not be sent, the password of a mirror.
_SECRET = re.compile(r"(?<=Bearer ).*|(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it. *sha256* is None for what lies in git itself, not in the large file storage."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class ModelFolder:
    """A model's folder. *repo_id* and *revision* (a commit hash) are None unless it came from the Hub.

    With *remote_weights* it holds all but the weights; *remote_files* are the ``*.safetensors`` on the Hub.
    """

    path: Path
    repo_id: str | None = None
    revision: str | None = None
    remote_weights: bool = False
    remote_files: tuple[RemoteFile, ...] = ()

    @property
    def name(self) -> str:
        """Its own name, without folder or organisation."""
        return self.repo_id.rpartition("/")[2] if self.repo_id else self.path.resolve().name

    @property
    def where(self) -> str:
        """What a sentence calls it: the repository, or the folder if it came from none."""
        return self.repo_id or str(self.path)


def find_model(model: str, revision: str | None = None) -> ModelFolder:
    """Return the folder of *model*: itself a folder, or a repository that is downloaded from the Hub.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are respected.

    Raises:
        CheckpointError: *model* is neither a folder that can be read nor a repository's name.
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
        UsageError: a revision of a folder is asked for.
    """
    return _folder_here(model, revision) or _download(model, revision, CHECKPOINT_FILES)


def find_settings(model: str, revision: str | None = None) -> ModelFolder:
    """Return the folder of *model* without downloading weights: all its other files, at one commit.

    The weights are on the Hub still (*remote_weights*) unless all of them are in the cache, or *model* is a folder.

    Raises:
        CheckpointError: *model* is neither a folder nor a repository's name, or a repository without safetensors files.
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
        UsageError: a revision of a folder is asked for.
    """
    here = _folder_here(model, revision)
    if here is not None:
        return here
    folder = _download(model, revision, _ALL_BUT_WEIGHTS)
    if _has_weights(folder.path):
        return folder
    return replace(folder, remote_weights=True, remote_files=_list_weights(folder))


def remote_shards(folder: ModelFolder) -> tuple[str, ...]:
    """Return the names of the safetensors files in the repository of *folder*, in order."""
    return tuple(sorted(file.name for file in folder.remote_files))


def remote_header(folder: ModelFolder, shard: str) -> tuple[bytes, int]:
    """Return a remote safetensors file's first bytes (header length, header) and its size; the rest is not downloaded.

    Raises:
        CheckpointError: the repository has no such file, or it does not begin with a length that can be true.
        HubError: the file cannot be read.
    """
    file = _remote_file(folder, shard)
    with _hub_errors_in_sentences(folder.where, folder.revision):
        beginning = _read(folder, file, 0, min(_FIRST_REQUEST, file.size)) if file.size else b""
        end = _header_end(folder, file, beginning)
        if end > len(beginning):
            beginning += _read(folder, file, len(beginning), end)
    return beginning[:end], file.size


def missing_files(folder: ModelFolder) -> tuple[RemoteFile, ...]:
    """Return the weights of *folder* that are to be downloaded: not in the Hub's cache, and named by the index."""
    shards = _indexed_shards(folder.path) or remote_shards(folder)
    return tuple(file for file in folder.remote_files if file.name in shards and not (folder.path / file.name).exists())


def download_weights(folder: ModelFolder) -> ModelFolder:
    """Download all shards of *folder* into the Hub's cache; a second call goes on where the first one stopped.

    Raises:
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
    """
    if not folder.remote_weights:
        return folder
    shards = _indexed_shards(folder.path) or remote_shards(folder)
    _download(folder.where, folder.revision, tuple(glob.escape(shard) for shard in shards))
    # huggingface_hub 1 returns what it has, without an error, where the Hub cannot be reached.
    missing = [shard for shard in shards if not (folder.path / shard).is_file()]
    if missing:
        raise HubError(
            f"{folder.where} is not complete in {folder.path}, which lacks {', '.join(missing[:5])}; "
            "check the network (and HF_HUB_OFFLINE), then run it again"
        )
    return replace(folder, remote_weights=False)


def fetch_shard(
    folder: ModelFolder, shard: str, into: Path, patience: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
) -> Path:
    """Download one remote shard into the folder *into*, and not into the cache; return its path there.

    What a broken connection leaves (``.incomplete``) is gone on from: after each pause of *patience* (seconds) within
    one call, and in the next call. The shard appears when its size, and its SHA-256 if the Hub states one, are right.

    Raises:
        CheckpointError: the repository has no such file.
        HubError: the shard cannot be downloaded, or is not what the Hub says that it is.
        OutputError: *into* cannot be written, or the disk is full.
    """
    file = _remote_file(folder, shard)
    target, incomplete = into / shard, into / f"{shard}.incomplete"
    with _hub_errors_in_sentences(folder.where, folder.revision, written=str(incomplete)):
        into.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            target.replace(incomplete)  # to be checked again: it may be of another revision, or damaged since
        _complete(folder, file, incomplete, patience)
        _require_intact(folder, file, incomplete)
        incomplete.replace(target)
    return target


def shard_sha256(folder: ModelFolder, shard: str) -> str | None:
    """Return the SHA-256 that the Hub states for a shard, without asking it again; None where none is known."""
    stated = [file.sha256 for file in folder.remote_files if file.name == shard]
    if stated:
        return stated[0]
    path = folder.path / shard
    if folder.repo_id is None or not path.is_symlink():
        return None
    # One link far and no further: the blob, named by its SHA-256, may be a link itself, to a file with another name.
    blob = path.readlink().name
    return blob if _SHA256.fullmatch(blob) else None


def _folder_here(model: str, revision: str | None) -> ModelFolder | None:
    """Return *model* as a folder on this disk; None if it is the name of a repository."""
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            _require_no_revision(model, revision)
            return ModelFolder(path)
        if path.exists() or not _REPO_ID.fullmatch(model):
            raise _no_model(model)
    except (OSError, RuntimeError) as error:  # a folder that may not be entered, a name too long, ~nobody
        raise _no_model(model) from error
    return None


def read_config(folder: ModelFolder) -> dict[str, Any]:
    """Read config.json and refuse a model that would be asked wrongly, or that brings code of its own.

    Raises:
        CheckpointError: no checkpoint, of a family that we do not support, or one that would run its own code.
    """
    config = read_config_of(folder, {ARCHITECTURE: MODEL_TYPE})
    name = other_prompt(folder, config)
    if name:
        raise CheckpointError(
            f"{folder.where} looks like {name}, which was trained on another prompt and would be "
            f"asked wrongly; take {BF16_REPOSITORY} instead"
        )
    return config


def read_config_of(folder: ModelFolder, families: Mapping[str, str]) -> dict[str, Any]:
    """Read config.json of a model of one of *families* (architecture -> model_type) that brings no code of its own.

    Raises:
        CheckpointError: no checkpoint, of another family, or one that would run its own code.
    """
    config = read_json(folder.path / "config.json")
    refuse_code(folder)
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    model_type = families.get(architecture) if isinstance(architecture, str) else None
    if model_type is None:
        raise CheckpointError(
            f"{folder.where} is a {architecture}, which is not supported; "
            f"take a {' or '.join(families)}, like olmOCR-2 ({BF16_REPOSITORY})"
        )
    if config.get("model_type") != model_type:
        raise CheckpointError(f"{folder.where} has model_type {config.get('model_type')!r}, not {model_type!r}")
    return config


def other_prompt(folder: ModelFolder, config: Mapping[str, Any]) -> str | None:
    """Return the olmOCR that *folder* looks like if that was trained on another prompt than olmOCR-2's."""
    name = _OTHER_PROMPT.search(f"{folder.name} {config.get('_name_or_path', '')}")
    return name[0] if name else None


def refuse_code(folder: ModelFolder) -> None:
    """Refuse a folder whose settings name Python code of its own.

    Raises:
        CheckpointError: they do, or one of the files is no JSON object.
    """
    for path in (folder.path / name for name in _SETTINGS_FILES):
        settings = read_json(path) if path.is_file() else {}
        found = [key for key in _CODE_SETTINGS if key in settings]
        if found:
            raise CheckpointError(
                f"{path} has {found[0]}, which would run Python code from the folder; "
                f"no olmOCR model needs that, remove it if you trust the rest"
            )


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is no checkpoint: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def _require_no_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise UsageError(f"{model} is a folder here, which has no revision {revision}; leave the revision out")


def _no_model(model: str) -> CheckpointError:
    return CheckpointError(
        f"{model} is no folder that can be read; give a model's folder, or a Hub repository like {BF16_REPOSITORY}"
    )


def _download(repo_id: str, revision: str | None, patterns: tuple[str, ...]) -> ModelFolder:
    with _hub_errors_in_sentences(repo_id, revision):
        from huggingface_hub import snapshot_download  # a ValueError where HF_ENDPOINT is malformed

        path = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns)))
    return ModelFolder(path, repo_id, revision=path.name)


def _has_weights(path: Path) -> bool:
    return all((path / shard).is_file() for shard in _indexed_shards(path) or ("model.safetensors",))


def _indexed_shards(path: Path) -> tuple[str, ...]:
    """Return the shards that the index names; none if there is no index, or one that the plan will refuse."""
    index = path / INDEX_FILE
    weight_map = read_json(index).get("weight_map") if index.is_file() else None
    return tuple(sorted({str(shard) for shard in weight_map.values()})) if isinstance(weight_map, dict) else ()


def _list_weights(folder: ModelFolder) -> tuple[RemoteFile, ...]:
    """Ask the Hub for the safetensors files of a repository, those in its folders left out."""
    with _hub_errors_in_sentences(folder.where, folder.revision):
        from huggingface_hub import HfApi

        files = HfApi().model_info(folder.where, revision=folder.revision, files_metadata=True).siblings or []
    weights = [file for file in files if file.rfilename.endswith(".safetensors") and _is_plain_name(file.rfilename)]
    if not weights:
        raise _no_safetensors(folder, [file.rfilename for file in files if file.rfilename.endswith(_PICKLES)])
    return tuple(_as_remote_file(folder, file) for file in weights)


def _is_plain_name(name: str) -> bool:
    return not set(name) & set("/\\")


def _as_remote_file(folder: ModelFolder, file: Any) -> RemoteFile:
    if file.size is None:
        raise HubError(
            f"the Hub does not state the size of {file.rfilename} in {folder.where}; try another HF_ENDPOINT"
        )
    return RemoteFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None)


def _no_safetensors(folder: ModelFolder, pickles: list[str]) -> CheckpointError:
    if pickles:
        return CheckpointError(
            f"{folder.where} has its weights as pickle files only ({pickles[0]}), which can run code and are never "
            "loaded; choose a repository with *.safetensors files"
        )
    return CheckpointError(f"{folder.where} is no checkpoint: it has no *.safetensors files")


def _remote_file(folder: ModelFolder, shard: str) -> RemoteFile:
    for file in folder.remote_files:
        if file.name == shard:
            return file
    raise CheckpointError(f"{folder.where} lacks the shard {shard}; choose a repository or revision that is complete")


def _header_end(folder: ModelFolder, file: RemoteFile, beginning: bytes) -> int:
    """Return where the header of a safetensors file ends, by the eight bytes at its start."""
    (length,) = struct.unpack("<Q", beginning[:8].ljust(8, b"\0"))
    if length > min(_LONGEST_HEADER, file.size - 8):
        raise CheckpointError(
            f"{file.name} in {folder.where} is damaged or no safetensors file: no header of {length} bytes "
            f"fits into its {file.size}; choose another revision"
        )
    return 8 + int(length)


def _read(folder: ModelFolder, file: RemoteFile, first: int, end: int) -> bytes:
    with closing(_part(folder, file, first, end)) as chunks:
        return b"".join(chunks)


def _part(folder: ModelFolder, file: RemoteFile, first: int, end: int) -> Generator[bytes]:
    """Yield the bytes from *first* to *end* of a remote file, also from a server that knows no ranges."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(folder.where, file.name, revision=folder.revision)
    # Compressed, the bytes would have other positions.
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


def _complete(folder: ModelFolder, file: RemoteFile, incomplete: Path, patience: tuple[float, ...]) -> None:
    """Download what *incomplete* lacks; a try that brought something restores all of the *patience*."""
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
    """Tell whether a failure may be over in a moment: a broken connection, a busy Hub; not a refusal."""
    from huggingface_hub.errors import HfHubHTTPError

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    return status is None or status in (408, 429) or status >= 500


def _require_intact(folder: ModelFolder, file: RemoteFile, path: Path) -> None:
    """Remove a download that is not what the Hub lists, and say so."""
    if path.stat().st_size != file.size or (file.sha256 is not None and sha256_of(path) != file.sha256):
        path.unlink()
        raise HubError(
            f"{file.name} of {folder.where} is not the file that the Hub lists (by size or SHA-256); "
            "it has been removed, run it again to download it anew"
        )


@contextmanager
def _hub_errors_in_sentences(repo_id: str, revision: str | None, written: str = _CACHE) -> Iterator[None]:
    """Raise what huggingface_hub raises in the block as an OlmocrError; *written* is what the block writes."""
    # HTTPError is httpx's with huggingface_hub 1 and httpx2's with 2, and no OSError: a connection that is reset.
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except HFValidationError as error:
        raise _no_model(repo_id) from error
    except (HTTPError, OSError, ValueError, ImportError) as error:  # ImportError: a SOCKS proxy without socksio
        raise _hub_error(error, repo_id, revision, written) from error


def _hub_error(error: Exception, repo_id: str, revision: str | None, written: str) -> OlmocrError:
    """Return the sentence for what huggingface_hub raised; a server's own text is left out, it may repeat the token."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the Hub was reached, and this is what it answered
    if isinstance(error, GatedRepoError):
        return HubError(f"{repo_id} is gated: accept its terms on the Hub, then set HF_TOKEN or run 'hf auth login'")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            f"{repo_id} is neither a folder here nor a repository on the Hub that you may read; "
            "check the name, or set HF_TOKEN if it is private"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{repo_id} has no revision {revision or 'main'}; choose a branch, tag or commit that it has")
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return HubError(
            f"{repo_id} is no folder here, and the Hub cannot be reached; "
            "check the network (and HF_HUB_OFFLINE, HF_ENDPOINT), then run it again"
        )
    if isinstance(error, HfHubHTTPError):
        return _refused(repo_id, error.response.status_code)
    if isinstance(error, OSError) and error.errno is not None:
        return output_error(error, written)
    reason = _SECRET.sub("***", str(error).strip().split("\n")[0]) or type(error).__name__
    return HubError(f"{repo_id} could not be downloaded: {reason}; run it again, files that are whole are kept")


def _refused(repo_id: str, status: int) -> HubError:
    if status in (401, 403):
        return HubError(
            f"the Hub refuses {repo_id} ({status}); check that HF_TOKEN is valid and may read it, or 'hf auth login'"
        )
    return HubError(f"{repo_id} could not be downloaded: the Hub answered {status}; run it again later")
