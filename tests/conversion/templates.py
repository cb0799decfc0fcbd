"""Chat templates that the tests put into folders."""

import json

from tests.conftest import CHECKPOINT

TEMPLATE = json.loads((CHECKPOINT / "chat_template.json").read_text())["chat_template"]
