"""A page's text, as a model wrote it -> HTML that is safe to show. Only this module imports markdown-it and nh3.

Markdown may contain HTML, since olmOCR writes tables that way. Tags on the list below become HTML; every other tag is
shown as the characters that it consists of, so no text of a page is lost. nh3 (ammonia) then sanitises the result.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from olmocr.rendering.picture import Picture

LONGEST_MARKDOWN = 100_000
"""The most characters of a page's text that are read as markdown; longer text, never an answer, is shown as it is."""

_LONGEST_EQUATION = 4_000

_PLAIN = (
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "div", "span", "blockquote", "pre", "code", "center"),
    *("ul", "li", "dl", "dt", "dd", "table", "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr"),
    *("b", "strong", "i", "em", "u", "s", "del", "ins", "sub", "sup", "small", "mark", "kbd", "q"),
)
# Tag -> its attributes.
_ALLOWED: dict[str, set[str]] = {
    **{tag: set() for tag in _PLAIN},
    "ol": {"start"},
    "th": {"rowspan", "colspan", "scope"},
    "td": {"rowspan", "colspan"},
    "a": {"href"},
}
_CLASSES = {"span": {"math", "figure", "figure-kind", "figure-file"}, "div": {"math", "display"}}

_SCHEMES = {"http", "https", "mailto"}

_ADDRESS = re.compile("(https?://|mailto:)", re.IGNORECASE)

_ANY_TAG = re.compile("(<[^<>]*>)")
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]{0,20})(?=[\s/>])")

_EQUATIONS = (("\\(", "\\)", False), ("\\[", "\\]", True), ("$$", "$$", True), ("$", "$", False))
"""How an equation begins and ends, and whether it stands on its own line; longer signs first."""

_OPENER = re.compile(r"\\[(\[]|\$\$?")


def to_html(text: str) -> str:
    """Return *text* as HTML that runs nothing, loads nothing, and stays inside the element it is put in."""
    if len(text) > LONGEST_MARKDOWN:
        return f"<pre>{html.escape(text)}</pre>"
    return _cleaner().clean(_markdown().render(text))


_FIGURE_FILE = re.compile(r'<span class="figure-file">([^<]*)</span>')


def with_figures(markup: str, figures: Mapping[str, Picture | str]) -> str:
    """Return the HTML of :func:`to_html` with each figure after its name, or why there is none; keys are the names."""

    def add(found: re.Match[str]) -> str:
        figure = figures.get(html.unescape(found[1]))
        if figure is None:
            return found[0]
        if isinstance(figure, str):
            return f'{found[0]} <span class="figure-file">(not cut out: {html.escape(figure)})</span>'
        size = f'width="{figure.width}" height="{figure.height}"'
        return f'{found[0]} <img class="figure-cut" alt="" {size} src="{figure.uri}">'

    return _FIGURE_FILE.sub(add, markup)


def _attribute(tag: str, name: str, value: str) -> str | None:
    """Limit the spans of cells to what a table can have, and links to complete addresses."""
    if name == "href":
        return value if _ADDRESS.match(value) else None
    if name in ("rowspan", "colspan"):
        return value if value.isascii() and value.isdigit() and len(value) <= 3 else None
    return value


@functools.cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"breaks": True, "xhtmlOut": False}, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"])
    parser.inline.ruler.before("escape", "equation", _equation)
    parser.block.ruler.before("fence", "equation", _equation_block, {"alt": ["paragraph", "blockquote", "list"]})
    return parser


class _Renderer(RendererHTML):
    """Shows pictures as labelled boxes, equations as their source, and tags that are not allowed as text."""

    def image(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        """Render a figure: the model's description of it, and its name; nothing is loaded."""
        token = tokens[at]
        said = self.renderInlineAsText(token.children or [], options, env)
        return (
            '<span class="figure"><span class="figure-kind">Figure</span> '
            f"{html.escape(said)} "
            f'<span class="figure-file">{html.escape(str(token.attrGet("src") or ""))}</span></span>'
        )

    def equation(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        """Render an equation within a line."""
        return f'<span class="math">{html.escape(tokens[at].content)}</span>'

    def equation_block(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        """Render an equation on its own."""
        return f'<div class="math display">{html.escape(tokens[at].content)}</div>\n'

    def html_inline(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        """Render a tag within a line."""
        return _tags_as_allowed(tokens[at].content)

    def html_block(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        """Render a block that begins with a tag, usually a table, with the equations in it."""
        return _with_equations(_tags_as_allowed(tokens[at].content))


def _tags_as_allowed(markup: str) -> str:
    """Return *markup* with everything that does not begin an allowed tag as text."""
    parts = markup.split("<")
    kept = [part if (tag := _TAG.match(f"<{part}")) and tag[1].lower() in _ALLOWED else None for part in parts]
    return parts[0] + "".join(
        f"<{part}" if keep is not None else f"&lt;{part}" for part, keep in zip(parts[1:], kept[1:], strict=True)
    )


def _with_equations(markup: str) -> str:
    """Return *markup* with the equations between its tags marked."""
    parts = _ANY_TAG.split(markup)
    return "".join(part if part.startswith("<") else _mark_equations(part) for part in parts)


def _mark_equations(text: str) -> str:
    pieces, done = [], 0
    for opener in _OPENER.finditer(text):
        if opener.start() >= done and (found := _equation_at(text, opener.start(), len(text))):
            pieces += [text[done : opener.start()], f'<span class="math">{found.source}</span>']
            done = found.end
    return "".join([*pieces, text[done:]])


class _Equation(NamedTuple):
    """An equation's *source* with its signs, where it ends, and whether it stands on its own line."""

    source: str
    end: int
    display: bool


def _equation_at(text: str, start: int, end: int) -> _Equation | None:
    """Return the equation that begins at *start*; None if none does, or it does not end before *end*."""
    for opener, closer, display in _EQUATIONS:
        if text.startswith(opener, start):
            first = start + len(opener)
            last = text.find(closer, first, min(end, first + _LONGEST_EQUATION))
            if last <= first or (opener == "$" and _is_money(text, first, last)):
                return None
            return _Equation(text[start : last + len(closer)], last + len(closer), display)
    return None


def _is_money(text: str, first: int, last: int) -> bool:
    """Return whether two dollar signs are not an equation's: one has a space within, or a number follows the second."""
    return text[first].isspace() or text[last - 1].isspace() or text[last + 1 : last + 2].isdigit()


def _equation(state: StateInline, silent: bool) -> bool:
    """Take an equation in a line before backslashes, underscores and asterisks in it get another meaning."""
    if state.src[state.pos] not in "\\$":
        return False
    found = _equation_at(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        state.push("equation", "", 0).content = found.source
    state.pos = found.end
    return True


def _equation_block(state: StateBlock, first_line: int, end_line: int, silent: bool) -> bool:
    """Take an equation that begins one line and ends another: its lines may look like a list or a heading."""
    start = state.bMarks[first_line] + state.tShift[first_line]
    if state.is_code_block(first_line) or not state.src.startswith(("\\[", "$$"), start):
        return False
    found = _equation_at(state.src, start, state.eMarks[end_line - 1])
    if found is None:
        return False
    last_line = first_line + found.source.count("\n")
    if state.src[found.end : state.eMarks[last_line]].strip():
        return False  # text continues after it: it belongs to a paragraph
    if not silent:
        state.push("equation_block", "", 0).content = found.source
        state.line = last_line + 1
    return True


@functools.cache
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=set(_ALLOWED),
        attributes=_ALLOWED,
        allowed_classes=_CLASSES,
        attribute_filter=_attribute,
        url_schemes=_SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )
