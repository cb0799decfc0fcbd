"""A check that the tests of rules try on a page."""

import json

from olmocr.validate.bench.checks import parse_check
from olmocr.validate.bench.rules import holds


def check(kind, /, **fields):
    return parse_check(json.dumps({"pdf": "a.pdf", "page": 1, "id": "one", "type": kind, **fields}), "text")


def passes(kind, page, drawings=None, /, **fields):
    return holds(check(kind, **fields), page, drawings)
