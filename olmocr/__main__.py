"""The command ``olmocr``: its first word names a command; any other first word is a document to read.

A workspace or a document with the name of a command is given as ./serve.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

USAGE = """\
olmocr FILE.pdf ...                   print a document's text as markdown
olmocr FILE.pdf ... -o FILE|FOLDER    write it there
olmocr WORKSPACE --pdfs FILE.pdf ...  read any number into a folder of results"""


@dataclass(frozen=True)
class Command:
    """A command: *module* has its ``app``, *group* is where help lists it, and *does* is its purpose."""

    module: str
    group: str
    does: str


COMMANDS = {
    "read": Command("olmocr.pipeline.__main__", "Read", "read documents; the same as without a command"),
    "serve": Command("olmocr.serving.__main__", "Read", "keep a model in memory, and serve it to other programs"),
    "view": Command("olmocr.viewer.__main__", "Read", "look at what was read, beside its pages"),
    "convert": Command("olmocr.convert_to_mlx", "Make weights", "make 4-bit, 8-bit or mixed weights from a checkpoint"),
    "validate": Command("olmocr.validate.__main__", "Make weights", "prove that weights are correct and still read"),
    "publish": Command("olmocr.publish.__main__", "Make weights", "write model cards, and upload to the Hub"),
    "doctor": Command(
        "olmocr.doctor.__main__", "This machine", "show what it has and lacks, whether a model fits, how fast it is"
    ),
}


def main() -> None:
    """Run the command that the first argument names."""
    if len(sys.argv) == 1:
        print(overview(), file=sys.stderr)
        sys.exit(2)
    first, rest = sys.argv[1], sys.argv[2:]
    if first == "help" and rest and rest[0] in COMMANDS:
        first, rest = rest[0], ["--help"]
    if first in ("help", "--help", "-h"):
        from olmocr.terminal.command import say  # a reader that has seen enough, like `head`, is not a fault

        say(overview())
    elif first in COMMANDS:
        _app(first)(args=rest, prog_name=f"olmocr {first}")
    elif meant := misspelt(first, rest):
        print(f"error: {meant}", file=sys.stderr)
        sys.exit(2)
    else:
        _app("read")(prog_name="olmocr")


def misspelt(first: str, rest: Sequence[str]) -> str | None:
    """Return a suggestion if *first* is a misspelled command; None otherwise.

    A word is a workspace if ``--pdfs`` names documents, or if something of that name exists.
    """
    if not first.replace("_", "").replace("-", "").isalpha() or first.startswith("-") or os.path.exists(first):  # noqa: PTH110
        return None
    if any(each.partition("=")[0] == "--pdfs" for each in rest):
        return None
    import difflib

    words = ("help", *COMMANDS)
    longer = [name for name in COMMANDS if len(name) > 4 and first.startswith(name)]  # such as convert_to_mlx
    meant = longer or difflib.get_close_matches(first, words, 1, 0.75)
    return (
        f"there is no command {first}; did you mean {meant[0]}? A folder of that name is ./{first}" if meant else None
    )


def overview() -> str:
    """Return what ``olmocr help`` prints."""
    lines = ["Read PDFs and pictures with olmOCR on your own machine.", "", USAGE]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {name:9} {each.does}" for name, each in COMMANDS.items() if each.group == group]
    return "\n".join([*lines, "", "olmocr COMMAND --help lists a command's options."])


def _app(name: str) -> Any:
    return importlib.import_module(COMMANDS[name].module).app


if __name__ == "__main__":
    main()
