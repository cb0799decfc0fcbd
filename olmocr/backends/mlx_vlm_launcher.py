"""Start mlx-vlm's own server so that answers can be forced to match a regular expression. Run it with ``python -m``.

It takes mlx-vlm's options. A request's ``response_format`` of type ``json_schema`` may have the schema
``{"x-regex": EXPRESSION}``. On machines without Metal, tokens are masked with plain MLX operations.
The server ends when its standard input does, so it never outlives the process that started it.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from olmocr.runtime.device import start_mlx

GUIDANCE_PATH = "/olmocr/guidance"
"""Where this server reports that it takes expressions. mlx-vlm's own server, which would read them as JSON, has no such
path."""


def main() -> None:
    """Serve requests until stopped."""
    device = start_mlx()
    import mlx_vlm.server as server
    import mlx_vlm.structured as structured

    if device.kind != "metal":
        structured._apply_llguidance_mask = masked
    # The server looks up this name at each request.
    server.build_json_schema_logits_processor = with_expressions(structured.build_json_schema_logits_processor)
    server.app.add_api_route(GUIDANCE_PATH, lambda: {"regex": True})
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    server.main()


def _end_with_standard_input() -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    os._exit(1)


def with_expressions(build_for_schema: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Extend mlx-vlm's *build_for_schema*, (tokenizer, schema) -> logits processor, to take expressions."""

    def build(tokenizer: Any, schema: Any) -> Any:
        if isinstance(schema, dict) and "x-regex" in schema:
            return _expression_processor(tokenizer, schema["x-regex"])
        return build_for_schema(tokenizer, schema)

    return build


def _expression_processor(tokenizer: Any, expression: Any) -> Any:
    """Return a processor that allows only tokens with which the answer can still match.

    Raises:
        ValueError: *expression* is not a valid regular expression.
    """
    from mlx_vlm.structured import LLGuidanceLogitsProcessor

    from olmocr.inference.guided import grammar

    if not isinstance(expression, str):
        raise ValueError("x-regex must be a regular expression, as a string")
    tokens = _tokens(tokenizer)
    try:
        return LLGuidanceLogitsProcessor(grammar(expression, tokens), tokens)
    except ValueError as error:
        raise ValueError(f"x-regex cannot be used: {error}") from error


@functools.lru_cache(maxsize=1)
def _tokens(tokenizer: Any) -> Any:
    from olmocr.inference.guided import vocabulary

    return vocabulary(tokenizer)


def masked(logits: Any, mask: Any) -> Any:
    """Return *logits* (rows, vocabulary), with minus infinity where *mask* (rows, words of 32 bits) has no bit set.

    mlx-vlm's own function for this is a Metal kernel. Bits beyond the end of the mask count as not set.
    """
    import mlx.core as mx

    if logits.ndim == 1:
        logits = logits[None]
    if mask.ndim == 1:
        mask = mask[None]
    # Created at each call, since an array belongs to the thread that created it.
    places = mx.arange(32, dtype=mx.uint32)
    bits = ((mask.view(mx.uint32)[..., None] >> places) & 1).reshape(mask.shape[0], -1).astype(mx.bool_)
    missing = max(0, logits.shape[-1] - bits.shape[-1])
    allowed = mx.pad(bits, [(0, 0), (0, missing)])[:, : logits.shape[-1]]
    return mx.where(allowed, logits, mx.array(-mx.inf, dtype=logits.dtype))


if __name__ == "__main__":
    main()
