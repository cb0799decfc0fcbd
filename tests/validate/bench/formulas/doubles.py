"""A KaTeX and a browser that draw well enough for a test: one character beside the other, ^ above and _ below."""

import functools
import sys

import numpy as np

from olmocr.validate.bench.formulas.draw import find_draftsman
from olmocr.validate.bench.formulas.drawn import Drawing

# It does what formulas.js does with KaTeX, with no browser: reads the page's data, and leaves what was "drawn".
BROWSER = """#!{python}
import json, os, re, sys, time
from pathlib import Path
from urllib.parse import unquote, urlsplit

page = Path(unquote(urlsplit(sys.argv[-1]).path))
Path(__file__).with_name("starts").open("a").write(json.dumps(sys.argv[1:]) + "\\n")
if Path(__file__).with_name("broken").exists():
    sys.exit("no display")
text = page.read_text()
data = json.loads(re.search(r'<script type="application/json" id="formulas">(.*?)</script>', text)[1])

def draw(formula):
    if "\\\\crash" in formula:
        sys.exit("[1:1] out of memory")
    if "\\\\hang" in formula:
        time.sleep(60)
    if "\\\\bad" in formula:
        return None
    glyphs, x, y = [], 0, 0
    for character in formula:
        if character in "^_":
            y = {{"^": -10, "_": 10}}[character]
        elif character not in "{{}} ":
            glyphs.append([character, x, y, 8, 8])
            x, y = x + 10, 0
    return {{"mathml": f"<mrow>{{formula}}</mrow>", "glyphs": glyphs}}

found = {{"katex": "0.0", "browser": "Chrome/1.2.3", "drawn": [draw(each) for each in data["formulas"]]}}
print(f"<html><pre id=\\"{{data['token']}}\\">{{json.dumps(found)}}</pre></html>")
"""

# A KaTeX as a real browser runs it: "a_b" is a with b below, and "\bad" is refused.
KATEX = r"""globalThis.katex = { version: "0.0-double", render(tex, to) {
  if (tex.includes("\\bad")) throw new Error("bad");
  to.replaceChildren();
  const root = to.appendChild(document.createElement("span"));
  const ns = "http://www.w3.org/1998/Math/MathML";
  const math = root.appendChild(document.createElement("span"));
  math.className = "katex-mathml";
  const semantics = math.appendChild(document.createElementNS(ns, "math"))
    .appendChild(document.createElementNS(ns, "semantics"));
  semantics.appendChild(document.createElementNS(ns, "mrow")).textContent = tex;
  semantics.appendChild(document.createElementNS(ns, "annotation")).textContent = tex;
  for (const character of tex) {
    const span = root.appendChild(document.createElement("span"));
    span.textContent = character;
  }
} };"""


def write_browser(folder):
    """Write a program that does as a browser would, and return its path; ``starts`` beside it says how often it ran."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "browser"
    path.write_text(BROWSER.format(python=sys.executable))
    path.chmod(0o755)
    return path


def write_katex(folder, script="globalThis.katex = {}"):
    """Write what a KaTeX's folder holds, fonts left out, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "katex.min.js").write_text(script)
    (folder / "katex.min.css").write_text("@font-face{font-family:K;src:url(fonts/K.woff2)}.katex{line-height:1.2}")
    return folder


def drawing_tools(folder):
    """Return what finds a draftsman with a browser and a KaTeX that are doubles."""
    return functools.partial(find_draftsman, write_katex(folder / "katex"), write_browser(folder))


def drawn(*rows, mathml=""):
    """Return a formula of these rows of characters, 20 pixels apart; a blank leaves a place empty."""
    places = [
        (character, 20.0 * across, 20.0 * down)
        for down, row in enumerate(rows)
        for across, character in enumerate(row)
        if character != " "
    ]
    return Drawing(
        mathml,
        "".join(character for character, _, _ in places),
        np.array([across for _, across, _ in places]),
        np.array([down for _, _, down in places]),
    )
