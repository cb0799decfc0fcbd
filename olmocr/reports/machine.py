"""What a machine measured of itself, as data: machine_report.json (docs/doctor.md)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MACHINE_REPORT_FILE = "machine_report.json"
MACHINE_MARKDOWN_FILE = "machine_report.md"
MACHINE_REPORT_VERSION = 1

PartState = Literal["measured", "wrong", "failed", "unmeasured"]
"""*wrong*: measured, and something is not as it should be. *failed*: begun, and not ended. *unmeasured*: not begun."""

KnownBytes = Literal["same", "other", "unknown"]
"""Whether bytes are those that are known; *unknown* where none are known for this kind of machine."""

Reader = Literal["olmocr", "mlx_vlm.generate", "mlx_vlm.server"]

INTERRUPTED = "it was interrupted"
"""Why a part is unmeasured that a person did not wait for."""

BUSY = 0.3
"""Of a machine's processors, before anything was begun, from which on others had a part in what was measured."""


@dataclass(frozen=True)
class MeasuredPart:
    """A part of what was to be measured, and *why* in sentences if it is not measured or something is wrong."""

    name: str
    state: PartState
    why: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class DescribedMachine:
    """What ran. *device* is where MLX computed, *gpu* its name where MLX tells one, sizes are in bytes.

    *load* is how many processes ran or waited for a processor, on average over the last minute, before anything was
    begun; *processors* is how many there are.
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
    """A conversion of the demo checkpoint. *sha256* is that of the names and hashes of all its files of weights."""

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
    """What came of a page; *text_sha256* tells whether two machines read the same."""

    document: str
    page_number: int
    status: str
    attempts: int
    character_error_rate: float
    output_tokens: int
    text_sha256: str


@dataclass(frozen=True)
class MeasuredAnswers:
    """The demo's pages through the whole pipeline; *seconds* are of all of them, with the model loaded before."""

    longest_side: int
    seconds: float
    valid_pages: int
    mean_character_error_rate: float
    pages: tuple[MeasuredPage, ...]


@dataclass(frozen=True)
class MeasuredReading:
    """The same pages by one reader, once a round: *seconds* of each round.

    *passes_a_token* are passes over the weights for each token of an answer, None where nobody counts them.
    *peak_memory* is what MLX had allocated at most, in bytes, or for a server what its processes held. *same_texts*
    counts pages whose text was in all rounds that of the engine with one page at a time and without drafts.
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
    """One pass over the weights that is given so many *tokens* of one answer; *seconds* is the median of the rounds."""

    tokens: int
    seconds: float


@dataclass(frozen=True)
class MeasuredPrefill:
    """So many *tokens* of a prompt, read in one step behind others; *seconds* is the median of the rounds."""

    tokens: int
    behind: int
    seconds: float


@dataclass(frozen=True)
class MeasuredPasses:
    """What a pass over the weights costs, behind *context* tokens of the same answer."""

    context: int
    rounds: int
    passes: tuple[MeasuredPass, ...]
    prefills: tuple[MeasuredPrefill, ...]


@dataclass(frozen=True)
class MeasuredVision:
    """A page through the vision tower, by this package and by mlx-vlm's own tower with the same weights.

    *longest_side* is in pixels, *difference* the largest one of a feature over the largest feature.
    """

    longest_side: int
    patches: int
    rounds: int
    seconds: float
    stock_seconds: float
    difference: float


@dataclass(frozen=True)
class MeasuredGuidance:
    """The same pages with and without the front matter's form forced; *seconds* of each round.

    *valid* and *plain_valid* count answers that hold the format.
    """

    pages: int
    seconds: tuple[float, ...]
    plain_seconds: tuple[float, ...]
    valid: int
    plain_valid: int
    same_texts: int


@dataclass(frozen=True)
class MemoryLimit:
    """A limit of MLX's in bytes: what it was set to, what MLX says it is, and the most that was held against it.

    *held* is None where MLX does not tell.
    """

    name: Literal["wired", "memory", "cache"]
    wanted: int
    in_force: int
    held: int | None


@dataclass(frozen=True)
class MeasuredMemory:
    """Bytes while pages were read. *limits* are none on a device that has none.

    *recommended* is what the GPU's driver lets a process keep, *active* what MLX's arrays took when the model was
    loaded, *peak* the most that they took while pages were read, and *process* the most that the process had.
    """

    recommended: int | None
    limits: tuple[MemoryLimit, ...]
    active: int
    peak: int
    process: int


@dataclass(frozen=True)
class MeasuredGrowth:
    """Bytes after each page of many, read by one engine.

    *active* are MLX's arrays, *resident* the process; each is the least of the second and of the last quarter of the
    pages, since the first one also fills caches of a set size.
    """

    pages: int
    seconds: float
    early_active: int
    late_active: int
    early_resident: int
    late_resident: int


@dataclass(frozen=True)
class MeasuredServing:
    """``olmocr serve``, driven once: started, asked for a page and for a document, told to end.

    *page_right* and *document_right* say whether the text that came is the true one within the limit of a smoke test.
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
    """A run over documents that was killed after *pages_before* of *pages* pages were kept, and run again."""

    pages: int
    pages_before: int
    asked_again: int
    missing: int


@dataclass(frozen=True)
class MachineReport:
    """What a machine measured of itself. What was not measured is None or empty, and *parts* say why.

    *model* is the folder's own name, without its path, *weights* the SHA-256 of each of its files of weights;
    *is_quick* says that pages and rounds were few.
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
        """Whether a person did not wait for all parts."""
        return any(INTERRUPTED in part.why for part in self.parts)

    @property
    def is_busy(self) -> bool:
        """Whether other programs ran before anything was begun."""
        return self.machine.load > BUSY * self.machine.processors
