"""Worker processes answer their parent, end when they are told to or when it has died, and never unnoticed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from agents_redis_ha.lab import wait_until
from agents_redis_ha.lab.errors import WorkerError
from agents_redis_ha.lab.workers import Parent, WorkerProcesses

pytestmark = pytest.mark.faults

START_SECONDS = 120.0


async def echo(setup: str, parent: Parent) -> None:
    parent.ready()
    async for message in parent.messages():
        parent.send((setup, os.getpid(), message))
    parent.send((setup, os.getpid(), "ended"))


async def fail(setup: str, parent: Parent) -> None:
    if setup == "late":
        parent.ready()
        await anext(parent.messages(), None)
    raise SystemExit(7)


async def ignore_the_parent(setup: str, parent: Parent) -> None:
    parent.ready()
    await asyncio.Event().wait()


def started(
    main: Callable[[str, Parent], Awaitable[None]] = echo, preload: Sequence[str] = (), **setups: str
) -> WorkerProcesses[str]:
    return WorkerProcesses(main, setups, preload=preload)


@pytest.mark.parametrize("preload", [(), ("agents_redis_ha",)])
def test_each_worker_knows_its_setup_and_answers_what_it_is_sent(preload: Sequence[str]) -> None:
    with started(a="one", b="two", preload=preload) as workers:
        workers.wait_until_ready(START_SECONDS)
        for number in range(3):
            workers.send("a", number)
            workers.send("b", number)
        answers = [workers.receive(START_SECONDS) for _ in range(6)]
        assert sorted((setup, number) for setup, _, number in answers) == [
            (setup, number) for setup in ("one", "two") for number in range(3)
        ]
        assert len({process for _, process, _ in answers}) == 2
        assert os.getpid() not in {process for _, process, _ in answers}
        assert workers.receive(0) is None


def test_workers_that_are_told_to_stop_end_in_order_and_their_last_words_are_heard() -> None:
    with started(a="one", b="two") as workers:
        workers.wait_until_ready(START_SECONDS)
        assert workers.stop(START_SECONDS) == []
        assert {workers.receive(0)[::2] for _ in range(2)} == {("one", "ended"), ("two", "ended")}


def test_a_worker_that_was_killed_is_not_missed_and_leaves_the_others_alone() -> None:
    with started(a="one", b="two") as workers:
        workers.wait_until_ready(START_SECONDS)
        workers.kill("a")
        workers.send("b", 1)
        assert workers.receive(START_SECONDS)[0] == "two"
        assert workers.stop(START_SECONDS) == []
        assert workers.names == ("a", "b")


def test_a_worker_that_ends_before_it_is_ready_is_an_error() -> None:
    with started(fail, a="early") as workers, pytest.raises(WorkerError, match="a ended by itself with exit code 7"):
        workers.wait_until_ready(START_SECONDS)


def test_a_worker_that_ends_by_itself_is_an_error_for_the_one_who_waits_for_messages() -> None:
    with started(fail, a="late") as workers:
        workers.wait_until_ready(START_SECONDS)
        workers.send("a", 1)
        with pytest.raises(WorkerError, match="exit code 7"):
            workers.receive(START_SECONDS)


def test_stopping_says_who_ended_before_and_who_did_not_end() -> None:
    with started(fail, a="late") as workers:
        workers.wait_until_ready(START_SECONDS)
        workers.send("a", 1)
        assert workers.stop(START_SECONDS) == ["a ended by itself with exit code 7"]
    with started(ignore_the_parent, a="") as workers:
        workers.wait_until_ready(START_SECONDS)
        assert workers.stop(0.2) == ["a did not stop within 0.2 s"]


def test_a_worker_that_never_says_that_it_is_ready_is_named() -> None:
    with started(a="one") as workers, pytest.raises(WorkerError, match="a did not start within 0 s"):
        workers.wait_until_ready(0.0)


PARENT = """
import sys
from {module} import started
if __name__ == "__main__":
    with started(a="one") as workers:
        workers.wait_until_ready(60)
        workers.send("a", 1)
        print(workers.receive(60)[1], flush=True)
        sys.stdin.read()
"""


def test_a_worker_ends_when_its_parent_has_died(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(module="workers_of_a_test"))
    (tmp_path / "workers_of_a_test.py").write_bytes(Path(__file__).read_bytes())
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(worker), "the worker to end", START_SECONDS)


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
