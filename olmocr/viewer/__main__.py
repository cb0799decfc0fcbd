"""The command ``python -m olmocr.viewer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from olmocr.command import (
    CommandWithBothSpellings,
    counting_columns,
    ends_with_exit_code,
    progress_bar,
    say,
    start_logging,
)
from olmocr.errors import MissingDependencyError
from olmocr.extras import install_command
from olmocr.options import Quiet
from olmocr.viewer.katex import read_katex
from olmocr.viewer.serve import address, make_server

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    from olmocr.viewer.site import Site

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def view(
    workspace: Annotated[Path, typer.Argument(help="The folder that olmocr wrote its results to.", show_default=False)],
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for the HTML; WORKSPACE/viewer if it is not given.", show_default=False)
    ] = None,
    katex: Annotated[
        Path | None,
        typer.Option(help="Folder of a KaTeX release, to typeset equations with; it is put into each page."),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Then serve the pages to this machine, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="Where --serve listens; 0 for any port that is free.")] = 8137,
    quiet: Quiet = False,
) -> None:
    """Write HTML that shows each page's image beside what was read of it. It needs no network and no server."""
    folder = (output_dir or workspace / "viewer").expanduser()
    server = make_server(folder, port) if serve else None  # first, so that a port that is taken costs no time
    site = _write(workspace.expanduser(), folder, katex, quiet=quiet)
    if not quiet:
        _say_site(site)
    if server:
        _serve(server)


def _write(workspace: Path, folder: Path, katex: Path | None, *, quiet: bool) -> Site:
    try:
        from olmocr.viewer.site import write_site
    except ImportError as error:
        raise MissingDependencyError(
            f"the viewer needs {error.name}, which is not installed: {install_command('viewer')}"
        ) from error

    typesetting = read_katex(katex.expanduser()) if katex else None
    with progress_bar(start_logging(quiet=quiet), *counting_columns(), quiet=quiet) as progress:
        task = progress.add_task("documents", total=None)
        return write_site(
            workspace,
            folder,
            katex=typesetting,
            on_document=lambda done, total: progress.update(task, completed=done, total=total),
        )


def _say_site(site: Site) -> None:
    failed = f" ({site.failed} failed)" if site.failed else ""
    say(f"documents: {site.documents}{failed}")
    say(f"pages:     {site.pages}, {site.to_look_at} to look at")
    say(f"open:      {site.index}")


def _serve(server: ThreadingHTTPServer) -> None:
    """Serve until Ctrl-C, which is how one ends this: no error."""
    say(f"serving:   {address(server)} (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    app()
