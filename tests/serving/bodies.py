"""Bodies of requests that the tests send."""

import json

import pytest

from olmocr.serving.refusals import RequestError
from olmocr.serving.requests.questions import parse_question
from tests.serving.servers import chat, picture


def parsed(body, api="chat"):
    return parse_question(json.dumps(body).encode(), api)


def refused(body, api="chat"):
    with pytest.raises(RequestError) as caught:
        parsed(body, api)
    assert caught.value.status == 400
    return caught.value


def with_parts(*parts):
    return {**chat(), "messages": [{"role": "user", "content": list(parts)}]}


PNG = picture((61, 61))
