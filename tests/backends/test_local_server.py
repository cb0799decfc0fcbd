import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

from olmocr.backends.backoff import with_backoff
from olmocr.backends.client import has_loaded
from olmocr.backends.local_server import LocalServer, Patience, mlx_vlm_command, serving, vllm_command
from olmocr.errors import (
    AnswerError,
    InputError,
    MissingDependencyError,
    OutputError,
    ServerError,
    ServerUnavailableError,
)
from olmocr.page import PageImage, PageRequest
from tests.pipeline.program import write_program

REQUEST = PageRequest(PageImage(Image.new("RGB", (4, 4))))
HASTE = Patience(ready=120, restarts=2, pause=0.02, drain=60, stop=0.5, look=0.02, weigh=0.05)


@pytest.fixture
def command(tmp_path):
    """Return a function: mode -> the command of a program that acts so."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = write_program(tmp_path / "vllm")

    def make(mode):
        return vllm_command("model", port=port, executable=program, extra=("--mode", mode, "--folder", str(tmp_path)))

    return make


def pids(folder):
    path = folder / "lives"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def are_gone(folder):
    """Say whether all that was started is gone, at the latest in a minute."""
    until = time.monotonic() + 60
    while any(map(is_running, pids(folder))) and time.monotonic() < until:
        time.sleep(0.02)
    return bool(pids(folder)) and not any(map(is_running, pids(folder)))


async def start(command, **options):
    async with LocalServer(command, patience=HASTE, **options):
        pass


def test_a_server_is_started_asked_and_stopped(command, tmp_path):
    async def run():
        async with serving(command("good"), patience=HASTE) as ask:
            assert is_running(pids(tmp_path)[0])
            return await ask(REQUEST)

    assert asyncio.run(run()).text == "life 1"
    assert are_gone(tmp_path)


def test_vllm_is_started_on_this_machine_only_with_further_options_last(command):
    program, *arguments = command("good").arguments
    assert program.endswith("vllm")
    assert arguments[:2] == ["serve", "model"]
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--served-model-name") + 1] == "olmocr"
    assert arguments[-4:-2] == ["--mode", "good"]


def test_mlx_vlm_is_started_through_our_launcher_on_this_machine_only():
    command = mlx_vlm_command("models/olmocr", extra=("--kv-bits", "8"))
    assert command.arguments[:3] == (sys.executable, "-m", "olmocr.backends.mlx_vlm_launcher")
    assert "--host 127.0.0.1 --port 8000 --max-num-seqs 1" in " ".join(command.arguments)
    assert command.arguments[-2:] == ("--kv-bits", "8")
    assert (command.model, command.url, command.guide) == ("models/olmocr", "http://127.0.0.1:8000/v1", "mlx-vlm")


def test_only_we_have_the_servers_key(command):
    async def run():
        async with LocalServer(command("good"), patience=HASTE) as server:
            url, model = server.command.url, server.command.model
            return await has_loaded(url, model, server.api_key), await has_loaded(url, model, "another")

    assert asyncio.run(run()) == (True, False)


def test_a_server_that_ends_before_it_is_ready_shows_its_last_lines(command):
    with pytest.raises(ServerError, match="ended with status 3 before it was ready") as caught:
        asyncio.run(start(command("fails")))
    lines = str(caught.value).splitlines()[1:]
    assert [line.split("line ")[1].split()[0] for line in lines] == [str(number) for number in range(10, 30)]
    assert "\033" not in str(caught.value)


def test_a_server_that_never_loads_its_model_is_stopped(command, tmp_path):
    def clock():
        return 121.0 if pids(tmp_path) else 0.0

    with pytest.raises(ServerError, match="not ready after 120 s"):
        asyncio.run(start(command("never"), clock=clock))
    assert are_gone(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_is_refused_before_anything_starts(command, tmp_path, host):
    taken = command("good")
    with socket.create_server((host, taken.port)), pytest.raises(ServerError, match=f"port {taken.port} is taken"):
        asyncio.run(start(taken))
    assert pids(tmp_path) == []


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(MissingDependencyError, match="there is no program no-such-vllm"):
        vllm_command("model", executable="no-such-vllm")


def test_a_server_that_was_killed_says_so(command, tmp_path):
    async def run():
        async with LocalServer(command("never"), patience=dataclasses.replace(HASTE, restarts=0)):
            pass

    async def kill():
        starting = asyncio.create_task(run())
        while not pids(tmp_path):
            await asyncio.sleep(0.01)
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        await starting

    with pytest.raises(ServerError, match=r"ended by signal 9 \(the memory may have run out\)"):
        asyncio.run(kill())


def test_a_server_that_is_killed_at_its_start_is_started_again(command, tmp_path):
    async def run():
        async with serving(command("killed at its start"), patience=HASTE) as ask:
            return (await ask(REQUEST)).text

    assert asyncio.run(run()) == "life 3"
    assert are_gone(tmp_path)


def test_a_page_that_kills_the_server_twice_fails_alone(command, tmp_path):
    poison = dataclasses.replace(REQUEST, prompt="poison")

    async def run():
        async with serving(command("poisoned"), patience=HASTE) as ask:
            whys = []
            for _ in range(3):  # as often as would end the run, if they were crashes in a row
                with pytest.raises(InputError) as caught:
                    await patiently(ask, request=poison)
                whys.append(str(caught.value))
                assert (await patiently(ask))[0].startswith("life")
            return whys

    assert set(asyncio.run(run())) == {"the vLLM server died 2 times while it read this page"}
    assert len(pids(tmp_path)) == 7
    assert are_gone(tmp_path)


def test_a_program_that_went_away_is_named(command, tmp_path):
    gone = command("good")
    (tmp_path / "vllm").unlink()
    with pytest.raises(ServerError, match="cannot be started"):
        asyncio.run(start(gone))


def test_a_server_that_talks_much_is_listened_to(command, tmp_path):
    asyncio.run(start(command("chatty"), log_file=tmp_path / "log"))
    assert (tmp_path / "log").stat().st_size == 1_000_000


def test_a_servers_words_go_to_the_log(command, caplog):
    caplog.set_level(logging.DEBUG, "olmocr.backends.local_server")
    with pytest.raises(ServerError):
        asyncio.run(start(command("fails")))
    assert any(message.startswith("vLLM: line 0") for message in caplog.messages)


def test_a_log_that_cannot_be_written_is_said_before_anything_starts(command, tmp_path):
    with pytest.raises(OutputError, match="could not be written"):
        asyncio.run(start(command("good"), log_file=tmp_path / "no" / "log"))
    assert pids(tmp_path) == []


async def patiently(ask, on_wait=lambda why: None, request=REQUEST):
    """Ask until the server answers; return why it did not before, each of which is told *on_wait*."""
    turned_away = []

    def turn_away(error, seconds):
        turned_away.append(str(error))
        on_wait(str(error))

    answer = await with_backoff(
        ask,
        attempts=10_000,
        on_wait=turn_away,
        sleep=lambda seconds: asyncio.sleep(0.02),
    )(request)
    return answer.text, turned_away


def test_a_server_that_crashes_is_started_again_and_pages_wait(command, tmp_path):
    def load_when_told(why):
        if "being restarted" in why:
            (tmp_path / "loaded").touch()

    async def run():
        async with serving(command("loads slowly"), patience=HASTE) as ask:
            os.kill(pids(tmp_path)[0], signal.SIGKILL)
            return await patiently(ask, on_wait=load_when_told)

    text, turned_away = asyncio.run(run())
    assert text == "life 2"
    assert any("being restarted" in why for why in turned_away)
    assert are_gone(tmp_path)


def test_a_server_that_crashes_on_and_on_is_given_up(command, tmp_path):
    async def run():
        async with serving(command("crashes"), patience=HASTE) as ask:
            while True:
                with contextlib.suppress(
                    ServerUnavailableError, AnswerError, InputError
                ):  # it dies before or in an answer
                    await ask(REQUEST)
                await asyncio.sleep(0.01)

    with pytest.raises(ServerError, match="restarted 2 times, in vain"):
        asyncio.run(run())
    assert len(pids(tmp_path)) == 3
    assert are_gone(tmp_path)


def test_a_server_that_has_grown_too_large_is_started_again_when_its_pages_are_done(command, tmp_path):
    async def run():
        async with serving(command("grows"), patience=HASTE, max_resident_bytes=120 << 20) as ask:
            in_flight = await ask(REQUEST)
            while (text := (await patiently(ask))[0]) == in_flight.text:  # until it is weighed
                pass
            return in_flight.text, text

    assert asyncio.run(run()) == ("life 1", "life 2")
    assert len(pids(tmp_path)) == 2


def test_a_server_that_ignores_the_request_to_end_is_killed_with_what_it_started(command, tmp_path):
    asyncio.run(start(command("deaf")))
    assert len(pids(tmp_path)) == 2
    assert are_gone(tmp_path)


def test_a_server_is_stopped_when_our_work_fails(command, tmp_path):
    async def run():
        async with serving(command("good"), patience=HASTE):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())
    assert are_gone(tmp_path)


def test_a_server_is_stopped_when_we_are_cancelled_while_it_starts(command, tmp_path):
    async def run():
        starting = asyncio.create_task(start(command("never")))
        while not pids(tmp_path):
            await asyncio.sleep(0.01)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(run())
    assert are_gone(tmp_path)


PARENT = """
import asyncio, signal, sys
from olmocr.backends.local_server import serving, vllm_command

async def run():
    program, folder, port = sys.argv[1:]
    command = vllm_command("model", port=int(port), executable=program, extra=("--mode", "good", "--folder", folder))
    async with serving(command):
        print("ready", flush=True)
        await asyncio.sleep(60)

for each in (signal.SIGINT, signal.SIGTERM):  # as our commands do; a shell's background begins with SIGINT ignored
    signal.signal(each, signal.default_int_handler)
asyncio.run(run())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_is_stopped_at_ctrl_c_and_when_we_are_asked_to_end(command, tmp_path, number):
    arguments = [command("good").arguments[0], str(tmp_path), str(command("good").port)]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout.readline() == b"ready\n"
        parent.send_signal(number)
        parent.wait(60)
    assert are_gone(tmp_path)


def test_our_launcher_ends_with_whoever_started_it():
    code = "from olmocr.backends import mlx_vlm_launcher; mlx_vlm_launcher._end_with_standard_input()"
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code], stdin=read) as launcher:
        os.close(read)
        assert launcher.poll() is None
        os.close(write)
        assert launcher.wait(60) == 1
