"""A source and pages -> its sensitivities, from a file or measured and written to it; recipes made with them."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from olmocr.calibration.choice import Confirm, Wish, found_pages, measured_rates
from olmocr.conversion.calibrated.allocation.recipe import Allocation, Goal, allocate, find_goal, recipe_text
from olmocr.conversion.calibrated.allocation.sensitivities import (
    GROUP_SIZE,
    SENSITIVITY_FILE,
    MatrixSensitivity,
    MeasuredPages,
    Sensitivities,
    identified,
    predicted_nats,
    read_sensitivities,
    require_source,
    write_sensitivities,
)
from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.recipe import BITS, Method
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import EMBEDDINGS, LANGUAGE
from olmocr.conversion.write import Target
from olmocr.errors import OutputError, PlanError, UsageError
from olmocr.files import temporary_folder, whole_file
from olmocr.model_folder import ModelFolder
from olmocr.runtime.device import start_mlx
from olmocr.runtime.facts import versions
from olmocr.tensors.dtypes import FLOAT_DTYPES

METHODS: tuple[Method, ...] = ("fit", "calibrated")
"""What is measured by default. ``stock`` would cost as much again, and is rarely chosen."""

LONG = 600
"""If measuring takes longer than this many seconds, the user is asked first."""

MOST_PAGES = 8
"""More add little: on the demo model 8 pages predict the KL on others within a tenth."""

# What the search for scales takes per weight, and what the forward and backward passes take, in multiply-adds: each
# weight meets each token once forward, once when its block is computed again, and once backward.
_SEARCH = 3_000
_PASSES = 3

_log = logging.getLogger(__name__)

OnBlock = Callable[[int, int], None]
"""Called with the number of blocks done, and the total, forward and backward."""

PagesOf = Callable[[SourceCheckpoint], Sequence[CalibrationPage]]
"""Finds the pages on which to measure a source."""


@dataclass(frozen=True)
class SensitivityRequest:
    """A user's options: a recipe that reaches a *goal*, or only predictions; *path* is the file, if they name one.

    *asked* names the option for the goal, with backquotes.
    """

    goal: Goal | None
    path: Path | None
    asked: str = ""

    @property
    def is_one(self) -> bool:
        """Whether any option is set."""
        return self.goal is not None or self.path is not None

    def require_alone(self, *others: object) -> None:
        """Refuse a goal together with *others*, options about recipes and groups.

        Raises:
            UsageError: one of them is given.
        """
        if self.goal and any(others):
            raise UsageError(
                f"{self.asked} makes a recipe, in groups of 64; leave out `quantize`, `recipe` and `group_size`"
            )

    def file_of(self, source: ModelFolder) -> Path:
        """Return the file of *source*'s sensitivities."""
        return (self.path or Path(f"{source.name}-{SENSITIVITY_FILE}")).expanduser()

    def is_there(self, source: ModelFolder) -> bool:
        """Say whether *source*'s sensitivities have been measured."""
        return self.file_of(source).exists()

    def allocated(
        self, target: Target, known: Sensitivities, method: Method | None, output: Path | None, *, dry_run: bool
    ) -> Target:
        """Return *target* with a recipe that reaches the goal; its own recipe decides everything else.

        The recipe is written beside the folder, except in a *dry_run*. Without a goal *target* stays as it is.

        Raises:
            OutputError: another recipe has its name.
            PlanError: nothing reaches the goal.
        """
        if self.goal is None:
            return target
        source = target.plan.source
        how = method or ("calibrated" if "calibrated" in known.methods() else "fit")
        found = allocate(source, known, self.goal, target.plan.recipe, how)
        folder = output or Path(f"{source.folder.name}-mlx-{self.goal.name}")
        path = folder.with_name(f"{folder.name}.yaml")
        if not dry_run:
            write_recipe(path, found, known)
            _log.info("%s has the recipe; you can read and change it", path)
        return Target(replace(found.plan, recipe=replace(found.recipe, file=path.name)), folder)


def find_request(
    target_size: str | None, fit_mac: str | None, max_kl: float | None, path: Path | None
) -> SensitivityRequest:
    """Return the request in these options.

    Raises:
        UsageError: they name two goals, or one that is invalid.
    """
    goal = find_goal(target_size, fit_mac, max_kl)
    given = {"target_size": target_size, "fit_mac": fit_mac, "max_kl": max_kl}
    asked = next((f"`{name}={value!r}`" for name, value in given.items() if value is not None), "")
    return SensitivityRequest(goal, path, asked)


def known_sensitivities(
    source: SourceCheckpoint,
    path: Path,
    method: Method | None = None,
    *,
    may_measure: bool = True,
    pages_of: PagesOf | None = None,
    confirm: Confirm | None = None,
    on_block: OnBlock = lambda done, total: None,
) -> Sensitivities:
    """Return the sensitivities of *source* from *path*; if that does not exist, measure them first.

    They are also measured if the file does not have *method*; without a *method*, any file will do.

    The log says how long it takes; if that is more than ``LONG`` seconds, *confirm* may say no.

    Raises:
        CheckpointError: the source cannot be read.
        InputError: *path* contains something else, or there are no pages to measure on.
        OutputError: *path* cannot be written.
        PlanError: *path* is for another source; or it is missing and must not be measured, or *confirm* said no.
    """
    methods = METHODS if method is None or method in METHODS else (*METHODS, method)
    if path.exists():
        known = read_sensitivities(path)
        require_source(known, identified(source))
        if method is None or method in known.methods() or not may_measure:
            return known
        _log.info("%s does not cover %s, so it is measured again", path, method)
    if not may_measure:
        raise PlanError(f"{path} does not exist, and a dry run does not measure; make it with a run without `dry_run`")
    pages = evenly(pages_of(source) if pages_of else found_pages(source.folder, Wish()), MOST_PAGES)
    seconds = multiply_adds(source, pages, methods) / measured_rates()[0]
    shown = f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    _log.info(
        "measuring what each matrix costs, on %d pages, takes about %s; the result is stored in %s",
        len(pages),
        shown,
        path,
    )
    if seconds > LONG and confirm and not confirm(f"Measure it? It takes about {shown}, once for this source."):
        raise PlanError("nothing was measured; give a file with this source's sensitivities as `sensitivities`")
    found = measured(source, pages, methods, path.absolute().parent, on_block=on_block)
    write_sensitivities(path, found)
    return found


def measured(
    source: SourceCheckpoint,
    pages: Sequence[CalibrationPage],
    methods: Sequence[Method],
    folder: Path,
    *,
    seed: int = 0,
    on_block: OnBlock = lambda done, total: None,
) -> Sensitivities:
    """Measure what each language matrix of *source* costs on *pages*, rounded by each of *methods*.

    What does not fit into memory goes to a temporary folder in *folder*.

    Raises:
        CheckpointError: the source cannot be read.
        OutputError: *folder* cannot be written.
        PlanError: models of this family are not supported.
    """
    device = start_mlx()
    from olmocr.conversion.calibrated.passes.gradients import price_matrices
    from olmocr.conversion.calibrated.rounding.read_back import roundings

    identity = identified(source)
    how = roundings(methods, _dtype(source), find_processor(), GROUP_SIZE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as scratch:
            nats = price_matrices(source, pages, scratch, how, seed=seed, on_block=on_block)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    matrices = tuple(
        MatrixSensitivity(
            module,
            _shape(source, module),
            {method: {str(bits): each for bits, each in by_bits.items()} for method, by_bits in of.items()},
        )
        for module, of in sorted(nats.items())
    )
    return Sensitivities(identity, _described(pages), GROUP_SIZE, seed, str(device), matrices, versions())


def evenly(pages: Sequence[CalibrationPage], most: int) -> tuple[CalibrationPage, ...]:
    """Return at most *most* of *pages*, as far apart as possible, since drawn pages are ordered by kind."""
    step = max(1.0, len(pages) / most)
    return tuple(pages[math.floor(step * place)] for place in range(min(most, len(pages))))


def multiply_adds(source: SourceCheckpoint, pages: Sequence[CalibrationPage], methods: Sequence[Method]) -> float:
    """Return what measuring takes, in float32 multiply-adds: passes, errors at each number of bits, and rounding."""
    shapes = [info.shape for name, info in source.tensors.items() if name.startswith(LANGUAGE) and name != EMBEDDINGS]
    weights = sum(math.prod(shape) for shape in shapes if len(shape) == 2)
    tokens = sum(len(page.token_ids) for page in pages)
    roundings = len(methods) * len(BITS)
    by_h = sum(6 * math.prod(shape) * shape[1] for shape in shapes if len(shape) == 2) * len(BITS)
    return float(
        (_PASSES + roundings) * tokens * weights
        + roundings * _SEARCH * weights
        + (by_h if "calibrated" in methods else 0)
    )


def write_recipe(path: Path, allocation: Allocation, sensitivities: Sensitivities) -> None:
    """Write the recipe of *allocation* to *path*, to be edited and given to ``--recipe``.

    Raises:
        OutputError: another file is there, which the user may have edited, or it cannot be written.
    """
    source = sensitivities.source
    name = f"{source.name} at {source.revision}" if source.revision else source.name
    comments = [
        f"Made for {name}, whose first shard has the SHA-256",
        f"{source.files[0].sha256}.",
        "You can change it: convert_to_mlx --recipe reads it (docs/recipes.md).",
    ]
    content = recipe_text(allocation.recipe, comments).encode()
    if path.exists():
        try:
            same = path.read_bytes() == content
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror or error}") from error
        if same:
            return
        raise OutputError(f"{path} already holds another recipe; use it with `recipe={str(path)!r}`, or move it away")
    with whole_file(path) as file:
        file.write(content)


def with_predictions(targets: Sequence[Target], sensitivities: Sensitivities | None) -> list[Target]:
    """Return *targets* with each plan's prediction, where possible."""
    if sensitivities is None:
        return list(targets)
    return [
        replace(target, plan=replace(target.plan, predicted_nats=predicted_nats(sensitivities, target.plan)))
        for target in targets
    ]


def _described(pages: Sequence[CalibrationPage]) -> MeasuredPages:
    hashes = sorted(page.sha256 for page in pages)
    return MeasuredPages(
        sha256=hashlib.sha256("".join(hashes).encode()).hexdigest(),
        pages=len(pages),
        tokens=sum(len(page.token_ids) for page in pages),
        answer_tokens=sum(len(page.token_ids) - page.answer_start for page in pages),
    )


def _shape(source: SourceCheckpoint, module: str) -> tuple[int, int]:
    rows, columns = source.tensors[f"{module}.weight"].shape
    return rows, columns


def _dtype(source: SourceCheckpoint) -> str:
    """Return the dtype of scales (safetensors' name) that config.json names, in plans' spelling."""
    names = {mlx: safetensors for safetensors, mlx in FLOAT_DTYPES.items()}
    return names.get(str(source.config.get("torch_dtype")), "BF16")
