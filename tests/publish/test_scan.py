"""What of a folder goes up, and what makes that nothing does."""

import hashlib
import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from olmocr.errors import InputError
from olmocr.publish.gates import GateFailedError
from olmocr.publish.scan import made_file, scan_folder, text_problems
from tests.publish.pushes import WEIGHTS, push
from tests.publish.samples import change_report

TOKENS = {
    "of the Hub": "hf_" + "AbCdEfGhIj" * 3,
    "of OpenAI": "sk-proj-" + "a1B2c3D4" * 4,
    "of GitHub": "ghp_" + "A1b2C3d4e5" * 4,
    "of GitHub, fine-grained": "github_pat_" + "A1b2C3d4e5" * 4,
    "of GitLab": "glpat-" + "A1b2C3d4e5" * 2,
    "of AWS": "AKIA" + "ABCDEFGH12345678",
    "of Google": "AIza" + "A1b2C" * 7,
    "of Slack": "xoxb-" + "1234567890-abc",
    "private key": "-----BEGIN RSA PRIVATE " + "KEY-----",
    "in a header": "Authorization: Bearer " + "abcdef0123456789abcdef",
}
SECRETS = {
    "AWS": "[default]\naws_access_key_id = x\naws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY\n",
    "AWS, for a session": "aws_session_token=FwoGZXIvYXdzEBY",
    "Google, a service": '{\n  "type": "service_account",\n  "project_id": "x"\n}',
    "Google, a person": '{"client_id": "x", "refresh_token": "1//0abcdefgh", "type": "authorized_user"}',
    "Azure": "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=" + "a1B2" * 21 + "==",
    "Azure, signed": "https://x.blob.core.windows.net/c?sv=2024&sig=" + "a1B2%2F" * 6,
    "netrc": "machine api.example.com login alice password correct-horse",
    "netrc on several lines": "machine api.example.com\n  login alice\n  password correct-horse\n",
    "git-credentials": "https://alice:correct-horse@example.com",
    "pgpass": "db.example.com:5432:orders:alice:correct-horse",
    "shadow": "root:$6$abcdefgh$" + "x" * 40 + ":19000:0:99999:7:::",
    "env": "DEBUG=1\nexport OPENAI_API_KEY='abcdefgh12345'\n",
    "env, a database": "DATABASE_URL=postgres-at-my-home",
    "an ini file": "[pypi]\nusername = __token__\npassword = correct-horse\n",
    "OpenSSH": "-----BEGIN OPENSSH PRIVATE " + "KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA",
    "PKCS 8": "-----BEGIN ENCRYPTED PRIVATE " + "KEY-----",
    "PGP": "-----BEGIN PGP PRIVATE " + "KEY BLOCK-----",
    "PuTTY": "PuTTY-User-Key-" + "File-3: ssh-ed25519\nEncryption: none",
    "age": "AGE-SECRET-" + "KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    "WireGuard": "[Interface]\nPrivateKey = " + "a1B2" * 10 + "abc=",
    "kubeconfig": "users:\n- name: x\n  user:\n    client-key-data: LS0tLS1CRUdJTiBSU0EgUFJJVkFURQ==",
    "kubeconfig, a token": "  user:\n    token: abcdefgh.ijklmnop.qrst",
    "docker": '{"auths": {"https://index.docker.io/v1/": {"auth": "YWxpY2U6Y29ycmVjdC1ob3JzZQ=="}}}',
    "npm": "//registry.npmjs.org/:_authToken=abcdefgh-1234",
    "npm, new": "npm_" + "a1B2c3D4e5" * 4,
    "PyPI": "pypi-" + "AgEIcHlwaS5vcmcC" * 3,
    "Anthropic": "sk-ant-" + "api03-" + "a1B2c3D4" * 4,
    "JWT": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "abcdefghijklmnop",
    "zsh": ": 1700000000:0;curl example.com\n",
    "bash with times": "#1700000000\ncurl example.com\n",
    "bash": "cd x\nls -la\ngit status\nsudo apt update\nssh alice@host\nvim .env\nexit\nls\ncat notes\n",
    "fish": "- cmd: git push\n  when: 1700000000\n",
}
HOMES = ["/home/alice/models", "/Users/alice/models", "/root/models", "C:\\Users\\alice", "C:\\\\Users\\\\alice"]


def test_a_converted_folder_has_no_problems_and_all_its_files_go_up(model):
    scan = scan_folder(model)
    assert scan.problems == ()
    assert {file.name for file in scan.files} == {path.name for path in model.iterdir()}


def test_sizes_and_hashes_are_those_of_the_files_and_of_git(model):
    weights = next(file for file in scan_folder(model).files if file.name == WEIGHTS)
    content = (model / WEIGHTS).read_bytes()
    assert (weights.size, weights.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    asked = ["git", "hash-object", "--no-filters", str(model / WEIGHTS)]
    assert weights.git_sha1 == subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert made_file("x", "é").git_sha1 == hashlib.sha1(b"blob 2\0\xc3\xa9").hexdigest()


@pytest.mark.parametrize("name", ["notes.txt", "model.bin", "modeling.py", ".env", ".netrc", "model.safetensors.bak"])
def test_a_file_of_another_kind_stops_it(name, model):
    (model / name).write_text("x")
    assert scan_folder(model).problems == (f"{name} is not part of a model; take it out of the folder",)


def test_a_folder_in_the_folder_stops_it(model):
    (model / "more").mkdir()
    (model / "more" / "config").write_text("x")
    assert scan_folder(model).problems == ("more/config is not part of a model; take it out of the folder",)


def test_a_link_out_of_the_folder_stops_it_and_is_not_read(model, tmp_path):
    (tmp_path / "secret").write_text(TOKENS["of the Hub"])
    (model / "LICENSE").symlink_to(tmp_path / "secret")
    (problem,) = scan_folder(model).problems
    assert problem.startswith("LICENSE is a link out of the folder")


def test_a_link_to_a_folder_elsewhere_stops_it_and_is_not_gone_into(model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text("{}")
    (model / "more").symlink_to(tmp_path / "elsewhere")
    (problem,) = scan_folder(model).problems
    assert problem.startswith("more is a link out of the folder")


def test_a_folder_of_links_as_the_hubs_cache_is_stops_it(model, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in model.iterdir():
        (cache / path.name).symlink_to(path)
    assert len(scan_folder(cache).problems) == len(list(model.iterdir()))


def test_a_link_inside_the_folder_goes_up_as_a_file(model):
    (model / "added_tokens.json").symlink_to("config.json")
    assert scan_folder(model).problems == ()


def test_a_pipe_stops_it(model):
    os.mkfifo(model / "LICENSE")
    assert scan_folder(model).problems == ("LICENSE is not a plain file; remove it",)


@pytest.mark.parametrize("kind", TOKENS)
def test_what_looks_like_a_token_stops_it_and_is_not_repeated(kind, model):
    (model / "LICENSE").write_text(f"fine\nfine, {TOKENS[kind]}\n")
    (problem,) = scan_folder(model).problems
    assert problem == "LICENSE:2 holds what looks like an access token or a key; take it out"


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_known_by_its_content_whatever_the_file_is_called(kind, model):
    for name, content in (("LICENSE", SECRETS[kind]), ("generation_config.json", json.dumps({"note": SECRETS[kind]}))):
        (model / name).write_text(content)
        problems = scan_folder(model).problems
        assert problems
        assert all("holds what looks like " in problem and name in problem for problem in problems)
        assert "correct-horse" not in " ".join(problems)
        (model / name).unlink()


def test_a_file_that_is_not_what_its_name_says_stops_it(model):
    (model / "generation_config.json").write_text("not JSON")
    assert scan_folder(model).problems == ("generation_config.json is not JSON, as it should be; make it again",)
    (model / "generation_config.json").write_text("[" * 100_000)
    assert scan_folder(model).problems == ("generation_config.json is not JSON, as it should be; make it again",)
    (model / "generation_config.json").write_bytes(b"SQLite format 3\0")
    assert scan_folder(model).problems == ("generation_config.json holds bytes that are not text; make it again",)


@pytest.mark.parametrize("path", HOMES)
def test_a_path_into_a_home_folder_stops_it(path, model):
    (model / "LICENSE").write_text(f"made in {path}")
    assert scan_folder(model).problems == ("LICENSE:1 holds a path into a home folder; take it out",)


def test_the_home_of_whoever_publishes_stops_it_wherever_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/data/people/alice")
    assert Path.home() == Path("/data/people/alice")
    assert text_problems("a", "made in /data/people/alice/x")
    assert not text_problems("a", "made in /data/people/bob/x")


@pytest.mark.parametrize(
    "text",
    [
        "hf_short",
        "/home",
        "home/alice",
        "task-based-learning-of-things",
        "/Users/",
        "sk-1",
        '"password": 3842, "Ġpassword=": 3843, "token:": 3844, "://": 3845, "_KEY=": 1, "-----BEGIN": 2, "auth": 7',
        '"eos_token": "<|im_end|>", "clean_up_tokenization_spaces": false, "auth_token": null, "secret": ""',
        "pass word\nĠtoken Ġ=\nlogin Ġpassword\nmachine Ġlearning\nsk -\nA KIA\n",
        "password: none\ntoken: {{ token }}\nkey = value",
        "{%- set token = 'x' -%}{{ messages[0]['password'] }}",
        "https://example.com:8080/a@b and user@example.com",
        "cat sat\non the mat\nmake the most\nof it\ntail ends\nless is more\n",
    ],
)
def test_what_only_resembles_them_is_fine(text):
    assert text_problems("a", text) == []


def test_the_header_of_weights_is_looked_into(model):
    content = (model / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length].rstrip()[:-1] + f', "__notes__": "{HOMES[0]}"}}'.encode()
    (model / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    assert scan_folder(model).problems == (f"{WEIGHTS}:1 holds a path into a home folder; take it out",)


def test_a_text_that_is_none_stops_it(model):
    (model / "LICENSE").write_bytes(b"\xff\xfe\0")
    assert scan_folder(model).problems == ("LICENSE is not UTF-8 text, as it should be; make it again",)


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="nothing cannot be read: No such file"):
        scan_folder(tmp_path / "nothing")


def test_all_problems_are_told_at_once_and_nothing_is_sent(hub, model):
    (model / "notes.txt").write_text("x")
    (model / "LICENSE").write_text(HOMES[0])
    with pytest.raises(GateFailedError) as caught:
        push(hub, model)
    assert "notes.txt is not part of a model" in str(caught.value)
    assert "LICENSE:1 holds a path" in str(caught.value)
    assert hub.asked == []


def test_a_path_that_json_spells_otherwise_is_found(hub, model):
    change_report(model, lambda report: report["recipe"].update(summary="as in /home/alice"))
    path = model / "conversion_report.json"
    report = path.read_text()
    path.write_text(report.replace("/home/", "\\/home\\/"))
    with pytest.raises(GateFailedError, match=r"conversion_report\.json:1 holds a path"):
        push(hub, model)
    path.write_text(report.replace("/home/", "\\u002fhome\\u002f"))
    with pytest.raises(GateFailedError, match=r"what the card would say:\n  README\.md:\d+ holds a path"):
        push(hub, model)
    assert hub.asked == []
