"""Asking a server over HTTP."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

ANSWER_SECONDS = 10


def ask(url: str, **parameters: Any) -> Any:
    """The JSON that a GET with these parameters is answered with."""
    with urlopen(f"{url}?{urlencode(parameters)}", timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)
