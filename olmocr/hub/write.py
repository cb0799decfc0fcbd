"""A repository on the Hub: its content, and commits to it. The only module that writes to the Hub.

Tokens come from where huggingface_hub stores them. Their text never appears in our messages.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmocr.errors import HubError
from olmocr.files import temporary_folder
from olmocr.hub.replies import COMMIT, ReplyError
from olmocr.hub.sentences import writing_errors
from olmocr.text import one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LARGEST_REPORT = 50_000_000


@dataclass(frozen=True)
class LocalFile:
    """A file to publish: *content* is set if it is not in the folder, *path* if it is.

    *git_sha1* is git's hash of it, which the Hub lists for files outside its large file storage.
    """

    name: str
    size: int
    sha256: str
    git_sha1: str
    path: Path | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class CommittedFile:
    """A file as the Hub lists it: *sha256* if it is in the large file storage, *git_sha1* if it is in git itself."""

    size: int
    sha256: str | None
    git_sha1: str

    def is_same(self, file: LocalFile) -> bool:
        """Return whether this is *file*, by size and hash."""
        same = self.sha256 == file.sha256 if self.sha256 is not None else self.git_sha1 == file.git_sha1
        return same and self.size == file.size


@dataclass(frozen=True)
class RemoteState:
    """A repository at one commit, *sha*. *new_branch*: the requested branch does not exist; this is main."""

    sha: str
    private: bool
    files: Mapping[str, CommittedFile]
    new_branch: bool = False


@dataclass(frozen=True)
class RemoteCommit:
    """A new commit; *revision* is where it is, and *pull_request* its address if it is only offered."""

    sha: str
    revision: str
    url: str
    pull_request: str | None = None


class Hub:
    """A Hub and the token for it; without arguments, those that huggingface_hub finds."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        with writing_errors("the Hub", endpoint):
            from huggingface_hub import HfApi

            self._api: HfApi = HfApi(endpoint=endpoint, token=token)
        self._token = token
        # Its warnings repeat signed addresses of the storage: anyone who has one may write there.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return writing_errors(what, self.endpoint)

    @property
    def endpoint(self) -> str:
        """Where it is."""
        return self._api.endpoint

    def require_permission(self, repo: str, *, offering: bool = False) -> str:
        """Return the token's owner if, according to the Hub, it may write to *repo*, or open a pull request there.

        Raises:
            HubError: there is no token, it is not valid, or it may not do that.
        """
        from huggingface_hub import get_token

        if self._token is None and get_token() is None:
            raise HubError(
                "there is no token for the Hub; run 'hf auth login', or set HF_TOKEN to a token that may write"
            )
        with self._errors(repo):
            about = self._api.whoami()
            if not isinstance(about, dict) or not isinstance(about.get("name"), str):
                raise ReplyError("does not say whose the token is")
        reason = why_not_writable(about, about["name"] if offering else repo)
        if reason:
            raise HubError(f"the token may not write to {repo}: {reason}; use another token, or another --repo")
        return one_line(about["name"], 100)

    def require_valid_card(self, text: str) -> None:
        """Let the Hub check the card's front matter before anything is uploaded.

        Raises:
            HubError: it rejects it, or does not answer.
        """
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

        with self._errors("the card"):
            asked = {"repoType": "model", "content": text}
            hf_raise_for_status(get_session().post(f"{self.endpoint}/api/validate-yaml", json=asked))

    def read_state(self, repo: str, revision: str | None = None) -> RemoteState | None:
        """Return the content of *repo*; None if there is no such repository (or none that the token may see).

        Raises:
            HubError: the Hub does not answer, or the repository has no such pull request.
        """
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
        from huggingface_hub.hf_api import RepoFile

        new_branch = False
        with self._errors(repo):
            try:
                info = self._api.model_info(repo, revision=revision)
            except RepositoryNotFoundError:
                return None
            except RevisionNotFoundError:
                if revision is None or revision.startswith("refs/"):
                    raise
                info, new_branch = self._api.model_info(repo), True
            entries = self._api.list_repo_tree(repo, recursive=True, revision=info.sha)
            files = {entry.path: _committed_file(entry) for entry in entries if isinstance(entry, RepoFile)}
            sha = _commit_name(info.sha)
        return RemoteState(sha, bool(info.private), files, new_branch)

    def read_text(self, repo: str, sha: str, name: str, size: int) -> str | None:
        """Return a small text file of *repo* at a commit; None if it is not one."""
        if size > _LARGEST_REPORT:
            return None
        with self._errors(repo), temporary_folder() as folder:
            path = self._api.hf_hub_download(repo, name, revision=sha, local_dir=folder)
            return Path(path).read_bytes().decode(errors="replace")

    def create(self, repo: str, *, private: bool) -> None:
        """Create an empty repository.

        Raises:
            HubError: it exists by now, or may not be created.
        """
        with self._errors(repo):
            self._api.create_repo(repo, private=private)

    def create_branch(self, repo: str, branch: str) -> None:
        """Create *branch* from main, unless it exists."""
        with self._errors(repo):
            self._api.create_branch(repo, branch=branch, exist_ok=True)

    def commit(
        self,
        repo: str,
        files: Sequence[LocalFile],
        deleted: Sequence[str],
        message: str,
        *,
        parent: str,
        revision: str,
        create_pr: bool = False,
    ) -> RemoteCommit:
        """Upload *files*, except those on the Hub already, and commit them onto *parent*: all of them, or none.

        Raises:
            HubError: something failed, or *revision* is no longer at *parent*. What was uploaded stays in the Hub's
                storage, where the next try finds it.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with self._errors(repo):
            operations: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in deleted]
            for file in files:
                content = file.content if file.content is not None else str(file.path)
                operations.append(CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=content))
            info = self._api.create_commit(
                repo,
                operations,
                commit_message=message,
                revision=revision,
                parent_commit=parent,
                create_pr=create_pr,
            )
            # huggingface_hub derives the branch from the pull request's number.
            where = info.pr_revision or revision
            return RemoteCommit(_commit_name(info.oid), where, _address(info.commit_url), _address(info.pr_url) or None)

    def read_license(self, repo: str) -> str | None:
        """Return the license in the card of *repo*, or None if it is missing or there is no such repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._errors(repo):
            try:
                stated = self._api.model_info(repo).card_data
            except RepositoryNotFoundError:
                return None
            found = stated.get("license") if stated else None
        return found if isinstance(found, str) else None

    def require_collection(self, slug: str) -> None:
        """Check that the collection exists.

        Raises:
            HubError: it does not exist, or not for this token.
        """
        with self._errors(f"the collection {slug}"):
            self._api.get_collection(slug)

    def collect(self, slug: str, repo: str) -> None:
        """Add *repo* to a collection, unless it is in it."""
        with self._errors(f"the collection {slug}"):
            self._api.add_collection_item(slug, item_id=repo, item_type="model", exists_ok=True)


def why_not_writable(about: Mapping[str, Any], repo: str) -> str | None:
    """Return why a token, described by the Hub as *about*, may not write to *repo*; None if it may."""
    namespace = repo.partition("/")[0]
    orgs = [each for each in _list(about.get("orgs")) if isinstance(each, dict)]
    roles = {each["name"]: each.get("roleInOrg") for each in orgs if isinstance(each.get("name"), str)}
    if namespace != about.get("name") and namespace not in roles:
        return f"{namespace} is not its owner, {one_line(str(about.get('name')), 100)}, or an organisation of theirs"
    if roles.get(namespace) == "read":
        return f"its owner has only read access in {namespace}"
    token = _dict(_dict(about.get("auth")).get("accessToken"))
    if token.get("role") == "read":
        return "it is a read-only token"
    if token.get("role") == "fineGrained" and not _is_scoped(_dict(token.get("fineGrained")), {namespace, repo}):
        return f"it is a fine-grained token without write access to {namespace}"
    return None


def _is_scoped(fine_grained: Mapping[str, Any], names: set[str]) -> bool:
    for scope in map(_dict, _list(fine_grained.get("scoped"))):
        name = _dict(scope.get("entity")).get("name")
        if isinstance(name, str) and name in names and "repo.write" in _list(scope.get("permissions")):
            return True
    return False


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _commit_name(sha: object) -> str:
    if not isinstance(sha, str) or not COMMIT.fullmatch(sha):
        raise ReplyError(f"calls a commit {one_line(repr(sha), 100)}, not 40 hexadecimal digits")
    return sha


def _address(url: object) -> str:
    """Return an address made safe to show, because a server wrote it."""
    return "" if url is None else one_line(str(url), 300)


def _committed_file(entry: Any) -> CommittedFile:
    return CommittedFile(entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
