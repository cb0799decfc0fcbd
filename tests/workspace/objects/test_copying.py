import pytest

from olmocr.errors import InputError
from olmocr.workspace.objects.copying import copied_results
from olmocr.workspace.objects.place import StorePlace
from tests.workspace.stores import FaultyObjects, memory_place, objects_at


def test_only_what_changed_is_copied_again_and_what_is_gone_goes(tmp_path):
    place = memory_place()
    store = objects_at(place)
    for name in ("results/output_a.jsonl", "results/output_b.jsonl", "failed/c.json", "state/pages/x"):
        store.put(name, name.encode())
    copy = copied_results(place, tmp_path)
    assert copy.name == place.name
    files = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    assert files == ["failed/c.json", "results/output_a.jsonl", "results/output_b.jsonl", "versions.json"]
    store.put("results/output_b.jsonl", b"new")
    store.remove("failed/c.json")
    objects = FaultyObjects(store)
    assert copied_results(place, tmp_path, objects=objects) == copy
    assert objects.counts == {"get": 2, "names": 2}, "the workspace's mark, and what changed"
    assert (copy / "results/output_b.jsonl").read_bytes() == b"new"
    assert not (copy / "failed/c.json").exists()


@pytest.mark.parametrize("name", ["results/../../evil.jsonl", "results/..", "results/a/b.jsonl", "failed//x.json"])
def test_a_name_that_would_lead_out_of_the_copy_is_left_out(name, tmp_path):
    place = memory_place()
    objects = FaultyObjects(objects_at(place))
    objects.versions = lambda folder: {name: "1", "results/output_a.jsonl": "1"} if folder == "results" else {}
    objects_at(place).put("results/output_a.jsonl", b"{}")
    copied_results(place, tmp_path / "copy", objects=objects)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"output_a.jsonl", "versions.json"}


def test_a_shared_folder_is_not_copied(tmp_path):
    assert copied_results(StorePlace((tmp_path / "ws").as_uri()), tmp_path / "copy") == tmp_path / "ws"


def test_a_place_without_results_is_not_a_workspace(tmp_path):
    with pytest.raises(InputError, match="is not a workspace: it has no results/ and no failed/"):
        copied_results(memory_place(), tmp_path)
