"""The examples of the documentation run as written, against real servers where they need one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import agents
import pytest
from agents import ModelResponse, Usage
from agents.models.interface import Model
from openai.types.responses import ResponseOutputMessage

from agents_redis_ha import hash_session_id
from agents_redis_ha._telemetry import names

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVERS = "redis+sentinel://s1:26379,s2:26379,s3:26379/mymaster"
"""What stands for a user's servers where an example names them."""


@dataclass(frozen=True)
class Block:
    """A fenced block; ``info`` is what follows the fence.

    Of a ``python`` block its second word says what it needs: nothing, a ``server`` at ``AGENTS_REDIS_HA_URL``, a
    ``lab`` that it starts itself, or (``telemetry``) a process of its own.
    """

    page: Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.stem}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, found.start()) + 2, found[1].strip(), found[2])


ALL = [block for page in DOCS for block in blocks(page)]
PYTHON = [block for block in ALL if block.info.split()[:1] == ["python"]]
OUTPUT_OF = {one: other.text for one, other in pairwise(ALL) if other.info == "text output"}


def having(*infos: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [block for block in PYTHON if block.info in infos], ids=str)


def run(block: Block, capsys: pytest.CaptureFixture[str], servers: str = SERVERS) -> None:
    text = block.text.replace(SERVERS, servers)
    code = compile("\n" * (block.line - 1) + text, block.page, "exec", dont_inherit=True)
    exec(code, {"__name__": "__main__"})
    said = capsys.readouterr().out
    if block in OUTPUT_OF:
        assert said == OUTPUT_OF[block]


def test_every_python_example_is_of_a_known_kind() -> None:
    kinds = {block.info for block in PYTHON}
    assert kinds <= {"python", "python server", "python lab", "python telemetry", "python fleet"}
    assert all(one in PYTHON for one in OUTPUT_OF)


@having("python", "python lab")
def test_an_example_runs_as_written(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    run(block, capsys)


class Parrot(Model):
    """A model that needs no network."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        content: Any = [{"type": "output_text", "text": "Hello!", "annotations": []}]
        said = ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=content)
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@having("python server")
def test_an_example_runs_as_written_against_a_server(
    block: Block, labs: Any, session_id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = labs.get("standalone").url
    monkeypatch.setenv("AGENTS_REDIS_HA_URL", url)
    monkeypatch.setenv("AGENTS_REDIS_HA_KEY_PREFIX", session_id)
    monkeypatch.setattr("agents.models.multi_provider.MultiProvider.get_model", lambda *_: Parrot())
    agents.set_tracing_disabled(True)
    try:
        run(block, capsys, f"{url}?key_prefix={session_id}")
    finally:
        agents.set_tracing_disabled(False)


@having("python telemetry")
def test_the_documented_lines_switch_telemetry_on(block: Block, labs: Any, session_id: str) -> None:
    use = f"""
import asyncio
from agents_redis_ha import ha_session

session = ha_session({labs.get("standalone").url!r}, {session_id!r}, ttl=60)
asyncio.run(session.add_items([{{"role": "user", "content": "secret"}}]))
traces.shutdown()
meters.shutdown()
"""
    command = [sys.executable, "-c", block.text + use]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert '"name": "append"' in done.stdout
    assert names.DURATION in done.stdout
    assert hash_session_id(session_id) in done.stdout
    assert session_id not in done.stdout
    assert "secret" not in done.stdout
