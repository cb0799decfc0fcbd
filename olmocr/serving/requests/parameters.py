"""The other fields of a request -> nothing, if they change no answer; otherwise a RequestError that names one.

Names are those of OpenAI's two formats, and those that clients of vLLM, mlx-vlm, llama.cpp, LM Studio and Ollama add.
A name that is not listed here is refused, too: an unknown field might change an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmocr.serving.refusals import RequestError, bad_request
from olmocr.text import one_line

MOST_LABELS, _LONGEST_NAME, _LONGEST_LABEL = 16, 64, 512
"""The most labels in *metadata* and characters in each, as OpenAI allows them."""

_READ = frozenset((
    "model", "messages", "input", "instructions", "temperature", "seed", "stream", "stream_options", "guided_regex",
    "structured_outputs", "response_format", "text", "metadata", "max_tokens", "max_completion_tokens",
    "max_output_tokens", "n_predict", "front_matter",
))  # fmt: skip
"""What :mod:`olmocr.serving.requests.questions` reads."""

_NEEDLESS = frozenset((
    "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "prediction",
    "max_tool_calls", "parallel_tool_calls", "tool_parser", "include_reasoning", "include_stop_str_in_output",
    "spaces_between_special_tokens", "guided_decoding_backend", "request_id", "cache_salt", "repetition_context_size",
    "presence_context_size", "frequency_context_size", "repeat_last_n", "dry_base", "dry_allowed_length",
    "dry_penalty_last_n", "dry_sequence_breakers", "mirostat_tau", "mirostat_eta", "dynatemp_exponent", "xtc_threshold",
    "min_keep", "n_keep", "cache_prompt", "id_slot", "slot_id", "reasoning_format", "keep_alive", "ttl",
    "thinking_start_token", "thinking_end_token",
))  # fmt: skip
"""Fields that change no answer, whatever their value: labels, caches, and details of what is itself refused."""

_SAMPLING: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "top_a": (0,),
    "typical_p": (1,),
    "tfs_z": (1,),
    "top_n_sigma": (0, -1),
    "xtc_probability": (0,),
    "dynatemp_range": (0,),
    "mirostat": (0,),
    "mirostat_mode": (0,),
}
"""Fields that narrow the choice of tokens, and the values at which they do not. At temperature 0 there is no choice."""

_NO_PENALTY: tuple[Any, ...] = (0, 1)  # 1 in formats where it multiplies; some clients write 0 for off

_OFF: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": _NO_PENALTY,
    "repeat_penalty": _NO_PENALTY,
    "length_penalty": (1,),
    "dry_multiplier": (0,),
    "p_less": (False,),
    "n": (1,),
    "n_cmpl": (1,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "early_stopping": (False,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "prompt_logprobs": (0,),
    "n_probs": (0,),
    "post_sampling_probs": (False,),
    "logit_bias": ({}, []),
    "logits_processors": ([],),
    "samplers": ([],),
    "allowed_token_ids": ([],),
    "bad_words": ([], [""]),
    "stop": ("", [], [""]),
    "stop_token_ids": ([],),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "truncate_prompt_tokens": (-1,),
    "t_max_predict_ms": (0, -1),
    "echo": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "return_tokens": (False,),
    "return_progress": (False,),
    "timings_per_token": (False,),
    "response_fields": ([],),
    "chat_template": ("",),
    "chat_template_kwargs": ({}, {"enable_thinking": False}),
    "mm_processor_kwargs": ({},),
    "media_io_kwargs": ({},),
    "vllm_xargs": ({},),
    "documents": ([],),
    "priority": (0,),
    "lora": ([],),
    "grammar": ("",),
    "json_schema": ({},),
    "format": ("",),
    "options": ({},),
    "raw": (False,),
    "think": (False,),
    "enable_thinking": (False,),
    "reasoning": ({}, False, {"effort": "none"}, {"effort": None}, {"effort": None, "summary": None}),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "store": (False,),
    "background": (False,),
    "service_tier": ("auto", "default"),
    "truncation": ("auto", "disabled"),
    "include": ([], ["reasoning.encrypted_content"]),
}
"""Fields that would change an answer, and the values at which they do not."""

_INSIDE: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "stream_options": {
        "include_usage": (True, False),
        "include_obfuscation": (False,),
        "continuous_usage_stats": (False,),
    },
    "text": {"verbosity": ("medium",)},
}
"""The same for the fields of a parameter; ``text.format`` is read with the other forms."""

_HINTS: Mapping[str, str] = {
    "options": "give temperature, seed and max_tokens in the request itself",
    "images": "send the picture as a part of the message: an image_url with a data: URI",
    "input_file": "send documents to POST /v1/ocr",
    "file": "send documents to POST /v1/ocr",
    "image": "send the picture as an image_url with a data: URI",
    "figures": "use POST /v1/ocr for it",
    "tables": "use POST /v1/ocr for it",
    "headers": "use POST /v1/ocr for it",
    "keep_alive": "the model stays loaded",
    "n": "send the request as many times",
    "store": "this server stores nothing; leave it out, or set it to false",
    "messages": "at POST /v1/responses the question is in input",
    "input": "at POST /v1/chat/completions the question is in messages",
}


def check_parameters(body: Mapping[str, Any], *, question: str, samples: bool) -> None:
    """Check all fields of a request except its *question*, which is the field of that name.

    *samples* says whether its temperature is above 0.

    Raises:
        RequestError: a field would change the answer and is not supported, or is unknown.
    """
    other = {"messages": "input", "input": "messages"}[question]
    for name, value in body.items():
        if value is None or name in _NEEDLESS:
            continue
        if name == other or name not in _READ | _SAMPLING.keys() | _OFF.keys():
            raise unknown(name)
        if name in _SAMPLING:
            _check_sampling(name, value, samples=samples)
        elif name in _OFF and not _is_among(value, _OFF[name]):
            raise unsupported(name)
        elif name in _INSIDE:
            _check_inside(name, value)


def unsupported(name: str) -> RequestError:
    """Return the refusal of a field that would change an answer."""
    return bad_request(f"{name} is not supported; {_HINTS.get(name, 'leave it out')}", name, "unsupported_parameter")


def unknown(name: str) -> RequestError:
    """Return the refusal of an unknown field."""
    shown = one_line(name, 60)
    hint = _HINTS.get(name, "leave it out")
    return bad_request(f"{shown} is not a parameter of this server; {hint}", shown, "unsupported_parameter")


def parse_labels(value: Any) -> dict[str, str]:
    """Return the labels in *metadata*, which an answer in the Responses format repeats.

    Raises:
        RequestError: OpenAI does not allow them.
    """
    if value is None:
        return {}
    if (
        not isinstance(value, dict)
        or len(value) > MOST_LABELS
        or not all(isinstance(label, str) for label in value.values())
        or any(len(name) > _LONGEST_NAME or len(label) > _LONGEST_LABEL for name, label in value.items())
    ):
        raise bad_request(
            f"metadata must have at most {MOST_LABELS} texts of at most {_LONGEST_LABEL} characters, with names of at "
            f"most {_LONGEST_NAME}",
            "metadata",
        )
    return value


def _check_sampling(name: str, value: Any, *, samples: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_request(f"{name} must be a number", name)
    if samples and not _is_among(value, _SAMPLING[name]):
        raise bad_request(
            f"{name} is not supported: at a temperature above 0 any token may be chosen; leave it out, or use "
            "temperature 0",
            name,
            "unsupported_parameter",
        )


def _check_inside(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise bad_request(f"{name} must be an object", name)
    for inner, given in value.items():
        if given is None or (name, inner) == ("text", "format"):
            continue
        full = f"{name}.{one_line(inner, 60)}"
        if inner not in _INSIDE[name]:
            raise unknown(full)
        if not _is_among(given, _INSIDE[name][inner]):
            raise unsupported(full)


def _is_among(value: Any, harmless: tuple[Any, ...]) -> bool:
    """Return whether *value* is one of these; 1 and true are two things in JSON."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in harmless)
