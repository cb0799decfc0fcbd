"""The command ``olmocr serve``: a converted model -> a server for other programs."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable
from typing import Annotated

import typer

from olmocr.errors import ExitCode, MissingDependencyError, UsageError
from olmocr.runtime.extras import install_command
from olmocr.runtime.memory import parse_size
from olmocr.serving.limits import ServerLimits
from olmocr.terminal.command import (
    CommandWithBothSpellings,
    complain,
    ends_with_exit_code,
    run_interruptibly,
    say,
    start_logging,
)
from olmocr.terminal.options import Quiet
from olmocr.terminal.stage_view import shown_download

_GRACE_SECONDS = 10.0

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s?#]+/?")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def serve(
    model: Annotated[str, typer.Option(help="A converted model: its folder, or a Hub repository.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on. One that other machines can reach needs an --api-key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="OLMOCR_API_KEY",
            help="The key that clients must send. Others may see a command line, so prefer the environment.",
            show_default=False,
        ),
    ] = None,
    served_model_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A name of the model for clients, besides olmocr. Default: the folder's name.",
            show_default=False,
        ),
    ] = None,
    drop_system_messages: Annotated[
        bool,
        typer.Option(
            "--drop-system-messages",
            help="Ignore system and developer messages. Default: refuse them, since olmOCR has its own.",
        ),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A host name under which clients may use this machine without a key. Repeatable.",
            show_default=False,
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A web page that may send requests, such as https://example.com; * (with a key) is any. Repeatable.",
            show_default=False,
        ),
    ] = None,
    max_queue: Annotated[
        int, typer.Option(min=0, help="Requests that may wait while others are answered; more get status 429.")
    ] = ServerLimits.waiting,
    max_request_bytes: Annotated[
        int, typer.Option(min=1, help="Largest request in bytes; a larger one gets status 413.")
    ] = ServerLimits.request_bytes,
    max_pages: Annotated[
        int, typer.Option(min=1, help="Most pages to read of one document at POST /v1/ocr.")
    ] = ServerLimits.pages,
    max_concurrent_pages: Annotated[
        int, typer.Option(min=1, help="Most pages to read at once, if memory allows; more wait.")
    ] = ServerLimits.at_once,
    kv_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory for keys and values, such as 4GB or 512MiB. Default: what the device has.",
            show_default=False,
        ),
    ] = None,
    drafts: Annotated[
        bool | None,
        typer.Option(
            "--drafts/--no-drafts",
            help="Whether to draft answers from a PDF's own text. Default: on if that is faster.",
            show_default=False,
        ),
    ] = None,
    page_time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time limit for one answer, from when the model begins it.")
    ] = ServerLimits.answer_seconds or 0.0,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time for unfinished answers after Ctrl-C.")
    ] = _GRACE_SECONDS,
    quiet: Quiet = False,
) -> None:
    """Keep a model in memory for other programs: OpenAI's API, and documents at POST /v1/ocr (docs/serve.md)."""
    if api_key is None:
        _tell_of_misspelt_keys(os.environ)
    key = _checked(api_key)
    origins = _checked_origins(allow_origin or [], has_key=key is not None)
    limits = ServerLimits(
        at_once=max_concurrent_pages,
        waiting=max_queue,
        request_bytes=max_request_bytes,
        pages=max_pages,
        answer_seconds=page_time_limit,
    )
    budget = parse_size(kv_budget, "--kv-budget") if kv_budget is not None else None
    try:
        from olmocr.serving.app import make_app
        from olmocr.serving.server import address, listen
        from olmocr.serving.server import serve as serve_app
    except ImportError as error:
        raise MissingDependencyError(
            f"the server needs {error.name}, which is not installed: {install_command('serve')}"
        ) from error
    from olmocr.backends.choice import engine_counts, open_engine
    from olmocr.hub.find import find_settings
    from olmocr.model_folder import weights_sha256
    from olmocr.pipeline.repetition import is_looping

    console = start_logging(quiet=quiet, with_time=True)
    with listen(host, port, has_key=key is not None) as listening, contextlib.ExitStack() as stack:
        with shown_download(console, quiet=quiet) as on_stage:
            opened = open_engine(
                model,
                most_pages=limits.at_once,
                is_looping=is_looping,
                kv_budget=budget,
                drafts=drafts,
                on_stage=on_stage,
            )
        engine = stack.enter_context(opened)
        folder = find_settings(model)
        name = served_model_name or folder.name
        served = make_app(
            engine.ask,
            name,
            other_names=(model,),
            api_key=key,
            allowed_hosts=allow_host or (),
            allowed_origins=origins,
            drops_system=drop_system_messages,
            limits=limits,
            engine_counts=lambda: engine_counts(engine),
            weights=weights_sha256(folder),
        )
        url = address(listening)
        say(f"{name} answers at {url}/v1 until Ctrl-C; in a browser: {url}/")
        try:
            run_interruptibly(serve_app(served, listening, grace=grace))
        except KeyboardInterrupt as interrupt:
            complain("stopped: requests in progress were answered or ended")
            raise typer.Exit(ExitCode.INTERRUPTED) from interrupt


def _tell_of_misspelt_keys(variables: Iterable[str]) -> None:
    """Report variables with names similar to the key's, which have no effect."""
    ours = [name for name in variables if name.startswith("OLMOCR_")]
    for name in difflib.get_close_matches("OLMOCR_API_KEY", ours, cutoff=0.85):
        complain(f"{name} is not a setting, and has no effect; did you mean OLMOCR_API_KEY?")


def _checked(api_key: str | None) -> str | None:
    """Return a key that can be sent.

    Raises:
        UsageError: it cannot be sent.
    """
    if api_key is not None and not (api_key.strip() and api_key.isascii() and api_key.isprintable()):
        raise UsageError("the API key is empty or has characters that cannot be sent; choose another")
    return api_key.strip() if api_key else None


def _checked_origins(origins: list[str], *, has_key: bool) -> tuple[str, ...]:
    """Return web pages' origins as browsers write them.

    Raises:
        UsageError: one is not an origin, or any page is allowed and there is no key.
    """
    for origin in origins:
        if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
            raise UsageError(f"--allow-origin {origin} is not an origin; write it like https://example.com")
        if origin in ("*", "null") and not has_key:
            raise UsageError(
                f"--allow-origin {origin} lets any web page send requests, and no key is set; set one in OLMOCR_API_KEY"
            )
    return tuple(origin.rstrip("/") for origin in origins)


if __name__ == "__main__":
    app()
