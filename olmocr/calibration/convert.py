"""A user's request -> converted folders, calibrated if requested or if the recipe says so."""

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
    calibration_propagation: bool | None = None,
    revision: str | None = None,
    leave_out: Sequence[str] = (),
    low_disk: bool = False,
    threads: int | None = None,
    progress: Progress = lambda nbytes: None,
) -> list[ConversionReport]:
    """Convert *model*, a checkpoint's folder or a Hub repository, to MLX; return a report for each recipe.

    *quantize* is the name of a recipe (docs/recipes.md), a recipe, or several, which are made from one read of the
    source. *output* is the folder to create or, with several recipes, the folder to create them in. The default is
    NAME-mlx-RECIPE in the current folder. *leave_out* has patterns of names of source files to ignore, or of
    ``FILE:chat_template``. *low_disk* fetches a repository's shards one by one and drops each after use.
    *threads* defaults to a number that fits this machine. *progress* is called, from any thread, with the number of
    source bytes just finished.

    Without *method*, each recipe uses its own. ``calibrated`` uses the pages in *calibrate_on*, documents and folders,
    or drawn ones. It stops adding pages once their answers have *calibration_tokens* tokens. *calibration_answers* is a
    conversion of the same model whose answers are used for pages with unknown text (docs/calibration.md). With
    *calibration_gradients*, tokens count by how much an error there changes the model's output; without it, by their
    kind. With *calibration_propagation*, each block makes up for the rounding before it; by default, that is done
    where all of them have 3 bits.

    Raises:
        OlmocrError: the conversion failed; it leaves nothing that looks finished.
    """
    targets = find_targets(model, quantize, output, method=method, revision=revision, leave_out=leave_out)
    wish = Wish(
        method,
        tuple(map(Path, calibrate_on)),
        calibration_tokens,
        calibration_answers,
        low_disk,
        by_gradients=calibration_gradients,
        propagation=calibration_propagation,
    )
    targets, calibration = settle(targets, wish)
    targets = with_weights(targets, low_disk=low_disk)
    return write_models(targets, progress, threads=threads, calibration=calibration)
