"""What is installed, where it runs and which weights there are, as reports say it."""

import hashlib
import platform

import pytest

from olmocr.errors import CheckpointError
from olmocr.runtime.facts import machine, versions, weight_hashes
from olmocr.version import __version__


def test_versions_name_this_package_python_and_what_is_installed():
    found = versions(["numpy", "a-package-that-nobody-has"])
    assert found["olmocr"] == __version__
    assert found["python"] == platform.python_version()
    assert found["numpy"][0].isdigit()
    assert "a-package-that-nobody-has" not in found


def test_the_machine_is_one_line_with_its_memory():
    assert platform.system() in machine()
    assert machine().endswith(" GiB")
    assert "\n" not in machine()


def test_every_file_of_weights_has_its_hash_in_the_order_of_their_names(tmp_path):
    for name, content in (("b.safetensors", b"two"), ("a.safetensors", b"one"), ("config.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    found = weight_hashes(tmp_path)
    assert list(found.items()) == [
        ("a.safetensors", hashlib.sha256(b"one").hexdigest()),
        ("b.safetensors", hashlib.sha256(b"two").hexdigest()),
    ]


def test_a_folder_without_weights_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no weights|\.safetensors"):
        weight_hashes(tmp_path)


def test_weights_that_cannot_be_read_are_refused_by_name(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        weight_hashes(tmp_path)
