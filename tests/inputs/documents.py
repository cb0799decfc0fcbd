"""Documents and archives that the tests of inputs are given, and what comes of finding them."""

import io
import tarfile
import zipfile

import pytest

from olmocr.errors import InputError
from olmocr.inputs.limits import InputLimits
from olmocr.inputs.local_file import local_file
from olmocr.inputs.sources import find_sources

PDF = b"%PDF-1.4 not really"


def write(path, content=PDF):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(*given, **options):
    return [source.name for source in find_sources(given, **options)]


def content_of(source, here, **options):
    with local_file(source, here.parent / "scratch", **options) as path:
        return path.read_bytes()


def why(source, here, **options):
    with pytest.raises(InputError) as error:
        content_of(source, here, **options)
    return str(error.value)


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def write_tar(path, members, mode="w:gz"):
    """Write a tar; a member may be a TarInfo instead of bytes."""
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return str(path)


SMALL = InputLimits(archive_members=10, archive_bytes=5_000_000, document_bytes=1_000_000, harmless_bytes=10_000)
