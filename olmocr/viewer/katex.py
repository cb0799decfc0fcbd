"""A folder with KaTeX in it -> one script and one style sheet that need no other file."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError

_SCRIPT = "katex.min.js"

# Where npm puts packages installed for all projects, and Debian its node-katex.
_MODULES_OF_ALL = (
    "/usr/local/lib/node_modules",
    "/opt/homebrew/lib/node_modules",
    "/usr/lib/node_modules",
    "/usr/share/nodejs",
    "~/.npm-global/lib/node_modules",
)

_FONT_FACE = re.compile(r"@font-face\s*\{[^{}]*\}")
_SOURCES = re.compile(r"src:([^;}]+)")
_WOFF2 = re.compile(r"url\(\s*[\"']?(?:\./)?fonts/([A-Za-z0-9_-]+\.woff2)[\"']?\s*\)")


@dataclass(frozen=True)
class Katex:
    """KaTeX, fonts included, as text that can be put into a page."""

    script: str
    style: str


def read_katex(folder: Path, *, with_fonts: bool = True) -> Katex:
    """Read ``katex.min.js``, ``katex.min.css`` and ``fonts/*.woff2``, as in KaTeX's own releases.

    They may be in a folder ``dist`` of *folder*, as in KaTeX's npm package. Without fonts, the style names none.

    Raises:
        InputError: one is missing, or cannot be put into a page.
    """
    if not (folder / _SCRIPT).is_file() and (folder / "dist" / _SCRIPT).is_file():
        folder /= "dist"
    script, style = (_read(folder / name).decode("utf-8", "replace") for name in (_SCRIPT, "katex.min.css"))
    if "</script" in script.lower() or "<!--" in script or "</style" in style.lower():
        raise InputError(f"{folder} has a KaTeX that cannot be put into a page; use one of its releases")
    if not with_fonts:
        return Katex(_plain(script), _plain(_FONT_FACE.sub("", style)))
    return Katex(_plain(script), _plain(_SOURCES.sub(lambda match: _with_font(match[1], folder), style)))


def find_katex() -> Path | None:
    """Return the folder of KaTeX's npm package: of this folder, one above it or the machine; or None."""
    return next((folder for folder in _packages() if (folder / "dist" / _SCRIPT).is_file()), None)


def _packages() -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / "node_modules/katex"
    for path in filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)):
        yield Path(path) / "katex"
    for name in _MODULES_OF_ALL:
        yield Path(name).expanduser() / "katex"


def _plain(text: str) -> str:
    """Return *text* with the line ends that a browser gives it before it computes the hash."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _with_font(sources: str, folder: Path) -> str:
    """Return a font face's sources as one data URI."""
    found = _WOFF2.search(sources)
    if found is None:
        return f"src:{sources}"
    font = base64.b64encode(_read(folder / "fonts" / found[1])).decode("ascii")
    return f"src:url(data:font/woff2;base64,{font})format('woff2')"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); `katex` names a folder with katex.min.js, katex.min.css "
            "and fonts/, like the one in KaTeX's releases"
        ) from error
