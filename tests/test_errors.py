"""What an exception says, in a sentence of ours."""

import ast
import importlib
import re

import pytest

from olmocr import errors
from olmocr.errors import OlmocrError, reason_of
from tests.test_layers import MODULES


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("first\nsecond"), "first"), (ValueError("\n  first "), "first"), (MemoryError(), "MemoryError")],
)
def test_a_reason_is_the_first_line_or_the_kind_of_what_says_nothing(error, reason):
    assert reason_of(error) == reason


def told():
    """Return (name, exit code, module) of each error in the tree of the docstring, below the first, and its parent."""
    path = []
    for line in errors.__doc__.splitlines():
        found = re.fullmatch(r"([│├└─ ]*)(\w+Error) +(\d+): .+?(?: \((olmocr[.\w]+)\))?", line)
        if found:
            depth = len(found[1]) // 4
            path[depth - 1 :] = [found[2]]
            yield found[2], (path[-2] if depth > 1 else "OlmocrError"), int(found[3]), found[4] or "olmocr.errors"


def below(kind):
    for each in kind.__subclasses__():
        yield each
        yield from below(each)


def test_the_tree_of_errors_is_that_of_the_classes():
    for name, tree in MODULES:
        if any(isinstance(node, ast.ClassDef) and node.name.endswith("Error") for node in ast.walk(tree)):
            importlib.import_module(f"olmocr.{name}")
    classes = [each for each in below(OlmocrError) if each.__module__.startswith("olmocr.")]
    known = {(each.__name__, each.__base__.__name__, int(each.exit_code), each.__module__) for each in classes}
    assert set(told()) == known
