"""A field of a configuration, described once: for readers, for the check of its range, and for the command line."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from olmocr.errors import UsageError

T = TypeVar("T")

SETTING = "setting"
"""The key of a field's :class:`Setting` in its metadata."""


@dataclass(frozen=True)
class Range:
    """The numbers from *least*, or from above it, to *most*; *unit* is what they count."""

    least: float
    most: float = math.inf
    unit: str = ""
    is_above: bool = False

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and not (self.is_above and number == self.least)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.most < math.inf:
            return f"{self.least:g} to {self.most:g}{unit}"
        return f"more than {self.least:g}{unit}" if self.is_above else f"{self.least:g}{unit} or more"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of a field.

    *help* is for everybody, *note* for callers from Python. A command lists it under *panel*, and shows *metavar* in
    place of a value. None may be allowed besides *range*.
    """

    help: str
    note: str = ""
    panel: str | None = None
    metavar: str | None = None
    range: Range | None = None
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(each for each in (self.help, self.note, f"({self.range})" if self.range else "") if each)


def setting(default: T, help: str, *, repr: bool = True, **more: Any) -> T:  # noqa: A002
    """Return a dataclass's field with a default; the rest is as in :class:`Setting`."""
    return field(default=default, repr=repr, metadata={SETTING: Setting(help=help, **more)})


def settings_of(config: Any) -> dict[str, Setting]:
    """Return what is known of each field of a dataclass, by its name."""
    return {each.name: each.metadata[SETTING] for each in fields(config)}


def require_settings(config: Any) -> None:
    """Check that each field has an allowed value.

    Raises:
        UsageError: one does not.
    """
    for name, each in settings_of(config).items():
        value = getattr(config, name)
        if each.choices and value not in each.choices:
            raise UsageError(f"{name} must be one of {', '.join(each.choices)}, not {value!r}")
        if each.range and value is not None and value not in each.range:
            raise UsageError(f"{name} must be {each.range}, not {value!r}")


def documented(config_class: type[T]) -> type[T]:
    """Add a description of its fields to a dataclass's docstring, for :func:`help`."""
    told = (f"{name}: {each}" for name, each in settings_of(config_class).items())
    wrapped = (textwrap.fill(each, 112, initial_indent="    ", subsequent_indent="        ") for each in told)
    config_class.__doc__ = "\n".join(
        [textwrap.dedent(f"    {config_class.__doc__}").strip(), "", "Attributes:", *wrapped]
    )
    return config_class
