"""Commands, words and megabytes until the first page of your own PDF is read: this package and its peers.

Needs uv and pip. Reads the description in each project's package, and the sizes on the package index of what a new
environment on an Apple silicon Mac gets; nothing is installed. ``--install`` installs each project into a new
environment here, and measures it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from machine import describe_machine

from olmocr.page import PAGE_PROMPT

ROOT = Path(__file__).parent.parent
MAC = ["--python-platform", "aarch64-apple-darwin", "--python-version", "3.12"]


@dataclass(frozen=True)
class Way:
    """One way in: *requirement* is what pip installs; *reads* is the line of its description that reads a document.

    *commands* are all that a person types, from nothing to the first page's text. *models* are the megabytes that are
    fetched then, as *stated_by* says.
    """

    name: str
    requirement: str
    commands: tuple[str, ...]
    reads: str
    models: int
    stated_by: str


_OURS = ("git clone ADDRESS olmocr", "cd olmocr", "uv tool install '.[all]'", "olmocr paper.pdf")
_ASK = "mlx_vlm.generate --model mlx-community/olmOCR-2-7B-1025-mlx-4bit --max-tokens 8000 --temperature 0.0"

WAYS = (
    Way("this package", "olmocr-mlx[all]", _OURS, "olmocr paper.pdf", 5650, "this package's table of models"),
    Way(
        "mlx-vlm, with the same model",
        "mlx-vlm",
        (
            "pip install -U mlx-vlm",
            "sips -s format png -Z 1288 paper.pdf --out page.png",
            f'{_ASK} --image page.png --prompt "{PAGE_PROMPT}"',
        ),
        "mlx_vlm.generate --model mlx-community/Qwen2-VL-2B-Instruct-4bit --max-tokens 100 --temperature 0.0 --image",
        5650,
        "this package's table of models",
    ),
    Way(
        "ocrmypdf",
        "ocrmypdf",
        ("brew install ocrmypdf", "ocrmypdf --sidecar paper.txt paper.pdf out.pdf"),
        "brew install ocrmypdf",
        0,
        "English data comes with Tesseract",
    ),
    Way(
        "docling",
        "docling",
        ("pip install docling", "docling paper.pdf"),
        "docling https://arxiv.org/pdf/2206.01062",
        530,
        "the Hub's lists of files: docling-layout-heron 172, docling-models 358",
    ),
    Way(
        "marker",
        "marker-pdf",
        ("pip install marker-pdf", "marker_single paper.pdf"),
        "marker_single /path/to/file.pdf",
        0,
        "not known",
    ),
)


def description(way: Way, folder: Path) -> str:
    """Return the README in a project's package, as its author published it."""
    if way.requirement.startswith("olmocr-mlx"):
        return (ROOT / "README.md").read_text(encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, way.requirement]
    subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    (wheel,) = folder.glob(f"{way.requirement.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(metadata).decode().partition("\n\n")[2]


def words_before(text: str, line: str) -> int:
    """Return the number of words in *text* up to the end of *line*, without addresses, pictures and markup."""
    shown = text[: text.index(line) + len(line)]
    shown = re.sub(r"<[^>]*>|!?\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)|!\[[^\]]*\]\([^)]*\)", " ", shown)
    shown = re.sub(r"\]\([^)]*\)|https?://\S+", "] ", shown)
    return sum(bool(re.search(r"\w", word)) for word in shown.split())


def for_a_mac(way: Way, uv: str, folder: Path) -> tuple[str, int, int]:
    """Return the version, the number of packages, and the megabytes of the download for a Mac."""
    wanted = way.requirement
    if wanted.startswith("olmocr-mlx"):
        wanted = f"{wanted} @ {ROOT.resolve().as_uri()}"
    lock = folder / f"pylock.{way.requirement.partition('[')[0]}.toml"
    compiling = [uv, "pip", "compile", "--quiet", *MAC, "--format", "pylock.toml", "--output-file", lock, "-"]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    subprocess.run(compiling, input=wanted, text=True, check=True, env=environment)
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    name = way.requirement.partition("[")[0]
    version = next((str(each.get("version", "")) for each in packages if each["name"] == name), "")
    sizes = [_smallest(each) for each in packages]
    return version, len(packages), round(sum(sizes) / 1e6)


def _smallest(package: dict[str, object]) -> int:
    files = package.get("wheels") or [package.get("sdist") or {}]
    return min(int(each.get("size", 0)) for each in files)  # type: ignore[attr-defined]


def installed(way: Way, folder: Path) -> int:
    """Install it here, and return its size in megabytes."""
    environment = folder / way.requirement.partition("[")[0]
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    before = _size(environment)
    wanted = way.requirement.replace("olmocr-mlx", str(ROOT))
    subprocess.run(
        [environment / "bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir", wanted], check=True
    )
    return round((_size(environment) - before) / 1e6)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uv", default="uv", help="where uv is")
    parser.add_argument("--install", action="store_true", help="install each here as well: up to 10 GB, half an hour")
    options = parser.parse_args()
    print(describe_machine())
    print("| way | version | commands | words typed | words before | packages | MB of packages, Mac | MB of models |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as name:
        for way in WAYS:
            version, packages, megabytes = for_a_mac(way, options.uv, Path(name))
            typed = sum(len(command.split()) for command in way.commands)
            before = words_before(description(way, Path(name)), way.reads)
            models = f"{way.models:,} ({way.stated_by})" if way.models else way.stated_by
            row = (way.name, version, len(way.commands), typed, before, packages, f"{megabytes:,}", models)
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            if options.install:
                print(f"  installed here: {installed(way, Path(name)):,} MB", flush=True)


if __name__ == "__main__":
    main()
