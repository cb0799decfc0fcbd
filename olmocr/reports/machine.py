"""The measurements of one machine, as data: machine_report.json (docs/doctor.md)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MACHINE_REPORT_FILE = "machine_report.json"
MACHINE_MARKDOWN_FILE = "machine_report.md"
MACHINE_REPORT_VERSION = 1

PartState = Literal["measured", "wrong", "failed", "unmeasured"]
"""*wrong*: measured, but not as it should be. *failed*: started, but not finished. *unmeasured*: not started."""

KnownBytes = Literal["same", "other", "unknown"]
"""Whether bytes match the known ones; *unknown* if none are known for this kind of machine."""

Reader = Literal["olmocr", "mlx_vlm.generate", "mlx_vlm.server"]

INTERRUPTED = "it was interrupted"
"""Why a part is unmeasured if a person did not wait for it."""

BUSY = 0.3
"""The load per processor before the start above which other programs may have affected the measurements."""


@dataclass(frozen=True)
class MeasuredPart:
    """One part of the measurement. *why* says in sentences why it is not measured, or what is wrong."""

    name: str
    state: PartState
    why: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class DescribedMachine:
    """The machine. *device* is where MLX computed, *gpu* is its name if MLX reports one, sizes are in bytes.

    *load* is the average number of processes that ran or waited for one of the *processors* in the minute before the
    measurement.
    """

    chip: str
    architecture: str
    system: str
    processors: int
    memory: int
    available_memory: int | None
    device: str | None
    gpu: str | None
    load: float


@dataclass(frozen=True)
class MeasuredConversion:
    """A conversion of the demo checkpoint. *sha256* covers the names and hashes of all its weight files."""

    recipe: str
    method: str
    seconds: float
    peak_memory: int
    processor: str
    weight_bytes: int
    sha256: str
    known: KnownBytes


@dataclass(frozen=True)
class MeasuredPage:
    """The result for one page; *text_sha256* shows whether two machines read the same text."""

    document: str
    page_number: int
    status: str
    attempts: int
    character_error_rate: float
    output_tokens: int
    text_sha256: str


@dataclass(frozen=True)
class MeasuredAnswers:
    """The demo's pages through the complete pipeline; *seconds* is for all of them, without loading the model."""

    longest_side: int
    seconds: float
    valid_pages: int
    mean_character_error_rate: float
    pages: tuple[MeasuredPage, ...]


@dataclass(frozen=True)
class MeasuredReading:
    """The same pages by one reader, once a round; *seconds* has one entry for each round.

    *passes_a_token* is the number of passes over the weights for each token of an answer; None if it is not counted.
    *peak_memory* is the most that MLX allocated, in bytes, or for a server the peak memory of its processes.
    *same_texts* counts pages whose text, in all rounds, equals that of the engine with one page at a time and without
    drafts.
    """

    reader: Reader
    at_once: int
    has_drafts: bool
    weights: str
    pages: int
    seconds: tuple[float, ...]
    tokens: int
    passes_a_token: float | None
    peak_memory: int
    same_texts: int

    @property
    def pages_a_minute(self) -> float:
        """The median over the rounds."""
        return statistics.median(60 * self.pages / each for each in self.seconds)

    @property
    def tokens_a_second(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.tokens / each for each in self.seconds)


@dataclass(frozen=True)
class MeasuredPass:
    """One pass over the weights with this many *tokens* of one answer; *seconds* is the median of the rounds."""

    tokens: int
    seconds: float


@dataclass(frozen=True)
class MeasuredPrefill:
    """One step that reads *tokens* of a prompt after *behind* others; *seconds* is the median of the rounds."""

    tokens: int
    behind: int
    seconds: float


@dataclass(frozen=True)
class MeasuredPasses:
    """The cost of passes over the weights, after *context* tokens of the same answer."""

    context: int
    rounds: int
    passes: tuple[MeasuredPass, ...]
    prefills: tuple[MeasuredPrefill, ...]


@dataclass(frozen=True)
class MeasuredVision:
    """A page through this package's vision tower, and through mlx-vlm's own with the same weights.

    *longest_side* is in pixels. *difference* is the largest difference of a feature, divided by the largest feature.
    """

    longest_side: int
    patches: int
    rounds: int
    seconds: float
    stock_seconds: float
    difference: float


@dataclass(frozen=True)
class MeasuredGuidance:
    """The same pages with and without a forced front matter; *seconds* and *plain_seconds* have one entry a round.

    *valid* and *plain_valid* count answers that follow the format.
    """

    pages: int
    seconds: tuple[float, ...]
    plain_seconds: tuple[float, ...]
    valid: int
    plain_valid: int
    same_texts: int


@dataclass(frozen=True)
class MemoryLimit:
    """One of MLX's limits in bytes: the value that was set, the value in force, and the most memory used under it.

    *held*, the latter, is None if MLX does not report it.
    """

    name: Literal["wired", "memory", "cache"]
    wanted: int
    in_force: int
    held: int | None


@dataclass(frozen=True)
class MeasuredMemory:
    """Bytes while pages were read. *limits* is empty on a device without limits.

    *recommended* is what the GPU's driver lets a process keep. *active* is the size of MLX's arrays when the model was
    loaded, *peak* their largest size while pages were read, and *process* the peak memory of the process.
    """

    recommended: int | None
    limits: tuple[MemoryLimit, ...]
    active: int
    peak: int
    process: int


@dataclass(frozen=True)
class MeasuredGrowth:
    """Memory in bytes while one engine reads many pages.

    *active* is MLX's arrays, *resident* the process. *early* is the minimum over the second quarter of the pages,
    *late* over the last; the first quarter does not count, since it also fills caches of a fixed size.
    """

    pages: int
    seconds: float
    early_active: int
    late_active: int
    early_resident: int
    late_resident: int


@dataclass(frozen=True)
class MeasuredServing:
    """``olmocr serve``, used once: started, asked for a page and a document, and stopped.

    *page_right* and *document_right* say whether the text matches the truth within the limit of a smoke test.
    """

    start_seconds: float
    page_seconds: float
    document_seconds: float
    document_pages: int
    page_right: bool
    document_right: bool
    exit_code: int


@dataclass(frozen=True)
class MeasuredResumption:
    """A run over documents that was killed when *pages_before* of *pages* pages had been saved, and run again.

    *asked_again* counts saved pages that were read again, *missing* pages that were lost.
    """

    pages: int
    pages_before: int
    asked_again: int
    missing: int


@dataclass(frozen=True)
class MachineReport:
    """The measurements of one machine. What was not measured is None or empty, and *parts* says why.

    *model* is the folder's own name, without its path, *weights* the SHA-256 of each weight file; *is_quick* means
    few pages and rounds.
    """

    machine: DescribedMachine
    model: str
    weights: Mapping[str, str]
    is_demo: bool
    is_quick: bool
    parts: tuple[MeasuredPart, ...]
    conversions: tuple[MeasuredConversion, ...]
    answers: MeasuredAnswers | None
    readings: tuple[MeasuredReading, ...]
    passes: MeasuredPasses | None
    vision: MeasuredVision | None
    guidance: MeasuredGuidance | None
    memory: MeasuredMemory | None
    growth: MeasuredGrowth | None
    serving: MeasuredServing | None
    resumption: MeasuredResumption | None
    date: str
    seconds: float
    versions: Mapping[str, str]
    version: int = MACHINE_REPORT_VERSION

    @property
    def is_good(self) -> bool:
        """Whether nothing failed and nothing was found wrong."""
        return all(part.state not in ("failed", "wrong") for part in self.parts)

    @property
    def was_interrupted(self) -> bool:
        """Whether a person stopped the measurement before its end."""
        return any(INTERRUPTED in part.why for part in self.parts)

    @property
    def is_busy(self) -> bool:
        """Whether other programs ran before the measurement started."""
        return self.machine.load > BUSY * self.machine.processors
