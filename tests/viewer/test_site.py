"""What the pages hold, read with an HTML parser; and that nothing hostile is left in them."""

import json
import re
import subprocess
import sys

import pytest

from olmocr.errors import OutputError
from olmocr.viewer.site import write_site
from tests.conftest import ROOT
from tests.pipeline.doubles import answer, write_image, write_pdf
from tests.viewer.sites import digest, only_document, site, write_three
from tests.viewer.workspaces import run, sha256, write_hostile_workspace, write_record


def test_a_page_has_its_image_beside_its_text(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf", pages=2)
    page = only_document(site(run(tmp_path / "ws", [pdf], answer("# First"), answer("Second"))))
    assert "First" in page.text
    assert "Second" in page.text
    assert len(page.all("img")) == 2
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.all("img"))
    assert page.all("img")[0]["alt"] == "Page 1 as it was read"
    assert (page.all("img")[0]["width"], page.all("img")[0]["height"]) == ("773", "1000")


def test_a_figure_is_shown_where_its_box_can_be_believed_and_told_where_not(tmp_path):
    image = write_image(tmp_path / "a.png", size=(1000, 500))
    text = "![A corner](page_0_0_512_512.png)\n\n![Nowhere](page_9_9_99999_9.png)"
    page = only_document(site(run(tmp_path / "ws", [image], answer(text))))
    (cut,) = [each for each in page.all("img") if each.get("class") == "figure-cut"]
    assert (cut["width"], cut["height"]) == ("250", "250")
    assert cut["src"].startswith("data:image/webp;base64,")
    assert "(not cut out: 99999 by 9 is too small for a figure)" in page.text


def test_how_a_page_was_read_stands_above_it(tmp_path):
    write_record(
        tmp_path, ["text"], attempts=[3], temperature=[0.2], primary_language=["de"], is_table=[True],
        rejected=[["finish_reason is 'length'", "line 1: opener: x"]], low_coverage=[True], is_rotation_valid=[False],
    )  # fmt: skip
    page = only_document(site(tmp_path))
    text = re.sub(r"\s+", " ", page.text)
    for part in ("retried", "low coverage", "3 attempts", "temperature 0.2", "language de", "table",
                 "never found upright", "2 answers were not accepted", "finish_reason is 'length'"):  # fmt: skip
        assert part in text
    assert [each["lang"] for each in page.all("article")] == ["de"]


def test_a_failed_document_says_why(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"")
    pages = site(run(tmp_path / "ws", [tmp_path / "a.pdf"], answer()))
    assert "is empty" in only_document(pages).text
    assert "is empty" in pages["index.html"].text


def test_documents_are_listed_in_order_and_lead_to_each_other(tmp_path):
    for name in ("b.pdf", "a.pdf", "c.pdf"):
        write_record(tmp_path, ["text"], name=name, file=f"output_{name}.jsonl")
    pages = site(tmp_path)
    links = [each["href"] for each in pages["index.html"].all("a") if each["href"].startswith("documents/")]
    assert [re.sub("-.*", "", link) for link in links] == ["documents/a", "documents/b", "documents/c"]
    assert all((tmp_path / "viewer" / link).is_file() for link in links)
    middle = pages[links[1].removeprefix("documents/")]
    around = {each["rel"]: each["href"] for each in middle.all("a") if "rel" in each}
    assert around == {"prev": links[0].removeprefix("documents/"), "next": links[2].removeprefix("documents/")}


def test_the_index_holds_the_text_of_all_pages_for_its_search(tmp_path):
    write_record(tmp_path, ["Öne </script>", "", "three"])
    index = site(tmp_path)["index.html"]
    assert json.loads(index.scripts[0]) == [[1, "Öne </script>"], [3, "three"]]


def test_every_page_and_control_has_a_name_and_a_landmark(tmp_path):
    write_record(tmp_path, ["a", "b"])
    for page in site(tmp_path).values():
        tags = {tag for tag, _ in page.tags}
        assert {"header", "main", "h1"} <= tags
        labels = {each["for"] for each in page.all("label")}
        assert all(each["id"] in labels for each in page.all("input"))
        assert page.all("html")[0]["lang"] == "en"
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {each["href"] for each in page.all("a") if each["href"].startswith("#")} <= {f"#{each}" for each in ids}


ALLOWED_TAGS = {
    *("html", "head", "meta", "title", "style", "script", "body", "a", "header", "nav", "main", "section", "footer"),
    *("h1", "h2", "h3", "form", "label", "input", "output", "div", "button", "p", "span", "ol", "ul", "li", "time"),
    *("strong", "details", "summary", "figure", "img", "article", "pre", "dialog", "dl", "dt", "dd", "kbd", "table"),
    *("thead", "tbody", "tr", "th", "td", "b", "em", "code", "br", "hr", "blockquote", "s"),
}  # fmt: skip


def test_nothing_hostile_becomes_markup(tmp_path):
    texts = write_hostile_workspace(tmp_path / "ws")
    pages = site(tmp_path / "ws")
    assert len(pages) == 6
    for page in pages.values():
        assert page.open == []
        assert {tag for tag, _ in page.tags} <= ALLOWED_TAGS
        for tag, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on")], tag
            assert not {"style", "srcdoc", "action", "formaction", "background"} & attributes.keys(), tag
        links = [each["href"] for each in page.all("a") if "href" in each]
        assert all(re.fullmatch(r"#[\w-]+|[\w./-]+\.html|https?://.*", link) for link in links)
        assert all(each["src"].startswith("data:image/webp;base64,") for each in page.all("img"))
        assert [each for each in page.all("script") if "src" in each] == []
        assert [each for each in page.all("meta") if each.get("http-equiv") == "refresh"] == []
        ours = [text for text in page.scripts if digest(text) in page.policy["script-src"]]
        data = [each for each in page.all("script") if each.get("type") == "application/json"]
        assert len(ours) == 1
        assert len(ours) + len(data) == len(page.scripts)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.text)
    plain = next(page for name, page in pages.items() if name.startswith("plain"))
    assert texts[0] in plain.text, "nothing that a page says is lost"
    assert "{{ 7 * 7 }} {% raw %} {{ ''.__class__.__mro__ }} {# gone #}" in plain.text


def test_the_policy_allows_our_styles_and_scripts_by_their_hashes_and_nothing_from_outside(tmp_path):
    write_record(tmp_path, ["a"])
    for page in site(tmp_path).values():
        policy = page.policy
        assert policy.pop("script-src") == digest(page.scripts[-1])
        assert policy.pop("style-src") == " ".join(map(digest, page.styles))
        assert policy == {
            "default-src": "'none'", "img-src": "data:", "font-src": "data:", "base-uri": "'none'",
            "form-action": "'none'", "require-trusted-types-for": "'script'", "trusted-types": "'none'",
        }  # fmt: skip


def test_a_megabyte_in_one_line_is_shown(tmp_path):
    write_record(tmp_path, ["<b>" * 350_000])
    assert "<b><b>" in only_document(site(tmp_path)).text


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    write_record(tmp_path, ["a"])
    (tmp_path / "viewer").write_text("in the way")
    with pytest.raises(OutputError, match="could not be written"):
        write_site(tmp_path, tmp_path / "viewer")


def test_memory_does_not_grow_with_the_number_of_documents(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf", pages=8)
    peaks = []
    for count in (1, 6):
        workspace = tmp_path / str(count)
        for number in range(count):
            write_record(
                workspace, ["word " * 2000] * 8, name=pdf, file=f"output_{number}.jsonl",
                metadata={"source-sha256": sha256(pdf)},
            )  # fmt: skip
        code = (
            "import resource, sys; from pathlib import Path; from olmocr.viewer.site import write_site;"
            f"write_site(Path({str(workspace)!r}), Path({str(workspace)!r}, 'viewer'));"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 8 << 20


def written(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.html")}


def rewritten(before, after):
    return sorted(re.sub("-.*", "", name) for name in after if after[name] != before.get(name))


def test_a_second_time_writes_nothing(tmp_path):
    write_three(tmp_path)
    first = write_site(tmp_path, tmp_path / "viewer")
    before = written(tmp_path / "viewer")
    again = write_site(tmp_path, tmp_path / "viewer")
    assert (first.written, first.unchanged, again.written, again.unchanged) == (3, 0, 0, 3)
    assert written(tmp_path / "viewer") == before


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda ws: write_record(ws, ["more"], name="z.pdf", file="output_z.jsonl"), ["c", "index.html", "z"]),
        (lambda ws: (ws / "results/output_a.jsonl").unlink(), ["b", "index.html"]),
        (lambda ws: next((ws / "viewer/documents").glob("b-*")).unlink(), ["b"]),
        (lambda ws: next((ws / "viewer/documents").glob("b-*")).write_text("changed"), ["b"]),
        (lambda ws: (ws / "viewer/.olmocr-viewer.sqlite").write_text("damaged"), ["a", "b", "c", "index.html"]),
    ],
)
def test_what_changed_is_written_and_nothing_else(tmp_path, change, names):
    write_three(tmp_path)
    write_site(tmp_path, tmp_path / "viewer")
    before = written(tmp_path / "viewer")
    change(tmp_path)
    write_site(tmp_path, tmp_path / "viewer")
    assert rewritten(before, written(tmp_path / "viewer")) == names


def test_a_source_that_changes_has_its_page_written_again(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf")
    run(tmp_path / "ws", [pdf], answer("text"))
    assert only_document(site(tmp_path / "ws")).all("img")
    pdf.unlink()
    assert not only_document(site(tmp_path / "ws")).all("img")


def test_the_page_of_a_document_that_is_gone_is_removed_only_if_it_is_as_we_left_it(tmp_path):
    write_three(tmp_path)
    pages = site(tmp_path)
    mine = tmp_path / "viewer/documents/mine.html"
    mine.write_text("a person's")
    changed = tmp_path / "viewer/documents" / next(name for name in pages if name.startswith("b-"))
    changed.write_text("a person's, too")
    for path in (tmp_path / "results").iterdir():
        path.unlink()
    done = write_site(tmp_path, tmp_path / "viewer")
    assert done.removed == 2
    assert sorted((tmp_path / "viewer/documents").iterdir()) == sorted([changed, mine])


def test_pages_of_the_index_that_are_too_many_are_removed(tmp_path):
    write_three(tmp_path)
    pages = site(tmp_path, at_once=1)
    assert {"index.html", "index-2.html", "index-3.html"} <= set(pages)
    assert [each["href"] for each in pages["index-2.html"].all("a") if "rel" in each] == ["index.html", "index-3.html"]
    assert [json.loads(pages[name].scripts[0]) for name in ("index.html", "index-3.html")] == [
        [[1, "text of a"]],
        [[1, "text of c"]],
    ]
    assert "3 pages, by the first document of each" in pages["index.html"].text
    (tmp_path / "results/output_c.jsonl").unlink()
    assert "index-3.html" not in site(tmp_path, at_once=1)


def test_the_index_is_there_before_any_document(tmp_path):
    write_three(tmp_path)
    seen = []
    write_site(
        tmp_path,
        tmp_path / "viewer",
        on_index=lambda site: seen.append((site.index.is_file(), (tmp_path / "viewer/documents").exists())),
    )
    assert seen == [(True, False)]
