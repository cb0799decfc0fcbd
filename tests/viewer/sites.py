"""Sites that the tests write, and their pages as a browser would have them."""

import base64
import hashlib
from html.parser import HTMLParser

from olmocr.viewer.site import write_site
from tests.viewer.workspaces import write_record

VOID = {"meta", "link", "img", "input", "br", "hr", "col"}


class Page(HTMLParser):
    """A page as a browser would take it apart, closely enough: tags, attributes, scripts, text by element id."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.styles, self.open, self.text = [], [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "every element is closed in its place"

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.open[-1:] == ["style"]:
            self.styles[-1] += data
        else:
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def policy(self):
        (policy,) = [each["content"] for each in self.all("meta") if each.get("http-equiv")]
        return dict(part.strip().split(" ", 1) for part in policy.split(";"))


def site(workspace, folder=None, **options):
    folder = folder or workspace / "viewer"
    write_site(workspace, folder, **options)
    return {path.name: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}


def only_document(pages):
    (name,) = [name for name in pages if name != "index.html"]
    return pages[name]


def digest(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def write_three(workspace):
    for name in ("a", "b", "c"):
        write_record(workspace, [f"text of {name}"], name=f"{name}.pdf", file=f"output_{name}.jsonl")
