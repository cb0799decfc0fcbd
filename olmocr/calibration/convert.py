"""What a person asks for -> converted folders, calibrated where that is asked for or the recipe's own way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from olmocr.calibration.choice import Wish, settle
from olmocr.conversion.convert import find_targets, with_weights
from olmocr.conversion.recipe import Method, QuantRecipe
from olmocr.conversion.shards import Progress
from olmocr.conversion.write import write_models
from olmocr.reports.conversion import ConversionReport


def convert(
    model: str | Path,
    quantize: str | QuantRecipe | Sequence[str | QuantRecipe] = "mixed",
    output: Path | None = None,
    *,
    method: Method | None = None,
    calibrate_on: Sequence[Path] = (),
    calibration_tokens: int | None = None,
    calibration_answers: Path | None = None,
    calibration_gradients: bool = False,
    revision: str | None = None,
    leave_out: Sequence[str] = (),
    low_disk: bool = False,
    threads: int | None = None,
    progress: Progress = lambda nbytes: None,
) -> list[ConversionReport]:
    """Convert *model*, a checkpoint's folder or a Hub repository, to MLX; return a report for each recipe.

    *quantize* names a recipe (docs/recipes.md), or is one, or several that are made from one read of the source.
    *output* is the folder to make, or with several recipes the one to make them in; it is NAME-mlx-RECIPE, here, if it
    is not given. *leave_out* are patterns of names of files in the source that are taken as if they were not there, or
    of ``FILE:chat_template``. *low_disk* fetches a repository's shards one by one and drops each as soon as it is used.
    *threads* is chosen for this machine unless it is given. *progress* is called, by any thread, with source bytes just
    finished.

    Without *method* each recipe is made with its own. ``calibrated`` looks at the pages of *calibrate_on*, documents
    and folders, or at some that are drawn; *calibration_tokens* of answers are enough, and *calibration_answers* is a
    conversion of the same model whose answers are used where nobody knows a page's text (docs/calibration.md). With
    *calibration_gradients* tokens count by how much an error there changes what the model says, without it by their
    kind.

    Raises:
        OlmocrError: it cannot be done; nothing that looks finished is left.
    """
    targets = find_targets(model, quantize, output, method=method, revision=revision, leave_out=leave_out)
    wish = Wish(
        method,
        tuple(map(Path, calibrate_on)),
        calibration_tokens,
        calibration_answers,
        low_disk,
        by_gradients=calibration_gradients,
    )
    targets, calibration = settle(targets, wish)
    targets = with_weights(targets, low_disk=low_disk)
    return write_models(targets, progress, threads=threads, calibration=calibration)
