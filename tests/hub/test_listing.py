"""What a Hub lists can be names, sizes and hashes of files, or it is refused; and files are compared with it."""

import hashlib

import pytest

from olmocr.errors import HubError
from olmocr.hub.listing import ListedFile, require_names


@pytest.mark.parametrize("name", ["config.json", "a/b.txt", "model-00001-of-00002.safetensors", "ä.md"])
def test_a_name_that_any_disk_can_have_is_taken(name):
    require_names("org/name", [name])


@pytest.mark.parametrize("names", [["aux"], ["NUL.txt"], ["a.json", "A.json"], ["a:b"], ["x" * 300]])
def test_a_name_that_some_disk_cannot_have_is_refused_by_the_repository(names):
    with pytest.raises(HubError, match="org/name"):
        require_names("org/name", names)


def test_a_file_is_the_listed_one_by_its_size_and_all_its_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()
    git = hashlib.sha1(b"blob 7\0content").hexdigest()
    assert ListedFile("a", 7, sha256, None).is_same(path)
    assert ListedFile("a", None, None, git).is_same(path)
    assert not ListedFile("a", 8, sha256, None).is_same(path)
    assert not ListedFile("a", 7, "0" * 64, None).is_same(path)
    assert not ListedFile("a", 7, None, "0" * 40).is_same(path)
