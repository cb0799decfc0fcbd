"""A model, by folder or by Hub repository -> a folder on this disk, of a family that we support.

The one door to huggingface_hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmocr.errors import CheckpointError, HubError, OlmocrError, UsageError, output_error

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
MODEL_TYPE = "qwen2_5_vl"
BF16_REPOSITORY = "allenai/olmOCR-2-7B-1025"

# What a checkpoint consists of. No pickle (*.bin, *.pt) and no code (*.py) is ever asked for.
CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "LICENSE*")

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

# What the text of a client's error can carry: a header that could not be sent, the password of a mirror.
_SECRET = re.compile(r"(?<=Bearer ).*|(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class ModelFolder:
    """A model's folder. *repo_id* and *revision* (a commit hash) are None unless it came from the Hub."""

    path: Path
    repo_id: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """Its own name, without folder or organisation."""
        return self.repo_id.rpartition("/")[2] if self.repo_id else self.path.resolve().name


def find_model(model: str, revision: str | None = None) -> ModelFolder:
    """Return the folder of *model*: itself a folder, or a repository that is downloaded from the Hub.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are respected.

    Raises:
        CheckpointError: *model* is neither a folder that can be read nor a repository's name.
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
        UsageError: a revision of a folder is asked for.
    """
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            _require_no_revision(model, revision)
            return ModelFolder(path)
        if path.exists() or not _REPO_ID.fullmatch(model):
            raise _no_model(model)
    except (OSError, RuntimeError) as error:  # a folder that may not be entered, a name too long, ~nobody
        raise _no_model(model) from error
    return _download(model, revision)


def read_config(folder: ModelFolder) -> dict[str, Any]:
    """Read config.json and refuse a model that would be asked wrongly, or that brings code of its own.

    Raises:
        CheckpointError: no checkpoint, of a family that we do not support, or one that would run its own code.
    """
    config = read_config_of(folder, {ARCHITECTURE: MODEL_TYPE})
    name = other_prompt(folder, config)
    if name:
        raise CheckpointError(
            f"{folder.repo_id or folder.path} looks like {name}, which was trained on another prompt and would be "
            f"asked wrongly; take {BF16_REPOSITORY} instead"
        )
    return config


def read_config_of(folder: ModelFolder, families: Mapping[str, str]) -> dict[str, Any]:
    """Read config.json of a model of one of *families* (architecture -> model_type) that brings no code of its own.

    Raises:
        CheckpointError: no checkpoint, of another family, or one that would run its own code.
    """
    config = read_json(folder.path / "config.json")
    _refuse_code(folder)
    where = folder.repo_id or str(folder.path)
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    model_type = families.get(architecture) if isinstance(architecture, str) else None
    if model_type is None:
        raise CheckpointError(
            f"{where} is a {architecture}, which is not supported; "
            f"take a {' or '.join(families)}, like olmOCR-2 ({BF16_REPOSITORY})"
        )
    if config.get("model_type") != model_type:
        raise CheckpointError(f"{where} has model_type {config.get('model_type')!r}, not {model_type!r}")
    return config


def other_prompt(folder: ModelFolder, config: Mapping[str, Any]) -> str | None:
    """Return the olmOCR that *folder* looks like if that was trained on another prompt than olmOCR-2's."""
    name = _OTHER_PROMPT.search(f"{folder.name} {config.get('_name_or_path', '')}")
    return name[0] if name else None


def _refuse_code(folder: ModelFolder) -> None:
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


def _download(repo_id: str, revision: str | None) -> ModelFolder:
    # HTTPError is httpx's with huggingface_hub 1 and httpx2's with 2, and no OSError: a connection that is reset.
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        from huggingface_hub import snapshot_download  # a ValueError where HF_ENDPOINT is malformed

        path = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(CHECKPOINT_FILES)))
    except HFValidationError as error:
        raise _no_model(repo_id) from error
    except (HTTPError, OSError, ValueError, ImportError) as error:  # ImportError: a SOCKS proxy without socksio
        raise _hub_error(error, repo_id, revision) from error
    return ModelFolder(path, repo_id, revision=path.name)


def _hub_error(error: Exception, repo_id: str, revision: str | None) -> OlmocrError:
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
        return output_error(error, "the Hub's cache (HF_HOME)")
    reason = _SECRET.sub("***", str(error).strip().split("\n")[0])
    return HubError(f"{repo_id} could not be downloaded: {reason}; run it again, files that are whole are kept")


def _refused(repo_id: str, status: int) -> HubError:
    if status in (401, 403):
        return HubError(
            f"the Hub refuses {repo_id} ({status}); check that HF_TOKEN is valid and may read it, or 'hf auth login'"
        )
    return HubError(f"{repo_id} could not be downloaded: the Hub answered {status}; run it again later")
