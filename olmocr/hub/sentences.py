"""Exceptions of huggingface_hub -> one sentence: what, which repository, what to do; without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from olmocr.errors import CheckpointError, HubError, OlmocrError, output_error, reason_of
from olmocr.hub.replies import ReplyError, replies_looked_at
from olmocr.model_folder import BF16_REPOSITORY
from olmocr.text import one_line

_CACHE = "the Hub's cache (HF_HOME)"

# What the text of an error can contain: a token, alone or in a header that could not be sent; a mirror's password; a
# signed address of the storage, with which anyone may write there. (hf_xet is a library.)
_SECRET = re.compile(r"(?<=Bearer ).*|hf_(?!xet|transfer|hub)\w+|(?<=://)[^/@\s]+(?=@)")
_QUERY = re.compile(r"[?&]")
_SIGNED = re.compile(r"(?i:signature|token|credential)=")


def without_secrets(text: str) -> str:
    """Return a message of a library or a server on one line, shortened, without possible secrets."""
    return one_line(_SECRET.sub("***", " ".join(map(_unsigned, text.split()))))[:300]


def _unsigned(word: str) -> str:
    """Return a word without its query, if that is signed."""
    query = _QUERY.search(word)
    return word[: query.start()] + "***" if query and _SIGNED.search(word, query.end()) else word


@contextmanager
def reading_errors(repo_id: str, revision: str | None, written: str = _CACHE) -> Iterator[None]:
    """Turn exceptions of huggingface_hub in the block into an OlmocrError; *written* is what the block writes."""
    from huggingface_hub.errors import HFValidationError

    try:
        with replies_looked_at():
            yield
    except OlmocrError:
        raise
    except HFValidationError as error:
        raise not_a_model(repo_id) from error
    except Exception as error:  # a client that receives nonsense can fail in any way
        raise _reading_error(error, repo_id, revision, written) from error


def is_unreachable(error: BaseException | None) -> bool:
    """Return whether this exception of huggingface_hub means that nobody answers, so that only the cache is left."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, HTTPError | OfflineModeIsEnabled)


def _reading_error(error: Exception, repo_id: str, revision: str | None, written: str) -> OlmocrError:
    """Return the sentence for an exception of huggingface_hub, without server text, which may repeat the token."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,  # httpx's with huggingface_hub 1, httpx2's with 2; not an OSError
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, ReplyError):
        return HubError(f"{repo_id} could not be downloaded: the Hub {error}; try another HF_ENDPOINT")
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the Hub was reached, and this is its answer
    if isinstance(error, GatedRepoError):
        return HubError(f"{repo_id} is gated: accept its terms on the Hub, then set HF_TOKEN or run 'hf auth login'")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            f"{repo_id} is not a local folder, and not a repository on the Hub that you may read; "
            "check the name, or set HF_TOKEN if it is private"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{repo_id} has no revision {revision or 'main'}; choose an existing branch, tag or commit")
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return HubError(
            f"{repo_id} is not a local folder, and the Hub cannot be reached; "
            "check the network (and HF_HUB_OFFLINE, HF_ENDPOINT), then run it again"
        )
    if isinstance(error, HfHubHTTPError):
        return _refused(repo_id, error.response.status_code)
    if isinstance(error, OSError) and error.errno is not None:
        return output_error(error, written)
    reason = without_secrets(reason_of(error))
    # ImportError: a SOCKS proxy without socksio.
    if not isinstance(error, HTTPError | OSError | ValueError | ImportError):
        return HubError(
            f"{repo_id} could not be downloaded: the Hub's answer cannot be used ({type(error).__name__}: "
            f"{reason}); try another HF_ENDPOINT"
        )
    return HubError(f"{repo_id} could not be downloaded: {reason}; run it again (complete files are kept)")


def says_no(error: HubError) -> bool:
    """Return whether a download's *error* is the Hub's answer that there is no such repository for us."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    cause = error.__cause__
    return any(
        isinstance(each, GatedRepoError | RepositoryNotFoundError) for each in (cause, cause and cause.__cause__)
    )


def _refused(repo_id: str, status: int) -> HubError:
    if status in (401, 403):
        return HubError(
            f"the Hub refuses {repo_id} ({status}); check that HF_TOKEN is valid and may read it, or 'hf auth login'"
        )
    return HubError(f"{repo_id} could not be downloaded: the Hub answered {status}; run it again later")


def not_a_model(model: str) -> CheckpointError:
    """Return the sentence for a name that is not a local folder and not a repository's."""
    return CheckpointError(
        f"{model} is not a readable folder; give a model's folder, or a Hub repository like {BF16_REPOSITORY}"
    )


@contextmanager
def writing_errors(what: str, endpoint: str | None = None) -> Iterator[None]:
    """Turn exceptions of huggingface_hub into a HubError; *endpoint* is the Hub's, if not ``HF_ENDPOINT``."""
    try:
        with replies_looked_at(endpoint):
            yield
    except OlmocrError:
        raise
    except Exception as error:  # a client that receives nonsense can fail in any way
        # A failed upload raises a RuntimeError, whose cause says why.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise HubError(_writing_error(cause, what)) from error


_AGAIN = "run the same command again (uploaded files are not sent again)"

# The meaning of a status, and what to do.
_MEANINGS = {
    401: ("does not know the token", "set HF_TOKEN to a valid one, or run 'hf auth login'"),
    402: ("asks for a payment", "check the account's settings"),
    403: ("refuses it", "check what the token may do and how much room there is, then run the same command again"),
    404: ("does not know it, or this token may not see it", "check the name"),
    409: ("now has it in another state", _AGAIN),
    412: ("got another commit meanwhile", "look at it, then run the same command again"),
    413: ("says that it is too large", "make room, then run the same command again"),
    429: ("asks for patience", f"later, {_AGAIN}"),
}
_UNKNOWN = ("rejects it", _AGAIN)
_BROKEN = ("failed internally", _AGAIN)


def _writing_error(error: BaseException, what: str) -> str:
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HTTPError,
        RevisionNotFoundError,
    )

    if isinstance(error, ReplyError):
        return f"{what}: the Hub {error}; check HF_ENDPOINT, then run the same command again"
    if isinstance(error, RevisionNotFoundError):
        return f"{what} has no such revision; name an existing branch"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        meaning, advice = _MEANINGS.get(status, _BROKEN if status >= 500 else _UNKNOWN)
        said = without_secrets(error.server_message or "")
        return f"{what}: the Hub {meaning} ({status}{': ' + said if said else ''}); {advice}"
    reason = without_secrets(reason_of(error))
    if not isinstance(error, HTTPError | OSError | ValueError | RuntimeError | ImportError):
        return (
            f"{what}: the Hub's answer cannot be used ({type(error).__name__}: {reason}); check HF_ENDPOINT, "
            "then run the same command again"
        )
    return f"{what}: the connection to the Hub broke off ({reason}); {_AGAIN}"
