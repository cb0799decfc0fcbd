import time

import pytest

from olmocr.viewer.markdown import LONGEST_MARKDOWN, to_html


def test_a_table_with_spans_stays_a_table():
    html = to_html('<table><tr><th rowspan="2" colspan="3">a</th></tr><tr><td>b</td></tr></table>')
    assert '<th rowspan="2" colspan="3">a</th>' in html
    assert "<td>b</td>" in html


def test_a_span_that_no_table_has_is_dropped():
    assert to_html('<table><tr><td rowspan="99999" colspan="-1">a</td></tr></table>').count("span") == 0


def test_markdown_becomes_headings_lists_tables_and_code():
    html = to_html("# H\n\n1. one\n2. two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx < y\n```\n\n**b** ~~s~~")
    for part in ("<h1>H</h1>", "<ol>\n<li>one</li>", "<th>a</th>", "<td>2</td>", "x &lt; y\n", "<strong>b", "<s>s"):
        assert part in html


def test_a_line_end_stays_one():
    assert "Main Street 1<br>\n12345 Town" in to_html("Main Street 1\n12345 Town")


def test_a_tag_that_is_not_allowed_is_shown_as_it_was_written():
    html = to_html("use <script>alert(1)</script> and <blink> and <!-- this -->\n\n<svg onload=x>")
    assert "use &lt;script&gt;alert(1)&lt;/script&gt; and &lt;blink&gt; and &lt;!-- this --&gt;" in html
    assert "&lt;svg onload=x&gt;" in html


def test_a_figure_is_a_box_with_its_description_and_loads_nothing():
    html = to_html('![A "bar" chart](page_1_2_30_40.png)')
    assert "<img" not in html
    assert '<span class="figure-kind">Figure</span> A "bar" chart' in html
    assert '<span class="figure-file">page_1_2_30_40.png</span>' in html


@pytest.mark.parametrize("target", ["javascript:x", "data:text/html,x", "//host/x", "../up.html", "file:///etc", "x"])
def test_a_link_leads_nowhere_unless_it_is_a_whole_web_address(target):
    for text in (f"[a]({target})", f'<a href="{target}">a</a>', f'<a href="  {target.upper()}">a</a>'):
        assert "href=" not in to_html(text)


def test_a_web_address_is_a_link_that_tells_nobody_where_it_came_from():
    assert '<a href="https://example.org/a_b" rel="noopener noreferrer nofollow">a</a>' in to_html(
        "[a](https://example.org/a_b)"
    )


@pytest.mark.parametrize("equation", [r"\(a_1 * b_2 * c\)", r"\[x_{i} \\ y\]", "$a_b$", "$$x^2$$"])
def test_an_equation_in_a_line_keeps_every_sign_of_its_source(equation):
    shown = equation.replace("&", "&amp;")
    assert f'with <span class="math">{shown}</span> in' in to_html(f"with {equation} in it_self_")


def test_an_equation_of_several_lines_is_not_a_heading_or_a_list():
    html = to_html("\\[\na &\n=\n- b\n\\]\ntext")
    assert '<div class="math display">\\[\na &amp;\n=\n- b\n\\]</div>' in html
    assert "<p>text</p>" in html


def test_an_equation_in_a_tables_cell_is_marked():
    html = to_html("<table><tr><td>\\(x_1\\)</td><td>$y &lt; 1$</td><td>$5 or $6</td></tr></table>")
    assert '<td><span class="math">\\(x_1\\)</span></td><td><span class="math">$y &lt; 1$</span></td>' in html
    assert "<td>$5 or $6</td>" in html


def test_money_is_not_an_equation():
    assert "math" not in to_html("from $5 to $6, or $ 7 $")


def test_ids_styles_classes_and_handlers_are_dropped():
    html = to_html('<div id="search" class="bar" style="color:red" onclick="x"><span class="unseen">a</span></div>')
    assert html.strip() == '<div class=""><span class="">a</span></div>'


def test_a_tag_that_is_left_open_ends_with_the_page():
    assert to_html("<div><b>open").count("</div>") == 1


def test_a_text_too_long_for_an_answer_is_shown_as_it_is():
    html = to_html("<b>" + "x" * LONGEST_MARKDOWN)
    assert html.startswith("<pre>&lt;b&gt;xxx")


@pytest.mark.parametrize(
    "unit", ["[", "![", "$", "\\(", "\\[\n", "<", "<a ", "<!--", "> ", "*a ", "_a__b", "`a", "[a](", "<div>", "&", "|a"]
)
def test_no_text_takes_the_square_of_its_length(unit):
    def once(length):
        started = time.process_time()
        to_html((unit * length)[:length])
        return time.process_time() - started

    # Eight times the text: 8 where it is linear, 64 where it is a square. What else runs only adds to it: one of three.
    assert any(once(20_000) < 45 * max(once(2500), 0.01) for _ in range(3))
