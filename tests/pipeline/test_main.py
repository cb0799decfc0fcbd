"""The command ``olmocr``: which options it takes from where, and how it ends, with a scripted server for a model."""

import json
import os
import re
import subprocess
import sys
import typing
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from olmocr.pipeline.__main__ import app, ocr
from olmocr.workspace.records import Records
from tests.backends.model_server import ModelServer, chat_body, chat_stream, reset, whole
from tests.pipeline.commands import olmocr, refused
from tests.pipeline.doubles import write_numbered_pdf, write_pdf

COMMAND = typer.main.get_command(app)


OPTIONS = [each for each in COMMAND.params if each.param_type_name == "option" and "completion" not in each.name]


SETTABLE = [each for each in OPTIONS if each.name != "version"]


GARBAGE = whole(b"<html>it works</html>")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Run without an olmocr.toml other than the test's own, and without settings in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    for name in os.environ:
        if name.startswith("OLMOCR_"):
            monkeypatch.delenv(name)


def parsed(*arguments):
    return COMMAND.make_context("olmocr", list(arguments))


def taken(option, *arguments):
    """Return what an option was set to, and where."""
    context = parsed("ws", *arguments)
    return context.params[option.name], context.get_parameter_source(option.name).name


def spelling(option):
    return option.opts[0]


TYPES = {name: {hint, *typing.get_args(hint)} for name, hint in typing.get_type_hints(ocr).items()}


VALUES = {int: ("321", 321), float: ("0.25", 0.25), Path: ("some/path", Path("some/path")), str: ("words", "words")}


def text_for(option):
    """Return a value for *option* as text, and what it is read as; neither is the default."""
    if option.is_flag:
        return None, True
    if option.multiple:
        return "some.pdf", ["some.pdf"]
    if option.name == "ray":  # what follows is its value only where it looks like an address
        return "head:6379", "head:6379"
    return next(value for kind, value in VALUES.items() if kind in TYPES[option.name])


BY_NAME = [pytest.param(each, id=each.name) for each in SETTABLE]


@pytest.mark.parametrize("option", BY_NAME)
def test_an_option_has_two_spellings(option):
    text, value = text_for(option)
    hyphens = spelling(option)
    underscores = "--" + hyphens[2:].replace("-", "_")
    for spelled in (hyphens, underscores):
        assert taken(option, *([spelled] if text is None else [spelled, text])) == (value, "COMMANDLINE")
        if text is not None:
            assert taken(option, f"{spelled}={text}") == (value, "COMMANDLINE")


@pytest.mark.parametrize("option", BY_NAME)
def test_an_option_may_be_set_in_the_environment_under_its_own_name(option, monkeypatch):
    text, value = text_for(option)
    monkeypatch.setenv("OLMOCR_" + spelling(option)[2:].replace("-", "_").upper(), text or "1")
    assert taken(option) == (value, "ENVIRONMENT")


@pytest.mark.parametrize("option", [each for each in BY_NAME if each.id != "api_key"])
@pytest.mark.parametrize("separator", ["-", "_"])
def test_an_option_may_be_set_in_a_file_under_its_own_name(option, separator):
    text, value = text_for(option)
    name = spelling(option)[2:].replace("-", separator)
    Path("olmocr.toml").write_text(f"{name} = {text if isinstance(value, int | float) and text else quoted(text)}\n")
    assert taken(option) == (value, "DEFAULT_MAP")


def quoted(text):
    return "true" if text is None else json.dumps(text)


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(monkeypatch):
    (option,) = (each for each in OPTIONS if each.name == "max_tokens")
    assert taken(option) == (8000, "DEFAULT")
    Path("olmocr.toml").write_text("max_tokens = 1")
    assert taken(option) == (1, "DEFAULT_MAP")
    monkeypatch.setenv("OLMOCR_MAX_TOKENS", "2")
    assert taken(option) == (2, "ENVIRONMENT")
    assert taken(option, "--max-tokens", "3") == (3, "COMMANDLINE")


def test_several_documents_may_be_set_in_the_environment_and_in_a_file(monkeypatch):
    Path("olmocr.toml").write_text('pdfs = ["a b.pdf", "c.pdf"]')
    assert parsed("ws").params["pdfs"] == ["a b.pdf", "c.pdf"]
    monkeypatch.setenv("OLMOCR_PDFS", "d.pdf e.pdf")
    assert parsed("ws").params["pdfs"] == ["d.pdf", "e.pdf"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_token = 1", "olmocr.toml sets max_token, which is not an option that it may set"),
        ('api_key = "secret"', "olmocr.toml sets api_key, which is not an option that it may set"),
        ("version = true", "olmocr.toml sets version, which is not an option that it may set"),
        ('workspace = "ws"', "olmocr.toml sets workspace, which is not an option that it may set"),
        ("[max_tokens]\nvalue = 1", "olmocr.toml sets max-tokens to several values; it takes one"),
        ('languages = ["en", "de"]', "olmocr.toml sets languages to several values; it takes one"),
        ("max_tokens = ", "olmocr.toml cannot be read: Invalid value (at end of document)"),
        ('max_tokens = "many"', "valid integer"),
        ('markdown = "perhaps"', "valid boolean"),
    ],
)
def test_a_file_that_sets_something_else_is_refused(text, complaint):
    Path("olmocr.toml").write_text(text)
    with pytest.raises(typer.BadParameter) as refused:
        parsed("ws")
    assert complaint in refused.value.message
    assert refused.value.exit_code == 2


def test_a_file_that_is_not_text_is_refused():
    Path("olmocr.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(typer.BadParameter, match=r"olmocr\.toml cannot be read"):
        parsed("ws")


def test_a_variable_with_the_version_of_olmocr_is_not_an_option(monkeypatch):
    monkeypatch.setenv("OLMOCR_VERSION", "1.2.3")
    assert not parsed("ws").params["version"]


def test_documents_are_taken_until_the_next_option_and_what_follows_two_dashes_is_a_servers():
    context = parsed("ws", "--pdfs", "a_b.pdf", "c.pdf", "--max_tokens", "5", "--", "--pdfs_x", "y", "--max_model_len")
    assert context.params["pdfs"] == ["a_b.pdf", "c.pdf"]
    assert context.params["max_tokens"] == 5
    assert context.obj.for_server == ("--pdfs_x", "y", "--max_model_len")


def read(server, *arguments):
    return olmocr("ws", "--server", server.url, "--target-longest-image-dim", 64, *arguments)


def sentence_of(done):
    """Return the one sentence that a command ended with."""
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_help_is_grouped_by_subject_and_fits_on_a_screen():
    done = olmocr("--help", COLUMNS="120")
    assert done.returncode == 0
    for subject in ("Arguments", "Options", "Model or server", "Pages", "Output", "Run"):
        assert f"─ {subject} ─" in done.stdout
    for option in OPTIONS:
        assert spelling(option) in done.stdout
    assert len(done.stdout.splitlines()) <= 82


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ws", "--model", "m"], "no document is named"),
        (["ws", "--pdfs", "a.pdf"], "no model is named; --yes downloads mlx-community/"),
        (
            ["ws", "--pdfs", "a.pdf", "--model", "m", "--", "--max-model-len", "5"],
            "options for a server are for one that",
        ),
        (["ws", "--pdfs", "a.pdf", "--model", "m", "--force", "--retry-failed"], "choose one"),
        (["ws", "--pdfs", "a.pdf", "--model", "m", "--pages", "5-2"], "5-2"),
        (["ws", "--pdfs", "a.pdf", "--model", "m", "--kv-budget", "lots"], "--kv-budget 'lots' is not a size"),
        (
            ["ws", "--pdfs", "a.pdf", "--server", "x", "--kv-budget", "4GB"],
            "a KV budget is for a model in this",
        ),
        (
            ["ws", "--pdfs", "a.pdf", "--model", "m", "--backend", "mlx-vlm", "--no-drafts"],
            "a choice of drafts is for a model in this process; leave it out, or choose --backend mlx",
        ),
        (
            ["ws", "--pdfs", "a.pdf", "--ray", "--server", "http://a"],
            "the machines of --ray read pages with their own model; leave out --server or --ray",
        ),
        (
            ["ws", "--pdfs", "a.pdf", "--model", "m", "--ray", "ray://head:10001"],
            "--ray must be auto, local, or HOST:PORT, not 'ray://head:10001'; run this on a machine of the cluster",
        ),
        (["ws", "--pdfs", "a.pdf", "--model", "m", "--page-time-limit", "0"], "must be more than 0 seconds"),
        (["ws", "--pdfs", "a.pdf", "--model", "m", "--prompt-file", "none.txt"], "none.txt cannot be read"),
    ],
)
def test_options_that_make_no_sense_together_are_one_sentence_and_exit_code_2(arguments, words):
    done = refused(*arguments)
    assert done.returncode == 2
    assert words in sentence_of(done)
    assert list(Path().iterdir()) == []


def test_markdown_is_written_anew_with_other_options_and_without_naming_the_model_again(tmp_path):
    write_numbered_pdf(Path("a.pdf"), [1, 2])
    (tmp_path / "model").mkdir()
    with ModelServer(chat_stream()) as server:
        assert read(server, "--pdfs", "a.pdf", "--markdown").returncode == 0
    with Records(Path("ws")) as records:
        (document,) = records.documents()
        for page in records.pages(document.sha256).values():
            records.add_page(document.sha256, replace(page, model=str(tmp_path / "model")))
    done = olmocr("ws", "--pdfs", "a.pdf", "--markdown", "--page-separator", "\\n--\\n", HF_HUB_OFFLINE="1")
    assert "no model is named" not in done.stderr
    assert Path("ws/markdown/a.md").read_text() == "Hello\n--\nHello"


def test_a_pasted_option_of_upstreams_works_or_says_what_to_use():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(chat_stream()) as server:
        done = read(server, "--pdfs", "a.pdf", "--max_concurrent_requests", 2, "-tp", 2, "--pages_per_group", 500)
    assert done.returncode == 0, done.stderr
    assert "--tensor-parallel-size has no effect: it is for --backend vllm" in done.stderr
    assert "--pages-per-group has no effect" in done.stderr


def test_a_misspelt_variable_of_the_environment_is_named():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(chat_stream()) as server:
        done = olmocr("ws", "--server", server.url, "--pdfs", "a.pdf", OLMOCR_MAX_TOKEN="5")
    assert done.returncode == 0, done.stderr
    assert "OLMOCR_MAX_TOKEN is not a setting, and has no effect; did you mean OLMOCR_MAX_TOKENS?" in done.stderr


def test_a_missing_document_and_a_missing_model_are_told_together():
    done = refused("ws", "--pdfs", "nothere.pdf")
    assert done.returncode == 2
    assert "there is no file nothere.pdf" in sentence_of(done)
    assert "no model is named" in sentence_of(done)


def test_a_missing_document_and_a_named_model_that_is_not_there_are_told_together():
    done = refused("ws", "--pdfs", "nothere.pdf", "--model", "nomodel")
    assert done.returncode == 7
    assert "there is no file nothere.pdf; nothing was started; and nomodel is not a readable folder" in sentence_of(
        done
    )


def test_a_document_whose_name_has_a_slip_is_told():
    write_numbered_pdf(Path("report.pdf"), [1])
    done = refused("reprot.pdf", "--model", "a/b")
    assert done.returncode == 7
    assert "there is no file reprot.pdf; nothing was started (did you mean report.pdf?)" in sentence_of(done)


def test_a_workspace_that_is_not_there_and_no_document_are_told_together():
    assert "no document is named, and there is no file or folder x.pfd; olmocr" in sentence_of(refused("x.pfd"))


@pytest.mark.parametrize("output", ["b.pdf", "new.pdf", "notes.docx"])
def test_what_is_neither_a_folder_nor_a_markdown_file_is_refused_as_output_before_anything_is_read(output):
    write_numbered_pdf(Path("a.pdf"), [1])
    write_numbered_pdf(Path("b.pdf"), [1])
    Path("notes.docx").touch()
    done = refused("a.pdf", "-o", output, "--model", "m/m")
    assert done.returncode == 2
    assert f"--output {output} is neither a folder nor a markdown file" in sentence_of(done)


def test_a_workspace_after_a_document_is_told_to_come_first():
    write_numbered_pdf(Path("a.pdf"), [1])
    Path("ws").mkdir()
    Path("ws/workspace.sqlite").touch()
    done = refused("a.pdf", "ws")
    assert done.returncode == 2
    assert "ws is a workspace and must come first: olmocr ws a.pdf" in sentence_of(done)


def test_of_an_option_that_is_none_the_one_most_like_it_is_named():
    done = refused("ws", "--pdf", "a.pdf", COLUMNS="100")
    assert done.returncode == 2
    assert "No such option: --pdf (Possible options: --pdfs)" in done.stderr


def test_a_tilde_in_quotes_is_the_home_folder(tmp_path):
    write_numbered_pdf(tmp_path / "a.pdf", [1])
    with ModelServer(chat_stream()) as server:
        done = olmocr("~/ws", "--server", server.url, "--pdfs", "~/a.pdf", "--quiet", HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "ws/results").is_dir()


def test_a_run_says_what_it_did_and_stats_tell_it_later():
    write_numbered_pdf(Path("a.pdf"), [1, 0, 3])
    with ModelServer(chat_stream()) as server:
        done = read(server, "--pdfs", "a.pdf", "--markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "documents: 1 done, 0 failed, 0 done before"
    assert done.stdout.splitlines()[1].startswith("pages:     3 (1 blank) in ")
    assert Path("ws/markdown/a.md").read_text() == "Hello\nHello"
    told = olmocr("ws", "--stats")
    assert told.returncode == 0
    assert told.stdout.splitlines()[:2] == [
        "documents: 1 done; 0 with more than 32768 tokens",
        "pages:     1 blank, 2 valid; 0 perhaps incomplete",
    ]
    assert "attempts:  2 pages after 1; ended by: 2 stop" in told.stdout
    assert "not accepted\n" in told.stdout, "a server does not tell its passes"
    stats = json.loads(olmocr("ws", "--stats", "--json").stdout)
    assert stats["passes_a_token"] is None
    assert (stats["documents"], stats["pages"], stats["output_tokens"]) == ({"done": 1}, {"blank": 1, "valid": 2}, 40)


def test_stats_with_a_price_tell_what_a_million_pages_cost():
    write_numbered_pdf(Path("a.pdf"), [1, 2])
    with ModelServer(chat_stream()) as server:
        assert read(server, "--pdfs", "a.pdf").returncode == 0
        assert read(server, "--pdfs", "a.pdf").returncode == 0, "and finds it read"
    *_, measured, cost = olmocr("ws", "--stats", "--price-per-hour", "2.5").stdout.splitlines()
    assert measured.startswith("measured:  2 pages read in 2 runs by 1 machine, in 0.00")
    assert re.fullmatch(
        r"cost:      [\d,.]+ pages an hour for each machine; at 2.50 an hour [\d,.]+ for a million pages", cost
    )
    found = json.loads(olmocr("ws", "--stats", "--price-per-hour", "2.5", "--machines", "3", "--json").stdout)["cost"]
    assert (found["pages"], found["machines"], found["price_per_hour"]) == (2, 3, 2.5)
    assert found["per_million_pages"] == pytest.approx(1e6 / found["pages_per_hour"] * 2.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--stats", "--machines", "2"), "--machines is for the cost of runs; give --price-per-hour as well"),
        (("--pdfs", "a.pdf", "--price-per-hour", "2"), "give --stats as well"),
        (("--stats", "--price-per-hour", "-2"), "--price-per-hour must be what one machine costs in an hour"),
        (("--stats", "--price-per-hour", "nan"), "--price-per-hour must be what one machine costs in an hour"),
    ],
)
def test_a_price_or_machines_that_say_nothing_are_refused(given, words):
    done = refused("ws", *given)
    assert done.returncode == 2
    assert words in done.stderr


def test_stats_of_what_is_not_a_workspace_are_one_sentence_and_exit_code_7():
    done = olmocr("ws", "--stats")
    assert done.returncode == 7
    assert "is not a workspace" in sentence_of(done)
    assert not Path("ws").exists()


def test_a_document_that_failed_is_exit_code_9_and_in_the_json():
    write_numbered_pdf(Path("a.pdf"), [1])
    write_pdf(Path("\x1b[31mlocked.pdf"), password="x")
    with ModelServer(chat_stream()) as server:
        done = read(server, "--pdfs", "a.pdf", "\x1b[31mlocked.pdf", "--json", "--quiet")
    assert done.returncode == 9
    summary = json.loads(done.stdout)
    assert (summary["done"], summary["pages"], len(summary["failures"])) == (1, 1, 1)
    assert summary["failures"][0]["source"] == "\x1b[31mlocked.pdf"
    assert "\x1b" not in done.stdout + done.stderr


def test_a_server_that_talks_nonsense_is_exit_code_9_and_a_table_says_which_and_why():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(GARBAGE) as server:
        done = read(server, "--pdfs", "a.pdf", "--max_page_retries", 2)
    assert done.returncode == 9
    assert "failed:    a.pdf: the model gave no good answer for page 1; last:" in done.stdout
    assert len(server.requests) == 2


@pytest.mark.parametrize("by", ["options", "a file", "both", "olmocr.toml"])
def test_several_servers_are_named_one_by_one_or_in_a_file_and_are_told_in_the_summary(by):
    write_numbered_pdf(Path("a.pdf"), range(1, 9))
    with ModelServer(whole(chat_body())) as one, ModelServer(whole(chat_body())) as two:
        Path("fleet.txt").write_text(f"# ours\n{one.url}\n" + (f"{two.url}\n" if by == "a file" else ""))
        arguments = {
            "options": ["--server", one.url, "--server", two.url],
            "a file": ["--servers", "fleet.txt"],
            "both": ["--server", two.url, "--servers", "fleet.txt"],
            "olmocr.toml": [],
        }[by]
        if by == "olmocr.toml":
            Path("olmocr.toml").write_text(f"server = {json.dumps([one.url, two.url])}")
        options = ["--target-longest-image-dim", 64, "--max-concurrent-pages", 2]
        done = refused("ws", "--pdfs", "a.pdf", *arguments, *options)
    assert done.returncode == 0, done.stderr
    (told,) = (line for line in done.stdout.splitlines() if line.startswith("servers:"))
    assert f"{one.url}/v1 " in told
    assert f"{two.url}/v1 " in told
    assert len(one.requests) + len(two.requests) >= 8


def test_servers_with_several_models_are_exit_code_8_and_a_sentence_that_says_who_has_which():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(GARBAGE, models=["x"]) as one, ModelServer(GARBAGE, models=["y"]) as two:
        done = refused("ws", "--pdfs", "a.pdf", "--server", one.url, "--server", two.url)
    assert done.returncode == 8
    assert sentence_of(done) == (
        f"error: the servers do not have the same model: x at {one.url}/v1; y at {two.url}/v1; "
        "name one that all have with --model"
    )


def test_a_server_that_is_not_there_is_exit_code_8():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(reset) as server:
        pass
    done = read(server, "--pdfs", "a.pdf")
    assert done.returncode == 8
    assert "is the server running?" in sentence_of(done)


def test_a_file_that_is_not_there_is_exit_code_7_and_starts_nothing():
    with ModelServer(whole(chat_body())) as server:
        done = read(server, "--pdfs", "none.pdf")
    assert done.returncode == 7
    assert "there is no file none.pdf; nothing was started" in sentence_of(done)
    assert server.gets == []


def test_what_is_piped_in_is_a_document_called_stdin():
    content = write_numbered_pdf(Path("a.pdf"), [1, 2]).read_bytes()
    with ModelServer(chat_stream()) as server:
        command = [sys.executable, "-m", "olmocr.pipeline", "ws", "--pdfs", "-", "--server", server.url, "--markdown"]
        done = subprocess.run([*command, "--target-longest-image-dim", "64"], input=content, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert Path("ws/markdown/stdin.md").read_text() == "Hello\nHello"
        (result,) = Path("ws/results").iterdir()
        assert json.loads(result.read_text())["metadata"]["Source-File"] == "-"
        assert len(server.requests) == 2
        again = subprocess.run([*command, "--target-longest-image-dim", "64"], input=content, capture_output=True)
    assert (again.returncode, len(server.requests)) == (0, 2), "the same bytes are not read twice"


def test_the_environment_alone_can_say_it_all():
    write_numbered_pdf(Path("a.pdf"), [1])
    with ModelServer(chat_stream()) as server:
        settings = {"OLMOCR_PDFS": "a.pdf", "OLMOCR_SERVER": server.url, "OLMOCR_JSON": "1", "OLMOCR_QUIET": "1"}
        done = olmocr("ws", **settings, OLMOCR_TARGET_LONGEST_IMAGE_DIM="64")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["done"] == 1


def test_an_options_value_is_taken_as_it_is_and_nothing_after_two_dashes_is_an_option():
    context = parsed("ws", "--custom_prompt", "--say_it", "--page_separator=a_b", "--", "--max_tokens=5")
    assert (context.params["custom_prompt"], context.params["page_separator"]) == ("--say_it", "a_b")
    assert (context.params["max_tokens"], context.obj.for_server) == (8000, ("--max_tokens=5",))


@pytest.mark.parametrize(
    ("arguments", "address", "documents"),
    [
        (["--ray", "--model", "m"], "local", None),
        (["--ray"], "local", None),
        (["--ray", "auto", "a.pdf"], "auto", ["a.pdf"]),
        (["--ray", "10.0.0.1:6379"], "10.0.0.1:6379", None),
        (["--ray", "[fe80::1]:6379"], "[fe80::1]:6379", None),
        (["--ray", "a.pdf"], "local", ["a.pdf"]),
        (["--ray", "s3://bucket/a.pdf"], "local", ["s3://bucket/a.pdf"]),
        (["--ray=local", "a.pdf"], "local", ["a.pdf"]),
        ([], None, None),
    ],
)
def test_ray_takes_an_address_and_without_one_starts_a_local_ray(arguments, address, documents):
    found = parsed("ws", *arguments).params
    assert (found["ray"], found["documents"] or None) == (address, documents)


def test_an_option_of_a_server_that_is_called_ray_stays_as_it_is():
    assert parsed("ws", "--pdfs", "a.pdf", "--", "--ray", "x").obj.for_server == ("--ray", "x")
