"""Options of upstream's command that people paste: renamed, kept for vLLM, or reported to have no effect."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from olmocr.terminal.command import hyphenated

_RENAMED = {"--max-concurrent-requests": "--max-concurrent-pages"}

_FOR_VLLM = {
    "--gpu-memory-utilization": "--gpu-memory-utilization",
    "--tensor-parallel-size": "--tensor-parallel-size",
    "-tp": "--tensor-parallel-size",
    "--data-parallel-size": "--data-parallel-size",
    "-dp": "--data-parallel-size",
    "--max-model-len": "--max-model-len",
}

_PROFILES = ("--workspace-profile", "--pdf-profile")

_CLUSTER = "it is for the cluster of upstream's developers"
_WITHOUT_EFFECT = {
    "--pages-per-group": "pages are kept one by one here, not in groups",
    "--target-anchor-text-len": "the model is asked without anchor text",
    "--max-server-ready-timeout": "olmocr waits for a server that it starts as long as the server makes progress",
    "--beaker-workspace": _CLUSTER,
    "--beaker-cluster": _CLUSTER,
    "--beaker-gpus": _CLUSTER,
    "--beaker-priority": _CLUSTER,
}
_FLAGS_WITHOUT_EFFECT = {"--beaker": _CLUSTER}


@dataclass
class Translated:
    """Arguments as this command takes them. *for_vllm* are vLLM's own options; *notes* say what has no effect.

    *profile* is the AWS profile that was named.
    """

    args: list[str] = field(default_factory=list)
    for_vllm: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    profile: str | None = None


def translated(args: Iterable[str]) -> Translated:
    """Return what *args*, those before ``--``, mean here."""
    found = Translated()
    rest = iter(args)
    for arg in rest:
        given, equals, attached = arg.partition("=")
        name = hyphenated(given) if given.startswith("-") else given
        if name in _FLAGS_WITHOUT_EFFECT:
            found.notes.append(f"{name} has no effect: {_FLAGS_WITHOUT_EFFECT[name]}")
        elif name in _RENAMED:
            found.args.append(_RENAMED[name] + equals + attached)
        elif name in _WITHOUT_EFFECT:
            found.notes.append(f"{name} has no effect: {_WITHOUT_EFFECT[name]}")
            if not equals:
                next(rest, None)
        elif name in _FOR_VLLM or name in _PROFILES:
            value = attached if equals else next(rest, None)
            if value is None:
                found.args.append(arg)  # left to the parser, which says that a value is missing
            elif name in _PROFILES:
                found.profile = value
            else:
                found.for_vllm += [_FOR_VLLM[name], value]
        else:
            found.args.append(arg)
    return found


def heed(found: Translated, *, is_vllm: bool) -> tuple[str, ...]:
    """Return the options that go to vLLM if it is started; otherwise, note that they have no effect.

    A named AWS profile becomes this process's.
    """
    if found.profile is not None:
        os.environ["AWS_PROFILE"] = found.profile
    if is_vllm:
        return tuple(found.for_vllm)
    found.notes += [
        f"{name} has no effect: it is for --backend vllm; --kv-budget limits a model in this process"
        for name in found.for_vllm[::2]
    ]
    return ()
