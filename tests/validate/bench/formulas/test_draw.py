"""All formulas of a run are drawn in few starts of a browser, and one that is evil takes no other with it."""

import json

import pytest

from olmocr.errors import InputError, MissingDependencyError
from olmocr.validate.bench.formulas.browser import find_browser
from olmocr.validate.bench.formulas.draw import CannotDrawError, find_draftsman
from olmocr.validate.bench.formulas.drawn import shows
from olmocr.viewer.katex import find_katex
from tests.browser import BROWSER
from tests.validate.bench.formulas.doubles import KATEX, drawing_tools, write_browser, write_katex


def starts(folder):
    return [json.loads(line) for line in (folder / "starts").read_text().splitlines()]


def test_all_formulas_are_drawn_at_once_each_once(tmp_path):
    draftsman = drawing_tools(tmp_path)()
    drawings = draftsman.draw(["a+b", "a+b=c", r"\bad", "a+b"])
    assert list(drawings) == ["a+b", "a+b=c", r"\bad"]
    assert drawings[r"\bad"] is None
    assert shows(drawings["a+b=c"], drawings["a+b"])
    assert draftsman.versions == {"katex": "0.0", "chromium": "1.2.3"}
    assert len(starts(tmp_path)) == 2  # a trial, and all of them


def test_nothing_to_draw_starts_nothing(tmp_path):
    draftsman = drawing_tools(tmp_path)()
    assert draftsman.draw([]) == {}
    assert len(starts(tmp_path)) == 1


def test_a_formula_that_takes_the_browser_down_is_left_undrawn_alone(tmp_path, caplog):
    drawings = drawing_tools(tmp_path)().draw(["a", r"\crash"])
    assert [name for name, drawing in drawings.items() if drawing is None] == [r"\crash"]
    assert set(drawings) == {"a", r"\crash"}
    assert "a formula was not drawn" in caplog.text


def test_one_that_is_longer_than_any_that_is_asked_for_is_not_drawn(tmp_path):
    assert set(drawing_tools(tmp_path)().draw(["a", "b" * 10_001])) == {"a"}


def test_a_browser_that_breaks_down_for_good_ends_it(tmp_path):
    draftsman = drawing_tools(tmp_path)()
    (tmp_path / "broken").touch()
    with pytest.raises(CannotDrawError, match="no display"):
        draftsman.draw(["a", "b"])
    assert len(starts(tmp_path)) == 3


def test_what_was_named_has_to_work(tmp_path):
    katex, browser = write_katex(tmp_path / "katex"), write_browser(tmp_path)
    with pytest.raises(InputError, match=r"katex\.min\.js cannot be read"):
        find_draftsman(tmp_path / "nothing", browser)
    (tmp_path / "broken").touch()
    with pytest.raises(MissingDependencyError, match=r"formulas cannot be drawn: .* no display"):
        find_draftsman(katex, browser)


def test_where_nothing_is_named_the_reason_says_what_to_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(CannotDrawError, match="no browser was found; give a Chromium"):
        find_draftsman()
    with pytest.raises(MissingDependencyError, match="no browser was found"):
        find_draftsman(write_katex(tmp_path / "katex"))


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here")
needs_katex = pytest.mark.skipif(find_katex() is None, reason="no KaTeX here; install its npm package")


@pytest.mark.slow
@needs_browser
def test_a_real_browser_tells_where_characters_are_and_runs_no_formula(tmp_path):
    hostile = "</script><script>document.documentElement.replaceChildren('harmed')</script>"
    draftsman = find_draftsman(write_katex(tmp_path / "katex", KATEX), BROWSER)
    drawings = draftsman.draw(["ab", "xaby", r"\bad", hostile, "<img src=x onerror=alert(1)>"])
    assert shows(drawings["xaby"], drawings["ab"])
    assert drawings["ab"].mathml == "<mrow>ab</mrow>"
    assert drawings["ab"].neighbours == [(-1, -1, -1, 1), (-1, -1, 0, -1)]
    assert drawings[hostile].characters == hostile.replace(" ", "")
    assert drawings[r"\bad"] is None
    assert draftsman.versions["katex"] == "0.0-double"


ALIKE = [
    ("a+b", r"\begin{align*}a+b\end{align*}"),
    (r"\lambda_g = \lambda_{g'}", r"\lambda_{g}=\lambda_{g^{\prime}}"),
    (r"T_{ij}^{kl}", r"T^{kl}_{ij}"),
    (r"\left\{ \left( 0_{X},-1\right) \right\}", r"\{(0_{X}, -1)\}"),
    (r"\frac{1}{2}", r"\displaystyle\frac{1}{2}"),
    (r"a \, b", r"a \: b"),
]
DIFFERENT = [
    ("c-d", "a+b"),
    (r"\frac{a}{b}", "a / b"),
    (r"\hat{x}", r"\widehat{x}"),
    ("x_{i,j}", "x_{j,i}"),
    (r"\phi", r"\varphi"),
    (r"\frac{2}{3} a", r"\frac{2}{3a}"),
    (r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}", r"\begin{bmatrix} a & b \\ c & d \end{bmatrix}"),
]


@pytest.mark.slow
@needs_browser
@needs_katex
def test_katex_in_a_real_browser_tells_formulas_apart_as_people_do():
    drawings = find_draftsman(browser=BROWSER).draw([each for pair in ALIKE + DIFFERENT for each in pair])
    found = {pair: shows(drawings[pair[1]], drawings[pair[0]]) for pair in ALIKE + DIFFERENT}
    assert found == {pair: pair in ALIKE for pair in ALIKE + DIFFERENT}


def test_a_browser_is_named_by_its_path_or_its_command(tmp_path):
    assert str(find_browser(write_browser(tmp_path))) == str(tmp_path / "browser")
