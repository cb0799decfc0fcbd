"""No secret is in a sentence, whether the Hub was read or written to."""

import pytest
from huggingface_hub.errors import HTTPError

from olmocr.errors import HubError
from olmocr.hub.sentences import reading_errors, without_secrets, writing_errors

SIGNED = "https://store.example/a?X-Amz-Credential=AKIA1&X-Amz-Signature=5ec4e7"
SECRETS = {
    "a bare token": ("no use of hf_aBcDeF123 here", "aBcDeF123"),
    "a header that could not be sent": ("Illegal header value b'Bearer pasted badly'", "pasted badly"),
    "the password of a mirror": ("no route to https://me:pass@mirror.example/x", "pass"),
    "a signed address": (f"broken: {SIGNED}", "5ec4e7"),
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("errors", [lambda: reading_errors("a/b", None), lambda: writing_errors("a/b")])
def test_what_a_client_says_is_told_without_its_secrets(errors, kind):
    said, secret = SECRETS[kind]
    with pytest.raises(HubError, match=r"a/b.*\*\*\*") as raised, errors():
        raise HTTPError(said)
    assert secret not in str(raised.value)


def test_a_text_is_told_on_one_line_and_shortened():
    assert without_secrets("a\n  b") == "a b"
    assert len(without_secrets("long " * 1000)) == 300


@pytest.mark.parametrize("name", ["hf_xet", "hf_transfer", "HF_TOKEN", "HF_HUB_OFFLINE"])
def test_names_of_libraries_and_variables_are_told(name):
    assert without_secrets(f"{name} is missing") == f"{name} is missing"
