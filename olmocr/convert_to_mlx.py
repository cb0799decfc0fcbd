"""The command ``python -m olmocr.convert_to_mlx``: arguments -> plan -> folder."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from olmocr.conversion.recipe import (
    DTYPES,
    GROUP_SIZES,
    Method,
    QuantRecipe,
    changed,
    find_recipe,
    read_recipe,
    recipe_names,
)
from olmocr.errors import ExitCode, UsageError
from olmocr.terminal import options
from olmocr.terminal.command import (
    CommandWithBothSpellings,
    byte_columns,
    counting_columns,
    ends_with_exit_code,
    progress_bar,
    say,
    start_logging,
)
from olmocr.terminal.stage_view import shown_download
from olmocr.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from olmocr.calibration.choice import Wish
    from olmocr.calibration.sensitivities import SensitivityRequest
    from olmocr.conversion.calibrated.allocation.sensitivities import Sensitivities
    from olmocr.conversion.calibrated.terms import Calibration
    from olmocr.conversion.write import Target
    from olmocr.publish.upload import Upload
    from olmocr.reports.conversion import ConversionReport

log = logging.getLogger("olmocr.convert_to_mlx")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_DEFAULT_RECIPE = "mixed"
_RECIPES, _DTYPES, _SIZES = (", ".join(map(str, each)) for each in (recipe_names(), DTYPES, GROUP_SIZES))

_WHAT = "What to make"
_HOW = "How it is quantized"
_RUN = "How the conversion runs"
_PUBLISH = "Where it is published"


class _ConvertCommand(CommandWithBothSpellings):
    """Takes ``--fidelity-pages a b c``."""

    several = ("--fidelity-pages", "--calibrate-on")


# Other tools' names for rounding that takes the model's inputs into account.
_OF_PEERS = ("awq", "autoround", "dwq", "gptaq", "gptq", "imatrix", "oqe", "qep")


def as_method(text: str) -> Method:
    """Return the method called *text*.

    Raises:
        typer.BadParameter: there is no such method; for another tool's method it names ours.
    """
    for method in get_args(Method):
        if method == text.lower():
            return method  # type: ignore[no-any-return]
    if text.lower().replace("-", "") in _OF_PEERS:
        raise typer.BadParameter(
            f"{printable(text)} is not a method here; use calibrated, which does the same job on pages"
        )
    raise typer.BadParameter(f"{printable(text)} is not one of {', '.join(get_args(Method))}")


@app.command(cls=_ConvertCommand)
@ends_with_exit_code
def convert_to_mlx(
    model: Annotated[str, typer.Argument(help="A Hugging Face olmOCR checkpoint: its folder, or a Hub repository.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to create; with several recipes, the folder to create them in. Default: ./NAME-mlx-RECIPE.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            "--quantize",
            "-q",
            help=f"Recipe: {_RECIPES}; several, separated by commas, share one read of the source. "
            f"Default: {_DEFAULT_RECIPE}.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe of your own, a YAML file (docs/recipes.md).", rich_help_panel=_WHAT)
    ] = None,
    target_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Make a recipe whose files have at most this size, like 5.3GB, by the sensitivity of each matrix "
            "(docs/sensitivities.md).",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    fit_mac: Annotated[
        str | None,
        typer.Option(
            metavar="MEMORY",
            help="The same, for a Mac with this much memory to read a page: 8GB, 16GB …",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(
            metavar="NATS",
            help="The same, with the fewest bytes whose predicted divergence is at most this, in nats per token.",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    sensitivities: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the sensitivities of this source. If it is missing, they are measured and written to it. "
            "Default with one of the three: ./NAME-sensitivity.json.",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the Hub repository.", rich_help_panel=_WHAT)
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A file in the checkpoint's folder to ignore, if the folder can be read in two ways; a name, "
            "a pattern, or FILE:chat_template; can be repeated.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    method: Annotated[
        Any,
        typer.Option(
            parser=as_method,
            metavar="METHOD",
            help="How codes and scales are found: calibrated preserves the model's output on pages, fit has the least "
            "error of weights, stock is mx.quantize, bit for bit. Default: the recipe's own.",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None,
    calibrate_on: Annotated[
        list[Path] | None,
        typer.Option(
            help="Documents, or folders of them, to calibrate on instead of drawn pages; the true text of NAME.pdf is "
            "NAME.md (docs/calibration.md).",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None,
    calibration_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Stop adding pages once their answers have this many tokens.", rich_help_panel=_HOW),
    ] = None,
    calibration_answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A conversion of the same model, ideally to 8 bits, whose answers to pages are used.",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None,
    calibration_gradients: Annotated[
        bool,
        typer.Option(
            "--calibration-gradients/--no-calibration-gradients",
            help="Weight tokens by how much an error there changes the model's output, which takes longer. "
            "Default: by their kind (docs/calibration.md).",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = False,
    calibration_propagation: Annotated[
        bool | None,
        typer.Option(
            "--calibration-propagation/--no-calibration-propagation",
            help="Let each block make up for the rounding before it, which takes longer. "
            "Default: where all of them have 3 bits (docs/calibration.md).",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(help=f"Weights that share a scale, instead of the recipe's: {_SIZES}.", rich_help_panel=_HOW),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help=f"For scales and everything kept, instead of the source's: {_DTYPES}.", rich_help_panel=_HOW),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Do not quantize modules like 'vision_tower.*' or '*.layers.0.*'; can be repeated.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and write nothing.", rich_help_panel=_RUN)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan, or the report, as JSON.", rich_help_panel=_RUN)
    ] = False,
    low_disk: Annotated[
        bool,
        typer.Option(
            "--low-disk",
            help="Fetch a repository's shards one by one, and drop each after use.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads that convert. Default: two more than the number of cores.", rich_help_panel=_RUN
        ),
    ] = None,
    smoke_test: Annotated[
        bool | None,
        typer.Option(
            "--smoke-test/--no-smoke-test",
            help="Have the new model read a few pages. Default: if there is a GPU, or the model is small.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    upload_repo: Annotated[
        str | None,
        typer.Option(
            metavar="ORG/NAME",
            help="Then test it, measure it against its source, and publish it there if it passes all gates "
            "(docs/publishing.md). Several recipes become ORG/NAME-RECIPE. Run the same command again to resume.",
            show_default=False,
            rich_help_panel=_PUBLISH,
        ),
    ] = None,
    private: Annotated[bool, options.private(_PUBLISH)] = False,
    base_model: Annotated[str | None, options.base_model(_PUBLISH)] = None,
    license_id: Annotated[str | None, options.license_id(_PUBLISH)] = None,
    collection: Annotated[str | None, options.collection(_PUBLISH)] = None,
    fidelity_pages: Annotated[
        list[Path] | None,
        typer.Option(
            help="Documents, or folders of them, to measure it on, instead of the built-in pages; the true text "
            "of NAME.pdf is NAME.md.",
            show_default=False,
            rich_help_panel=_PUBLISH,
        ),
    ] = None,
    allow_failing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GATE",
            help="Publish even if weights, smoke or fidelity failed or was not measured; the card says so.",
            rich_help_panel=_PUBLISH,
        ),
    ] = None,
    quiet: Annotated[bool, options.quiet(_RUN)] = False,
) -> None:
    """Convert a Hugging Face olmOCR checkpoint to MLX weights.

    The new folder appears once it is complete. A failure leaves none, and an interrupted conversion resumes where it
    stopped. Ends with exit code 11 if the new model, which stays, fails its smoke test, is not as far from its source
    as predicted, or fails a gate on its way to the Hub.
    """
    from olmocr.calibration.agreement import require_as_predicted
    from olmocr.calibration.choice import Wish
    from olmocr.calibration.sensitivities import find_request, with_predictions
    from olmocr.conversion.convert import leaving_out, plan_targets, with_weights
    from olmocr.hub.find import find_settings

    console = start_logging(quiet=quiet)
    request = find_request(target_size, fit_mac, max_kl, sensitivities)
    request.require_alone(quantize, recipe, group_size)
    recipes = [changed(each, group_size, dtype, tuple(keep or ())) for each in _recipes(quantize, recipe)]
    output = output.expanduser() if output else None
    source = leaving_out(find_settings(model, revision), leave_out or ())
    targets = plan_targets(source, recipes, method, output)
    targets, known = _allocate(
        targets, request, method, output, console, low_disk=low_disk, dry_run=dry_run, quiet=quiet
    )
    own_pages = tuple(path.expanduser() for path in calibrate_on or ())
    wish = Wish(
        method,
        own_pages,
        calibration_tokens,
        calibration_answers,
        low_disk,
        calibration_gradients,
        calibration_propagation,
    )
    targets, calibration = _settle(targets, wish, console, quiet=quiet)
    targets = with_predictions(targets, known)
    if dry_run:
        _say_plans(targets, threads, calibration, as_json=as_json)
        return
    upload = None
    if upload_repo:
        from olmocr.hub.write import Hub
        from olmocr.publish.upload import Upload

        pages = tuple(path.expanduser() for path in fidelity_pages or ())
        upload = Upload(upload_repo, private, tuple(allow_failing or ()), pages, license_id, base_model, collection)
        upload.require_possible(targets, Hub(), smoke_test=smoke_test is not False, low_disk=low_disk)
    with shown_download(console, quiet=quiet) as on_stage:
        targets = with_weights(targets, low_disk=low_disk, on_stage=on_stage)
    made = _made_before(targets) if upload else {}
    left = [target for target in targets if target.output not in made]
    if left:
        made |= _write(left, console, threads, calibration, measures=request.goal is not None, quiet=quiet)
    reports = [made[target.output] for target in targets]
    if as_json:
        _say_json_reports(reports)
    elif not quiet:
        _say_reports(targets, reports)
    for report in reports:
        require_as_predicted(report.divergence)
    if smoke_test is not False:
        _require_reading(targets, console, upload, asked=bool(smoke_test), quiet=quiet)
    if upload:
        _publish(upload, targets, console, quiet=quiet)


def _recipes(names: str | None, file: Path | None) -> list[QuantRecipe]:
    asked = names.split(",") if names is not None else [] if file else [_DEFAULT_RECIPE]
    recipes = [find_recipe(name) for name in asked]
    if file:
        recipes.append(read_recipe(file.expanduser()))
    found = [recipe.name for recipe in recipes]
    if len(set(found)) < len(found):
        raise UsageError(f"--quantize names {', '.join(found)}; name each recipe once")
    return recipes


def _allocate(
    targets: list[Target],
    request: SensitivityRequest,
    method: Method | None,
    output: Path | None,
    console: Console,
    *,
    low_disk: bool,
    dry_run: bool,
    quiet: bool,
) -> tuple[list[Target], Sensitivities | None]:
    """Read or measure what each matrix of the source costs, and choose bits by it if *request* has a goal."""
    from olmocr.calibration.sensitivities import known_sensitivities
    from olmocr.conversion.convert import with_weights

    if not request.is_one:
        return targets, None
    if not dry_run and not request.is_there(targets[0].plan.source.folder):
        with shown_download(console, quiet=quiet) as on_stage:
            targets = with_weights(targets, low_disk=low_disk, on_stage=on_stage)
    source = targets[0].plan.source
    with progress_bar(console, *counting_columns(), quiet=quiet) as progress:
        task = progress.add_task("measuring matrices", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        known = known_sensitivities(
            source,
            request.file_of(source.folder),
            method,
            may_measure=not dry_run,
            confirm=functools.partial(typer.confirm, err=True) if _is_person() else None,
            on_block=show,
        )
    return [request.allocated(target, known, method, output, dry_run=dry_run) for target in targets], known


def _is_person() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _settle(
    targets: list[Target], wish: Wish, console: Console, *, quiet: bool
) -> tuple[list[Target], Calibration | None]:
    """Find the pages to calibrate on, report how long it takes, and ask if that is long."""
    from olmocr.calibration.choice import found_pages, settle

    with progress_bar(console, *counting_columns(), quiet=quiet) as progress:
        task = progress.add_task("pages to calibrate on", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        confirm = functools.partial(typer.confirm, err=True) if _is_person() else None
        return settle(targets, wish, confirm, functools.partial(found_pages, on_page=show))


def _say_plans(
    targets: Sequence[Target], threads: int | None, calibration: Calibration | None, *, as_json: bool
) -> None:
    from olmocr.conversion.plan_text import plan_json, plan_tables
    from olmocr.conversion.write import find_resources

    resources = find_resources(targets, threads, calibration)
    if as_json:
        plans = [plan_json(target.plan, resources) for target in targets]
        say(json.dumps(plans[0] if len(plans) == 1 else plans, indent=2))
    else:
        say("\n".join(plan_tables(target.plan, resources) for target in targets).rstrip("\n"))


def _made_before(targets: Sequence[Target]) -> dict[Path, ConversionReport]:
    from olmocr.publish.ready import made_before

    reports = {target.output: report for target in targets if (report := made_before(target))}
    for output in reports:
        log.info("%s is already this conversion", output)
    return reports


def _write(
    targets: Sequence[Target],
    console: Console,
    threads: int | None,
    calibration: Calibration | None,
    *,
    measures: bool,
    quiet: bool,
) -> dict[Path, ConversionReport]:
    """Write *targets*; with *measures*, measure those with a prediction against their source."""
    from olmocr.calibration.agreement import measuring
    from olmocr.conversion.write import write_models

    sources = {tensor.source.name: tensor.source.nbytes for target in targets for tensor in target.plan.tensors}
    with progress_bar(console, *byte_columns(), quiet=quiet) as progress:
        total = sum(sources.values())
        if calibration:
            calibrating = progress.add_task("calibrating", total=total)
            calibration = replace(
                calibration, on_share=lambda share: progress.update(calibrating, completed=share * total)
            )
        task = progress.add_task("converting", total=total)
        advance = functools.partial(progress.advance, task)
        measure = None
        if measures:
            comparing = progress.add_task("comparing", total=total)
            measure = measuring(on_block=lambda done, of: progress.update(comparing, completed=done / of * total))
        reports = write_models(targets, advance, threads=threads, calibration=calibration, measure=measure)
    return {target.output: report for target, report in zip(targets, reports, strict=True)}


def _say_json_reports(reports: Sequence[ConversionReport]) -> None:
    from olmocr.reports.typed_json import report_json

    texts = [report_json(report).rstrip("\n") for report in reports]
    say(texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]")


def _say_reports(targets: Sequence[Target], reports: Sequence[ConversionReport]) -> None:
    for target, report in zip(targets, reports, strict=True):
        say(
            f"{target.output}: {report.weight_bytes / 1e9:.3f} GB, {report.bits_per_weight:.2f} bits per weight, "
            f"{len(report.tensors)} tensors in {report.seconds:.1f} s"
        )
        if target.plan.predicted_nats is not None:
            say(f"predicted: a KL divergence of {target.plan.predicted_nats:.3g} nats per answer token from the source")
        if report.divergence:
            found = report.divergence
            say(f"measured: {found.measured_nats:.3g} nats on {found.pages} drawn pages not used for calibration")
    say(f"check it: python -m olmocr.validate weights {targets[0].output}")
    say(f"read a PDF with it: olmocr workspace --pdfs FILE.pdf --model {targets[0].output} --markdown")


def _require_reading(
    targets: Sequence[Target], console: Console, upload: Upload | None, *, asked: bool, quiet: bool
) -> None:
    """Have each new model read the built-in pages, if *asked*, quick, or needed for *upload*.

    Otherwise, log why not.
    """
    from olmocr.validate.smoke.run import why_not_quick

    needed = asked or (upload is not None and upload.requires("smoke"))
    held = True
    for target in targets:
        why = why_not_quick(target.output)
        if why and not needed:
            log.info("skipped the smoke test: %s; run it with: python -m olmocr.validate smoke %s", why, target.output)
            continue
        if why:
            log.warning("the smoke test takes long: %s", why)
        held = _reads(target.output, console, again=upload is None, quiet=quiet) and held
    if not held and (upload is None or upload.requires("smoke")):
        raise typer.Exit(ExitCode.GATE_FAILED)


def _reads(folder: Path, console: Console, *, again: bool, quiet: bool) -> bool:
    """Return whether the model passes, or passed, its smoke test; one that passed is tested *again* only if asked."""
    from olmocr.publish.ready import has_passed_smoke
    from olmocr.reports.smoke import smoke_lines, smoke_verdict
    from olmocr.validate.smoke.run import smoke_test

    if not again and has_passed_smoke(folder):
        log.info("%s has already passed its smoke test", folder)
        return True
    with progress_bar(console, quiet=quiet) as progress:
        task = progress.add_task("smoke test", total=None)
        report = smoke_test(folder, on_page=functools.partial(progress.advance, task))
    for line in [smoke_verdict(report)] if report.passed else smoke_lines(report):
        log.log(logging.INFO if report.passed else logging.WARNING, "%s", line)
    return report.passed


def _publish(upload: Upload, targets: Sequence[Target], console: Console, *, quiet: bool) -> None:
    """Measure each new model against its source if its gate requires that, and push it if it passes all gates."""
    from olmocr.hub.write import Hub

    if upload.requires("fidelity"):
        with progress_bar(console, *counting_columns(), quiet=quiet) as progress:
            task = progress.add_task("measuring", total=None)

            def show(name: str, total: int) -> None:
                progress.update(task, description=printable(name), total=total * len(targets), advance=1)

            upload.measure(targets, show)
    upload.publish(targets, Hub())


if __name__ == "__main__":
    app()
