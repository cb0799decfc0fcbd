"""A user's request -> plans and their targets -> converted folders. The Python behind ``olmocr.convert_to_mlx``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from olmocr.conversion.calibrated.terms import Calibration
from olmocr.conversion.companions import check_companions
from olmocr.conversion.plan import make_plan
from olmocr.conversion.recipe import Method, QuantRecipe, find_recipe
from olmocr.conversion.shards import Progress
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.conversion.write import Target, write_models
from olmocr.errors import PlanError, UsageError
from olmocr.hub.find import download_weights, find_settings, missing_files
from olmocr.model_folder import ModelFolder, is_left_out
from olmocr.reports.conversion import ConversionReport
from olmocr.stages import OnStage, unwatched


def convert(
    model: str | Path,
    quantize: str | QuantRecipe | Sequence[str | QuantRecipe] = "mixed",
    output: Path | None = None,
    *,
    method: Method = "fit",
    revision: str | None = None,
    leave_out: Sequence[str] = (),
    low_disk: bool = False,
    threads: int | None = None,
    progress: Progress = lambda nbytes: None,
    calibration: Calibration | None = None,
) -> list[ConversionReport]:
    """Convert *model*, a checkpoint's folder or a Hub repository, to MLX; return a report for each recipe.

    *quantize* is the name of a recipe (docs/recipes.md), a recipe, or several, which are made from one read of the
    source. *output* is the folder to create or, with several recipes, the folder to create them in. The default is
    NAME-mlx-RECIPE in the current folder. *leave_out* has patterns of names of source files to ignore, or of
    ``FILE:chat_template``. *low_disk* fetches a repository's shards one by one and drops each after use. *threads*
    defaults to a number that fits this machine. *progress* is called, from any thread, with the number of source bytes
    just finished.
    The method ``calibrated`` needs the pages in *calibration*; `olmocr.convert` finds some itself.

    Raises:
        OlmocrError: the conversion failed; it leaves nothing that looks finished.
    """
    targets = find_targets(model, quantize, output, method=method, revision=revision, leave_out=leave_out)
    targets = with_weights(targets, low_disk=low_disk)
    return write_models(targets, progress, threads=threads, calibration=calibration)


def find_targets(
    model: str | Path,
    quantize: str | QuantRecipe | Sequence[str | QuantRecipe],
    output: Path | None,
    *,
    method: Method | None,
    revision: str | None,
    leave_out: Sequence[str],
) -> list[Target]:
    """Return what `convert` would make of *model*; the arguments mean the same there.

    Raises:
        OlmocrError: as in `leaving_out` and `plan_targets`.
        UsageError: there is no such recipe.
    """
    given = [quantize] if isinstance(quantize, str | QuantRecipe) else quantize
    recipes = [find_recipe(each) if isinstance(each, str) else each for each in given]
    folder = leaving_out(find_settings(str(model), revision), leave_out)
    return plan_targets(folder, recipes, method, output)


def leaving_out(model: ModelFolder, patterns: Sequence[str]) -> ModelFolder:
    """Return *model* without the files that match *patterns*.

    Raises:
        UsageError: a pattern matches no file.
    """
    names = {path.name for path in model.path.iterdir()} | {file.name for file in model.remote_files}
    for pattern in patterns:
        if not any(is_left_out(name, [pattern.partition(":")[0]]) for name in names):
            what = f"`leave_out={pattern!r}` matches no file of {model.where}"
            raise UsageError(f"{what}; give a file's name, or a pattern")
    return replace(model, left_out=tuple(patterns))


def plan_targets(
    model: ModelFolder, recipes: Sequence[QuantRecipe], method: Method | None, output: Path | None
) -> list[Target]:
    """Plan *model*'s conversion by each of *recipes*; reads only headers, from the Hub if *model* is there.

    Without *method*, each recipe uses its own, or ``fit`` if it names none.

    Raises:
        CheckpointError: *model* cannot be converted.
        HubError: its headers cannot be read from the Hub.
        PlanError: a recipe does not fit it.
    """
    source = read_checkpoint(model)
    check_companions(model, source.config)
    plans = [make_plan(source, recipe, method or recipe.method or "fit") for recipe in recipes]
    names = [
        f"{model.name}-mlx" if not each.quantizes and not each.dtype else f"{model.name}-mlx-{each.name}"
        for each in recipes
    ]
    if output is None:
        return [Target(plan, Path(name)) for plan, name in zip(plans, names, strict=True)]
    if len(plans) == 1:
        return [Target(plans[0], output)]
    return [Target(plan, output / name) for plan, name in zip(plans, names, strict=True)]


def with_weights(targets: Sequence[Target], *, low_disk: bool, on_stage: OnStage = unwatched) -> list[Target]:
    """Return *targets* with the source's weights on this disk, except when they are to be fetched one by one.

    *on_stage* is called with the progress of the download.

    Raises:
        HubError: they cannot be downloaded.
        PlanError: the disk does not have room for them.
    """
    model = targets[0].plan.source.folder
    if not model.remote_weights or low_disk:
        return list(targets)
    _require_room(model, targets)
    local = download_weights(model, on_stage)
    return [
        replace(target, plan=replace(target.plan, source=replace(target.plan.source, folder=local)))
        for target in targets
    ]


def _require_room(model: ModelFolder, targets: Sequence[Target]) -> None:
    """Refuse a download that would fill the disk or leave too little room for the results."""
    nbytes = sum(file.size for file in missing_files(model))
    free = shutil.disk_usage(model.path).free
    made = sum(target.plan.file_bytes for target in targets if _is_on_disk_of(model.path, target.output))
    if free < nbytes + made:
        results = f", the results need {made / 1e9:.2f} GB there" if made else ""
        raise PlanError(
            f"{model.where} has {nbytes / 1e9:.2f} GB to download{results}, and the Hub's cache (HF_HOME) has "
            f"{free / 1e9:.2f} GB free; make room, or use `low_disk=True`, which keeps one shard at a time"
        )


def _is_on_disk_of(cache: Path, output: Path) -> bool:
    parent = next(folder for folder in output.absolute().parents if folder.is_dir())
    return parent.stat().st_dev == cache.stat().st_dev
