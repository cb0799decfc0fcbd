"""What can go wrong, each kind as a class, and the exit status a command ends with.

OlmocrError                   a failure that is not a bug, in one sentence
├── UsageError                2: options that do not fit together; give others
├── MissingDependencyError    3: an extra of this package; install it
├── CheckpointError           4: a model folder that is damaged, or of another family; take another
│   └── SourceChangedError      4: the source changed since it was read; start over (olmocr.conversion.shards)
├── PlanError                 5: a conversion that cannot be done as requested; change the request
├── OutputError               6: something cannot be written; make room, or choose another place
│   └── UnwritableNameError     6: the disk does not accept a document's name; only it fails
├── InputError                7: a document or an answer that cannot be read; the others continue
├── PageResponseError         7: an answer that breaks the page's format; the page is asked again (olmocr.page)
├── ServerError               8: a model server that cannot be used at all; a person must help
│   └── ServerUnavailableError  8: one that does not answer now; the run waits for it
├── AnswerError               8: a server's reply is not an answer; it counts as an attempt at the page
├── HubError                  10: the Hub does not answer or refuses; check the network, the name or the token
├── GateFailedError           11: a model that must not be published as it is (olmocr.publish.gates)
├── NotAFullRunError          11: a partial benchmark, which does not give a score (olmocr.publish.eval_results)
├── DisagreementError         11: a divergence that is not as predicted (olmocr.conversion.calibrated.allocation.bits)
├── PartFailedError           1: a part of a machine's measurement that failed (olmocr.doctor.measure.apart)
└── RequestError              1: a request that the server answers with another status (olmocr.serving.refusals)
"""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit statuses of every command (docs/exit-codes.md)."""

    OK = 0
    BUG = 1
    USAGE = 2
    MISSING_DEPENDENCY = 3
    BAD_CHECKPOINT = 4
    PLAN_DOES_NOT_FIT = 5
    OUTPUT = 6
    UNREADABLE_INPUT = 7
    SERVER = 8
    SOME_DOCUMENTS_FAILED = 9
    HUB = 10
    GATE_FAILED = 11
    INTERRUPTED = 130


class OlmocrError(Exception):
    """A failure that is not a bug. Its text is one sentence: what, which one, what to do."""

    exit_code = ExitCode.BUG


class UsageError(OlmocrError):
    """The options do not fit together."""

    exit_code = ExitCode.USAGE


class MissingDependencyError(OlmocrError):
    """An extra of this package is not installed."""

    exit_code = ExitCode.MISSING_DEPENDENCY


class CheckpointError(OlmocrError):
    """A model folder is not a checkpoint, is damaged, or is of a family that we do not support."""

    exit_code = ExitCode.BAD_CHECKPOINT


class PlanError(OlmocrError):
    """A conversion cannot be done as requested."""

    exit_code = ExitCode.PLAN_DOES_NOT_FIT


class OutputError(OlmocrError):
    """Something cannot be written: the folder exists, is read-only, or the disk is full."""

    exit_code = ExitCode.OUTPUT


class UnwritableNameError(OutputError):
    """The disk does not accept a file of this name; otherwise it is fine, and other documents can be written."""


class InputError(OlmocrError):
    """A document or an answer cannot be read."""

    exit_code = ExitCode.UNREADABLE_INPUT


class ServerError(OlmocrError):
    """A model server cannot be used at all: it did not start, refuses the key, or does not have the model."""

    exit_code = ExitCode.SERVER


class ServerUnavailableError(ServerError):
    """A model server does not answer now: refused, reset, timed out, overloaded. Asking again later may help.

    ``retry_after`` is how many seconds the server asked to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AnswerError(OlmocrError):
    """A model server's reply is not an answer: broken JSON, or no text in it. It counts as an attempt at the page."""

    exit_code = ExitCode.SERVER


class HubError(OlmocrError):
    """The Hub cannot be reached, does not know the repository, or refuses access."""

    exit_code = ExitCode.HUB


def reason_of(error: BaseException) -> str:
    """Return the first line of *error*'s message, or its kind if it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


def output_error(error: OSError, what: str) -> OutputError:
    """Return the sentence for an operating system error met while writing *what*."""
    if error.errno in _NO_SPACE:
        # The file is too large for its file system, or for a limit of this process.
        larger = ", on a disk other than FAT32, whose files cannot exceed 4 GiB" if error.errno == errno.EFBIG else ""
        return OutputError(f"the disk is full: {what} could not be written; free some space and run it again{larger}")
    kind = UnwritableNameError if error.errno in _NO_NAME else OutputError
    return kind(f"{what} could not be written: {error.strerror or error}")


def why_no_port(error: OSError) -> str:
    """Return why it is impossible to listen at a port, to complete a sentence."""
    return "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
