"""A Hub or a mirror that lies: each lie is one sentence, and nothing is written outside the cache."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.hub.replies import ReplyError, is_path, require_endpoint
from tests.hub.liar import LIES, SHA, Liar
from tests.hub.repositories import convert, lines, python, the_error
from tests.hub_server import TOKEN

# The command's way to a model, with its weights at once and by themselves; a pause is told and not taken.
ASK = """
import json, sys, time
from olmocr.errors import OlmocrError
from olmocr.hub.find import download_weights, find_model, find_settings
pauses = []
time.sleep = pauses.append
for lie in json.loads(sys.argv[1]):
    for find in (find_model, lambda model: download_weights(find_settings(model))):
        try:
            told = find(f"lie/{lie}").revision
        except OlmocrError as error:
            told = f"{type(error).__name__}: {error}"
        except BaseException as error:
            told = f"traceback: {error!r}"
        print(json.dumps([lie, told]), flush=True)
print(json.dumps(["longest pause", max(pauses, default=0)]))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return what is told of each lie, in both ways, and the folder in which the process ran."""
    folder = tmp_path_factory.mktemp("a") / "b" / "c"
    folder.mkdir(parents=True)
    names = ["none", *LIES]
    with Liar() as hub:
        env = {"HF_TOKEN": TOKEN, "XDG_CACHE_HOME": str(folder / "xdg")}
        process = python(folder, hub, "-c", ASK, json.dumps(names), **env)
    assert (process.returncode, process.stderr) == (0, "")
    answers: dict[str, list[str]] = {}
    for name, answer in map(json.loads, process.stdout.splitlines()):
        answers.setdefault(name, []).append(answer)
    return SimpleNamespace(answers=answers, folder=folder, hosts={host for host, token in hub.tokens if token})


def test_an_honest_hub_is_believed(told):
    assert told.answers["none"] == [SHA, SHA]


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_one_sentence_without_a_secret(told, lie):
    for answer in told.answers[lie]:
        assert answer.startswith(("HubError: ", "OutputError: lie/disk-full has "))
        assert answer.isprintable()
        assert TOKEN not in answer


def test_nothing_is_written_outside_the_cache(told):
    files = {path for path in told.folder.parents[1].rglob("*") if not path.is_dir()}
    assert {path.relative_to(told.folder).parts[0] for path in files} == {"home"}
    assert not [path for path in files if path.is_symlink() and not path.exists()]


def test_the_token_is_sent_to_the_hub_alone_and_no_pause_is_long(told):
    assert {host.partition(":")[0] for host in told.hosts} == {"127.0.0.1"}
    assert told.answers["longest pause"][0] <= 60


@pytest.mark.parametrize(
    "endpoint",
    ["file:///etc", "", "ftp://mirror", "https://", "hub", "http://a b", "http://x?y=1", "http://x#y", "http://[::1", "http://x:99999"],
)  # fmt: skip
def test_an_endpoint_that_is_none_is_named(endpoint):
    with pytest.raises(ReplyError, match="cannot be at HF_ENDPOINT"):
        require_endpoint(endpoint)


@pytest.mark.parametrize("endpoint", ["https://huggingface.co", "http://127.0.0.1:80", "https://x.example/api/hub"])
def test_an_endpoint_with_or_without_a_path_is_one(endpoint):
    require_endpoint(endpoint)


def test_an_endpoint_that_is_none_ends_in_a_sentence_and_a_slash_at_its_end_does_not(tmp_path):
    process = convert(tmp_path, SimpleNamespace(endpoint="file:///etc"), "a/b")
    assert process.returncode == 10
    assert the_error(process).startswith("a/b could not be downloaded: the Hub cannot be at HF_ENDPOINT 'file:///etc'")
    with Liar() as hub:
        slash = SimpleNamespace(endpoint=f"{hub.endpoint}/")
        assert lines(tmp_path, slash, "print(find_model('lie/none').revision)") == [SHA]


def test_a_token_that_would_go_out_in_the_open_is_told(tmp_path):
    warns = "from olmocr.hub.replies import _warn_of_an_open_token as w; w('http://hub.example'); w('http://127.0.0.1')"
    process = python(tmp_path, SimpleNamespace(endpoint="http://127.0.0.1:1"), "-c", warns, HF_TOKEN=TOKEN)
    assert process.stderr == "HF_ENDPOINT is an http address: others can read the token on the way; use https\n"


@pytest.mark.parametrize("revision", ["../../outside", "/etc", "a//b", "-x", "a\nb", "x" * 300])
def test_a_revision_that_cannot_exist_is_refused_before_any_request(revision, tmp_path):
    closed = SimpleNamespace(endpoint="http://127.0.0.1:1")
    (printed,) = lines(tmp_path, closed, f"find_model('a/b', {revision!r})")
    assert printed.startswith("HubError: a/b has no revision ")


@given(st.text(max_size=40) | st.lists(st.sampled_from(["a", "..", ".", "", "C:", "\\", "\0"])).map("/".join))
def test_a_name_that_is_taken_stays_in_any_folder(tmp_path_factory, name):
    if is_path(name):
        folder = tmp_path_factory.getbasetemp()
        assert (folder / name).resolve().is_relative_to(folder.resolve())
