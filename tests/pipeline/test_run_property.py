"""Sets of documents, ways to spell them and kinds of output: whatever is run on them, each document keeps its own."""

import asyncio
import contextlib
import json
import os
import tempfile
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from PIL import Image

from olmocr import PipelineConfig, run_pipeline
from olmocr.errors import AnswerError
from olmocr.inputs.places import folded
from olmocr.page import PageImage
from olmocr.rendering.pool import RenderedPage
from tests.pipeline.doubles import answer

GREY = PageImage(Image.new("RGB", (4, 4), "grey"))
NFC, NFD = (unicodedata.normalize(form, "é.pdf") for form in ("NFC", "NFD"))

ARCHIVE = "x.zip"


def are_told_apart(*names):
    """Say whether the disk for temporary files takes the *names* for as many files; a Mac's does not."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, name).touch()
        return len(list(Path(folder).iterdir())) == len(names)


FILES = ("a.pdf", "a.png", "a.md/b.pdf", "in/a.pdf", NFC)
FILES += ("A.pdf", NFD) if are_told_apart("a.pdf", "A.pdf", NFC, NFD) else ()
MEMBERS = (f"{ARCHIVE}::m.pdf", f"{ARCHIVE}::M.pdf")
OWN_FILES = ("a.md", "in/a.md", "é.md", "x.zip/m.md", "a.md/b.md", "a.md/0001.md")
MARKDOWN = ("ws/markdown", "out", ".")

PLACES = st.sampled_from(FILES + MEMBERS)
TEXTS = st.sampled_from([f"text {number}" for number in range(5)])
SPELLINGS = st.sampled_from(["plain", "dotted", "absolute", "linked", "upwards"])


class Pool:
    """Renders files that hold the text of their page."""

    async def page_count(self, path, name):
        return 1

    async def render(self, path, name, number, longest_side):
        return RenderedPage(GREY, path.read_text().partition("\n")[2], is_blank=False)


@contextlib.asynccontextmanager
async def open_pool():
    yield Pool()


def spell(place, how):
    name, separator, member = place.partition("::")
    spelled = {
        "plain": name,
        "dotted": f"./in/../{name}",
        "absolute": str(Path.cwd() / name),
        "linked": f"linked/{name}",
        "upwards": f"../{Path.cwd().name}/{name}",
    }[how]
    return f"{spelled}{separator}{member}"


class Desk(RuleBasedStateMachine):
    """A person's folder, in which olmocr is run: what must be there is worked out without asking it."""

    def __init__(self):
        super().__init__()
        self.stack = contextlib.ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "desk"
        (folder / "in").mkdir(parents=True)
        before = Path.cwd()
        self.stack.callback(os.chdir, before)
        os.chdir(folder)
        Path("linked").symlink_to(".")
        self.texts = {}  # what each document holds now
        self.read = {}  # what was last read of each, with success
        self.good = set()  # texts that were read with success
        self.to_replace = set()  # texts that were to be read anew, and could not be
        self.own = {}  # the person's files
        self.changed_by_hand = set()  # texts of files that were ours
        for number, place in enumerate(FILES + MEMBERS):
            self.write_a_document(place, f"text {number % 5}")

    def teardown(self):
        self.stack.close()

    @rule(place=PLACES, text=TEXTS)
    def change_a_document(self, place, text):
        self.write_a_document(place, text)

    def write_a_document(self, place, text):
        self.texts[place] = text
        if place in MEMBERS:
            with zipfile.ZipFile(ARCHIVE, "w") as archive:
                for member in filter(self.texts.get, MEMBERS):
                    archive.writestr(member.partition("::")[2], f"%PDF-1.4\n{self.texts[member]}")
        else:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            Path(place).write_text(f"%PDF-1.4\n{text}")

    @rule(folder=st.sampled_from([*MARKDOWN, "ws/pages"]), name=st.sampled_from(OWN_FILES))
    def write_a_file_of_ones_own(self, folder, name):
        path = Path(folder, name).absolute()
        with contextlib.suppress(OSError):  # a folder is there, or a file is where a folder would be
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path not in self.own:
                self.changed_by_hand.add(body(path))
            path.write_text(f"mine: {path}")
            self.own[path] = f"mine: {path}"

    @rule(folder=st.sampled_from([*MARKDOWN, "ws/pages"]), number=st.integers(0, 9))
    def change_a_file_that_was_written(self, folder, number):
        if paths := sorted(self.written(folder)):
            path = paths[number % len(paths)]
            self.changed_by_hand.add(body(path))
            path.write_text(f"mine: {path}")
            self.own[path] = f"mine: {path}"

    @rule(number=st.integers(0, 9))
    def throw_a_file_of_ones_own_away(self, number):
        if self.own:
            path = sorted(self.own)[number % len(self.own)]
            del self.own[path]
            path.unlink()

    @rule(
        places=st.lists(PLACES, min_size=2, max_size=6),
        spellings=st.lists(st.lists(SPELLINGS, min_size=6, max_size=6), min_size=1, max_size=2),
        folder=st.sampled_from([None, *MARKDOWN]),
        wanted=st.fixed_dictionaries(
            {name: st.booleans() for name in ("markdown", "page_files", "page_records", "front_matter", "force")}
        ),
        bad=st.frozensets(TEXTS, max_size=2),
    )
    def run(self, places, spellings, folder, wanted, bad):
        given = list(places)
        options = {**wanted, "output_dir": folder, "retry_failed": not wanted["force"]}

        async def ask(request):
            await asyncio.sleep(0)
            if request.draft_text in bad:
                raise AnswerError("no JSON")
            return answer(request.draft_text)

        async def at_once():
            runs = []
            for each in spellings:
                names = [spell(place, how) for place, how in zip(given, each, strict=False)]
                config = PipelineConfig(workspace="ws", pdfs=names, model="m", max_page_retries=1, **options)
                runs.append(run_pipeline(config, ask=ask, open_pool=open_pool))
            await asyncio.gather(*runs)

        asyncio.run(at_once())
        done = self.expect(given, bad, force=wanted["force"])
        self.check_what_is_there(done, config_folder(folder, markdown=wanted["markdown"]), wanted)

    def expect(self, given, bad, *, force):
        """Return the documents that were read with success."""
        if force:
            self.to_replace |= {self.texts[place] for place in given}
        asked = {self.texts[place] for place in given if self.texts[place] not in self.good - self.to_replace}
        self.good |= asked - bad
        self.to_replace -= asked - bad
        done = {place for place in given if self.texts[place] not in asked & bad}
        for place in given:
            if place in done:
                self.read[place] = self.texts[place]
            elif self.read.get(place) != self.texts[place]:  # it has changed, and no good answer came of it
                self.read.pop(place, None)
        self.to_replace &= self.good
        return done

    def check_what_is_there(self, done, folder, wanted):
        assert {path: path.read_text() for path in self.own} == self.own
        lines = [json.loads(path.read_text()) for path in Path("ws/results").glob("*.jsonl")]
        there = Counter(self.read.values())
        assert Counter(line["text"] for line in lines) == there
        new = Counter(self.read[place] for place in done)
        for each in MARKDOWN:
            self.check_texts(self.written(each), there, new if each == folder else Counter())
        self.check_texts(self.written("ws/pages"), there, new if wanted["page_files"] else Counter())
        records = [json.loads(path.read_text()) for path in Path("ws/page_records").rglob("*.json")]
        texts = Counter(record["pages"][0]["response"]["natural_text"] for record in records)
        assert texts <= there
        assert not wanted["page_records"] or new <= texts

    def check_texts(self, paths, there, new):
        texts = Counter(map(body, paths))
        assert texts <= there, "no text is stale, and none stands there twice"
        lenient = Counter({text: there[text] for text in self.changed_by_hand})
        assert new <= texts + lenient, "each document has its own"
        # Two paths that lead through a link to one folder are told apart by what lies there, on any disk.
        inside = [folded(str(path)) for path in paths if Path("ws").absolute() in path.parents]
        assert len(set(inside)) == len(inside), "a disk that folds has no two of them at one path"

    def written(self, folder):
        """Return the files below a folder that are not the person's."""
        inner = {Path(each).absolute() for each in ("ws", "out", "linked")} if folder == "." else set()
        found = [path for path in Path(folder).absolute().rglob("*.md") if path.is_file()]
        return [path for path in found if path not in self.own and inner.isdisjoint(path.parents)]


def config_folder(folder, *, markdown):
    return folder or ("ws/markdown" if markdown else None)


def body(path):
    return path.read_text().rpartition("---\n")[2]


@pytest.mark.parametrize("examples", [pytest.param(10, id="10"), pytest.param(400, id="400", marks=pytest.mark.slow)])
def test_each_document_keeps_its_own_and_a_persons_files_are_never_touched(examples):
    run_state_machine_as_test(
        Desk,
        settings=settings(
            max_examples=examples,
            stateful_step_count=16,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
