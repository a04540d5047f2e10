"""The demo on servers that run already: it breaks nothing, ends when it is told to, and writes down what was said."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents_redis_ha import cli, lab
from agents_redis_ha.lab.conversations import Conversation, load_conversations, write_conversations


@pytest.fixture(scope="module")
def server() -> Iterator[lab.Lab]:
    with lab.start("standalone") as started:
        yield started


def run(url: str, record: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agents_redis_ha", "demo", "--url", url, "--record", str(record), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def recorded(server: lab.Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A run without an end of its own, interrupted when twenty turns were answered."""
    folder = tmp_path_factory.mktemp("run")
    record, short = folder / "said.jsonl", folder / "short.jsonl"
    write_conversations(short, [Conversation(one.conversation_id, one.turns[:2]) for one in load_conversations(None)])
    options = ("--conversations", str(short), "--copies", "500", "--workers", "2", "--json")
    with run(server.url, record, *options) as process:
        try:
            lines = iter(process.stderr or ())
            next(line for line in lines if (found := re.search(r"(\d+)/\d+ turns", line)) and int(found[1]) >= 20)
            process.send_signal(signal.SIGTERM)
            said, errors = process.communicate(timeout=170)
        finally:
            process.kill()
    assert process.returncode == cli.EXIT_OK, errors
    return json.loads(said), record


def test_an_interrupt_ends_the_conversations_under_way_and_compares_them(recorded: tuple[dict[str, Any], Path]) -> None:
    report, record = recorded
    said = load_conversations(record)
    assert report["whole"]
    assert report["turns"] == report["turns_done"] == sum(len(one.turns) for one in said) > 20
    assert report["conversations"] == len(said)
    assert report["items_stored"] == report["items"] == sum(len(one.items) for one in said)


def test_what_was_said_is_found_again_by_another_process(
    server: lab.Lab, recorded: tuple[dict[str, Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(recorded[1]), "--url", server.url]) == cli.EXIT_OK
    assert f"All {recorded[0]['conversations']} conversations are whole" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["lpop", "rpush", "swap"])
def test_what_is_changed_behind_the_librarys_back_is_found(
    server: lab.Lab, recorded: tuple[dict[str, Any], Path], capsys: pytest.CaptureFixture[str], change: str
) -> None:
    name = load_conversations(recorded[1])[0].conversation_id
    key = f"agents:ha:{{{name}}}:items"
    client: Any = server.client(server.primary())
    before = client.lrange(key, 0, -1)
    if change == "lpop":
        client.lpop(key)
    elif change == "rpush":
        client.rpush(key, before[0])
    else:
        client.lset(key, 0, before[1])
        client.lset(key, 1, before[0])
    try:
        assert cli.main(["verify", str(recorded[1]), "--url", server.url]) == cli.EXIT_NOT_WHOLE
        assert name in capsys.readouterr().out
    finally:
        client.delete(key)
        client.rpush(key, *before)
        client.close()


def test_the_servers_may_come_from_the_environment(
    server: lab.Lab, recorded: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AGENTS_REDIS_HA_")]:
        monkeypatch.delenv(name)
    assert cli.main(["verify", str(recorded[1])]) == cli.EXIT_USAGE
    monkeypatch.setenv("AGENTS_REDIS_HA_URL", server.url)
    assert cli.main(["verify", str(recorded[1])]) == cli.EXIT_OK


@pytest.mark.parametrize(
    "options", [("--fault", "kill"), ("--topology", "sentinel"), ("--session", "sdk"), ("--url", "nonsense")]
)
def test_servers_that_run_already_are_neither_chosen_nor_broken(
    capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    assert cli.main(["demo", "--url", "redis://127.0.0.1:1", *options]) == cli.EXIT_USAGE
    assert "agents-redis-ha demo: " in capsys.readouterr().err
