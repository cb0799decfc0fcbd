import json

import pytest

from olmocr.serving.refusals import RequestError
from olmocr.serving.requests.questions import parse_question
from tests.serving.servers import chat, response

BODIES = {"chat": chat, "responses": response}


def parsed(api, **fields):
    return parse_question(json.dumps({**BODIES[api](), **fields}).encode(), api)


def refused(api, **fields):
    with pytest.raises(RequestError) as caught:
        parsed(api, **fields)
    assert caught.value.status == 400
    return caught.value


CHANGES = {
    "frequency_penalty": 0.5, "presence_penalty": -1, "repetition_penalty": 1.05, "repeat_penalty": 1.1,
    "length_penalty": 0.9, "dry_multiplier": 0.8, "n": 2, "best_of": 3, "use_beam_search": True, "early_stopping": True,
    "logprobs": True, "top_logprobs": 5, "prompt_logprobs": 1, "n_probs": 3, "logit_bias": {"50256": -100},
    "logits_processors": ["x"], "samplers": ["top_k"], "allowed_token_ids": [1], "bad_words": ["bad"], "stop": ["\n"],
    "stop_token_ids": [151645], "min_tokens": 5, "ignore_eos": True, "skip_special_tokens": False,
    "truncate_prompt_tokens": 100, "echo": True, "add_generation_prompt": False, "continue_final_message": True,
    "add_special_tokens": True, "return_tokens_as_token_ids": True, "return_token_ids": True, "chat_template": "{{ }}",
    "chat_template_kwargs": {"a": 1}, "mm_processor_kwargs": {"max_pixels": 3}, "documents": [{}], "priority": 3,
    "guided_json": {"type": "object"}, "guided_choice": ["a", "b"], "guided_grammar": "x", "structural_tag": "x",
    "lora": [{"id": 0}], "grammar": "root ::= x", "json_schema": {"type": "object"}, "format": "json",
    "options": {"temperature": 1}, "raw": True, "think": True, "enable_thinking": True, "thinking_budget": 9,
    "thinking_token_budget": 9, "reasoning": {"effort": "high"}, "reasoning_effort": "high", "verbosity": "low",
    "modalities": ["audio"], "audio": {"voice": "x"}, "tools": [{"type": "function"}], "tool_choice": "required",
    "functions": [{}], "function_call": {"name": "x"}, "store": True, "background": True, "service_tier": "flex",
    "previous_response_id": "resp_1", "conversation": "conv_1", "prompt": {"id": "x"},
    "include": ["output_text.logprobs"], "web_search_options": {},
    "kv_transfer_params": {}, "adapter_path": "a", "resize_shape": [2, 2], "max_kv_size": 9,
    "kv_bits": 4, "draft_model": "x", "num_ctx": 4096, "t_max_predict_ms": 100, "moderation": {},
    "unheard_of": {"a": 1},
    "context_management": [{}], "max_denoising_steps": 3, "p_less": True, "n_cmpl": 2, "system": "Be brief.",
}  # fmt: skip


@pytest.mark.parametrize("api", BODIES)
@pytest.mark.parametrize("name", CHANGES)
def test_what_would_change_an_answer_is_refused_by_name(api, name):
    error = refused(api, **{name: CHANGES[name]})
    assert (error.param, error.code) == (name, "unsupported_parameter")
    assert name in str(error)


NOTHING = {
    "n": 1, "stop": "", "tools": [], "logprobs": False, "top_logprobs": 0, "frequency_penalty": 0, "user": "me",
    "presence_penalty": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1, "length_penalty": 1, "top_p": 0.9,
    "top_k": 40, "min_p": 0.05, "typical_p": 0.9, "tfs_z": 0.9, "mirostat": 2, "stop_token_ids": [], "bad_words": [],
    "min_tokens": 0, "ignore_eos": False, "skip_special_tokens": True, "spaces_between_special_tokens": True,
    "include_stop_str_in_output": False, "tool_choice": "auto", "parallel_tool_calls": True, "store": False,
    "service_tier": "auto", "truncation": "disabled", "metadata": {"job": "1"}, "safety_identifier": "x",
    "prompt_cache_key": "x", "keep_alive": "5m", "ttl": 300, "cache_prompt": True, "id_slot": -1, "request_id": "x",
    "priority": 0, "reasoning_effort": "none", "verbosity": "medium", "modalities": ["text"], "logit_bias": {},
    "enable_thinking": False, "chat_template_kwargs": {"enable_thinking": False}, "echo": False, "best_of": 1,
    "use_beam_search": False, "guided_decoding_backend": "xgrammar", "seed": 5, "include": [], "background": False,
    "response_format": {"type": "text"}, "text": {"format": {"type": "text"}, "verbosity": "medium"}, "options": {},
    "stream_options": {"include_usage": True, "include_obfuscation": False}, "format": "", "think": False,
    "repeat_last_n": 64, "repetition_context_size": 20, "samplers": [], "grammar": "", "reasoning_format": "auto",
    "prediction": {"type": "content", "content": "x"}, "instructions": "",
}  # fmt: skip


@pytest.mark.parametrize("api", BODIES)
@pytest.mark.parametrize("name", NOTHING)
def test_what_changes_nothing_is_let_through(api, name):
    assert parsed(api, **{name: NOTHING[name]}).prompt == "Read this."


@pytest.mark.parametrize("api", BODIES)
def test_null_is_as_if_it_was_not_said(api):
    assert parsed(api, **dict.fromkeys(CHANGES | NOTHING)).prompt == "Read this."


@pytest.mark.parametrize("stop", ["", [], [""], None])
def test_a_stop_that_is_empty_stops_nothing(stop):
    assert parsed("chat", stop=stop).prompt == "Read this."


@pytest.mark.parametrize(
    ("name", "narrow", "wide"),
    [("top_p", 0.9, 1), ("top_k", 40, 0), ("top_k", 1, -1), ("min_p", 0.05, 0.0), ("typical_p", 0.9, 1.0),
     ("xtc_probability", 0.5, 0), ("mirostat", 2, 0), ("top_n_sigma", 1.0, -1)],
)  # fmt: skip
def test_fewer_tokens_to_choose_from_are_refused_where_there_is_a_choice(name, narrow, wide):
    error = refused("chat", temperature=0.8, **{name: narrow})
    assert (error.param, "temperature 0" in str(error)) == (name, True)
    assert parsed("chat", temperature=0.8, **{name: wide}).temperature == 0.8
    assert parsed("chat", **{name: narrow}).temperature == 0
    assert refused("chat", **{name: "much"}).param == name
    assert refused("chat", **{name: True}).param == name


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
     ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
     ({"stream_options": {"more": 1}}, "stream_options.more"), ({"stream_options": "yes"}, "stream_options"),
     ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"), ({"text": []}, "text"),
     ({"text": {"verbosity": "low"}}, "text.verbosity")],
)  # fmt: skip
def test_what_lies_inside_is_named_with_where_it_lies(fields, param):
    assert refused("responses", **fields).param == param


def test_true_is_not_one():
    assert refused("chat", n=True).param == "n"
    assert refused("chat", frequency_penalty=False).param == "frequency_penalty"


def test_a_question_in_the_other_formats_field_is_told_where_it_goes():
    assert "at POST /v1/responses" in str(refused("responses", messages=[]))
    assert "at POST /v1/chat/completions" in str(refused("chat", input=""))


def test_no_name_can_disturb_a_terminal_or_fill_an_answer():
    error = refused("chat", **{"\x1b[31m" + "x" * 5000: 1})
    assert "\x1b" not in str(error)
    assert len(str(error)) < 200


def test_of_a_name_that_is_there_twice_the_last_counts():
    content = json.dumps(chat()).encode()
    assert parse_question(content[:-1] + b', "n": 2, "n": 1}', "chat").prompt == "Read this."
    with pytest.raises(RequestError, match="n is not supported"):
        parse_question(content[:-1] + b', "n": 1, "n": 2}', "chat")


@pytest.mark.parametrize("name", ["figures", "tables", "headers"])
@pytest.mark.parametrize("api", BODIES)
def test_what_is_asked_of_whole_documents_only_is_refused_and_told_where(api, name):
    assert str(refused(api, **{name: True})) == f"{name} is not a parameter of this server; use POST /v1/ocr for it"
