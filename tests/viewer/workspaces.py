"""Workspaces made on the spot: records as a run writes them, and as nobody should."""

import asyncio
import hashlib
import json

from olmocr import PipelineConfig, run_pipeline
from tests.pipeline.doubles import Model
from tests.rendered_here import PoolHere

HIDDEN_CHARACTERS = "\x1b[31mred\x1b[0m \u202egnp.exe\u202c \x00 \x07 \u2066isolated\u2069 \ud800"

# What each of these would do, if it ran: tell the page's root element, and a server.
HARM = "document.documentElement.dataset.harmed=1;new Image().src='HARM_URL/ran'"

HOSTILE = (
    f"<script>{HARM}</script>",
    f"<SCRIPT/x>{HARM}</SCRIPT >",
    f"<scr<script>ipt>{HARM}</scr</script>ipt>",
    f"</script><script>{HARM}</script>",
    f'</pre></article></main><img src=x onerror="{HARM}">',
    f'<img src="HARM_URL/loaded" alt="a" onload="{HARM}">',
    f'<svg onload="{HARM}"><script>{HARM}</script><animate onbegin="{HARM}"/></svg>',
    f'<math><mtext><table><mglyph><style><img src=x onerror="{HARM}"></style></mglyph></table></mtext></math>',
    f'<table><tr><td onmouseover="{HARM}" style="background:url(HARM_URL/style)">cell</td></tr></table>',
    '<table background="HARM_URL/table"><tr><td background="HARM_URL/cell">cell</td></tr></table>',
    '<style>@import url("HARM_URL/import"); body { background: url(HARM_URL/css) }</style>',
    '<link rel="stylesheet" href="HARM_URL/link"><base href="HARM_URL/">',
    '<meta http-equiv="refresh" content="0;url=HARM_URL/refresh">',
    f'<iframe src="HARM_URL/frame" srcdoc="<script>{HARM}</script>"></iframe>',
    '<object data="HARM_URL/object"></object><embed src="HARM_URL/e"><video poster="HARM_URL/p" src="HARM_URL/v">',
    f'<details open ontoggle="{HARM}">x</details><input autofocus onfocus="{HARM}"><body onload="{HARM}">',
    f"[link](javascript:{HARM}) [other](data:text/html,<script>{HARM}</script>) [plain](//127.0.0.1/x)",
    f'<a href="jav&#x09;ascript:{HARM}">tab</a> <a href=" javascript:{HARM}">blank</a>',
    "![picture](HARM_URL/markdown) ![x][ref]\n\n[ref]: HARM_URL/reference",
    f"<form action='HARM_URL/form'><button formaction='javascript:{HARM}'>go</button></form>",
    "{{ 7 * 7 }} {% raw %} {{ ''.__class__.__mro__ }} {# gone #}",
    f"\\( <img src=x onerror='{HARM}'> \\) $</span><script>{HARM}</script>$ \\[ \\href{{javascript:{HARM}}}{{x}} \\]",
    f"| a | b |\n|---|---|\n| <img src=x onerror='{HARM}'> | ` </code><script>{HARM}</script> ` |",
    f"```html\n</code></pre><script>{HARM}</script>\n```",
    f"<!-- --><!--><script>{HARM}</script>--> <![CDATA[<script>{HARM}</script>]]> <?php {HARM} ?>",
    '<div id="search" class="bar" name="getElementById">clobbered</div><span class="unseen">hidden</span>',
    HIDDEN_CHARACTERS,
    "]]>'\"`&lt;&#60;&amp;lt; \\u003c/script\\u003e \u2028 \u2029",
    "<" * 300 + ">" * 300 + "[" * 300 + "`" * 300,
)


def hostile_texts(url):
    return [text.replace("HARM_URL", url) for text in HOSTILE]


def write_record(workspace, texts, *, name="a.pdf", file="output_a.jsonl", metadata=(), failed=None, **attributes):
    """Write a document's record with a page for each of *texts*; *failed* is why it counts as failed."""
    spans, start = [], 0
    for number, text in enumerate(texts, 1):
        spans.append([start, start + len(text), number])
        start += len(text)
    record = {
        "id": "0",
        "text": "".join(texts),
        "created": "2026-01-02",
        "metadata": {"Source-File": str(name), **dict(metadata)},
        "attributes": {"pdf_page_numbers": spans, **attributes},
    }
    folder = workspace / ("failed" if failed else "results")
    folder.mkdir(parents=True, exist_ok=True)
    line = {"Source-File": str(name), "error": failed, "document": record} if failed else record
    with (folder / file).open("a") as output:
        output.write(json.dumps(line) + "\n")


def write_hostile_workspace(workspace, url="http://127.0.0.1:9"):
    """Write a record with every hostile text as a page, and in every other place that is shown."""
    texts = hostile_texts(url)
    all_of_it = " ".join(texts)
    write_record(
        workspace,
        texts,
        name=f"/tmp/{all_of_it}.pdf",
        metadata={"model": all_of_it, "source-sha256": all_of_it, "total-output-tokens": all_of_it},
        primary_language=texts,
        rejected=[[text] for text in texts],
        attempts=[2 for _ in texts],
        is_fallback=[number % 2 == 1 for number in range(len(texts))],
        temperature=texts,
        rotation=texts,
    )
    write_record(workspace, texts, name="plain.pdf", file="output_b.jsonl")
    write_record(workspace, texts, name="failed.pdf", file="c.json", failed=all_of_it)
    (workspace / "results" / "output_d.jsonl").write_text(
        "{" + texts[0] + "\n" + json.dumps({"metadata": texts}) + "\n"
    )
    return texts


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(workspace, pdfs, *script, **options):
    """Make a workspace as the pipeline does, with a scripted model."""
    config = PipelineConfig(workspace=workspace, pdfs=[str(pdf) for pdf in pdfs], model="none", **options)
    asyncio.run(run_pipeline(config, ask=Model(*script).ask, open_pool=PoolHere))
    return workspace
