"""Versions of packages in which a fault is known."""

import pytest

from olmocr.doctor.checks import PACKAGES
from olmocr.runtime.versions import KNOWN_BAD, installed_version, known_bad, parse_version


def whys(package, version):
    return " ".join(bad.why for bad in known_bad(package, version))


@pytest.mark.parametrize(
    ("package", "version", "why"),
    [
        ("mlx-vlm", "0.3.5", "positions"),
        ("mlx-vlm", "0.6.2", "another model"),
        ("mlx-vlm", "0.6.4", "breaks image inputs"),
        ("mlx-vlm", "0.6.7", "breaks image inputs"),
        ("mlx-vlm", "0.6.13", "at the same time"),
        ("mlx-vlm", "0.7.3", "image before the text"),
        ("mlx-vlm", "0.8.0", "newer than"),
        ("mlx", "0.32.3", "older than mlx-vlm 0.7 needs"),
        ("transformers", "5.2.0", "cannot load Qwen2.5-VL"),
        ("transformers", "4.57.3", "older than"),
    ],
)
def test_a_version_that_is_known_to_be_bad_is_said_to_be(package, version, why):
    assert why in whys(package, version)


@pytest.mark.parametrize(
    ("package", "version"),
    [("mlx-vlm", "0.7.10"), ("mlx-vlm", "0.7.99"), ("mlx", "0.32.4"), ("transformers", "5.24.0")],
)
def test_a_good_version_is_not(package, version):
    assert whys(package, version) == ""


def test_each_fault_ends_with_the_version_that_mended_it():
    assert "image before the text" not in whys("mlx-vlm", "0.7.4")
    assert "breaks image inputs" not in whys("mlx-vlm", "0.6.8")
    assert "breaks image inputs" not in whys("mlx-vlm", "0.6.3")
    assert "cannot load" not in whys("transformers", "5.2.1")


def test_versions_are_compared_as_numbers():
    assert parse_version("0.10.1") > parse_version("0.9.12")
    assert parse_version("5.2.0rc1") == parse_version("5.2.0") == (5, 2, 0)
    assert parse_version("unknown") == ()


def test_every_package_with_known_faults_is_checked():
    assert {bad.package for bad in KNOWN_BAD} <= set(PACKAGES)
    assert all(bad.wanted.partition(">")[0] == bad.package for bad in KNOWN_BAD)


def test_what_is_not_installed_has_no_version():
    assert installed_version("no-such-package-anywhere") is None
    assert installed_version("numpy")
