"""Nothing that strangers wrote is read in more than linear time: every pattern of the package, and every parser.

What is counted is work (tests/work.py), at one length and at a multiple of it. What C does inside of one call, such as
copying a text or comparing two, is not counted; tests of the modules themselves hold that where it matters.
"""

import ast
import functools
import importlib
import json
import re
import struct
from collections import defaultdict
from pathlib import Path

import pytest

import olmocr
from olmocr.backends.faults import detail_of, fault_in_answer, parse_retry_after, plain
from olmocr.backends.wire import Stream, load_json, parse_answer
from olmocr.conversion.calibrated.allocation.sensitivities import parse_sensitivities
from olmocr.conversion.patterns import parse_pattern
from olmocr.conversion.recipe import parse_recipe
from olmocr.errors import CheckpointError
from olmocr.html_tables import html_tables
from olmocr.inference.draft import DraftSource, as_plain, as_written
from olmocr.inputs.folders import _matches
from olmocr.page import make_front_matter, parse_page_response, stated_turn
from olmocr.pipeline.coverage import coverage
from olmocr.pipeline.document_filter import why_filtered
from olmocr.pipeline.page_ranges import parse_page_ranges
from olmocr.pipeline.repetition import has_looped, is_looping
from olmocr.publish.folder_reports import parse_conversion_report
from olmocr.publish.front_matter import split_card
from olmocr.publish.markup import code_block, escaped
from olmocr.publish.rows import parse_rows
from olmocr.rendering.figures import figure_names
from olmocr.reports.smoke import SmokeReport
from olmocr.reports.typed_json import parse_as
from olmocr.runtime.memory import parse_size
from olmocr.runtime.versions import parse_version
from olmocr.tensors.header import _object, parse_header, parse_json
from olmocr.text import normalized, one_line, printable, unescaped, visible
from olmocr.validate.bench.checks import parse_check
from olmocr.validate.bench.formulas.page import parse_drawn
from olmocr.validate.bench.formulas.written import formulas_in
from olmocr.validate.bench.marked import FORMATS, footnote_marks, texts_in
from olmocr.validate.bench.rules import _without_images
from olmocr.validate.bench.tables import grids_in
from olmocr.validate.bench.text import normalized as as_benched
from olmocr.validate.fidelity.token_classes import token_classes
from olmocr.validate.score import numbers_in, tables_in
from olmocr.validate.score import plain as without_marks
from olmocr.viewer.markdown import to_html
from olmocr.workspace.tables import tables_as_markdown
from tests.work import Steps, attacks, lines_run

PACKAGE = Path(olmocr.__file__).parent

# Of these only the machine itself, or a library that is installed here, writes the text.
OF_THIS_MACHINE = {"olmocr.runtime.machine", "olmocr.viewer.katex"}

SHORT, LONG = 24, 96  # characters; patterns are tried on both
MOST_GROWTH = 6  # times the work for four times the length; quadratic is sixteen


def patterns():
    """Return every regular expression of the package by its place, and whether it is tried from the start alone."""
    found = {}
    calls, used = {}, defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        calls_here = [node for node in ast.walk(ast.parse(source)) if _is_method_of_a_name(node)]
        for call in calls_here:
            used[call.func.value.id].add(call.func.attr)
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if name not in OF_THIS_MACHINE and re.search(r"\bre\.", source):
            calls[name] = calls_here
    for name, calls_here in calls.items():
        for variable, value in vars(importlib.import_module(name)).items():
            for number, pattern in enumerate(patterns_in(value)):
                found[f"{name}.{variable}[{number}]"] = pattern, used[variable]
        for call in calls_here:
            is_of_re = call.func.value.id == "re" and call.func.attr != "compile" and call.args
            if is_of_re and isinstance(call.args[0], ast.Constant):
                found[f"{name}:{call.lineno}"] = re.compile(call.args[0].value), {call.func.attr}
    once = {(pattern, frozenset(uses)): place for place, (pattern, uses) in reversed(found.items())}
    return {place: (pattern, uses) for (pattern, uses), place in sorted(once.items(), key=lambda each: each[1])}


def _is_method_of_a_name(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)


def patterns_in(value):
    if isinstance(value, re.Pattern):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [pattern for each in values for pattern in patterns_in(each)]


def worst_growth(pattern, uses=frozenset({"search"})):
    """Return how many times the work the pattern's worst text takes that is four times as long, and that text."""
    anchored = bool(uses) and uses <= {"match", "fullmatch"}
    steps = Steps(pattern, anchored=anchored, whole=anchored and uses == {"fullmatch"})
    worst = (0.0, "")
    for attack in attacks(steps, 24):
        few = steps.of(attack(SHORT))
        if few > SHORT * 5:  # less is not quadratic
            many = steps.of(attack(LONG))
            worst = max(worst, (many / few if many < steps.most else float("inf"), attack(SHORT)))
    return worst


PATTERNS = patterns()


@pytest.mark.parametrize("place", PATTERNS)
def test_no_pattern_takes_more_than_linear_time(place):
    growth, text = worst_growth(*PATTERNS[place])
    assert growth < MOST_GROWTH, f"{PATTERNS[place][0].pattern!r} on {text!r}"


def test_patterns_are_found_wherever_they_stand():
    assert len(PATTERNS) > 60
    assert {"olmocr.text._OBEYED[0]", "olmocr.validate.bench.text._MARKS[1]"} <= PATTERNS.keys()
    assert any(re.fullmatch(r"olmocr\.backends\.faults:\d+", place) for place in PATTERNS)


@pytest.mark.parametrize(
    "pattern",
    [
        r"a*b",
        r"(?<=[a-z])-\s*\n\s*(?=[a-z])",
        r"!\[.*?\]\(.*?\)",
        r"(a+)+$",
        r"(?:a|a)*b",
        r"\d+ x=",
        r"x\s+\s*;",
    ],
)
def test_a_pattern_that_is_slow_is_seen(pattern):
    assert worst_growth(re.compile(pattern))[0] >= MOST_GROWTH


@pytest.mark.parametrize(
    "pattern", [r"</?[a-z][^<>]*>", r"a{2,5}b", r"(?>a*)", r"x(?:a|b)*+y", r"^a*b", r"(?i)ab+", r"a.{0,200}b"]
)
def test_a_pattern_that_is_linear_is_not_taken_for_slow(pattern):
    assert worst_growth(re.compile(pattern))[0] < MOST_GROWTH


# Parsers


FRONT_MATTER = make_front_matter(
    dict.fromkeys(["primary_language", "is_rotation_valid", "rotation_correction", "is_table", "is_diagram"], "x")
)
ANSWER = [
    "a: b\n",
    "- ",
    "[",
    "{",
    "? ",
    "&a ",
    "*a ",
    "'",
    '"',
    "---\n",
    "\r\n",
    "\ufeff",
    "```\n",
    "é",
    "!!int 1",
    "# x\n",
]
MARKUP = [
    "<",
    "<a ",
    "<a b='",
    '<td rowspan="',
    "<table><tr><td>",
    "</table>",
    "<!--",
    "&#",
    "&#1",
    "&amp;",
    "<br>",
    ">",
]
MARKDOWN = [
    "| a ",
    "\n",
    "*",
    "__",
    "$",
    "\\(",
    "$$",
    "![",
    "](",
    "[",
    "`",
    "> ",
    "- ",
    "a ",
    "-\n",
    "word ",
    "\u0315\u0300",
]
NAMES = ["{", "a", "a.", "*", "{a,", "layers.[", "layers.[0].", "1", "-", " ", ",", "/", "..", "\0"]
JSON = ['{"a":', "[", '"', "1", "\\ud800", "{", '{"a":1,', " ", "e", "-"]


def chat(text):
    return parse_answer({"choices": [{"message": {"content": text}}]}, "chat", 10)


def parts(text):
    return parse_answer({"choices": [{"message": {"content": [{"text": each} for each in text]}}]}, "chat", 10)


def streamed(text):
    stream = Stream("chat")
    for at, piece in enumerate(text):
        stream.add({"choices": [{"delta": {"content": piece}}]})
        if at % 256 == 255:
            stream.tail(64)
    stream.end()
    return stream.answer(10)


def header(text):
    """Read *text* as the JSON of a safetensors file's header."""
    content = text.encode("utf-8", "replace")
    return parse_header(struct.pack("<Q", len(content)) + content, 8 + len(content), "x", "x")


def keys_given_twice(text):
    return header("{" + ",".join(f'"{number}":0' for number in range(len(text))) + ',"7":0}')


def tensors(text):
    entry = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    return header(json.dumps({f"{number}": entry for number in range(len(text) // 16)}))


def pairs_of_a_recipe(text):
    return parse_recipe("".join(f"k{number}: 1\n" for number in range(len(text) // 16)).encode() + b"k1: 1\n", "r")


def copied(text):
    return DraftSource(text, is_exact=False).after(text, 64)


def bytes_of(function):
    return functools.wraps(function)(lambda text: function(text.encode("utf-8", "replace")))


PARSERS = {
    parse_page_response: ANSWER + MARKDOWN,
    functools.partial(parse_page_response, mode="strict"): ANSWER,
    stated_turn: ANSWER,
    load_json: JSON,
    chat: MARKDOWN,
    parts: MARKDOWN,
    streamed: ["a", "é"],
    bytes_of(detail_of): [*JSON, "A" * 10, "=", '{"error":'],
    functools.partial(fault_in_answer, url="u", model="m"): ["model ", "not found", "image ", "a"],
    plain: ["A", "A" * 99 + " ", "=", " ", "é", "\0"],
    parse_retry_after: ["1", " ", ".", "Mon, ", "0"],
    header: JSON,
    keys_given_twice: ["a"],
    tensors: ["a"],
    bytes_of(functools.partial(parse_json, where="x")): JSON,
    parse_pattern: NAMES,
    # How deep YAML goes is bounded by Python's stack, and till there it takes a step for each level at each sign.
    bytes_of(functools.partial(parse_recipe, where="x")): [piece for piece in ANSWER if piece not in ("[", "{")],
    pairs_of_a_recipe: ["a"],
    parse_page_ranges: [*NAMES, "1-", "1,", "\t"],
    parse_size: NAMES,
    parse_version: [*NAMES, "1."],
    parse_conversion_report: JSON,
    parse_rows: JSON,
    parse_sensitivities: JSON,
    functools.partial(parse_as, SmokeReport): JSON,
    functools.partial(parse_check, category="x"): JSON,
    split_card: ANSWER,
    html_tables: MARKUP + MARKDOWN,
    tables_as_markdown: MARKUP + MARKDOWN,
    figure_names: [*MARKDOWN, "](page", "](page_1"],
    tables_in: MARKUP,
    grids_in: MARKUP + MARKDOWN,
    as_benched: MARKDOWN + MARKUP,
    _without_images: MARKDOWN,
    functools.partial(parse_drawn, token="t", count=1): [*JSON, '<pre id="t">', "</pre>", "<pre"],
    formulas_in: [*MARKDOWN, "\\(", "\\[", "$", "$$"],
    **{functools.partial(texts_in, form=form): MARKDOWN + MARKUP for form in FORMATS},
    functools.partial(footnote_marks, marker="1"): [*MARKDOWN, "[^1]", "<sup", "<sup>", "<sup>1"],
    without_marks: MARKDOWN + MARKUP,
    numbers_in: [*MARKUP, "1", "1."],
    lambda text: token_classes([text]): MARKDOWN + MARKUP,
    lambda text: coverage(text, text): [*MARKDOWN, *MARKUP, "a-", "\\a"],
    as_written: MARKDOWN,
    as_plain: MARKDOWN + MARKUP,
    copied: MARKDOWN,
    functools.partial(why_filtered, has_form=False, languages=["en"]): MARKDOWN,
    is_looping: MARKDOWN,
    to_html: MARKDOWN + MARKUP,
    escaped: MARKDOWN + MARKUP,
    code_block: MARKDOWN,
    printable: [*ANSWER, "\x1b", "\u202e"],
    one_line: [*ANSWER, "\x1b"],
    visible: [*ANSWER, "\x1b", "\ud800"],
    unescaped: [*MARKUP, "&#x", "&am", "&#0"],
    functools.partial(normalized, "NFC"): MARKDOWN,
    lambda text: _matches(text.split("/"), ["**", "a", "**", "a", "**", "b"]): ["a/", "b/"],
    lambda text: _matches(["a"] * 8, [*text.split("/"), "b"]): ["**/", "a/"],
}
READ_FRONT_MATTER = (parse_page_response, stated_turn, split_card)
CASES = [(parser, "") for parser in PARSERS]
CASES += [(parser, front) for parser in READ_FRONT_MATTER for front in ("---\n", FRONT_MATTER)]

MARGIN = 300  # lines that a parser may take whatever the length


@pytest.mark.parametrize(("parser", "front"), CASES)
def test_no_parser_takes_more_than_linear_time(parser, front):
    for piece in PARSERS[parser]:
        few, many = (lines_run(parser, front + piece * (length // len(piece))) for length in (400, 1600))
        assert many <= MOST_GROWTH * few + MARGIN, repr(piece)


@pytest.mark.parametrize("length", [20_000, 80_000])
def test_whether_a_long_answer_looped_is_seen_without_copying_all_of_it_again_and_again(length):
    copied = []

    class Counted(str):
        def __getitem__(self, key):
            piece = super().__getitem__(key)
            copied.append(len(piece))
            return piece

    assert not has_looped(Counted("".join(map(str, range(length)))[:length]))
    assert sum(copied) < 30 * length


def test_a_key_that_stands_twice_in_a_header_is_found_without_comparing_all_with_all():
    compared = []

    class Key(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    pairs = [(Key(number), 0) for number in [*range(2000), 1999]]
    with pytest.raises(CheckpointError, match="names 1999 twice"):
        _object(pairs, "x")
    assert len(compared) < 4000


def test_every_function_that_says_that_it_parses_is_in_the_list():
    """Those that are left out read what this machine or its user wrote, or have tests of their own bounds."""
    named = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        named |= {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("parse_")
        }
    listed = {getattr(parser, "func", parser) for parser in PARSERS}
    inner = {name for each in listed for name in getattr(getattr(each, "__code__", None), "co_names", ())}
    known = {each.__name__ for each in listed} | inner | {"parse_json", "parse_recipe"}
    assert named - known <= {"parse_question", "parse_wanted", "parse_labels", "parse_origin"}
