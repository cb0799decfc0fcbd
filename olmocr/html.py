"""Common parts of all HTML files for people: style, head, policy and escaping. The only module that uses jinja2.

Each file is self-contained and may not load anything: its Content-Security-Policy allows only its own style sheets and
scripts, by their hashes, and pictures and fonts inside the file.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

_HERE = "olmocr"


@functools.cache
def page_template(
    package: str, name: str, finalize: Callable[[Any], Any] | None = None, **filters: Callable[..., object]
) -> jinja2.Template:
    """Return one of the templates of *package*, which may extend ``base.html``; values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader(_HERE)]),
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


@functools.cache
def asset(package: str, name: str) -> str:
    """Return a style sheet or a script from the templates of *package*."""
    return resources.files(package).joinpath("templates", name).read_text(encoding="utf-8")


def page_head(styles: Sequence[str], scripts: Sequence[str] = (), *, asks_its_server: bool = False) -> dict[str, Any]:
    """Return the values for ``base.html``: the common style, *styles*, *scripts*, and the policy that allows these.

    Both are inserted unchanged: they are ours, or were checked. With *asks_its_server*, the scripts may send requests
    to the page's own server, and to no other.
    """
    styles = [asset(_HERE, "base.css"), *styles]
    return {
        "styles": [Markup(style) for style in styles],  # noqa: S704
        "scripts": [Markup(script) for script in scripts],  # noqa: S704
        "policy": page_policy(styles, scripts, asks_its_server=asks_its_server),
    }


def page_policy(styles: Sequence[str], scripts: Sequence[str] = (), *, asks_its_server: bool = False) -> str:
    """Return the Content-Security-Policy of a page with these style sheets and scripts, which loads nothing."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(scripts)}",
            f"style-src {_hashes(styles)}",
            "img-src data:",
            "font-src data:",
            *(("connect-src 'self'",) if asks_its_server else ()),
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hashes(texts: Sequence[str]) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests) or "'none'"
