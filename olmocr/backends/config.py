"""What should answer, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from olmocr.backends.server_list import require_server_names
from olmocr.backends.sharing import USUAL_ROOM
from olmocr.backends.wire import Api
from olmocr.errors import UsageError
from olmocr.settings import Range, documented, require_settings, setting

BACKENDS = ("mlx", "mlx-vlm", "vllm")
APIS: tuple[Api, ...] = get_args(Api)

Guided = Literal["never", "retries", "always"]
"""The attempts at a page that force the form of the front matter."""

_PANEL = "Model or server"


@documented
@dataclass(frozen=True, kw_only=True)
class BackendConfig:
    """What should answer; the constructor refuses a combination that makes no sense.

    Raises:
        UsageError: a value is out of its range.
    """

    model: str | None = setting(
        None,
        "A converted model: its folder, or a Hub repository.",
        note="With a server, the name of its model.",
        panel=_PANEL,
    )
    backend: str = setting(
        "mlx",
        f"{', '.join(BACKENDS)}: in this process, or a server started for it.",
        note="The server is stopped afterwards.",
        panel=_PANEL,
        choices=BACKENDS,
    )
    server: str | tuple[str, ...] | None = setting(
        None,
        "A running model server; repeat it for more (docs/scale.md).",
        note="Its address, instead of a backend: http://localhost:1234/v1; several in a tuple.",
        panel=_PANEL,
        metavar="URL",
    )
    api_key: str | None = setting(
        None,
        "The API key of that server.",
        note="With several servers, the key of each one that names none itself (docs/scale.md).",
        panel=_PANEL,
        repr=False,
    )
    port: int | None = setting(
        None, "Port of the started server: mlx-vlm 8000, vllm 30024.", panel=_PANEL, range=Range(1, 65535)
    )
    api: Api = setting("chat", f"{' or '.join(APIS)}: the API to use with servers.", panel=_PANEL, choices=APIS)
    server_options: tuple[str, ...] = setting((), "More options for the started server, as on its own command line.")
    max_concurrent_pages: int | None = setting(
        None,
        "Pages to request at once. Default: 8 or more, and 1 for mlx-vlm.",
        note="With several servers, the limit for each, by default as many as the server says. A model in this "
        "process also makes them fit into its memory, and on a GPU by default finds the fastest number.",
        panel=_PANEL,
        range=Range(1),
    )
    kv_budget: int | None = setting(
        None,
        "Memory for keys and values, such as 4GB. Default: what fits.",
        note="In bytes, for all pages that a model in this process reads at once.",
        panel=_PANEL,
        metavar="SIZE",
        range=Range(1, unit="byte"),
    )
    drafts: bool | None = setting(
        None,
        "Draft answers from the file's own text. Default: if faster.",
        note="For a model in this process; None decides by device.",
        panel=_PANEL,
    )
    max_tokens: int = setting(8000, "Tokens in one answer; a longer one is not accepted.", panel=_PANEL, range=Range(1))
    guided_decoding: Guided = setting(
        "retries",
        "Force the front matter's form at once, not only on retries.",
        note="The attempts to force it at, if the server can: never, retries or always.",
        panel=_PANEL,
        choices=get_args(Guided),
    )

    def __post_init__(self) -> None:
        self._set("server_options", tuple(map(str, self.server_options)))
        self._set("model", str(self.model) if self.model else None)
        self._set("server", one_or_several(self.server))
        require_settings(self)
        require_server_names(self.servers)
        if self.model is None and self.server is None:
            raise UsageError("no model is named; name one with `model`, or a server that has one with `server`")
        if self.server_options and (self.server or self.backend == "mlx"):
            raise UsageError(
                "options for a server are for one that is started here; choose `backend='mlx-vlm'` or `backend='vllm'`"
            )
        if (self.kv_budget is not None or self.drafts is not None) and not self.is_in_process:
            name = "a KV budget" if self.kv_budget is not None else "a choice of drafts"
            raise UsageError(f"{name} is for a model in this process; leave it out, or choose `backend='mlx'`")

    @property
    def servers(self) -> tuple[str, ...]:
        """The running servers, as they were named."""
        return (self.server,) if isinstance(self.server, str) else self.server or ()

    @property
    def is_in_process(self) -> bool:
        """Whether the model is in this process, not in a server."""
        return not self.server and self.backend == "mlx"

    @property
    def pages_at_once(self) -> int:
        """How many pages to request at once; with several servers, until they report their own limits."""
        is_single = self.server is None and self.backend == "mlx-vlm"
        return max(1, len(self.servers)) * (self.max_concurrent_pages or (1 if is_single else USUAL_ROOM))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def one_or_several(server: str | Iterable[str] | None) -> str | tuple[str, ...] | None:
    """Return one server as a string, several as a tuple, and None for none."""
    if server is None or isinstance(server, str):
        return server or None
    several = tuple(map(str, server))
    return several if len(several) > 1 else next(iter(several), None)
