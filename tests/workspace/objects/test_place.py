from pathlib import Path

import pytest

from olmocr.errors import UsageError
from olmocr.workspace.objects.place import MARK, StorePlace, store_place
from olmocr.workspace.opening import workspace_place


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("s3://bucket/ws", "s3://bucket/ws"),
        ("S3://bucket/ws/", "s3://bucket/ws"),
        (Path("s3://bucket/ws"), "s3://bucket/ws"),
        ("gs://bucket", "gs://bucket"),
        ("az://box/a/b", "az://box/a/b"),
        ("file:///mnt/ws/", "file:///mnt/ws"),
        (Path("file:///mnt/ws"), "file:///mnt/ws"),
    ],
)
def test_a_url_of_a_store_is_a_workspace_however_it_is_given(name, url):
    assert store_place(name) == workspace_place(name) == StorePlace(url)


@pytest.mark.parametrize("name", ["ws", "/tmp/ws", "s3", "a:b", "~/ws"])
def test_any_other_name_is_a_folder_of_this_machine(name):
    assert store_place(name) is None
    assert workspace_place(name) == Path(name).expanduser()


def test_a_folder_that_was_made_as_one_is_found_by_its_path(tmp_path):
    (tmp_path / MARK).parent.mkdir()
    (tmp_path / MARK).touch()
    place = store_place(str(tmp_path))
    assert place is not None
    assert place.local_folder == tmp_path


def test_a_folder_may_be_called_anything(tmp_path):
    place = StorePlace((tmp_path / "a b#c%é").as_uri())
    assert place.local_folder == tmp_path / "a b#c%é"


def test_a_url_that_names_another_machines_folder_is_refused():
    with pytest.raises(UsageError, match="write file:// and its absolute path"):
        store_place("file://host/ws")


@pytest.mark.parametrize("name", ["https://host/ws", "ftp://host/ws", "s3://"])
def test_what_can_be_no_workspace_is_refused(name):
    with pytest.raises(UsageError, match="is not on this disk"):
        workspace_place(name)


def test_a_password_in_a_url_is_not_shown():
    place = StorePlace("s3://user:hunter2@bucket/ws")
    assert str(place) == str(place / "").rstrip("/") == "s3://bucket/ws"
    assert "hunter2" not in place.name
