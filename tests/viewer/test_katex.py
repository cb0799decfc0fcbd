"""KaTeX is put into each page, or its folder is refused."""

import base64

import pytest

from olmocr.errors import InputError
from olmocr.viewer.katex import find_katex, read_katex
from tests.viewer.sites import digest, only_document, site
from tests.viewer.workspaces import write_record


def write_katex_folder(folder, script="globalThis.katex = {}"):
    (folder / "fonts").mkdir(parents=True)
    (folder / "fonts/KaTeX_Main.woff2").write_bytes(b"font")
    (folder / "katex.min.js").write_text(script)
    sources = 'url(fonts/KaTeX_Main.woff2)format("woff2"),url(fonts/KaTeX_Main.ttf)format("truetype")'
    (folder / "katex.min.css").write_text(f"@font-face{{font-family:K;src:{sources}}}.katex{{color:red}}")
    return folder


def test_katex_is_put_into_each_page_with_its_fonts(tmp_path):
    write_record(tmp_path / "ws", ["\\(x\\)"])
    page = only_document(site(tmp_path / "ws", katex=read_katex(write_katex_folder(tmp_path / "katex"))))
    font = base64.b64encode(b"font").decode()
    assert page.styles[-1] == (
        f"@font-face{{font-family:K;src:url(data:font/woff2;base64,{font})format('woff2')}}.katex{{color:red}}"
    )
    assert page.scripts[0] == "globalThis.katex = {}"
    assert page.policy["script-src"] == " ".join(map(digest, page.scripts))


def test_a_folder_without_katex_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"katex\.min\.js cannot be read .* `katex` names a folder with"):
        read_katex(tmp_path)
    with pytest.raises(InputError, match="cannot be put into a page"):
        read_katex(write_katex_folder(tmp_path / "katex", "x = '</script>'"))


def test_the_npm_package_holds_it_in_a_folder_of_its_own(tmp_path):
    write_katex_folder(tmp_path / "katex/dist")
    assert read_katex(tmp_path / "katex") == read_katex(tmp_path / "katex/dist")


def test_without_fonts_no_file_of_one_has_to_be_there(tmp_path):
    folder = write_katex_folder(tmp_path / "katex")
    (folder / "fonts/KaTeX_Main.woff2").unlink()
    assert read_katex(folder, with_fonts=False).style == ".katex{color:red}"


def test_the_npm_package_is_found_above_this_folder_and_where_node_looks(tmp_path, monkeypatch):
    (tmp_path / "project/deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project/deep")
    write_katex_folder(tmp_path / "all/katex/dist")
    monkeypatch.setenv("NODE_PATH", str(tmp_path / "all"))
    assert find_katex() == tmp_path / "all/katex"
    write_katex_folder(tmp_path / "project/node_modules/katex/dist")
    assert find_katex() == tmp_path / "project/node_modules/katex"
