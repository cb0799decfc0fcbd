"""What a run is asked to do: what is refused, and that each field says what it is."""

import inspect

import pytest

from olmocr import PipelineConfig
from olmocr.errors import UsageError
from olmocr.settings import settings_of

WHOLE = {"workspace": "ws", "pdfs": ["a.pdf"], "model": "m"}


@pytest.mark.parametrize(
    ("field", "value", "range_"),
    [
        ("target_longest_image_dim", 27, "28 to 8192 pixels"),
        ("target_longest_image_dim", 8193, "28 to 8192 pixels"),
        ("max_page_retries", 0, "1 or more"),
        ("max_page_error_rate", 1.01, "0 to 1"),
        ("max_page_error_rate", -0.01, "0 to 1"),
        ("max_tokens", 0, "1 or more"),
        ("workers", 0, "1 or more"),
        ("max_concurrent_pages", -1, "1 or more"),
        ("port", 0, "1 to 65535"),
        ("port", 65536, "1 to 65535"),
        ("kv_budget", 0, "1 byte or more"),
        ("page_time_limit", 0, "more than 0 seconds"),
        ("page_timeout", 0, "more than 0 seconds"),
    ],
)
def test_a_number_out_of_its_range_is_refused(field, value, range_):
    with pytest.raises(UsageError) as refused:
        PipelineConfig(**WHOLE, **{field: value})
    assert str(refused.value) == f"{field} must be {range_}, not {value!r}"


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("backend", "mlx, mlx-vlm, vllm"),
        ("api", "chat, responses"),
        ("guided_decoding", "never, retries, always"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(field, choices):
    with pytest.raises(UsageError) as refused:
        PipelineConfig(**WHOLE, **{field: "magic"})
    assert str(refused.value) == f"{field} must be one of {choices}, not 'magic'"


def test_help_tells_what_each_field_means():
    words = " ".join(inspect.getdoc(PipelineConfig).split())
    for name, told in settings_of(PipelineConfig).items():
        assert f" {name}: {' '.join(str(told).split())}" in words


def test_an_api_key_is_not_shown_where_a_config_is():
    assert "secret" not in repr(PipelineConfig(**WHOLE, api_key="secret"))


def test_each_of_several_servers_has_as_many_documents_as_one():
    settings = {"workspace": "ws", "pdfs": "a.pdf", "workers": 3}
    assert PipelineConfig(server="http://a", **settings).documents_at_once == 3
    assert PipelineConfig(server=("http://a", "http://b"), **settings).documents_at_once == 6
