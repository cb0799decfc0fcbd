"""What is handed on to what answers, and what a model in this process says of what it did."""

import asyncio
import contextlib
import json
import os
import threading

from PIL import Image

from olmocr.backends.choice import answering, remarks_on, telling_of_kernels
from olmocr.backends.config import BackendConfig
from olmocr.hub.known_models import KnownModel
from olmocr.model_folder import ARCHITECTURE, MODEL_TYPE, ModelFolder, RemoteShard
from olmocr.page import PageImage, PageRequest
from olmocr.stages import Loading, unwatched
from tests.backends.chosen import read
from tests.backends.model_server import ModelServer, responses_stream
from tests.pipeline.program import write_program


def test_the_numbers_of_a_run_have_what_the_model_did_and_how_attempts_ended(tmp_path, model):
    metrics = read(tmp_path / "ws", model, max_tokens=20, drafts=False, kv_budget=2 << 20)
    assert metrics["attempts_ended"] == {"length": 2}
    assert metrics["engine"]["ended_length"] == 2
    assert metrics["engine"]["tokens"] == 40
    assert metrics["engine"]["drafted"] == 0
    assert metrics["engine"]["steps_a_token"] == 1.0
    assert metrics["engine"]["mlx_peak_memory_bytes"] > 0


def always(text):
    return True


class Backend:
    """Stands for a server that is started, or a model that is loaded; keeps with what."""

    def __init__(self):
        self.given = {}
        self.thread = None

    @contextlib.asynccontextmanager
    async def serve(self, command, **given):
        self.given = {"command": command, **given}
        yield None

    def load(self, model, **given):
        self.given = {"model": model, **given}
        self.thread = threading.current_thread()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    async def ask(self, request):
        raise NotImplementedError


def handed_on(folder, **options):
    """Return what a server or an engine is given for these options."""
    backend = Backend()

    async def run():
        config = BackendConfig(**options)
        doubles = {"load": backend.load, "serve": backend.serve}
        async with answering(config, folder=folder, longest_side=700, is_looping=always, **doubles):
            pass

    asyncio.run(run())
    return backend.given


def test_the_thread_that_loads_a_model_outlives_the_run_since_mlx_takes_the_gil_when_it_ends(tmp_path):
    backend = Backend()

    async def run():
        config = BackendConfig(model="m")
        async with answering(config, folder=tmp_path, longest_side=700, is_looping=always, load=backend.load):
            pass

    asyncio.run(run())
    assert backend.thread is not threading.main_thread()
    assert backend.thread.is_alive()


def values(command):
    """Return the options of a command line, by name, after its program and model."""
    arguments = command.arguments[3:]
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


def test_mlx_vlms_server_is_given_every_limit_and_the_memory_above_which_it_is_started_again(tmp_path, model):
    given = handed_on(
        tmp_path, backend="mlx-vlm", model=str(model), port=8123, max_concurrent_pages=3, max_tokens=77,
        api="responses", server_options=("--kv-bits", "8"),
    )  # fmt: skip
    command = given.pop("command")
    assert values(command) == {
        "--model": str(model),
        "--host": "127.0.0.1",
        "--port": "8123",
        "--max-num-seqs": "3",
        "--max-tokens": "77",
        "--log-level": "WARNING",
        "--kv-bits": "8",
    }
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    assert 0 < weights < 1 << 30
    assert given == {
        "api": "responses",
        "is_looping": always,
        "max_resident_bytes": weights + (6 << 30),
        "log_file": tmp_path / "server.log",
    }


def test_mlx_vlms_server_reads_one_page_at_once_at_port_8000_unless_told_otherwise(tmp_path, model):
    command = handed_on(tmp_path, backend="mlx-vlm", model=str(model))["command"]
    assert (values(command)["--max-num-seqs"], values(command)["--port"]) == ("1", "8000")
    assert values(command)["--max-tokens"] == "8000"


def test_vllm_is_given_its_port_and_context_and_no_bound_of_memory(tmp_path, monkeypatch):
    write_program(tmp_path / "vllm")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    given = handed_on(tmp_path, backend="vllm", model="allenai/m", port=8124, server_options=("--seed", "5"))
    command = given.pop("command")
    assert command.arguments[:3] == (str(tmp_path / "vllm"), "serve", "allenai/m")
    assert values(command) == {
        "--host": "127.0.0.1",
        "--port": "8124",
        "--served-model-name": "olmocr",
        "--max-model-len": "16384",
        "--limit-mm-per-prompt": '{"video": 0}',
        "--uvicorn-log-level": "warning",
        "--seed": "5",
    }
    log_file = tmp_path / "server.log"
    assert given == {"api": "chat", "is_looping": always, "max_resident_bytes": None, "log_file": log_file}
    assert handed_on(tmp_path, backend="vllm", model="allenai/m")["command"].port == 30024


def test_a_model_in_this_process_is_given_every_limit(tmp_path):
    given = handed_on(tmp_path, model="m", max_concurrent_pages=3, kv_budget=12345, drafts=False)
    assert given == {
        "model": "m",
        "most_pages": 3,
        "is_looping": always,
        "kv_budget": 12345,
        "drafts": False,
        "longest_side": 700,
        "on_stage": unwatched,
    }


def test_a_model_in_this_process_reads_as_many_pages_at_once_as_it_finds_best_and_has_what_memory_there_is(tmp_path):
    given = handed_on(tmp_path, model="m")
    assert (given["most_pages"], given["kv_budget"], given["drafts"]) == (None, None, None)


def test_a_server_that_runs_is_given_the_model_the_key_and_the_format_and_is_stopped_when_it_loops(tmp_path):
    words = "again and again " * 40

    async def run(url):
        config = BackendConfig(server=url, model="b", api_key="secret", api="responses")
        async with answering(config, folder=tmp_path, longest_side=700, is_looping=always) as found:
            image = PageImage(Image.new("RGB", (4, 4)))
            return found.model, (await found.ask(PageRequest(image, max_tokens=99))).finish_reason

    with ModelServer(responses_stream(words), models=("a", "b"), api_key="secret") as server:
        assert asyncio.run(run(server.url)) == ("b", "loop")
    ((path, headers, body),) = server.requests
    assert (path, headers["authorization"]) == ("/v1/responses", "Bearer secret")
    assert (body["model"], body["max_output_tokens"]) == ("b", 99)


KNOWN = (
    KnownModel(repository="x/small", source="org/source", bits=4, weight_bytes=5 * 10**9, peak_bytes=6 * 10**9),
    KnownModel(repository="x/large", source="org/source", bits=8, weight_bytes=9 * 10**9, peak_bytes=10 * 10**9),
    KnownModel(
        repository="x/broken", source="org/source", bits=4, weight_bytes=1, peak_bytes=1, warning="it reads nothing"
    ),
)


def remote(folder, repo_id, config, nbytes):
    (folder / "config.json").write_text(
        json.dumps({"model_type": MODEL_TYPE, "architectures": [ARCHITECTURE], **config})
    )
    return ModelFolder(folder, repo_id, "abc", True, (RemoteShard("model.safetensors", nbytes, None),))


def test_what_a_converted_model_would_save_is_told_before_an_unconverted_one_is_downloaded(tmp_path):
    (told,) = remarks_on(remote(tmp_path, "org/source", {}, 16_600_000_000), KNOWN)
    assert told == (
        "org/source is not converted and has 17GB of weights; a converted one needs 5.0GB and is faster: "
        "--model x/small, or make one with olmocr convert org/source --quantize 4bit"
    )
    (told,) = remarks_on(remote(tmp_path, "org/other", {}, 16_600_000_000), KNOWN)
    assert "a converted one needs about 5.6GB and is faster: make one with olmocr convert org/other" in told


def test_nothing_is_told_of_a_small_or_a_converted_model(tmp_path):
    assert list(remarks_on(remote(tmp_path, "org/source", {}, 10**8), KNOWN)) == []
    quantized = {"quantization": {"bits": 4, "group_size": 64}}
    assert list(remarks_on(remote(tmp_path, "x/small", quantized, 5 * 10**9), KNOWN)) == []


def test_what_is_known_to_be_wrong_with_a_repository_is_told(tmp_path):
    assert list(remarks_on(remote(tmp_path, "X/Broken", {}, 1), KNOWN)) == ["X/Broken: it reads nothing"]


def test_who_waits_for_kernels_to_be_compiled_is_told_how_many_are():
    told = threading.Event()
    stages, counts = [], iter([5, 5, 6])

    def on_stage(stage):
        stages.append(stage)
        told.set()

    with telling_of_kernels("m", on_stage, count=lambda: next(counts, 7), seconds=0.001):
        assert told.wait(60)
    assert stages[0] == Loading("m", kernels=1)


def test_nobody_is_told_of_kernels_that_were_there():
    stages, asked = [], threading.Event()

    def count():
        if asked.is_set():
            return 5
        asked.set()
        return 5

    with telling_of_kernels("m", stages.append, count=count, seconds=0.001):
        assert asked.wait(60)
    assert not stages
