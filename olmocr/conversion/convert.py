"""What a person asks for -> plans and where they go -> converted folders. The Python of ``olmocr.convert_to_mlx``."""

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

    *quantize* names a recipe (docs/recipes.md), or is one, or several that are made from one read of the source.
    *output* is the folder to make, or with several recipes the one to make them in; it is NAME-mlx-RECIPE, here, if it
    is not given. *leave_out* are patterns of names of files in the source that are taken as if they were not there, or
    of ``FILE:chat_template``. *low_disk* fetches a repository's shards one by one and drops each as soon as it is used.
    *threads* is chosen for this machine unless it is given. *progress* is called, by any thread, with source bytes just
    finished. The method ``calibrated`` needs the pages that *calibration* has; `olmocr.convert` finds some itself.

    Raises:
        OlmocrError: it cannot be done; nothing that looks finished is left.
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
    """Return what `convert` is to make of *model*, with the meaning that its arguments have there.

    Raises:
        OlmocrError: as in `leaving_out` and `plan_targets`.
        UsageError: there is no such recipe.
    """
    given = [quantize] if isinstance(quantize, str | QuantRecipe) else quantize
    recipes = [find_recipe(each) if isinstance(each, str) else each for each in given]
    folder = leaving_out(find_settings(str(model), revision), leave_out)
    return plan_targets(folder, recipes, method, output)


def leaving_out(model: ModelFolder, patterns: Sequence[str]) -> ModelFolder:
    """Return *model* without the files that *patterns* name.

    Raises:
        UsageError: a pattern names no file that is there.
    """
    names = {path.name for path in model.path.iterdir()} | {file.name for file in model.remote_files}
    for pattern in patterns:
        if not any(is_left_out(name, [pattern.partition(":")[0]]) for name in names):
            what = f"`leave_out={pattern!r}` names no file of {model.where}"
            raise UsageError(f"{what}; give a file's name, or a pattern")
    return replace(model, left_out=tuple(patterns))


def plan_targets(
    model: ModelFolder, recipes: Sequence[QuantRecipe], method: Method | None, output: Path | None
) -> list[Target]:
    """Plan *model*'s conversion by each of *recipes*; only headers are read, on the Hub if they are there.

    Without *method* each recipe is made with its own, or with ``fit`` if it names none.

    Raises:
        CheckpointError: *model* cannot be converted.
        HubError: its headers cannot be read on the Hub.
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
    """Return *targets* with the source's weights on this disk, unless they are to be fetched one by one.

    *on_stage* hears how far the download is.

    Raises:
        HubError: they cannot be downloaded.
        PlanError: the disk has no room for them.
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
    """Refuse a download that would fill the disk, or leave no room there for what is made of it."""
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
