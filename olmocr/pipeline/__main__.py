"""The command ``olmocr``: arguments, environment and olmocr.toml -> PipelineConfig -> run."""

from __future__ import annotations

import contextlib
import inspect
import logging
import time
import tomllib
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmocr import options
from olmocr.command import (
    CommandWithBothSpellings,
    complain,
    ends_with_exit_code,
    hyphenated,
    log_to_file,
    progress_bar,
    run_interruptibly,
    say,
    several_values,
    start_logging,
)
from olmocr.errors import UsageError
from olmocr.memory import parse_size
from olmocr.pipeline.config import PipelineConfig
from olmocr.settings import Setting, settings_of
from olmocr.text import in_a_line, strict_json
from olmocr.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from olmocr.inputs.sources import Source
    from olmocr.workspace.document import PageRecord

SETTINGS_FILE = "olmocr.toml"

_MODEL, _RUN = "What answers", "Run"

_LINE_EVERY_SECONDS = 30.0  # in a log; whoever looks sees every page

_NOT_IN_A_FILE = {"version", "api_key", "install_completion", "show_completion"}

# Options of upstream's command that mean nothing here, with what to know about each.
_WITHOUT_EFFECT = {
    "--pages-per-group": "pages are kept one by one here, not in groups",
    "--target-anchor-text-len": "the model is asked without anchor text",
}

log = logging.getLogger(__name__)

app = typer.Typer(pretty_exceptions_enable=False)


class _OcrCommand(CommandWithBothSpellings):
    """Spreads ``--pdfs a b c``, keeps what follows ``--`` for a server, and takes settings from olmocr.toml."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        options = [parameter for parameter in self.params if parameter.param_type_name == "option"]
        for parameter in self.params:  # told once, in the text above them
            parameter.show_envvar = False  # type: ignore[attr-defined]
        settings = _settings(Path(SETTINGS_FILE), [each for each in options if each.name not in _NOT_IN_A_FILE])
        return super().make_context(info_name, args, parent, **extra, default_map=settings)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.obj = args[end + 1 :]
        return super().parse_args(ctx, _without_effect(several_values(args[:end], "--pdfs")))


def _settings(path: Path, options: list[Any]) -> dict[str, Any]:
    """Read *options* from a file: ``max_tokens = 4000``; the command line and the environment come before it.

    Raises:
        BadParameter: it cannot be read, or names something else.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error
    known = {option.opts[0].removeprefix("--").replace("-", "_"): option for option in options}
    given = {name.replace("-", "_"): value for name, value in settings.items()}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise typer.BadParameter(f"{path} sets {', '.join(unknown)}, which is no option that it may set")
    return {known[name].name: _setting(path, known[name], value) for name, value in given.items()}


def _setting(path: Path, option: Any, value: Any) -> Any:
    if option.multiple:
        return value if isinstance(value, list) else [value]
    if isinstance(value, list | dict):
        raise typer.BadParameter(f"{path} sets {option.opts[0].removeprefix('--')} to several values; it takes one")
    return value


def _without_effect(args: list[str]) -> list[str]:
    kept, skipped = [], False
    for arg in args:
        given, equals, _ = arg.partition("=")
        name = hyphenated(given)
        if skipped:
            skipped = False
        elif name in _WITHOUT_EFFECT:
            complain(f"{name} has no effect: {_WITHOUT_EFFECT[name]}")
            skipped = not equals
        else:
            kept.append(arg)
    return kept


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"olmocr {__version__}")
        raise typer.Exit


@dataclass(frozen=True)
class _Form:
    """What a field of PipelineConfig is on the command line, where it is something else there."""

    hint: Any
    default: Any
    value: Callable[[Any], Any]


_FORMS = {
    "workspace": _Form(str, inspect.Parameter.empty, str),  # a path would make a folder of no name this one
    "pdfs": _Form(list[str] | None, None, lambda names: tuple(names or ())),
    "api": _Form(str, PipelineConfig.api, str),  # the config refuses what is none
    "kv_budget": _Form(str | None, None, lambda size: None if size is None else parse_size(size, "--kv-budget")),
    "guided_decoding": _Form(bool, False, lambda always: "always" if always else PipelineConfig.guided_decoding),
    "page_separator": _Form(str, "", lambda text: text.replace("\\n", "\n")),
    "languages": _Form(str, "en", lambda codes: tuple(code.strip() for code in codes.split(","))),
}
_NO_OPTIONS = {"prompt", "server_options"}  # the one has two options of its own, the others follow --


def _parameter(name: str, hint: Any, told: Setting) -> inspect.Parameter:
    """Return the parameter by which the command takes a field of PipelineConfig."""
    form = _FORMS.get(name) or _Form(hint, getattr(PipelineConfig, name), lambda value: value)
    if name == "workspace":
        info = typer.Argument(help=told.help, show_envvar=False)
    else:
        spelled = f"--{name.replace('_', '-')}"
        flags = {bool: [spelled], bool | None: [f"{spelled}/--no-{spelled[2:]}"]}.get(form.hint, [])
        info = typer.Option(*flags, help=told.help, metavar=told.metavar, rich_help_panel=told.panel)
    annotation: Any = Annotated[form.hint, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=form.default, annotation=annotation)


def _takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Let *command* take each field of PipelineConfig, as its metadata tells, before its own options."""
    hints, told = typing.get_type_hints(PipelineConfig), settings_of(PipelineConfig)
    settings = [_parameter(name, hints[name], told[name]) for name in told if name not in _NO_OPTIONS]
    context, *own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [context, *settings, *(each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


@app.command(cls=_OcrCommand, context_settings={"auto_envvar_prefix": "OLMOCR"})
@_takes_settings
@ends_with_exit_code
def ocr(
    context: typer.Context,
    *,
    custom_prompt: Annotated[
        str | None, typer.Option(help="Ask this instead of what the model was trained on.", rich_help_panel=_MODEL)
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="The same, from a text file.", rich_help_panel=_MODEL)
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print what the workspace holds, and read nothing.", rich_help_panel=_RUN)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the summary, or the stats, as JSON.", envvar="OLMOCR_JSON", rich_help_panel=_RUN
        ),
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Serve metrics for Prometheus there, to this machine.", rich_help_panel=_RUN
        ),
    ] = None,
    disk_logging: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also log to a file, in detail.", rich_help_panel=_RUN)
    ] = None,
    quiet: Annotated[bool, options.quiet(_RUN)] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            is_eager=True,
            callback=_print_version,
            allow_from_autoenv=False,  # OLMOCR_VERSION may well be something else
        ),
    ] = False,
    **settings: Any,
) -> None:
    """Read documents with an olmOCR model: markdown and Dolma JSONL out of PDFs and pictures.

    Run it again to go on after an interruption, or to try again what failed. Options may also be set in the environment
    (OLMOCR_MAX_TOKENS=4000) or in olmocr.toml in the current folder; what follows -- goes to a server that is started.

    olmocr serve keeps a model in memory for other programs instead (olmocr serve --help).
    """
    if stats:
        _say_stats(settings["workspace"], as_json=as_json)
        return
    values = {name: _FORMS[name].value(value) if name in _FORMS else value for name, value in settings.items()}
    prompt = _prompt(custom_prompt, prompt_file)
    config = PipelineConfig(prompt=prompt, server_options=tuple(context.obj or ()), **values)
    _run(config, quiet=quiet, as_json=as_json, log_file=disk_logging, metrics_port=metrics_port)


def _prompt(text: str | None, file: Path | None) -> str:
    if text is not None and file is not None:
        raise UsageError("--custom-prompt and --prompt-file both say what to ask; choose one")
    if file is not None:
        try:
            text = file.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--prompt-file {file} cannot be read: {error}") from error
    return text if text is not None else PipelineConfig.prompt


def _run(
    config: PipelineConfig, *, quiet: bool, as_json: bool, log_file: Path | None, metrics_port: int | None
) -> None:
    from olmocr.pipeline.metrics import served_metrics
    from olmocr.pipeline.run import run_pipeline
    from olmocr.pipeline.summary import RunSummary

    console = start_logging(quiet=quiet)
    if log_file is not None:
        log_to_file(log_file.expanduser())
    if config.prompt != PipelineConfig.prompt:
        log.warning("olmOCR was trained on one prompt only, and this is another")
    with contextlib.ExitStack() as stack:
        count = stack.enter_context(served_metrics(metrics_port)) if metrics_port else lambda page: None
        on_document, show = stack.enter_context(_shown_progress(console, quiet=quiet))

        def on_page(source: Source, page: PageRecord) -> None:
            count(page)
            show(source, page)

        summary: RunSummary = run_interruptibly(run_pipeline(config, on_page=on_page, on_document=on_document))
    if as_json:
        say(strict_json({**vars(summary), "failures": [vars(each) for each in summary.failures]}, indent=2))
    elif not quiet:
        _say_summary(summary, config)
    raise typer.Exit(summary.exit_code)


@contextlib.contextmanager
def _shown_progress(console: Console, *, quiet: bool) -> Iterator[Any]:
    """Yield what is to be called when a document is begun, and after each page."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from olmocr.pipeline.progress import Tally

    tally, last_line = Tally(time.monotonic()), time.monotonic()
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with progress_bar(console, *columns, quiet=quiet) as bar:
        task = bar.add_task("reading", total=None)

        def on_document(source: Any, pages: int, waiting: int) -> None:
            tally.begin(pages, waiting)

        def on_page(source: Any, page: Any) -> None:
            nonlocal last_line
            now = time.monotonic()
            tally.add(page)
            bar.update(task, description=in_a_line(f"{tally.line(now)}; last: {source.name}, page {page.page_number}"))
            if bar.disable and now - last_line >= _LINE_EVERY_SECONDS:
                last_line = now
                log.info("%s", tally.line(now))
            log.debug(
                "%s, page %d: %s after %d attempts",
                in_a_line(source.name),
                page.page_number,
                page.status,
                page.attempts,
            )

        yield on_document, on_page


def _say_summary(summary: Any, config: PipelineConfig) -> None:
    from olmocr.pipeline.summary import pages_per_minute

    left_out = f", {summary.filtered} left out" if summary.filtered else ""
    say(f"documents: {summary.done} done, {len(summary.failures)} failed, {summary.skipped} done before{left_out}")
    if summary.pages:
        kinds = {
            "blank": summary.blank_pages,
            "asked more than once": summary.retried_pages,
            "from the file's own text": summary.fallback_pages,
            "perhaps incomplete": summary.poor_pages,
            "called turned whichever way they were shown": summary.askew_pages,
        }
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        rate = f"in {summary.seconds:.1f} s, {pages_per_minute(summary):.1f} pages/min"
        say(f"pages:     {summary.pages} {f'({shown}) ' if shown else ''}{rate}")
    say(f"results:   {config.workspace / 'results'}")
    if config.markdown_folder:
        say(f"markdown:  {config.markdown_folder}")
    for failure in summary.failures[:20]:
        say(f"failed:    {in_a_line(failure.source)}: {failure.why}")
    if len(summary.failures) > 20:
        say(f"           and {len(summary.failures) - 20} more, in {config.workspace / 'failures.jsonl'}")
    if summary.failures:
        say("           run it again to try these again")


def _say_stats(workspace: str, *, as_json: bool) -> None:
    from olmocr.workspace.folder import require_local
    from olmocr.workspace.stats import read_stats, stats_lines

    stats = read_stats(require_local(workspace, "the workspace"))
    say(strict_json(vars(stats), indent=2) if as_json else "\n".join(stats_lines(stats)))


if __name__ == "__main__":
    app()
