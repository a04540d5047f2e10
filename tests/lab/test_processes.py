"""Nothing that the lab starts stays behind."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agents_redis_ha import lab
from agents_redis_ha.lab import ports, servers

START_AND_WAIT = """
import sys
from agents_redis_ha import lab
started = lab.start("sentinel")
print(*(node.pid for node in [*started.nodes, *started.sentinels]), flush=True)
sys.stdin.read()
"""


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended; where nobody reaps orphans (a container without an init) it stays one.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("topology", ["standalone", "sentinel", "cluster"])
def test_no_process_port_or_file_is_left_after_close(topology: lab.Topology) -> None:
    with lab.start(topology, proxies=True) as started:
        nodes = [*started.nodes, *started.sentinels]
        pids = [node.pid for node in nodes]
        proxies = [node.proxy for node in nodes if node.proxy]
        directory = started.directory
        started.stall(nodes[-1])
        assert all(map(exists, pids))
    assert not any(map(exists, pids))
    assert not directory.exists()
    listeners = [(node.host, node.port) for node in nodes]
    listeners += [(proxy.host, proxy.port) for proxy in proxies]
    for address in listeners:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=1)
    started.close()  # a second time does nothing


def test_no_process_is_left_when_the_body_raises() -> None:
    pids: list[int] = []

    def fail() -> None:
        with lab.start("standalone") as started:
            pids.append(started.nodes[0].pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not exists(pids[0])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie children to their parent")
def test_the_servers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with _interpreter(START_AND_WAIT, tmp_path) as parent:
        pids = _read_pids(parent)
        assert all(map(exists, pids))
        parent.kill()
    lab.wait_until(lambda: not any(map(exists, pids)), f"the processes {pids} to end")


def test_the_servers_are_ended_when_the_interpreter_exits_without_close(tmp_path: Path) -> None:
    with _interpreter(START_AND_WAIT, tmp_path) as parent:
        pids = _read_pids(parent)
        assert parent.stdin is not None
        parent.stdin.close()
        assert parent.wait() == 0
    assert not any(map(exists, pids))
    assert list(tmp_path.iterdir()) == []


def test_the_servers_outlive_the_thread_that_started_them() -> None:
    labs: list[lab.Lab] = []
    thread = threading.Thread(target=lambda: labs.append(lab.start("standalone")))
    thread.start()
    thread.join()
    with labs[0] as started:
        assert started.primary().role() == "primary"


def test_a_lab_works_beside_a_running_event_loop() -> None:
    async def scenario() -> str | None:
        started = await asyncio.to_thread(lab.start, "standalone", proxies=True)
        try:
            return await asyncio.to_thread(started.primary().role)
        finally:
            await asyncio.to_thread(started.close)

    assert asyncio.run(scenario()) == "primary"


def test_a_port_that_is_taken_in_the_meantime_is_replaced_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    offered = [taken.getsockname()[1]]
    monkeypatch.setattr(
        servers,
        "reserve_port",
        lambda **options: offered.pop() if offered else ports.reserve_port(**options),
    )
    with taken, lab.start("standalone") as started:
        assert started.primary().port != taken.getsockname()[1]
        assert started.primary().role() == "primary"


def _interpreter(program: str, temporary: Path) -> subprocess.Popen[str]:
    # A parent that is killed cannot remove its directory: pytest will.
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )


def _read_pids(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 6
    return pids
