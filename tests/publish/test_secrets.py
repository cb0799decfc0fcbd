"""Secrets are found by what they look like, each at its line, and text that only speaks of them is left alone."""

import pytest

from olmocr.publish.secrets import secrets_in

NETRC = "machine example.org\n  login me\n  password of-mine\n"


def kinds(text):
    return list(secrets_in(text))


@pytest.mark.parametrize("before", ["", "\n\n\n", "some words\n"])
def test_a_secret_is_told_by_the_line_at_which_it_begins(before):
    line = before.count("\n") + 1
    assert kinds(f"{before}-----BEGIN OPENSSH PRIVATE KEY-----\nabc") == [(line, "an access token or a key")]
    assert kinds(before + NETRC) == [(line, "a login with its password")]


@pytest.mark.parametrize(
    "text",
    [
        "export HF_TOKEN=abcdefgh12345678",
        "  API_KEY = 'abcdefgh'",
        "aws_secret_access_key = abc",
        "db.password: hunter2x",
    ],
)
def test_a_setting_with_a_value_beside_it_is_a_secret(text):
    assert len(kinds(text)) >= 1


@pytest.mark.parametrize(
    "text", ["", "the password is asked for", '"eos_token": "<|im_end|>"', "token: yes", "secret\n\n\nnothing here"]
)
def test_the_word_alone_is_none(text):
    assert kinds(text) == []
