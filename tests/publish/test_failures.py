"""Whatever goes wrong in a push is one sentence, leaves nothing half done, and is gone on from by the next one."""

import os
import re
import signal
import subprocess
import sys

import pytest

from olmocr.errors import ExitCode, HubError
from tests.conftest import ROOT
from tests.hub.hub_writes import TOKEN, Account, Fault
from tests.publish.pushes import REPO, WEIGHTS, files_of, messages_of, push

# Every request of a push, in order: method, what its path matches, and how many such ones come before it.
STEPS = {
    "whoami": ("GET", "/api/whoami-v2$", 0),
    "look at the card": ("POST", "/api/validate-yaml$", 0),
    "is it there": ("GET", f"{REPO}$", 0),
    "create": ("POST", "/api/repos/create$", 0),
    "state of the new one": ("GET", f"{REPO}$", 1),
    "preupload": ("POST", "/preupload/main$", 0),
    "batch": ("POST", "/objects/batch$", 0),
    "put": ("PUT", "/stored/", 0),
    "verify": ("POST", "/objects/verify$", 0),
    "commit": ("POST", "/commit/main$", 0),
    "state after": ("GET", "/revision/main$", 0),
    "tree after": ("GET", "/tree/", 1),
    "preupload of the card": ("POST", "/preupload/main$", 1),
    "commit of the card": ("POST", "/commit/main$", 1),
}
# The client itself tries others again, for half a minute.
TRIED_ONCE = ("whoami", "look at the card", "is it there", "create", "commit", "state after", "commit of the card")


def fault(step, **how):
    method, path, after = STEPS[step]
    return Fault(method, path, after=after, **how)


def fails(hub, model, match):
    with pytest.raises(HubError, match=match) as caught:
        push(hub, model)
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.HUB


def goes_on(hub, model, uploads=1):
    """The next push finishes, and nothing has been sent twice."""
    assert all(not each.strikes("never", "") for each in hub.faults)
    assert REPO not in hub.repositories or "README.md" not in files_of(hub)
    push(hub, model)
    assert messages_of(hub) == ["initial", "Add weights", "Add the model card"]
    assert files_of(hub)[WEIGHTS].content == (model / WEIGHTS).read_bytes()
    assert len(hub.puts()) == uploads


@pytest.mark.parametrize("step", STEPS)
def test_a_refusal_at_any_step_is_gone_on_from(step, hub, model):
    hub.faults.append(fault(step, status=403, message=f"no: {TOKEN}"))
    fails(hub, model, r"refuses it \(403: no: \*\*\*\)")
    goes_on(hub, model, uploads=2 if step == "put" else 1)


@pytest.mark.parametrize("step", ["whoami", "batch", "verify", "commit of the card"])
def test_a_token_that_stops_being_valid_is_gone_on_from_with_a_new_one(step, hub, model):
    hub.faults.append(fault(step, status=401, message="Invalid credentials in Authorization header"))
    fails(hub, model, "does not know the token .401.*set HF_TOKEN to a valid one")
    goes_on(hub, model)


@pytest.mark.parametrize("step", TRIED_ONCE)
@pytest.mark.parametrize(("status", "says"), [(500, "failed internally"), (429, "asks for patience")])
def test_a_hub_that_is_broken_or_busy_is_gone_on_from(status, says, step, hub, model):
    hub.faults.append(fault(step, status=status, headers={"Retry-After": "1"}))
    fails(hub, model, rf"{says} \({status}(: not this time)?\)")
    goes_on(hub, model)


@pytest.mark.parametrize("step", TRIED_ONCE)
def test_a_connection_that_is_reset_is_gone_on_from(step, hub, model):
    hub.faults.append(fault(step, cut=100))
    fails(hub, model, "the connection to the Hub broke off")
    goes_on(hub, model)


@pytest.mark.parametrize(("step", "left"), [("create", 1), ("commit", 2), ("commit of the card", 3)])
def test_what_was_done_although_the_answer_was_lost_is_not_done_again(step, left, hub, model):
    hub.faults.append(fault(step, lost=True))
    fails(hub, model, "the connection to the Hub broke off")
    assert len(messages_of(hub)) == left
    push(hub, model)
    assert messages_of(hub) == ["initial", "Add weights", "Add the model card"]
    assert len(hub.puts()) == 1


def test_a_file_that_arrived_truncated_is_sent_again(hub, model):
    hub.faults.append(fault("put", keep=1000))
    fails(hub, model, "rejects it .422: The object is not what it should be")
    assert set(files_of(hub)) == {".gitattributes"}
    goes_on(hub, model, uploads=2)


@pytest.mark.parametrize(
    ("step", "status", "says"),
    [
        ("batch", 403, "Private repository storage limit reached"),
        ("put", 507, "Insufficient Storage"),
        ("commit", 413, "Your storage patterns exceed the quota"),
    ],
)
def test_a_quota_that_is_full_is_said_in_the_hubs_words(step, status, says, hub, model):
    hub.faults.append(fault(step, status=status, message=says))
    fails(hub, model, f"{status}: {says}")
    goes_on(hub, model, uploads=2 if step == "put" else 1)


def test_an_address_that_is_signed_is_not_repeated(hub, model):
    hub.faults.append(fault("commit", status=403, message="see https://me:secret@s3/x?X-Amz-Signature=abcdef&y=1 now"))
    fails(hub, model, r"see https://\*\*\*@s3/x\*\*\* now")


def test_what_a_server_says_is_cut_short(hub, model):
    hub.faults.append(fault("commit", status=403, message="x" * 5000))
    with pytest.raises(HubError) as caught:
        push(hub, model)
    assert len(str(caught.value)) < 600


def test_a_hub_that_is_not_there_is_one_sentence(hub, model):
    hub.shutdown()
    hub.server_close()
    fails(hub, model, "the connection to the Hub broke off")


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"status": 500}, {"status": 503}, {"status": 429}, {"cut": 50_000}])
def test_a_storage_that_fails_once_is_tried_again_at_once(how, hub, model):
    hub.faults.append(fault("put", **how))
    push(hub, model)
    assert len(hub.puts()) == 2
    assert files_of(hub)[WEIGHTS].content == (model / WEIGHTS).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"status": 500}, {"cut": 50_000}])
def test_an_upload_resumes_after_a_storage_that_keeps_failing(how, hub, model):
    hub.faults.append(fault("put", times=6, **how))
    fails(hub, model, "failed internally|broke off")
    goes_on(hub, model, uploads=7)


def command(hub, tmp_path, *args):
    """Return the command as a process of its own, which finds its token where a person has put it."""
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(ROOT),
    }
    (tmp_path / "hf").mkdir(exist_ok=True)
    (tmp_path / "hf" / "token").write_text(TOKEN)
    return subprocess.Popen(
        [sys.executable, "-m", "olmocr.publish", "push", *args],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_in_an_upload_leaves_no_commit_and_the_same_command_resumes(hub, model, tmp_path):
    hub.account = Account(organisations={"small-ocr": "write"})
    args = (str(model), "--repo", "small-ocr/tiny")
    processes = []
    hub.faults.append(Fault("PUT", "/stored/", meanwhile=lambda: processes[0].send_signal(signal.SIGINT)))
    processes.append(command(hub, tmp_path, *args))
    out, err = processes[0].communicate(timeout=60)
    assert processes[0].returncode == ExitCode.INTERRUPTED, err
    assert "interrupted: finished work is kept" in err
    assert len(hub.repositories["small-ocr/tiny"].branches["main"]) == 1
    again = command(hub, tmp_path, *args)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert messages_of(hub, "small-ocr/tiny") == ["initial", "Add weights", "Add the model card"]
    assert len(hub.puts()) == 1
    assert re.fullmatch(rf"{hub.endpoint}/small-ocr/tiny: \d+ files uploaded, 0 deleted, at [0-9a-f]{{40}}\n", out)
    assert TOKEN not in out + err
