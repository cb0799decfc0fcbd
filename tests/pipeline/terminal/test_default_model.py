"""Without a named model one that fits is offered, with its size and place, and the choice is remembered."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from olmocr.errors import UsageError
from olmocr.hub.known_models import known_models
from olmocr.pipeline.terminal.default_model import Offer, default_model, usable_memory
from olmocr.runtime.memory import shown_size
from tests.conftest import CHECKPOINT
from tests.hub_server import Commit, HubServer, Repository

GIB = 1 << 30
BEST, SMALLER = known_models()


@pytest.fixture
def remembered(tmp_path):
    return tmp_path / "model.txt"


def test_where_nobody_can_be_asked_the_sentence_says_what_to_type(remembered):
    with pytest.raises(UsageError, match=rf"--yes downloads {BEST.repository} \(9.5GB\)"):
        default_model(is_agreed=False, confirm=None, memory=64 * GIB, remembered=remembered)
    assert not remembered.exists()


def test_a_small_machine_is_told_how_to_make_a_model_that_fits(remembered):
    with pytest.raises(UsageError, match="--quantize mixed-small"):
        default_model(is_agreed=True, confirm=None, memory=4 * GIB, remembered=remembered)


def test_offline_it_says_what_to_fetch_elsewhere(remembered, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match=f"HF_HUB_OFFLINE.*{BEST.repository}.*--model"):
        default_model(is_agreed=True, confirm=None, memory=64 * GIB, remembered=remembered)


def test_what_was_chosen_before_is_chosen_without_a_question(remembered):
    remembered.write_text("somebody/s-model\n")
    assert default_model(is_agreed=False, confirm=None, remembered=remembered) == "somebody/s-model"


def test_an_offer_says_what_how_large_how_long_and_where(monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/some/cache")
    told = str(Offer(SMALLER, SMALLER.weight_bytes, 600.0))
    for words in (SMALLER.repository, "4 bits", "5.7GB", "10 minutes", "/some/cache"):
        assert words in told
    assert "rate" not in str(Offer(SMALLER, 1, None))


def test_a_model_may_take_a_part_of_the_memory_only():
    assert 0.6 * 16 * GIB < usable_memory(16 * GIB) < 16 * GIB


ASK = """
import sys
from pathlib import Path
from olmocr.runtime.memory import shown_size
from olmocr.pipeline.terminal.default_model import default_model
asked = []
def confirm(question):
    asked.append(question)
    return sys.argv[2] == "yes"
try:
    print(default_model(is_agreed=False, confirm=confirm, memory=64 << 30, remembered=Path(sys.argv[1])))
except Exception as error:
    print(type(error).__name__, error)
print(*asked)
"""


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_person_is_asked_once_with_the_size_that_the_hub_lists(remembered, tmp_path, answer):
    repository = Repository({"main": Commit(CHECKPOINT)})
    with HubServer({BEST.repository: repository}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}
        command = [sys.executable, "-c", ASK, str(remembered), answer]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    size = sum(path.stat().st_size for path in Path(CHECKPOINT).glob("*.safetensors"))
    assert f"{BEST.repository}, 8 bits: {shown_size(size)} to download" in told
    assert told.count("Download it?") == 1
    assert remembered.exists() == (answer == "yes")
    if answer == "yes":
        assert told.startswith(f"{BEST.repository}\n")
    else:
        assert told.startswith("UsageError nothing was downloaded")
