// Draws each formula by itself in the middle of the page, as olmOCR-bench does, and leaves nothing but what was seen.
// Formulas are text of a model or of a stranger: they come as data, and go to KaTeX only, which trusts no formula.
"use strict";
(() => {
  const { token, formulas, most } = JSON.parse(document.getElementById("formulas").textContent);
  const to = document.getElementById("formula");

  function draw(formula) {
    try {
      katex.render(formula, to, { displayMode: true, throwOnError: true });
    } catch {
      return null;
    }
    const spans = to.querySelectorAll("span");
    if (spans.length > most) return null;
    const glyphs = [];
    for (const span of spans) {
      if (span.childElementCount || !/\S/.test(span.textContent)) continue;
      const box = span.getBoundingClientRect();
      glyphs.push([span.textContent.trim(), box.x, box.y, box.width, box.height]);
    }
    const parts = to.querySelector(".katex-mathml semantics")?.childNodes ?? [];
    const shown = Array.from(parts).filter((part) => part.localName !== "annotation");
    return { mathml: shown.map((part) => part.outerHTML ?? part.textContent).join(""), glyphs };
  }

  const found = { katex: katex.version, browser: navigator.userAgent, drawn: formulas.map(draw) };
  const escape = (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0");
  const result = document.createElement("pre");
  result.id = token;
  result.textContent = JSON.stringify(found).replace(/[^ -~]|[<>&]/g, escape);
  document.documentElement.replaceChildren(result);
})();
