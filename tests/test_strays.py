"""Which names are those of systems and other programs, and that nothing of them gets into what is made or read."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.convert import convert
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.errors import CheckpointError, InputError, OutputError
from olmocr.inference.model import load_model
from olmocr.inputs.sources import find_sources
from olmocr.model_folder import ModelFolder
from olmocr.publish.audit import audit_model
from olmocr.publish.reproduce import reproduce
from olmocr.publish.scan import scan_folder
from olmocr.rendering.render import open_document
from olmocr.runtime.facts import weight_hashes
from olmocr.strays import awaited, files_in, is_metadata, is_passed_over, is_stray
from olmocr.validate.bench.checks import read_bench_set
from olmocr.validate.known_pages.page_set import read_page_set
from olmocr.validate.pages import check_answers
from olmocr.validate.weights.check import check_weights
from olmocr.viewer.records import find_records
from tests.checkpoints import tiny_checkpoint
from tests.conftest import DEVICE, PAGES

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        "

FILES = [
    ".DS_Store",
    "._.DS_Store",
    ".localized",
    ".apdisk",
    "Icon\r",
    "Icon\uf00d",
    ".VolumeIcon.icns",
    ".metadata_never_index",
    ".metadata_never_index_unless_rootfs",
    ".com.apple.timemachine.donotpresent",
    ".nfs00000000028a3f1c0000002d",
    ".smbdeleteAAA1b2c",
    ".fuse_hidden0000a1b200000003",
    "Thumbs.db",
    "thumbs.db",
    "Thumbs.db:encryptable",
    "ehthumbs_vista.db",
    "desktop.ini",
    "Desktop.ini",
    ".directory",
    ".dropbox",
    ".dropbox.attr",
    ".model.safetensors.icloud",
    ".~lock.config.json#",
    "~$config.json",
    "config.json~",
    ".config.json.swp",
    ".config.json.swo",
    ".#config.json",
    ".gitattributes",
    ".gitignore",
    ".syncthing.model.safetensors.tmp",
]
FOLDERS = [
    ".Spotlight-V100",
    ".Trashes",
    ".Trash",
    ".Trash-1000",
    ".fseventsd",
    ".TemporaryItems",
    ".DocumentRevisions-V100",
    ".AppleDouble",
    "$RECYCLE.BIN",
    "System Volume Information",
    "FOUND.000",
    "lost+found",
    "@eaDir",
    "#recycle",
    "#snapshot",
    "@Recycle",
    ".@__thumb",
    ".dropbox.cache",
    ".stfolder",
    ".stversions",
    ".git",
    ".svn",
    ".cache",
    "__MACOSX",
    "Network Trash Folder",
    "Temporary Items",
]
OUR_OWN = [
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "config.json",
    "LICENSE",
    "README.md",
    ".eval_results",
    ".env",
    ".netrc",
    "Icons.pdf",
    "icon.png",
    "desktop.ini.pdf",
    "#12 invoice.pdf",
    "~notes.pdf",
    "$5.pdf",
    "@home.pdf",
    "_scan.pdf",
    "recycle",
    "found.pdf",
    "a.icloud",
    "output_0a1b.jsonl",
]


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_what_a_system_or_a_program_keeps_for_itself_is_a_stray(name):
    assert is_stray(name)
    assert is_passed_over(name)


@pytest.mark.parametrize("name", OUR_OWN)
def test_what_a_person_or_this_package_names_so_is_none(name):
    assert not is_stray(name)
    assert not is_metadata(name)


@given(st.text(min_size=1))
def test_what_macos_keeps_beside_a_file_of_any_name_is_told_by_its_name(name):
    assert is_metadata(f"._{name}")
    assert is_stray(f"._{name}")


@given(st.text())
def test_what_a_system_makes_again_is_a_stray_and_a_hidden_name_is_passed_over(name):
    assert not is_metadata(name) or is_stray(name)
    assert not is_stray(name) or is_passed_over(name)


def test_only_a_placeholder_of_icloud_stands_for_another_file():
    assert awaited(".paper.pdf.icloud") == "paper.pdf"
    assert awaited("paper.pdf.icloud") is None
    assert awaited(".icloud") is None
    assert awaited(".paper.pdf") is None


def litter(folder):
    """Put into *folder* what systems and programs put there: beside each file, and by themselves."""
    for path in list(folder.iterdir()):
        if path.is_file():
            (folder / f"._{path.name}").write_bytes(APPLE_DOUBLE)
    for name in FILES:
        (folder / name).write_bytes(APPLE_DOUBLE)
    for name in FOLDERS:
        (folder / name).mkdir()
        for inner in ("model.safetensors", "config.json", "paper.pdf", "a.md", "checks.jsonl"):
            (folder / name / inner).write_bytes(b"%PDF-1.4 not yours")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return litter(tiny_checkpoint(tmp_path_factory.mktemp("strays") / "source"))


@pytest.fixture(scope="module")
def model(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strays") / "model"
    convert(source, "8bit", folder)
    return litter(folder)


def test_a_littered_source_is_converted_without_any_of_it(source, tmp_path):
    convert(source, "8bit", tmp_path / "out")
    assert not [path.name for path in (tmp_path / "out").iterdir() if is_passed_over(path.name)]


def test_a_littered_folder_without_weights_is_said_to_have_none(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no \*\.safetensors files"):
        read_checkpoint(ModelFolder(litter(folder)))


def test_a_littered_model_is_whole_and_its_hashes_are_those_of_its_weights(model, source):
    report = check_weights(model, source)
    assert [check for check in report.checks if check.holds is not True] == []
    assert list(weight_hashes(model)) == ["model.safetensors"]
    assert reproduce(model, str(source)).holds


def test_a_littered_model_is_published_without_any_of_it(model):
    scan = scan_folder(model)
    assert scan.problems == ()
    assert {file.name for file in scan.files} == {
        path.name for path in model.iterdir() if not is_passed_over(path.name)
    }


def test_an_audit_of_a_littered_model_says_nothing_of_it(model):
    findings = {finding.what: finding for finding in audit_model(ModelFolder(model), "").findings}
    assert findings["contents"].good
    assert findings["shards"].good


def test_hashes_that_another_tool_stated_of_strays_are_not_asked_for(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    with (folder / "SHA256SUMS").open("a") as file:
        file.writelines(f"{'0' * 64}  {name}\n" for name in ("._config.json", ".DS_Store", "gone~"))
    (folder / ".DS_Store").unlink()
    assert next(check for check in check_weights(folder).checks if check.name == "hashes").holds


def test_a_littered_model_is_loaded(model):
    assert load_model(ModelFolder(model), DEVICE).model


def test_a_littered_folder_of_documents_holds_those_that_a_person_put_there(tmp_path):
    shutil.copyfile(PAGES / "sparse_14.pdf", tmp_path / "paper.pdf")
    litter(tmp_path)
    named = [str(tmp_path), str(tmp_path / "*.pdf"), str(tmp_path / "*/*.pdf"), str(tmp_path / "**/*.pdf")]
    for given_name in named[:2] + named[3:]:
        assert [source.name for source in find_sources([given_name])] == [str(tmp_path / "paper.pdf")]
    with pytest.raises(Exception, match="no document matches"):
        find_sources([named[2]])


def test_a_stray_folder_that_is_named_is_read(tmp_path):
    litter(tmp_path)
    name = str(tmp_path / "$RECYCLE.BIN" / "*.pdf")
    assert [source.name for source in find_sources([name])] == [str(tmp_path / "$RECYCLE.BIN" / "paper.pdf")]


def test_a_document_that_lies_in_icloud_only_is_a_failure_and_not_left_out(tmp_path):
    for name in (".paper.pdf.icloud", ".film.mov.icloud", ".here.pdf.icloud", "here.pdf"):
        (tmp_path / name).write_bytes(b"%PDF-1.4")
    sources = {source.name: source.origin for source in find_sources([str(tmp_path)])}
    assert list(sources) == [str(tmp_path / "paper.pdf"), str(tmp_path / "here.pdf")]
    assert "is in iCloud, not on this disk" in sources[str(tmp_path / "paper.pdf")].why


def test_a_littered_workspace_has_the_records_that_were_written(tmp_path):
    for name in ("results/output_1.jsonl", "failed/2.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps({}))
        litter((tmp_path / name).parent)
    assert [path.name for path in find_records(tmp_path)] == ["output_1.jsonl", "2.json"]


def test_littered_folders_of_answers_pages_and_checks_hold_what_was_put_there(tmp_path):
    (tmp_path / "pdfs").mkdir()
    shutil.copyfile(PAGES / "sparse_14.pdf", tmp_path / "pdfs/paper.pdf")
    (tmp_path / "pdfs/answer.md").write_text("x")
    check = {"pdf": "paper.pdf", "page": 1, "id": "a", "type": "present", "text": "x"}
    (tmp_path / "checks.jsonl").write_text(json.dumps(check) + "\n")
    litter(litter(tmp_path) / "pdfs")
    assert [answer.path.name for answer in check_answers(tmp_path / "pdfs", "strict")] == ["answer.md"]
    assert [page.path.name for page in read_page_set([tmp_path / "pdfs"])] == ["paper.pdf"]
    assert read_bench_set(tmp_path).documents == ("paper.pdf",)


def appearing(folder):
    """Have what macOS writes beside files on a foreign disk appear while a conversion writes there."""

    def progress(nbytes):
        for path in folder.iterdir():
            if not path.name.startswith("._"):
                (folder / f"._{path.name}").write_bytes(APPLE_DOUBLE)

    return progress


def test_what_appears_while_a_model_is_written_is_in_no_sum(source, tmp_path):
    convert(source, "8bit", tmp_path / "out", progress=appearing(tmp_path / ".out.partial"))
    assert files_in(tmp_path / "out", ".safetensors") == [tmp_path / "out/model.safetensors"]
    assert "._" not in (tmp_path / "out/SHA256SUMS").read_text()
    assert all(check.holds for check in check_weights(tmp_path / "out").checks)


def test_an_output_that_holds_only_what_a_system_makes_is_an_empty_folder(source, tmp_path):
    (tmp_path / "out").mkdir()
    for name in (".DS_Store", "._.DS_Store", "desktop.ini"):
        (tmp_path / "out" / name).touch()
    convert(source, "8bit", tmp_path / "out")
    assert not {".DS_Store", "desktop.ini"} & {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("name", [".git", "Icon\r", "$RECYCLE.BIN", ".env", "notes.txt"])
def test_an_output_that_holds_anything_else_is_left_alone(name, source, tmp_path):
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(OutputError, match="exists; choose another `output`"):
        convert(source, "8bit", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_a_file_of_macos_that_is_named_is_said_to_be_one(tmp_path):
    (tmp_path / "._paper.pdf").write_bytes(APPLE_DOUBLE)
    with (
        pytest.raises(InputError, match="is what macOS keeps beside a file"),
        open_document(tmp_path / "._paper.pdf", "._paper.pdf"),
    ):
        pass
