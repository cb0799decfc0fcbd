"""The head that all HTML files share: what stands in it may be used, and nothing else."""

import base64
import hashlib
import html
import re

import pytest

from olmocr.html import asset, page_head, page_template


def digest(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(page):
    content = html.unescape(re.search('Security-Policy" content="([^"]*)"', page)[1])
    return dict(part.strip().split(" ", 1) for part in content.split(";"))


def render(*args):
    return page_template("olmocr", "base.html").render(**page_head(*args))


def test_the_policy_allows_the_styles_and_scripts_that_stand_in_the_page():
    page = render(["a > b {}"], ["1 < 2", "'&'"])
    styles = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    assert styles == [asset("olmocr", "base.css"), "a > b {}"]
    assert re.findall("<script>(.*?)</script>", page) == ["1 < 2", "'&'"]
    assert policy(page)["style-src"] == " ".join(map(digest, styles))
    assert policy(page)["script-src"] == f"{digest('1 < 2')} {digest(chr(39) + '&' + chr(39))}"


def test_a_page_without_scripts_may_run_none():
    assert policy(render(["a {}"]))["script-src"] == "'none'"


@pytest.mark.parametrize("package", ["olmocr.viewer", "olmocr.validate.fidelity"])
def test_each_rooms_pages_extend_the_same_base(package):
    assert "Skip to the content" in page_template(package, "base.html").render(**page_head([]))
