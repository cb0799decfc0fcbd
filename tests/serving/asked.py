"""How the tests of the server ask it, and what they ask."""

import json

import pytest

from tests.serving.servers import CHAT, RESPONSES, chat, response

BODIES = {CHAT: chat, RESPONSES: response}


EACH = pytest.mark.parametrize("path", [CHAT, RESPONSES])


def error_of(reply):
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in reply.text
    return error


def data_of(lines):
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def text_of(data):
    """Return the text in the events of either format."""
    events = [json.loads(each) for each in data if each != "[DONE]"]
    chats = [each["choices"][0]["delta"].get("content") or "" for each in events if each.get("choices")]
    return "".join(chats + [each["delta"] for each in events if each.get("type") == "response.output_text.delta"])
