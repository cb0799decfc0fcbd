"""The command ``olmocr``: arguments, environment and olmocr.toml -> PipelineConfig -> run."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import itertools
import logging
import os
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmocr.backends.config import one_or_several
from olmocr.backends.server_list import read_server_list
from olmocr.errors import InputError, OlmocrError, UsageError
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.terminal.upstream_options import Translated, heed, translated
from olmocr.runtime.memory import parse_size
from olmocr.settings import Setting, settings_of
from olmocr.terminal import options
from olmocr.terminal.command import (
    CommandWithBothSpellings,
    complain,
    ends_with_exit_code,
    in_this_commands_words,
    log_to_file,
    run_interruptibly,
    say,
    several_values,
    start_logging,
    with_ray_address,
)
from olmocr.text import in_a_line, strict_json
from olmocr.version import __version__

if TYPE_CHECKING:
    from olmocr.inputs.sources import Source
    from olmocr.pipeline.summary import RunSummary
    from olmocr.workspace.document import PageRecord
    from olmocr.workspace.stats import Stats

SETTINGS_FILE = "olmocr.toml"

_PREFIX = "OLMOCR"  # of variables of the environment
_OTHER_VARIABLES = {"OLMOCR_BLAS", "OLMOCR_VERSION"}  # the device code's, and one that may mean something else

_MODEL, _OUTPUT, _RUN = "Model or server", "Output", "Run"

_NOT_IN_A_FILE = {"version", "api_key", "install_completion", "show_completion"}

_MOST_ASKED_AFTER = 3  # missing documents for which a similar name is suggested
_MOST_COMPARED = 1000  # names in a folder

log = logging.getLogger(__name__)

app = typer.Typer(pretty_exceptions_enable=False)


class _OcrCommand(CommandWithBothSpellings):
    """Spreads ``--pdfs a b c``, keeps what follows ``--`` for a server, and takes settings from olmocr.toml."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        options = [parameter for parameter in self.params if parameter.param_type_name == "option"]
        for parameter in self.params:  # the text above the options says it once
            parameter.show_envvar = False  # type: ignore[attr-defined]
        settings = _settings(Path(SETTINGS_FILE), [each for each in options if each.name not in _NOT_IN_A_FILE])
        return super().make_context(info_name, args, parent, **extra, default_map=settings)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        found = translated(several_values(with_ray_address(args[:end]), "--pdfs"))
        ctx.obj = _Given(found, tuple(args[end + 1 :]))
        return super().parse_args(ctx, found.args)


def _settings(path: Path, options: list[Any]) -> dict[str, Any]:
    """Read *options* from a file: ``max_tokens = 4000``; the command line and the environment take precedence.

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
        raise typer.BadParameter(f"{path} sets {', '.join(unknown)}, which is not an option that it may set")
    return {known[name].name: _setting(path, known[name], value) for name, value in given.items()}


def _setting(path: Path, option: Any, value: Any) -> Any:
    if option.multiple:
        return value if isinstance(value, list) else [value]
    if isinstance(value, list | dict):
        raise typer.BadParameter(f"{path} sets {option.opts[0].removeprefix('--')} to several values; it takes one")
    return value


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"olmocr {__version__}")
        raise typer.Exit


@dataclass(frozen=True)
class _Given:
    """The part of the command line that is for others: upstream's options, and a server's, which follow --."""

    upstream: Translated
    for_server: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _How:
    """What a run reports, and where."""

    quiet: bool
    as_json: bool
    log_file: Path | None
    metrics_port: int | None


@dataclass(frozen=True)
class _Form:
    """The command line's form of a field of PipelineConfig, if it differs from the field."""

    hint: Any
    default: Any
    value: Callable[[Any], Any]


_FORMS = {
    "workspace": _Form(str, inspect.Parameter.empty, str),  # a path would turn an empty name into the current folder
    "pdfs": _Form(list[str] | None, None, lambda names: tuple(names or ())),
    "server": _Form(list[str] | None, None, one_or_several),
    "api": _Form(str, PipelineConfig.api, str),  # the config refuses an unknown one
    "tables": _Form(str, PipelineConfig.tables, str),
    "headers": _Form(str, PipelineConfig.headers, str),
    "kv_budget": _Form(str | None, None, lambda size: None if size is None else parse_size(size, "--kv-budget")),
    "guided_decoding": _Form(bool, False, lambda always: "always" if always else PipelineConfig.guided_decoding),
    "page_separator": _Form(str, "", lambda text: text.replace("\\n", "\n")),
    "languages": _Form(str, "en", lambda codes: tuple(code.strip() for code in codes.split(","))),
}
_NO_OPTIONS = {"prompt", "server_options"}  # the first has two options of its own; the others follow --


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
    """Let *command* take each field of PipelineConfig, as its metadata describes, before its own options."""
    hints, told = typing.get_type_hints(PipelineConfig), settings_of(PipelineConfig)
    settings = [_parameter(name, hints[name], told[name]) for name in told if name not in _NO_OPTIONS]
    context, *own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [context, *settings, *(each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


@app.command(cls=_OcrCommand, context_settings={"auto_envvar_prefix": _PREFIX})
@_takes_settings
@ends_with_exit_code
def ocr(
    context: typer.Context,
    *,
    documents: Annotated[
        list[str] | None,
        typer.Argument(help="More documents; after a workspace, the same as --pdfs.", show_default=False),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="Without a workspace: write markdown there, not to standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    servers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="More servers, one address a line; # begins a comment.", rich_help_panel=_MODEL
        ),
    ] = None,
    custom_prompt: Annotated[
        str | None,
        typer.Option(help="Prompt, instead of the one that the model was trained on.", rich_help_panel=_MODEL),
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="The same, from a text file.", rich_help_panel=_MODEL)
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print what the workspace holds, and read nothing.", rich_help_panel=_RUN)
    ] = False,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            metavar="PRICE",
            help="A machine's price; --stats then shows what a million pages cost.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    machines: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Machines in each run, for its cost. Default: from its servers.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the summary, or the stats, as JSON.", envvar="OLMOCR_JSON", rich_help_panel=_RUN
        ),
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Serve metrics for Prometheus on this port, to this machine.", rich_help_panel=_RUN
        ),
    ] = None,
    disk_logging: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also log to a file, in detail.", rich_help_panel=_RUN)
    ] = None,
    quiet: Annotated[bool, options.quiet(_RUN)] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", help="If no model is named, download one that fits without asking.", rich_help_panel=_MODEL
        ),
    ] = False,
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

    olmocr FILE.pdf prints its markdown. olmocr WORKSPACE --pdfs FILE.pdf... keeps results in a folder.

    Run it again to resume after an interruption, or to retry what failed. You can also set options in the environment
    (OLMOCR_MAX_TOKENS=4000) or in olmocr.toml in the current folder. What follows -- goes to a server that olmocr
    starts. olmocr help lists the other commands.
    """
    for note in _misspelt(os.environ, context.command.params):
        complain(note)
    if stats:
        _say_stats(settings["workspace"], price_per_hour, machines, as_json=as_json)
        return
    if any(_is_typed(context, name) for name in ("price_per_hour", "machines")):
        raise UsageError("--price-per-hour and --machines are for the cost of finished runs; give --stats as well")
    values = {name: _FORMS[name].value(value) if name in _FORMS else value for name, value in settings.items()}
    if servers is not None:
        named = read_server_list(servers.expanduser())
        values["server"] = one_or_several([*(settings["server"] or ()), *named])
    values |= {"prompt": _prompt(custom_prompt, prompt_file), "server_options": _server_options(context.obj, values)}
    how = _How(quiet=quiet, as_json=as_json, log_file=disk_logging, metrics_port=metrics_port)
    has_workspace = not _has_no_workspace(values)
    names = [*(documents or ()), *values.pop("pdfs")]
    if not has_workspace:
        from olmocr.pipeline.terminal.to_text import require_no_workspace

        names.insert(0, values.pop("workspace"))
        require_no_workspace(names)
    if not values["model"] and not values["server"] and values["backend"] != "vllm" and (names or not has_workspace):
        values["model"] = _model_of(values.get("workspace")) or _default_model(names, is_agreed=yes)
    if has_workspace and output is not None:
        raise UsageError("--output is for documents without a workspace; use --output-dir for a workspace's markdown")
    if has_workspace and not names and not values["retry_failed"]:
        raise UsageError(_nothing_to_read(values["workspace"]))
    with _telling_more(names, values):
        if has_workspace:
            _run(PipelineConfig(**values, pdfs=tuple(names)), how)
        else:
            _read_to_text(names, output, values, how)


def _is_typed(context: typer.Context, name: str) -> bool:
    """Say whether an option is on the command line; one in a file or the environment may be meant for other runs."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _nothing_to_read(workspace: str) -> str:
    """Return the message if no document is named: perhaps *workspace* was meant to be one."""
    from olmocr.workspace.objects.place import store_place

    what = "no document is named"
    if store_place(workspace) is None and not Path(workspace).expanduser().exists():
        what += f", and there is no file or folder {workspace}{_alike([workspace])}"
    return f"{what}; olmocr FILE.pdf prints a document's text, and olmocr WORKSPACE --pdfs FILE.pdf ... keeps it"


@contextlib.contextmanager
def _telling_more(documents: list[str], values: dict[str, Any]) -> Iterator[None]:
    """If a document is missing, suggest one with a similar name, and report a missing model as well."""
    try:
        yield
    except InputError as error:
        from olmocr.hub.find import require_model_name

        sentence = f"{error}{_alike(documents)}"
        try:
            if values["model"] and not values["server"]:
                require_model_name(values["model"])
        except OlmocrError as other:
            raise InputError(f"{sentence}; and {other}") from error
        raise InputError(sentence) from error


def _alike(documents: list[str]) -> str:
    """Return a question that suggests files with similar names; empty if there are none."""
    meant = []
    for path in (Path(name) for name in documents[:_MOST_ASKED_AFTER]):
        with contextlib.suppress(OSError, ValueError):
            if not os.path.lexists(path):
                names = [each.name for each in itertools.islice(path.parent.iterdir(), _MOST_COMPARED)]
                meant += [str(path.with_name(each)) for each in difflib.get_close_matches(path.name, names, 1, 0.8)]
    return f" (did you mean {in_a_line(', '.join(meant))}?)" if meant else ""


def _model_of(workspace: str | None) -> str | None:
    """Return the model that a workspace was read with, if this machine can have it."""
    from olmocr.workspace.opening import memory_to_read, workspace_place

    if not workspace:
        return None
    try:
        with memory_to_read(workspace_place(workspace)) as records:
            model = records.only_model()
    except InputError:  # the workspace does not exist yet
        return None
    return model if model and (Path(model).expanduser().is_dir() or model.count("/") == 1) else None


def _default_model(documents: list[str], *, is_agreed: bool) -> str:
    from olmocr.inputs.sources import find_sources
    from olmocr.pipeline.terminal.default_model import default_model

    is_person = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    try:
        find_sources(documents)
    except InputError as error:  # reported together, so that both can be fixed at once
        try:
            default_model(is_agreed=False, confirm=None)
        except UsageError as other:
            raise UsageError(f"{error}{_alike(documents)}; and {other}") from other
        raise
    return default_model(is_agreed=is_agreed, confirm=functools.partial(typer.confirm, err=True) if is_person else None)


def _misspelt(environment: Mapping[str, str], parameters: list[Any]) -> Iterator[str]:
    """Yield a sentence for each OLMOCR_ variable that no option reads."""
    known = {f"{_PREFIX}_{parameter.name.upper()}" for parameter in parameters} | _OTHER_VARIABLES
    known |= {parameter.envvar for parameter in parameters if isinstance(parameter.envvar, str)}
    for name in sorted(environment):
        if name.startswith(f"{_PREFIX}_") and name not in known:
            meant = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {meant[0]}?" if meant else ""
            yield f"{name} is not a setting, and has no effect{hint}"


def _server_options(given: _Given, values: dict[str, Any]) -> tuple[str, ...]:
    ours = heed(given.upstream, is_vllm=values["backend"] == "vllm" and not values["server"])
    for note in given.upstream.notes:
        complain(note)
    return (*ours, *given.for_server)


def _has_no_workspace(values: dict[str, Any]) -> bool:
    """Say whether the name in place of the workspace is that of a document, or of a folder of documents."""
    from olmocr.files import is_folder
    from olmocr.pipeline.terminal.to_text import names_documents
    from olmocr.workspace.objects.place import store_place

    if store_place(values["workspace"]) and (values["pdfs"] or values["retry_failed"]):
        return False
    path = Path(values["workspace"]).expanduser()
    if is_folder(path) and (values["pdfs"] or values["retry_failed"]):
        return False
    return names_documents(values["workspace"])


def _read_to_text(documents: list[str], output: str | None, values: dict[str, Any], how: _How) -> None:
    from olmocr.inputs.sources import find_sources
    from olmocr.pipeline.terminal.to_text import Destination, sweep, texts_of, workspace_of

    sweep()
    sources = find_sources(documents)
    workspace = workspace_of(sources, values)
    attaches = bool(values["figures"]) or values["tables"] == "csv"
    destination = Destination(output, sources, workspace, attaches=attaches and not how.as_json)
    values |= {"workspace": workspace, "pdfs": tuple(documents), "markdown": True}
    config = PipelineConfig(**values)
    summary = _summary(config, how)
    if how.as_json:
        say(_summary_json(summary))
    else:
        destination.write(texts_of(config, sources))
    raise typer.Exit(summary.exit_code)


def _prompt(text: str | None, file: Path | None) -> str:
    if text is not None and file is not None:
        raise UsageError("--custom-prompt and --prompt-file both say what to ask; choose one")
    if file is not None:
        try:
            text = file.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--prompt-file {file} cannot be read: {error}") from error
    return text if text is not None else PipelineConfig.prompt


def _run(config: PipelineConfig, how: _How) -> None:
    summary = _summary(config, how)
    if how.as_json:
        say(_summary_json(summary))
    elif not how.quiet:
        _say_summary(summary, config)
    raise typer.Exit(summary.exit_code)


def _summary(config: PipelineConfig, how: _How) -> RunSummary:
    """Run *config*, and show its progress."""
    from olmocr.pipeline.metrics import served_metrics
    from olmocr.pipeline.run import run_pipeline
    from olmocr.pipeline.terminal.display import shown_run

    console = start_logging(quiet=how.quiet)
    if how.log_file is not None:
        log_to_file(how.log_file.expanduser())
    if config.prompt != PipelineConfig.prompt:
        log.warning("olmOCR was trained on one prompt only, and this is a different one")
    with contextlib.ExitStack() as stack:
        count = stack.enter_context(served_metrics(how.metrics_port)) if how.metrics_port else lambda page: None
        display = stack.enter_context(shown_run(console, quiet=how.quiet))

        def on_page(source: Source, page: PageRecord) -> None:
            count(page)
            display.on_page(source, page)
            _log_page(source, page)

        running = run_pipeline(config, on_page=on_page, on_document=display.on_document, on_stage=display.on_stage)
        return run_interruptibly(running)


def _log_page(source: Source, page: PageRecord) -> None:
    name = in_a_line(source.name)
    log.debug("%s, page %d: %s after %d attempts", name, page.page_number, page.status, page.attempts)


def _summary_json(summary: RunSummary | Stats, more: Mapping[str, Any] = {}) -> str:
    numbers = {**vars(summary), "failures": [each.as_json for each in summary.failures], **more}
    return strict_json(numbers, indent=2)


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
            "never found upright": summary.askew_pages,
        }
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        rate = f"in {summary.seconds:.1f} s, {pages_per_minute(summary):.1f} pages/min"
        say(f"pages:     {summary.pages} {f'({shown}) ' if shown else ''}{rate}")
    if len(config.servers) > 1:
        from olmocr.workspace.stats import server_lines

        for line in server_lines(summary.servers):
            say(line)
    say(f"results:   {config.workspace / 'results'}")
    if config.markdown_folder:
        say(f"markdown:  {config.markdown_folder}")
    for failure in summary.failures[:20]:
        say(f"failed:    {in_a_line(failure.source)}: {in_this_commands_words(failure.why)}")
    if len(summary.failures) > 20:
        say(f"           and {len(summary.failures) - 20} more, in {config.workspace / 'failures.jsonl'}")
    if summary.failures:
        say("           run it again to retry these")


def _say_stats(workspace: str, price: float | None, machines: int | None, *, as_json: bool) -> None:
    from olmocr.workspace.cost import cost_lines, read_cost, require_price
    from olmocr.workspace.opening import workspace_place
    from olmocr.workspace.stats import read_stats, stats_lines

    if price is None and machines is not None:
        raise UsageError("--machines is for the cost of runs; give --price-per-hour as well")
    if price is not None:
        require_price(price)
    place = workspace_place(workspace)
    stats = read_stats(place)
    cost = None if price is None else read_cost(place, price, machines)
    if as_json:
        say(_summary_json(stats, {} if cost is None else {"cost": cost.as_json()}))
    else:
        say("\n".join([*stats_lines(stats), *(() if cost is None else cost_lines(cost))]))


if __name__ == "__main__":
    app()
