"""What a store's library raises -> whether to try again, and a sentence without secrets."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Iterator
from typing import Literal

from olmocr.text import one_line

Fault = Literal["gone", "exists", "passes", "refused", "other"]
"""Nothing there; something there; it may work later; wrong credentials; none of these."""

_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_PASSING_CODES = {
    *("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException"),
    *("RequestLimitExceeded", "TooManyRequests", "OperationAborted", "ConditionalRequestConflict", "ServerBusy"),
    *("OperationTimedOut", "BandwidthLimitExceeded", "RequestThrottled", "rateLimitExceeded", "backendError"),
}
_REFUSING_CODES = {
    *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "RequestExpired"),
    *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "RequestTimeTooSkewed"),
    *("AuthenticationFailed", "AuthorizationFailure", "InvalidClientTokenId", "UnrecognizedClientException"),
}
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}

# Classes by name, since only fsspec imports a store's library, and only when it is needed.
_PASSING_CLASSES = {
    *("EndpointConnectionError", "ConnectionClosedError", "ReadTimeoutError", "ConnectTimeoutError"),
    *("HTTPClientError", "IncompleteRead", "IncompleteReadError", "ClientPayloadError", "FSTimeoutError"),
    *("ClientConnectorError", "ServerDisconnectedError", "ClientOSError", "ClientConnectionError"),
    *("ResponseParserError", "ResponseStreamingError", "ServiceRequestError", "ServiceResponseError"),
}
_REFUSING_CLASSES = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"),
    *("UnauthorizedSSOTokenError", "SSOTokenLoadError", "ProfileNotFound", "DefaultCredentialsError"),
    *("RefreshError", "ClientAuthenticationError", "CredentialUnavailableError"),
}
_PASSING_ERRNO = {
    *(errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN, errno.ESTALE, errno.EINTR),
    getattr(errno, "EREMOTEIO", errno.EBUSY),  # what s3fs makes of an internal error; a Mac does not have it
}

_SECRET = re.compile(
    r"(?<=://)[^/@\s]+(?=@)"  # a user and a password
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{8,}\b"
    r"|(?<=[?&])[^\s?]*"  # a signed address's query
    r"|(?<=Bearer )\S+"
    r"|(?i:(?<=key=)|(?<=secret=)|(?<=token=)|(?<=password=)|(?<=signature=)|(?<=key: )|(?<=secret: )|(?<=token: ))\S+"
    r"|\b[A-Za-z0-9/+_-]{32,}={0,2}"  # a key or a token on its own
)


def fault_of(error: BaseException) -> Fault:
    """Return the kind of fault that *error* is, from what the libraries of stores raise."""
    codes, status = set(_codes(error)), _status(error)
    names = {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}
    if isinstance(error, FileExistsError) or "PreconditionFailed" in codes or status == 412:
        return "exists"
    if codes & _REFUSING_CODES or names & _REFUSING_CLASSES or status in (401, 403):
        return "refused"
    if isinstance(error, FileNotFoundError):
        return "gone"
    if codes & _PASSING_CODES or names & _PASSING_CLASSES or status in _PASSING_STATUS:
        return "passes"
    if isinstance(error, PermissionError):
        return "refused"
    is_away = isinstance(error, TimeoutError | ConnectionError | asyncio.TimeoutError)
    is_passing = is_away or (isinstance(error, OSError) and error.errno in _PASSING_ERRNO)
    return "passes" if is_passing else "other"


def reason(error: BaseException) -> str:
    """Return the reason in a few words, without secrets: the store's own code is enough, if it has one."""
    codes = [code for code in _codes(error) if re.fullmatch(r"[A-Za-z]{3,60}", code)]
    if codes:
        expired = " (the credentials have expired)" if codes[0] in _EXPIRED_CODES else ""
        return f"{codes[0]}{expired}"
    said = one_line(str(error).strip() or type(error).__name__)
    return one_line(_SECRET.sub("***", said), 200)


def is_no_bucket(error: BaseException) -> bool:
    """Return whether the bucket itself is missing."""
    return bool({"NoSuchBucket", "ContainerNotFound"} & set(_codes(error))) or "bucket does not exist" in str(error)


def lacks_conditions(error: BaseException) -> bool:
    """Return whether the store, or its library, cannot write only if an object does not exist."""
    is_unknown = isinstance(error, TypeError | NotImplementedError) or "NotImplemented" in set(_codes(error))
    return is_unknown or _status(error) == 501


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _codes(error: BaseException) -> Iterator[str]:
    """Yield the store's own codes for the fault: botocore's responses have one, and Azure's errors."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict) and isinstance(response.get("Error"), dict):
            yield str(response["Error"].get("Code", ""))
        if isinstance(code := getattr(each, "error_code", None), str):
            yield code


def _status(error: BaseException) -> int | None:
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
        for name in ("status_code", "status", "code"):
            value = getattr(each, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
                return value
    return None
