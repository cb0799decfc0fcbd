"""PageRequest -> ModelResponse, through a model server over HTTP. The only module that uses httpx to reach one."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from olmocr.backends.batches import sampled_alone
from olmocr.backends.faults import detail_of, fault_in_answer, fault_of_status, plain
from olmocr.backends.mlx_vlm_launcher import GUIDANCE_PATH
from olmocr.backends.wire import LONGEST_TEXT, PATHS, Api, Guide, Stream, load_json, make_body, parse_answer
from olmocr.errors import AnswerError, ServerError, ServerUnavailableError, UsageError
from olmocr.page import Ask, FinishReason, ModelResponse, PageRequest

LONGEST_ANSWER = 16 << 20
"""The most bytes to read of one answer."""

_SAYS_WHAT_TO_DO = {401, 403, *range(300, 400)}
_LOOK_EVERY = 256  # characters of an answer between two checks for endless repetition
_LOOK_BACK = 1 << 14  # characters at its end that each check reads
_CONNECT_SECONDS = 10.0
_PROBE_SECONDS = 10.0

_TOKENS_A_PAGE = 4096
"""Tokens of a page in a server's cache: about 1700 for its image, and an answer that is longer than most."""

IsLooping = Callable[[str], bool]
"""Returns whether an answer so far repeats itself endlessly, from its last 16,384 characters."""


def server_url(given: str) -> str:
    """Return a server's base URL, and add the parts left out: ``localhost:8000`` is ``http://localhost:8000/v1``.

    Raises:
        UsageError: *given* is not an address.
    """
    text = given.strip()
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        is_address = False
    if not is_address or "@" in parts.netloc or parts.query or parts.fragment:
        shown = "what was given" if "@" in text else plain(given) if given.strip() else "an empty text"
        raise UsageError(f"{shown} is not the address of a model server; give one such as http://localhost:8000/v1")
    path = parts.path.rstrip("/")
    for ending in (*PATHS.values(), "/models"):
        path = path.removesuffix(ending)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


class ServerClient:
    """A client for one model on one server. Use it as an async context manager.

    Answers are streamed, since only then can a server stop writing one that is no longer wanted: the client hangs up
    when its caller is cancelled, or after *timeout* seconds. It also understands a server that does not stream.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str | None = None,
        api: Api = "chat",
        timeout: float = 1200.0,
        guide: Guide | None = None,
        is_looping: IsLooping | None = None,
    ) -> None:
        """Store the arguments; nothing is sent yet.

        Args:
            url: the server's address, in any form that :func:`server_url` takes.
            model: the exact name of the model on the server.
            api_key: sent as a bearer token.
            api: which of the two formats to use.
            timeout: seconds for one answer, from sending the request to the last token.
            guide: how to request guided answers; None sends such requests like any other.
            is_looping: called now and then with an unfinished answer; if it returns True, the answer is ended.

        Raises:
            UsageError: the address is invalid, or the key cannot be sent.
        """
        self.url = server_url(url)
        self.model = model
        self._api_key = _checked_key(api_key)
        self._api: Api = api
        self._timeout = timeout
        self._guide = guide
        self._is_looping = is_looping or (lambda text: False)

    async def __aenter__(self) -> Self:
        self._http = _connect(self.url, self._api_key)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def ask(self, request: PageRequest) -> ModelResponse:
        """Answer *request*.

        Raises:
            ServerUnavailableError: there is no answer for now: refused, reset, too slow, overloaded, or failed inside.
            ServerError: this server or model can never answer such a request.
            InputError: the server refuses the page.
            AnswerError: what came is not an answer.
        """
        body = await asyncio.to_thread(make_body, request, api=self._api, model=self.model, guide=self._guide)
        try:
            async with asyncio.timeout(self._timeout):
                with _faults(self.url):
                    return await self._post(body, request)
        except TimeoutError as error:
            raise ServerUnavailableError(f"{self.url} gave no complete answer in {self._timeout:g} s") from error

    async def _post(self, body: bytes, request: PageRequest) -> ModelResponse:
        async with self._http.stream("POST", PATHS[self._api], content=body) as response:
            await self._refuse_fault(response)
            if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                return await self._read_stream(response, request)
            answer = load_json(await _content(response))
        self._refuse_error(answer.get("error") if isinstance(answer, dict) else None)
        return parse_answer(answer, self._api, request.max_tokens)

    async def _read_stream(self, response: httpx.Response, request: PageRequest) -> ModelResponse:
        stream = Stream(self._api)
        try:
            async with asyncio.timeout(None) as limit:
                if why := await self._why_ended(stream, response, limit, request.time_limit):
                    return stream.ended(why)
        except TimeoutError:
            if not limit.expired():
                raise
            return stream.ended("time")
        return stream.answer(request.max_tokens)

    async def _why_ended(
        self, stream: Stream, response: httpx.Response, limit: asyncio.Timeout, seconds: float | None
    ) -> FinishReason | None:
        """Read a stream until it ends, repeats itself endlessly or is too long; return why we ended it, if we did.

        *limit* is set to *seconds* when the answer begins, so the time that the request waited before does not count.
        """
        looked_at = 0
        async for event in _events(response):
            if event == b"[DONE]":
                stream.end()
                break
            self._refuse_error(stream.add(load_json(event)))
            if stream.is_over:
                break
            if seconds is not None and limit.when() is None and stream.characters:
                limit.reschedule(asyncio.get_running_loop().time() + seconds)
            if stream.characters - looked_at >= _LOOK_EVERY:
                looked_at = stream.characters
                if self._is_looping(stream.tail(_LOOK_BACK)):
                    return "loop"
                if stream.characters > LONGEST_TEXT:
                    return "length"
        return None

    async def _refuse_fault(self, response: httpx.Response) -> None:
        if response.status_code != 200:
            raise fault_of_status(
                response.status_code,
                response.headers,
                await _content(response),
                url=self.url,
                model=self.model,
                has_key=self._api_key is not None,
            )

    def _refuse_error(self, error: Any) -> None:
        if error:
            raise fault_in_answer(error, url=self.url, model=self.model)


def _checked_key(api_key: str | None) -> str | None:
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise UsageError("the API key has characters that cannot be sent; copy it again")
    return api_key or None


def _connect(url: str, api_key: str | None, timeout: float | None = None) -> httpx.AsyncClient:
    parts = urlsplit(url)
    return httpx.AsyncClient(
        base_url=url,
        headers={
            "content-type": "application/json",
            "accept-encoding": "identity",
            **({"authorization": f"Bearer {api_key}"} if api_key else {}),
        },
        timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
        # A proxy for other machines does not lead to this one.
        trust_env=not is_this_machine(parts.hostname or ""),
        # Certificates take a while to load, and are useless without TLS.
        verify=parts.scheme == "https",
    )


def is_this_machine(host: str) -> bool:
    """Return whether *host* is a name or an address that means this machine wherever it is used."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@contextlib.contextmanager
def _faults(url: str) -> Iterator[None]:
    """Turn httpx's errors into ours."""
    try:
        yield
    except httpx.ConnectError as error:
        raise ServerUnavailableError(
            f"{url} cannot be reached ({plain(str(error))}); is the server running?"
        ) from error
    except httpx.TimeoutException as error:
        raise ServerUnavailableError(f"{url} does not answer in time") from error
    except httpx.DecodingError as error:
        raise AnswerError(f"what {url} sent cannot be decoded: {plain(str(error))}") from error
    except httpx.HTTPError as error:
        raise ServerUnavailableError(f"{url} broke off ({plain(str(error) or type(error).__name__)})") from error


async def _content(response: httpx.Response) -> bytes:
    return b"".join([piece async for piece in _pieces(response)])


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    read = 0
    async for piece in response.aiter_bytes():
        read += len(piece)
        if read > LONGEST_ANSWER:
            raise AnswerError(f"the server's answer is longer than {LONGEST_ANSWER >> 20} MiB")
        yield piece


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the data of each server-sent event."""
    data: list[bytes] = []
    async for line in _lines(response):
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif not line and data:
            yield b"\n".join(data)
            data.clear()
    if data:
        yield b"\n".join(data)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    begun: list[bytes] = []
    async for piece in _pieces(response):
        *ended, rest = piece.split(b"\n")
        if ended:
            ended[0] = b"".join(begun) + ended[0]
            begun.clear()
        for line in ended:
            yield line.removesuffix(b"\r")
        begun.append(rest)
    if any(begun):
        yield b"".join(begun)


@dataclass(frozen=True)
class ServerInfo:
    """A server that answers. *model* is the exact name to request; *models* are all names that it offers.

    *kind* is its software, if recognised, and *guide* how to request guided answers, if it can give them. *room* is how
    many pages it says that it answers at once. *weights* names what was hashed, then a hash of the model's weights; two
    are comparable if they name the same thing. Each is None if unknown.
    """

    url: str
    model: str
    models: tuple[str, ...]
    kind: str | None
    version: str | None
    guide: Guide | None
    room: int | None = None
    weights: str | None = None

    def __str__(self) -> str:
        kind = f"{self.kind} {self.version or ''}".strip() if self.kind else "a server of a kind not known here"
        others = len(self.models) - 1
        return f"{kind} at {self.url}, model {plain(self.model)}" + (f" (of {others + 1})" if others > 0 else "")


async def probe(
    url: str, *, model: str | None = None, api_key: str | None = None, timeout: float = _PROBE_SECONDS
) -> ServerInfo:
    """Find out what runs at *url*, and whether it has *model*, or which model it has if none is named.

    Raises:
        UsageError: the address is invalid.
        ServerUnavailableError: the server cannot be reached, or has trouble.
        ServerError: it refuses the key, does not have the model, or has several models and none was named.
    """
    base, key = server_url(url), _checked_key(api_key)
    async with _connect(base, key, timeout) as http:
        entries = await _models(http, base, key)
        names = tuple(entry["id"] for entry in entries)
        chosen = _choose(base, names, entries, model)
        software = await _recognise(http, base, entries)
        room, weights = await _told(http, base, software.kind, _entry_of(entries, chosen))
    return ServerInfo(base, chosen, names, software.kind, software.version, software.guide, room, weights)


async def _models(http: httpx.AsyncClient, url: str, api_key: str | None) -> list[dict[str, Any]]:
    with _faults(url):
        async with http.stream("GET", "/models") as response:
            content = await _content(response)
            if response.status_code != 200:
                raise _fault_of_list(response, content, url, api_key)
    try:
        listed = load_json(content)
    except AnswerError as error:
        raise _no_list(url, detail_of(content)) from error
    entries = listed.get("data") if isinstance(listed, dict) else None
    entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _fault_of_list(response: httpx.Response, content: bytes, url: str, api_key: str | None) -> ServerError:
    status = response.status_code
    fault = fault_of_status(status, response.headers, content, url=url, model="", has_key=api_key is not None)
    if isinstance(fault, ServerUnavailableError) or (isinstance(fault, ServerError) and status in _SAYS_WHAT_TO_DO):
        return fault
    return _no_list(url, f"HTTP {status}: {detail_of(content)}")


def _no_list(url: str, found: str) -> ServerError:
    return ServerError(
        f"{url}/models returns no list of models ({found}): this is not a model server, or the path is wrong; "
        "check the address"
    )


def _choose(url: str, names: tuple[str, ...], entries: list[dict[str, Any]], model: str | None) -> str:
    if model is not None and model in names:
        return model
    listed = ", ".join(map(plain, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    if not names:
        raise ServerError(f"{url} has no model loaded; load one there first")
    if model is not None:
        raise ServerError(f"{url} does not have the model {plain(model)}; it has: {listed}")
    # mlx-vlm also lists models on the disk; a request for one of those would make it unload its own.
    loaded = [entry["id"] for entry in entries if entry.get("loaded") is True] or list(names)
    if len(loaded) == 1:
        return str(loaded[0])
    raise ServerError(f"{url} has several models; choose one with `model`: {listed}")


MLX_VLM = "mlx-vlm"
OLMOCR = "olmocr serve"
VLLM = "vLLM"
LLAMA_CPP = "llama.cpp"
OLLAMA = "Ollama"
_KINDS = {
    "vllm": VLLM,
    "olmocr": OLMOCR,
    "llamacpp": LLAMA_CPP,
    "library": OLLAMA,
    "organization_owner": "LM Studio",
}


@dataclass(frozen=True)
class _Software:
    """A server's kind and version, if it reports them, and how it takes an expression."""

    kind: str | None
    version: str | None = None
    guide: Guide | None = None


async def _recognise(http: httpx.AsyncClient, url: str, entries: list[dict[str, Any]]) -> _Software:
    root = _root(url)
    owner = next((entry.get("owned_by") for entry in entries if isinstance(entry.get("owned_by"), str)), None)
    kind = _KINDS.get(str(owner))
    if kind in (VLLM, OLMOCR):
        return _Software(kind, _version(await _glance(http, f"{root}/version")), "vllm")
    if kind is None and "loaded_model" in await _glance(http, f"{root}/health"):
        takes_expressions = (await _glance(http, f"{root}{GUIDANCE_PATH}")).get("regex") is True
        return _Software(MLX_VLM, guide="mlx-vlm" if takes_expressions else None)
    if kind in (None, OLLAMA) and (version := _version(await _glance(http, f"{root}/api/version"))):
        return _Software(OLLAMA, version)
    return _Software(kind)


async def _told(
    http: httpx.AsyncClient, url: str, kind: str | None, entry: dict[str, Any]
) -> tuple[int | None, str | None]:
    """Return how many pages a server of this kind says that it answers at once, and the hash of its weights.

    vLLM reports the blocks of its cache in its metrics, llama.cpp its slots (tools/server/README.md), and Ollama the
    digests of its models (docs/api.md).
    """
    root = _root(url)
    if kind == OLMOCR:
        weights = entry.get("weights_sha256")
        return _page_count(entry.get("max_concurrent_pages")), _hash("safetensors", weights)
    if kind == VLLM:
        tokens = _cached_tokens(await _glance_text(http, f"{root}/metrics"))
        return tokens and max(1, tokens // _TOKENS_A_PAGE), None
    if kind == LLAMA_CPP:
        return _page_count((await _glance(http, f"{root}/props")).get("total_slots")), None
    if kind == OLLAMA:
        models = (await _glance(http, f"{root}/api/tags")).get("models")
        listed = [each for each in models if isinstance(each, dict)] if isinstance(models, list) else []
        digests = (each.get("digest") for each in listed if entry.get("id") in (each.get("name"), each.get("model")))
        return None, _hash("ollama", next(digests, None))
    return None, None


def _page_count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20 else None


def _hash(what: str, value: Any) -> str | None:
    return f"{what} {plain(value)[:80]}" if isinstance(value, str) and value else None


def _cached_tokens(metrics: str) -> int | None:
    """Return how many tokens fit into the cache of a vLLM server."""
    line = re.search(r"^vllm:cache_config_info\{([^\n]{0,10000})\}", metrics, re.MULTILINE)
    labels = dict(re.findall(r'(\w{1,40})="(\d{1,12})"', line[1])) if line else {}
    if "num_gpu_blocks" not in labels or "block_size" not in labels:
        return None
    return int(labels["num_gpu_blocks"]) * int(labels["block_size"]) or None


def _entry_of(entries: list[dict[str, Any]], model: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["id"] == model)


def _root(url: str) -> str:
    return "{0.scheme}://{0.netloc}".format(urlsplit(url))


def _version(answer: dict[str, Any]) -> str | None:
    version = answer.get("version")
    return plain(version)[:40] if isinstance(version, str) else None


async def _glance(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Return the JSON object at *url*, or an empty one if there is none; this only helps to recognise a server."""
    try:
        answer = load_json(await _glance_text(http, url))
    except AnswerError:
        return {}
    return answer if isinstance(answer, dict) else {}


async def _glance_text(http: httpx.AsyncClient, url: str) -> str:
    """Return the text at *url*, or an empty string if there is none."""
    try:
        with _faults(url):
            async with http.stream("GET", url) as response:
                return (await _content(response)).decode("utf-8", "replace") if response.status_code == 200 else ""
    except (ServerError, AnswerError):
        return ""


async def has_loaded(url: str, model: str, api_key: str | None) -> bool:
    """Return whether the server at *url* is up and has *model* in memory."""
    async with _connect(url, api_key, _PROBE_SECONDS) as http:
        try:
            entries = await _models(http, url, api_key)
        except (ServerError, AnswerError):
            return False
        health = await _glance(http, f"{_root(url)}/health")
    is_loaded = any(entry["id"] == model and entry.get("loaded", True) for entry in entries)
    return is_loaded and health.get("loaded_model", model) == model


@contextlib.asynccontextmanager
async def connected(
    url: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    api: Api = "chat",
    timeout: float = 1200.0,
    is_looping: IsLooping | None = None,
) -> AsyncIterator[tuple[Ask, ServerInfo]]:
    """Yield an Ask for the server at *url*, and what it is; see :func:`probe`, :class:`ServerClient` for the rest."""
    info = await probe(url, model=model, api_key=api_key)
    async with ServerClient(
        url, model=info.model, api_key=api_key, api=api, timeout=timeout, guide=info.guide, is_looping=is_looping
    ) as client:
        yield sampled_alone(client.ask) if info.kind == MLX_VLM else client.ask, info
