"""A check that the tests of rules try on a page."""

import json

from olmocr.validate.bench.checks import parse_check
from olmocr.validate.bench.rules import holds


def passes(kind, page, /, **fields):
    line = json.dumps({"pdf": "a.pdf", "page": 1, "id": "one", "type": kind, **fields})
    return holds(parse_check(line, "text"), page)
