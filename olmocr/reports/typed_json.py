"""A frozen dataclass -> JSON, and back, with each field's declared type."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

# msgspec's words for what it expected -> ours.
_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


class WrongTypeError(ValueError):
    """A value does not match the dataclass; the text says which, and what it should be."""


def report_json(report: DataclassInstance) -> str:
    """Return *report* as JSON.

    Raises:
        ValueError: it contains NaN or an infinity.
    """
    return json.dumps(dataclasses.asdict(report), indent=2, allow_nan=False) + "\n"


def parse_as(kind: type[T], text: str | bytes) -> T:
    """Return *text*, one JSON object, as the dataclass *kind*; unknown fields are ignored.

    Raises:
        WrongTypeError: it is not JSON, a field is missing or of another type, or a number is not finite.
    """
    try:  # json, since msgspec refuses lone surrogates, which occur in file names and answers
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise WrongTypeError(f"it is not JSON: {error}") from error
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise WrongTypeError(_sentence(str(error))) from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number")
    return number


def _sentence(message: str) -> str:
    """Return msgspec's message in our words: ``pages[0].seconds is not a number``."""
    reason, _, path = message.partition(" - at `$")
    place = path.rstrip("`").lstrip(".").replace("[...]", ".*") or "it"
    if reason.startswith("Object missing required field"):
        return f"{place} has no {reason.split('`')[1]}"
    expected = re.match(r"Expected `(\w+)", reason)
    return f"{place} is not {_NAMES.get(expected[1] if expected else '', 'what it should be')}"
