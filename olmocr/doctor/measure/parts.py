"""The parts of a measurement: each fills some fields of the report, or says why it cannot."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from olmocr.backends.local_server import free_port
from olmocr.conversion.recipe import Method
from olmocr.doctor.measure.answers import MOST_ERRORS, read_demo
from olmocr.doctor.measure.apart import Apart
from olmocr.doctor.measure.conversion import convert_demo
from olmocr.doctor.measure.memory import measure_growth, measure_memory
from olmocr.doctor.measure.pages import PagesToRead
from olmocr.doctor.measure.passes import measure_passes, measure_vision
from olmocr.doctor.measure.reading import (
    EngineSetting,
    Round,
    read_guided,
    read_with_engine,
    read_with_generate,
    read_with_server,
)
from olmocr.doctor.measure.resuming import kill_and_resume
from olmocr.doctor.measure.serving import serve_once
from olmocr.doctor.measure.terms import PAGES, MeasureTerms
from olmocr.errors import ExitCode, OlmocrError
from olmocr.reports.machine import MeasuredConversion, MeasuredPart, MeasuredReading, PartState, Reader
from olmocr.runtime.versions import installed_version
from olmocr.strays import files_in

READ_WITH = "8bit"
"""The recipe of the conversion that reads pages if no model is named."""

SETTINGS = tuple(EngineSetting(at_once, drafts) for at_once in (1, 2, 4, 8) for drafts in (False, True))

_CONVERSIONS: tuple[tuple[str, Method], ...] = (("4bit", "stock"), ("4bit", "fit"), ("mixed", "calibrated"))
_LARGE = 200_000_000  # with this many bytes of quantized weights, mlx-vlm takes many minutes for a page on a CPU
_GROWTH = 1.1  # allowed growth: 1.1 times as much memory, and _SLACK bytes more
_SLACK = 64 << 20
_FEATURES_DIFFER = 0.05  # of the largest feature: more than another order of sums can cause in 16 bits
_MORE_ROUNDS = 3  # times as many rounds for measurements that take a fraction of a second

OnStep = Callable[[float, str], None]
"""Called with the finished share of a part, and its next step."""


@dataclass(frozen=True)
class Found:
    """Fields of the report, sentences about what is *wrong*, and *other* parts with their own outcome."""

    fields: Mapping[str, Any]
    wrong: Sequence[str] = ()
    other: Sequence[MeasuredPart] = ()


@dataclass
class Workshop:
    """What parts share: a temporary folder, processes, and the model that reads, which is made when first needed."""

    terms: MeasureTerms
    apart: Apart
    is_gpu: bool
    converted: dict[tuple[str, str], MeasuredConversion] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """The temporary folder."""
        return self.apart.scratch

    @property
    def model(self) -> Path:
        """The converted folder that reads pages.

        Raises:
            PartFailedError: it cannot be made.
        """
        if self.terms.model:
            return self.terms.model
        self.convert(READ_WITH, "fit")
        return self.folder_of(READ_WITH, "fit")

    def folder_of(self, recipe: str, method: Method) -> Path:
        """Return the folder for a conversion of the demo checkpoint."""
        return self.scratch / f"demo-{recipe}-{method}"

    def convert(self, recipe: str, method: Method) -> MeasuredConversion:
        """Return a conversion of the demo checkpoint, which is made only once.

        Raises:
            PartFailedError: it cannot be made.
        """
        if (recipe, method) not in self.converted:
            output = self.folder_of(recipe, method)
            self.converted[recipe, method] = self.apart.call(convert_demo, self.terms.demo, recipe, method, output)
        return self.converted[recipe, method]

    def pages(self, count: int | None = None, first: int | None = None) -> PagesToRead:
        """Return the *first* few of *count* of the demo's pages; *count* defaults to the pages of one round."""
        return PagesToRead(self.terms.demo, count or PAGES, self.terms.longest_side, first)


@dataclass(frozen=True)
class Part:
    """A part: its *name*, what it *does*, and about how many *seconds* it takes on two processors, full and quick."""

    name: str
    does: str
    seconds: tuple[float, float]
    measure: Callable[[Workshop, OnStep], Found]


def measure_conversion(work: Workshop, on_step: OnStep) -> Found:
    """Convert the demo checkpoint in all the different ways, and compare the bytes with known ones."""
    ways = (("8bit", "fit"), *_CONVERSIONS[: -1 if work.terms.is_quick else None])
    found = []
    for number, (recipe, method) in enumerate(ways):
        on_step(number / len(ways), f"converting to {recipe} by {method}")
        found.append(work.convert(recipe, method))
    wrong = [
        f"{each.recipe} by {each.method} has different bytes than on all other machines"
        for each in found
        if each.method != "calibrated" and each.known == "other"
    ]
    left_out = MeasuredPart(
        "calibrated conversion", "unmeasured", ("it takes a minute or more, and this was a quick run",), 0
    )
    return Found({"conversions": tuple(found)}, wrong, [left_out] if work.terms.is_quick else [])


def measure_answers(work: Workshop, on_step: OnStep) -> Found:
    """Read the demo's documents as the command does, and compare the texts with the truth."""
    on_step(0, "reading the demo's documents")
    terms = work.terms
    most = 6 if terms.is_quick else None
    workspace = work.scratch / "answers"
    answers = work.apart.call(read_demo, work.model, terms.demo.pages, terms.longest_side, workspace, most)
    wrong = [
        f"{page.document}, page {page.page_number}: {page.status}, {page.character_error_rate:.1%} of it is wrong"
        for page in answers.pages
        if page.status not in ("valid", "blank") or page.character_error_rate > MOST_ERRORS
    ]
    return Found({"answers": answers}, wrong)


def measure_reading(work: Workshop, on_step: OnStep) -> Found:
    """Read the same pages with the engine in every setting, and the first of them with mlx-vlm, in turn."""
    model, stock = work.model, StockReaders(work)
    engine: list[list[Round]] = []
    readers: list[tuple[str, Callable[[], None]]] = [
        ("the engine", lambda: engine.append(work.apart.call(read_with_engine, model, work.pages(), SETTINGS))),
        *((name, partial(stock.read, name)) for name in stock.names),
    ]
    for number in range(work.terms.rounds):
        for place, (name, read) in enumerate(reversed(readers) if number % 2 else readers):
            done = (number + place / len(readers)) / work.terms.rounds
            on_step(done, f"round {number + 1} of {work.terms.rounds}: {name}")
            read()
    weights = work.terms.model.name if work.terms.model else READ_WITH
    by_setting = list(zip(*engine, strict=True))
    expected = by_setting[0][0].texts
    readings = [
        as_reading("olmocr", setting, weights, rounds, expected)
        for setting, rounds in zip(SETTINGS, by_setting, strict=True)
    ]
    wrong = [
        f"{each.at_once} at once{' with drafts' if each.has_drafts else ''}: {each.pages - each.same_texts} of "
        f"{each.pages} texts differ from those of one at a time"
        for each in readings
        if each.same_texts < each.pages and not work.is_gpu  # a GPU's different order of sums may choose another token
    ]
    return Found({"readings": (*readings, *stock.readings(expected))}, wrong, [stock.as_part()])


def as_reading(
    reader: Reader, setting: EngineSetting, weights: str, rounds: Sequence[Round], expected: Sequence[str]
) -> MeasuredReading:
    """Summarize a reader's *rounds*; *expected* are texts of the same pages, and possibly of more pages."""
    count = len(rounds[0].texts)
    return MeasuredReading(
        reader=reader,
        at_once=setting.at_once,
        has_drafts=setting.has_drafts,
        weights=weights,
        pages=count,
        seconds=tuple(each.seconds for each in rounds),
        tokens=rounds[0].tokens,
        passes_a_token=rounds[0].passes_a_token,
        peak_memory=max(each.peak_memory for each in rounds),
        same_texts=min(sum(map(str.__eq__, each.texts, expected)) for each in rounds),
    )


class StockReaders:
    """mlx-vlm's two ways to read, for comparison with the engine. If one fails, it is not used again."""

    def __init__(self, work: Workshop) -> None:
        """Check whether they can be used at all, and make the weights with which they are fastest here."""
        self._work = work
        self._rounds: dict[Reader, list[Round]] = {}
        self._why: dict[Reader, str] = {}
        self._seconds = 0.0
        self.names: tuple[Reader, ...] = ()
        self.why_unmeasured = self._why_not()
        if self.why_unmeasured is None:
            self.names = ("mlx_vlm.generate", "mlx_vlm.server")
            self._set_weights()

    def _why_not(self) -> str | None:
        if installed_version("mlx-vlm") is None:
            return "mlx-vlm is not installed"
        model = self._work.terms.model
        if (
            model
            and not self._work.is_gpu
            and sum(each.stat().st_size for each in files_in(model, ".safetensors")) > _LARGE
        ):
            return "on a CPU, mlx-vlm takes many minutes per page with quantized weights as large as these"
        return None

    def _set_weights(self) -> None:
        """Choose the engine's weights, or on a CPU unquantized ones, with which mlx-vlm is many times as fast there."""
        if self._work.terms.model or self._work.is_gpu:
            self._model = self._work.model
            self._weights = self._work.terms.model.name if self._work.terms.model else READ_WITH
        else:
            self._work.convert("none", "fit")
            self._model, self._weights = self._work.folder_of("none", "fit"), "bfloat16"

    def read(self, name: Reader) -> None:
        """Read with one of them, and record the result."""
        if name in self._why:
            return
        pages, started = self._work.pages(first=self._work.terms.stock_pages), time.monotonic()
        try:
            if name == "mlx_vlm.generate":
                done = self._work.apart.call(read_with_generate, self._model, pages)
            else:
                done = self._work.apart.call(read_with_server, self._model, pages, free_port())
            self._rounds.setdefault(name, []).append(done)
        except OlmocrError as error:
            self._why[name] = f"{name}: {error}"
        self._seconds += time.monotonic() - started

    def readings(self, expected: Sequence[str]) -> list[MeasuredReading]:
        """Return the results of those that never failed."""
        return [
            as_reading(
                name,
                EngineSetting(1 if name == "mlx_vlm.generate" else self._work.terms.stock_pages, has_drafts=False),
                self._weights,
                rounds,
                expected,
            )
            for name, rounds in self._rounds.items()
            if name not in self._why
        ]

    def as_part(self) -> MeasuredPart:
        """Return mlx-vlm as a separate part."""
        if self.why_unmeasured:
            return MeasuredPart("mlx-vlm", "unmeasured", (self.why_unmeasured,), 0.0)
        state: PartState = "failed" if self._why else "measured"
        return MeasuredPart("mlx-vlm", state, tuple(self._why.values()), round(self._seconds, 1))


def measure_costs(work: Workshop, on_step: OnStep) -> Found:
    """Run passes over the weights with different numbers of tokens."""
    on_step(0, "passes over the weights")
    return Found({"passes": work.apart.call(measure_passes, work.model, _MORE_ROUNDS * work.terms.rounds)})


def measure_tower(work: Workshop, on_step: OnStep) -> Found:
    """Run a page through the vision tower, and through mlx-vlm's."""
    on_step(0, "the vision tower")
    vision = work.apart.call(measure_vision, work.model, work.pages(), work.terms.rounds)
    wrong = (
        [] if vision.difference < _FEATURES_DIFFER else [f"features differ by {vision.difference:.1%} from mlx-vlm's"]
    )
    return Found({"vision": vision}, wrong)


def measure_guidance(work: Workshop, on_step: OnStep) -> Found:
    """Read pages with the front matter's form forced, and without."""
    on_step(0, "guided answers")
    guidance = work.apart.call(read_guided, work.model, work.pages(), work.terms.rounds)
    wrong = [
        f"{guidance.pages - guidance.valid} of {guidance.pages} guided answers break the format"
        for _ in range(guidance.valid < guidance.pages)
    ]
    return Found({"guidance": guidance}, wrong)


def measure_limits(work: Workshop, on_step: OnStep) -> Found:
    """Read pages, and compare MLX's memory with its limits."""
    on_step(0, "memory and its limits")
    memory = work.apart.call(measure_memory, work.model, work.pages(2 * PAGES))
    wrong = []
    for limit in memory.limits:
        if limit.in_force != limit.wanted:
            wrong.append(f"the {limit.name} limit is {limit.in_force:,} bytes, but was set to {limit.wanted:,}")
        if limit.held is not None and limit.held > limit.wanted:
            wrong.append(f"{limit.held:,} bytes were in use, but the {limit.name} limit is {limit.wanted:,}")
    return Found({"memory": memory}, wrong)


def measure_many(work: Workshop, on_step: OnStep) -> Found:
    """Read many pages with one engine, and check whether it grows."""
    on_step(0, f"{work.terms.many_pages} pages with one engine")
    growth = work.apart.call(measure_growth, work.model, work.pages(work.terms.many_pages))
    sizes = (
        ("MLX's arrays", growth.early_active, growth.late_active),
        ("the process", growth.early_resident, growth.late_resident),
    )
    wrong = [
        f"{what} grew from {early / 2**20:,.0f} to {late / 2**20:,.0f} MiB"
        for what, early, late in sizes
        if late > _GROWTH * early + _SLACK
    ]
    return Found({"growth": growth}, wrong)


def measure_serving(work: Workshop, on_step: OnStep) -> Found:
    """Use ``olmocr serve`` once."""
    on_step(0, "olmocr serve")
    serving = work.apart.call(serve_once, work.model, work.terms.demo, work.terms.longest_side)
    wrong = [
        f"the text of the {what} is wrong"
        for what, right in (("page", serving.page_right), ("document", serving.document_right))
        if not right
    ]
    if serving.exit_code not in (ExitCode.OK, ExitCode.INTERRUPTED):
        wrong.append(f"olmocr serve ended with status {serving.exit_code} when it was stopped")
    return Found({"serving": serving}, wrong)


def measure_resumption(work: Workshop, on_step: OnStep) -> Found:
    """Kill a run in the middle, and run it again."""
    on_step(0, "a run that is killed and run again")
    resumption = kill_and_resume(work.apart, work.model, work.terms, work.scratch / "killed")
    wrong = [f"{resumption.missing} of {resumption.pages} pages were lost" for _ in range(resumption.missing > 0)]
    wrong += [f"{resumption.asked_again} saved pages were read again" for _ in range(resumption.asked_again > 0)]
    if resumption.pages_before >= resumption.pages:
        wrong.append("all pages were read before the run could be killed")
    return Found({"resumption": resumption}, wrong)


PARTS = (
    Part(
        "conversion",
        "the demo checkpoint in 8 bits, 4 bits and mixed; bytes compared with known ones",
        (95, 15),
        measure_conversion,
    ),
    Part(
        "answers",
        "the demo's pages through the complete pipeline; texts compared with the truth",
        (35, 15),
        measure_answers,
    ),
    Part("reading", "pages at once, drafts on and off, compared with mlx-vlm", (470, 90), measure_reading),
    Part("passes", "what a pass over 1 to 32 tokens costs, and a step of a prompt", (25, 12), measure_costs),
    Part("vision", "a page through the vision tower, and through mlx-vlm's", (15, 10), measure_tower),
    Part("guided", "answers with a forced form", (50, 15), measure_guidance),
    Part("memory", "memory in use, and its limits", (20, 12), measure_limits),
    Part("growth", "many pages with one engine", (110, 30), measure_many),
    Part("serving", "olmocr serve, used once", (20, 15), measure_serving),
    Part("resuming", "a run that is killed and run again", (35, 20), measure_resumption),
)
"""All parts, in the order of measurement. The seconds are for two processors without a GPU."""
