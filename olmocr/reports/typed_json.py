"""JSON -> a frozen dataclass, each field of the type that is declared for it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class WrongTypeError(Exception):
    """A value is not what the dataclass declares; the text says which, and what it should be."""


def parse_as(kind: type[T], text: str) -> T:
    """Return *text*, one JSON object, as the dataclass *kind*; fields that it does not have are left out.

    Raises:
        WrongTypeError: it is no JSON, or a field is missing or of another type, or a number is not finite.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WrongTypeError(f"it is no JSON: {error}") from error
    parsed: T = _record(kind, value, "it")
    return parsed


def _record(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise WrongTypeError(f"{where} is no object")
    fields = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            place = field.name if where == "it" else f"{where}.{field.name}"
            fields[field.name] = _value(_hints(kind)[field.name], value[field.name], place)
        elif field.default is dataclasses.MISSING:
            raise WrongTypeError(f"{where} has no {field.name}")
    return kind(**fields)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, value: object, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    if origin in (Union, types.UnionType):
        return None if value is None else _value(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(args[0], each, f"{where}[{number}]") for number, each in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _value(args[1], each, f"{where}.{key}") for key, each in value.items()}
    if origin is Literal and value in args:
        return value
    return _scalar(kind, value, where)


def _scalar(kind: Any, value: object, where: str) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise WrongTypeError(f"{where} is not {_NAMES.get(kind, 'what it should be')}")
    return value
