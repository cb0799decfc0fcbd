"""A run's options -> what answers: a model in this process, a server started for it, or a running server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmocr.backends.backoff import with_backoff
from olmocr.backends.client import IsLooping, ServerInfo, connected, probe
from olmocr.backends.config import BackendConfig
from olmocr.backends.fleet import Fleet, why_apart
from olmocr.backends.local_server import MLX_VLM_PORT, VLLM_PORT, ServerCommand, mlx_vlm_command, serving, vllm_command
from olmocr.backends.server_list import NamedServer, named_servers
from olmocr.errors import OlmocrError, ServerError, ServerUnavailableError
from olmocr.hub.find import download_weights, find_settings
from olmocr.hub.find import require_model as known_model
from olmocr.hub.known_models import KnownModel, converted_from, known_models, warning_of
from olmocr.model_folder import ModelFolder, read_config
from olmocr.page import TARGET_LONGEST_IMAGE_DIM, Ask, ModelResponse, PageRequest
from olmocr.runtime.device import REFERENCE_BLAS, compiled_kernels, start_mlx
from olmocr.runtime.extras import install_command
from olmocr.runtime.memory import shown_size
from olmocr.runtime.threads import in_a_lasting_thread
from olmocr.stages import Loading, OnStage, unwatched
from olmocr.strays import files_in

log = logging.getLogger(__name__)

SERVER_LOG = "server.log"

_GROWTH_BYTES = 6 << 30
"""How far a server may grow beyond its model's weights before it is restarted: caches, activations, and leaks."""

_PATIENCE = 8
"""Attempts to reach a server that does not answer, about two minutes in all."""

_LARGE_BYTES = 1_000_000_000
"""Unconverted weights of this size or more get a warning."""

Load = Callable[..., Any]
Serve = Callable[..., contextlib.AbstractAsyncContextManager[Ask]]
Sleep = Callable[[float], Awaitable[None]]
"""Waits for a number of seconds."""

AskAloud = Callable[[PageRequest, Callable[[str], None]], Awaitable[ModelResponse]]
"""Requests a page's text, and calls a function with the text so far."""


@dataclass(frozen=True)
class Answering:
    """What answers, ready for requests, and the model's name for records.

    *fault* returns why the server is away now, or None if it is there. *counts* returns the counters of a model in this
    process, *by_server* those of each of several servers. *pages_at_once* returns how many pages a model in this
    process reads at once, or how many several servers may have together; it returns None for a single server.
    *ask_aloud* also reports, repeatedly, all text so far; it is None where answers come only when complete.
    """

    ask: Ask
    model: str
    fault: Callable[[], ServerUnavailableError | None] = lambda: None
    counts: Callable[[], dict[str, float]] = dict
    ask_aloud: AskAloud | None = None
    by_server: Callable[[], dict[str, dict[str, int]]] = dict
    pages_at_once: Callable[[], int | None] = lambda: None


def open_engine(
    model: str,
    *,
    most_pages: int | None,
    is_looping: IsLooping,
    kv_budget: int | None = None,
    drafts: bool | None = None,
    longest_side: int = TARGET_LONGEST_IMAGE_DIM,
    on_stage: OnStage = unwatched,
) -> Any:
    """Return an :class:`olmocr.inference.engine.Engine` of *model*, not yet entered; the arguments are the engine's.

    *drafts* switches drafts on or off; None decides by device. *on_stage* is called for the download and the load.

    Raises:
        OlmocrError: the model does not exist or cannot be loaded, MLX is not installed, or memory is too small for
            a page.
    """
    folder = fetched_model(model, on_stage)
    on_stage(Loading(folder.name))
    device = start_mlx()
    if device.blas == REFERENCE_BLAS:
        log.warning("MLX computes with its reference BLAS, which is slow: %s", install_command("blas"))
    # Imported only now: this imports MLX, which must find its BLAS loaded.
    from olmocr.inference.engine import Engine

    with telling_of_kernels(folder.name, on_stage) if device.kind == "cuda" else contextlib.nullcontext():
        engine = Engine(
            folder,
            device,
            is_looping=is_looping,
            kv_budget=kv_budget,
            most_pages=most_pages,
            drafted_pages=0 if drafts is False else None,
            longest_side=longest_side,
        )
    log.info("%s: %s", folder.name, engine)
    return engine


@contextlib.contextmanager
def telling_of_kernels(
    name: str, on_stage: OnStage, count: Callable[[], int] = compiled_kernels, seconds: float = 1.0
) -> Iterator[None]:
    """While the block loads the model *name*, report to *on_stage* how many kernels MLX has compiled since it began.

    MLX compiles them once on each machine. That takes a minute or more, in which nothing else could be shown.
    *count* returns the number of kernels, and is called every *seconds*.
    """
    before, ended = count(), threading.Event()

    def watch() -> None:
        told = 0
        while not ended.wait(seconds):
            if (new := count() - before) > told:
                if not told:
                    log.info("MLX compiles its kernels for this GPU; this happens once, and takes a minute or two")
                told = new
                on_stage(Loading(name, new))

    watching = threading.Thread(target=watch, name="olmocr-kernels", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def fetched_model(model: str, on_stage: OnStage = unwatched) -> ModelFolder:
    """Return the folder of *model* with its weights. Warnings about the model are logged before the download.

    Raises:
        CheckpointError: it is neither a folder nor the name of a repository, or has no weights.
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
    """
    folder = find_settings(model)
    for remark in remarks_on(folder, known_models()):
        log.warning("%s", remark)
    return download_weights(folder, on_stage)


def remarks_on(folder: ModelFolder, models: Sequence[KnownModel]) -> Iterator[str]:
    """Yield the known faults of a model, and, if it is large and not converted, what to do about that."""
    if warning := warning_of(folder.where, models):
        yield f"{folder.where}: {warning}"
    nbytes = sum(file.size for file in folder.remote_files)
    nbytes = nbytes or sum(path.stat().st_size for path in files_in(folder.path, ".safetensors"))
    if nbytes < _LARGE_BYTES or not _is_unconverted(folder):
        return
    made = converted_from(folder.where, models)
    size = shown_size(made.weight_bytes) if made else f"about {shown_size(nbytes // 3)}"
    choose = f"--model {made.repository}, or make " if made else "make "
    yield (
        f"{folder.where} is not converted and has {shown_size(nbytes)} of weights; a converted one needs {size} and is "
        f"faster: {choose}one with olmocr convert {folder.where} --quantize 4bit"
    )


def _is_unconverted(folder: ModelFolder) -> bool:
    try:
        return "quantization" not in read_config(folder)
    except OlmocrError:  # loading the model will report it
        return False


def engine_counts(engine: Any) -> dict[str, float]:
    """Return an engine's counters so far, and the peak of MLX's memory, by name."""
    counts = engine.counts
    return {
        **vars(counts),
        "steps_a_token": round(counts.steps_a_token, 4),
        "accepted_a_draft": round(counts.accepted_a_draft, 4),
        "mlx_peak_memory_bytes": engine.peak_memory,
    }


@contextlib.asynccontextmanager
async def answering(
    config: BackendConfig,
    *,
    folder: Path,
    longest_side: int,
    is_looping: IsLooping,
    sleep: Sleep = asyncio.sleep,
    load: Load = open_engine,
    serve: Serve = serving,
    on_stage: OnStage = unwatched,
    environment: Mapping[str, str] = os.environ,
) -> AsyncIterator[Answering]:
    """Yield what answers.

    Args:
        config: what should answer.
        folder: the workspace, which keeps the output of a server that is started here.
        longest_side: pixels on the longest side of a page.
        is_looping: returns whether an answer so far repeats itself endlessly.
        sleep: waits for a server that is away.
        load: loads a model into this process, as :func:`open_engine` does.
        serve: starts a server, as :func:`~olmocr.backends.local_server.serving` does.
        on_stage: called with each download and load.
        environment: the variables that contain servers' keys.

    Raises:
        OlmocrError: the model cannot be loaded, its server cannot be reached, or one of several servers has another
            model.
    """
    servers = named_servers(config.servers, config.api_key, environment)
    if len(servers) > 1:
        opened = _fleet(config, servers, is_looping, sleep)
    elif servers:
        opened = _server(config, servers[0], is_looping)
    elif config.backend == "mlx":
        opened = _engine(config, longest_side, is_looping, load, on_stage)
    else:
        opened = _own_server(config, folder / SERVER_LOG, is_looping, serve, on_stage)
    async with opened as found:
        waits_itself = config.is_in_process or len(servers) > 1
        yield found if waits_itself else _patient(found, sleep)


async def require_model(config: BackendConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Check that the model exists, as far as that is possible without loading or starting anything.

    Raises:
        OlmocrError: the model does not exist, or several servers have different models.
    """
    if config.server:
        servers = named_servers(config.servers, config.api_key, environment)
        looks = (probe(each.url, model=config.model, api_key=each.api_key) for each in servers)
        found = await asyncio.gather(*looks, return_exceptions=True)
        for each in found:  # a server that is away cannot list its models
            if isinstance(each, BaseException) and not isinstance(each, ServerUnavailableError):
                raise each
        if why := why_apart(each for each in found if isinstance(each, ServerInfo)):
            raise ServerError(why)
    else:
        await asyncio.to_thread(known_model, config.model or "")


@contextlib.asynccontextmanager
async def _engine(
    config: BackendConfig, longest_side: int, is_looping: IsLooping, load: Load, on_stage: OnStage
) -> AsyncIterator[Answering]:
    opening = functools.partial(
        load,
        config.model or "",
        most_pages=config.max_concurrent_pages,
        is_looping=is_looping,
        kv_budget=config.kv_budget,
        drafts=config.drafts,
        longest_side=longest_side,
        on_stage=on_stage,
    )
    loading = asyncio.wrap_future(in_a_lasting_thread(opening))  # which imports MLX and mlx-vlm
    try:
        engine = await asyncio.shield(loading)
    except asyncio.CancelledError:
        # Loading cannot be stopped, and a loaded model that is never closed would keep the process alive for ever.
        with contextlib.suppress(OlmocrError), await loading:
            pass
        raise
    with engine:
        yield Answering(
            engine.ask,
            config.model or "",
            counts=lambda: engine_counts(engine),
            ask_aloud=engine.ask,
            pages_at_once=lambda: engine.most_pages,
        )


@contextlib.asynccontextmanager
async def _server(config: BackendConfig, server: NamedServer, is_looping: IsLooping) -> AsyncIterator[Answering]:
    async with _connected(config, is_looping, server, config.model) as (ask, info):
        _tell_of(info, config)
        yield Answering(ask, info.model)


@contextlib.asynccontextmanager
async def _fleet(
    config: BackendConfig, servers: Sequence[NamedServer], is_looping: IsLooping, sleep: Sleep
) -> AsyncIterator[Answering]:
    fleet: Fleet[PageRequest, ModelResponse] = Fleet(
        servers,
        connect=functools.partial(_connected, config, is_looping),
        look=lambda server, model: probe(server.url, model=model, api_key=server.api_key),
        model=config.model,
        room=config.max_concurrent_pages,
        sleep=sleep,
    )
    async with fleet:
        for info in fleet.infos():
            _tell_of(info, config)
        log.info("%d servers share the pages, %d at once", len(servers), fleet.room)
        yield Answering(fleet.ask, fleet.model, fleet.fault, by_server=fleet.counts, pages_at_once=lambda: fleet.room)


@contextlib.asynccontextmanager
async def _connected(
    config: BackendConfig, is_looping: IsLooping, server: NamedServer, model: str | None
) -> AsyncIterator[tuple[Ask, ServerInfo]]:
    """Yield an Ask whose answers name the server, and what the server is."""
    opening = connected(server.url, model=model, api_key=server.api_key, api=config.api, is_looping=is_looping)
    async with opening as (ask, info):

        async def signed(request: PageRequest) -> ModelResponse:
            return replace(await ask(request), server=info.url)

        yield signed, info


def _tell_of(info: ServerInfo, config: BackendConfig) -> None:
    log.info("%s", info)
    if config.guided_decoding == "always" and info.guide is None:
        log.warning("%s cannot force the form of an answer; its answers are not guided", info.url)


@contextlib.asynccontextmanager
async def _own_server(
    config: BackendConfig,
    log_file: Path,
    is_looping: IsLooping,
    serve: Serve,
    on_stage: OnStage,
) -> AsyncIterator[Answering]:
    prepare = functools.partial(_mlx_vlm, on_stage=on_stage) if config.backend == "mlx-vlm" else _vllm
    command, most = await asyncio.to_thread(prepare, config)
    on_stage(Loading(config.model or ""))
    log.info("starting the %s server; its output goes to %s", command.name, log_file)
    async with serve(command, api=config.api, is_looping=is_looping, max_resident_bytes=most, log_file=log_file) as ask:
        yield Answering(ask, config.model or "")


def _mlx_vlm(config: BackendConfig, on_stage: OnStage) -> tuple[ServerCommand, int | None]:
    """Return how to start mlx-vlm's server, and the memory above which it is restarted."""
    folder = fetched_model(config.model or "", on_stage)
    read_config(folder)  # refuses another model family, or a model with its own code, before anything starts
    weights = sum(path.stat().st_size for path in files_in(folder.path, ".safetensors"))
    command = mlx_vlm_command(
        str(folder.path),
        port=config.port or MLX_VLM_PORT,
        max_num_seqs=config.pages_at_once,
        max_tokens=config.max_tokens,
        extra=config.server_options,
    )
    return command, weights + _GROWTH_BYTES


def _vllm(config: BackendConfig) -> tuple[ServerCommand, int | None]:
    return vllm_command(config.model or "", port=config.port or VLLM_PORT, extra=config.server_options), None


def _patient(found: Answering, sleep: Sleep) -> Answering:
    fault: ServerUnavailableError | None = None

    async def watched(request: PageRequest) -> ModelResponse:
        nonlocal fault
        try:
            answer = await found.ask(request)
        except OlmocrError as error:
            fault = error if isinstance(error, ServerUnavailableError) else None
            raise
        fault = None
        return answer

    ask = with_backoff(
        watched,
        attempts=_PATIENCE,
        on_wait=lambda error, seconds: log.warning("%s; trying again in %.0f s", error, seconds),
        sleep=sleep,
    )
    return Answering(ask, found.model, lambda: fault)
