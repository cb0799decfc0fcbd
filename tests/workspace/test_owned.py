import json
import multiprocessing
import unicodedata
from pathlib import PurePosixPath

import pytest

from olmocr.errors import OutputError
from olmocr.workspace.owned import ITSELF, OwnedFiles

NAMES = tuple(map(PurePosixPath, ("in/a.md", "in/a-1.md", "a-1.md", "1.md")))
OTHERS = tuple(map(PurePosixPath, ("in/a.md", "in/a-2.md", "a-2.md", "2.md")))


@pytest.fixture
def owned(tmp_path):
    return OwnedFiles(tmp_path / "out", tmp_path / "claims")


def write(owned, text, key="1", names=NAMES, made_of=""):
    return owned.write(key, names, {ITSELF: text}, made_of).relative_to(owned.root)


def files(owned):
    found = [path for path in owned.root.rglob("*") if path.is_file()]
    return {str(path.relative_to(owned.root)): path.read_text() for path in found}


def put(owned, name, text):
    (owned.root / name).parent.mkdir(parents=True, exist_ok=True)
    (owned.root / name).write_text(text)


def test_a_file_that_nobody_wrote_is_left_alone_and_that_is_said_once(owned, caplog):
    put(owned, "in/a.md", "my notes")
    for text in ("one", "two"):
        owned.reserve("1", NAMES)
        assert write(owned, text) == NAMES[1]
    assert files(owned) == {"in/a.md": "my notes", "in/a-1.md": "two"}
    assert [record.getMessage() for record in caplog.records] == [
        f"{owned.root}/in/a.md is not as olmocr wrote it: it stays, and {owned.root}/in/a-1.md is written instead"
    ]


def test_a_file_that_comes_between_the_claim_and_the_writing_is_left_alone(owned):
    assert owned.reserve("1", NAMES) == owned.root / NAMES[0]
    put(owned, "in/a.md", "my notes")
    write(owned, "text")
    assert files(owned) == {"in/a.md": "my notes", "in/a-1.md": "text"}


def test_a_file_that_a_person_has_changed_since_is_theirs(owned, caplog):
    write(owned, "one")
    put(owned, "in/a.md", "one, corrected")
    assert owned.made_of("1", NAMES) == "", "nothing is missing"
    write(owned, "two")
    write(owned, "three")
    assert files(owned) == {"in/a.md": "one, corrected", "in/a-1.md": "three"}
    assert len(caplog.records) == 1
    owned.remove("1")
    assert files(owned) == {"in/a.md": "one, corrected"}


def test_a_link_that_a_person_has_put_there_is_not_followed(owned):
    write(owned, "one")
    (owned.root / "in/a.md").rename(owned.root / "kept.md")
    (owned.root / "in/a.md").symlink_to("../kept.md")
    write(owned, "two")
    assert files(owned) == {"kept.md": "one", "in/a.md": "one", "in/a-1.md": "two"}


def test_a_document_that_is_called_otherwise_moves_and_its_path_is_free_for_others(owned):
    write(owned, "one")
    elsewhere = tuple(PurePosixPath("x") / each for each in NAMES)
    assert write(owned, "two", names=elsewhere) == elsewhere[0]
    assert write(owned, "another's", key="2", names=OTHERS) == OTHERS[0]
    assert files(owned) == {"x/in/a.md": "two", "in/a.md": "another's"}


def test_a_path_is_the_first_documents_that_asks_for_it(owned):
    assert [write(owned, key, key, names) for key, names in (("1", NAMES), ("2", OTHERS))] == [NAMES[0], OTHERS[1]]
    assert [owned.reserve(key, names) for key, names in (("2", OTHERS), ("1", NAMES))] == [
        owned.root / OTHERS[1],
        owned.root / NAMES[0],
    ]


@pytest.mark.parametrize(
    ("one", "other"), [("É.md", unicodedata.normalize("NFD", "é.md")), ("STRASSE.md", "straße.md"), ("A.MD", "a.md")]
)
def test_paths_that_some_disk_takes_for_one_are_never_two_documents(one, other, owned):
    write(owned, "1", names=(PurePosixPath(one), PurePosixPath("1.md")))
    assert write(owned, "2", "2", (PurePosixPath(other), PurePosixPath("2.md"))) == PurePosixPath("2.md")


def test_what_files_were_made_of_is_known_while_all_of_them_are_there(owned):
    pages = {"0001.md": "one", "0002.md": "two"}
    owned.write("1", NAMES, pages, "abc")
    assert owned.made_of("1", NAMES) == "abc"
    assert owned.made_of("1", OTHERS[1:]) is None, "they would be called otherwise"
    assert owned.made_of("2", OTHERS) is None
    (owned.root / "in/a.md/0002.md").unlink()
    assert owned.made_of("1", NAMES) is None


def test_of_a_folder_of_pages_those_that_are_too_many_go_and_a_persons_own_stay(owned):
    owned.write("1", NAMES, {"0001.md": "one", "0002.md": "two", "0003.md": "three"}, "")
    put(owned, "in/a.md/notes.md", "mine")
    put(owned, "in/a.md/0003.md", "mine, too")
    owned.write("1", NAMES, {"0002.md": "zwei"}, "")
    assert files(owned) == {
        "in/a.md/0002.md": "zwei",
        "in/a.md/0003.md": "mine, too",
        "in/a.md/notes.md": "mine",
    }
    owned.forget("1")
    assert set(files(owned)) == {"in/a.md/0003.md", "in/a.md/notes.md"}


def test_what_was_made_of_the_same_text_stays_where_the_rest_goes(owned):
    write(owned, "text", made_of="abc front matter")
    owned.remove("1", unless_made_of="abc")
    assert files(owned) == {"in/a.md": "text"}
    owned.remove("1", unless_made_of="def")
    assert files(owned) == {}
    assert owned.reserve("1", NAMES) == owned.root / NAMES[0], "the path stays its own"


def test_a_run_that_is_killed_while_it_writes_knows_both_texts_as_its_own(owned, monkeypatch):
    write(owned, "one")

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(OwnedFiles, "_clear", killed)
        with pytest.raises(KeyboardInterrupt):
            write(owned, "two")
    assert files(owned) == {"in/a.md": "two"}
    write(owned, "three")
    assert files(owned) == {"in/a.md": "three"}


def test_a_claim_of_an_earlier_version_tells_whose_a_file_is(owned):
    write(owned, "one")
    (owned.claims / "1.json").unlink()
    (claim,) = [path for path in owned.claims.iterdir() if len(path.name) == 40]
    claim.write_text("1")
    assert write(owned, "two") == NAMES[0]
    assert files(owned) == {"in/a.md": "two"}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"in/a.md": {}}', '{"in/a.md": 7}'])
def test_a_list_of_what_was_written_that_is_damaged_costs_no_file(damage, owned):
    write(owned, "one")
    (owned.claims / "1.json").write_text(damage)
    write(owned, "two")
    assert files(owned) == {"in/a.md": "one", "in/a-1.md": "two"}


def test_names_that_a_disk_cannot_have_give_way_to_one_that_it_can(owned):
    long = (PurePosixPath("x" * 300 + ".md"), *NAMES[1:])
    deep = (PurePosixPath(*["y" * 200] * 30, "a.md"), *OTHERS[1:])
    assert write(owned, "one", names=long) == NAMES[1]
    assert write(owned, "two", "2", deep) == OTHERS[1]
    with pytest.raises(OutputError, match="and neither could other names"):
        write(owned, "three", "3", (PurePosixPath("z" * 300 + ".md"),))


def test_a_folder_that_is_a_file_is_one_sentence(owned):
    owned.root.write_text("mine")
    with pytest.raises(OutputError, match="could not be written"):
        write(owned, "one")
    assert owned.root.read_text() == "mine"


def _write_many(owned, numbers):
    for number in numbers:
        names = (PurePosixPath("same.md"), PurePosixPath(f"same-{number}.md"))
        owned.write(str(number), names, {ITSELF: str(number)}, "")


def test_processes_that_write_at_once_give_each_document_its_own(owned):
    numbers = range(24)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(owned, numbers[at::3])) for at in range(3)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert sorted(files(owned).values(), key=int) == [str(number) for number in numbers]
    lists = [json.loads(path.read_text()) for path in owned.claims.glob("*.json")]
    assert sorted(len(each) for each in lists) == [1] * 24
