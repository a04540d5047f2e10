"""The simulated world: the real client works in it, the same seed gives the same run, and faults strike as they say."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.failover.campaign.history import Call, Op, Status
from tests.simulation import draw, verdict, world
from tests.simulation.plan import Fault, Plan, Step


def plan(*steps: Step, faults: tuple[Fault, ...] = (), processes: int = 1) -> Plan:
    steps = tuple(replace(each, number=number) for number, each in enumerate(steps, start=1))
    return Plan(seed=1, topology="standalone", fields=({},) * processes, steps=steps, faults=faults)


def step(op: str, process: int = 0, *, pause: float = 0.1, size: int = 1, cancel_after: float | None = None) -> Step:
    return Step(number=0, process=process, session="s", op=op, pause=pause, size=size, cancel_after=cancel_after)


def results(run: world.Run) -> list[tuple[Op, Status, tuple[str, ...]]]:
    return [(call.op, call.status, tuple(map(str, call.result))) for call in run.calls]


def slowest(run: world.Run) -> Call:
    return max(run.calls, key=lambda call: call.end - call.begin)


def test_the_real_client_appends_reads_pops_and_clears_in_the_simulated_world() -> None:
    run = world.run(plan(step("append", size=2), step("read"), step("pop"), step("clear"), step("append")))
    first, second, third = "p0.s:1:0/2", "p0.s:1:1/2", "p0.s:2:0/1"
    assert results(run) == [
        (Op.APPEND, Status.OK, ()),
        (Op.READ, Status.OK, (first, second)),
        (Op.POP, Status.OK, (second,)),
        (Op.CLEAR, Status.OK, ()),
        (Op.APPEND, Status.OK, ()),
        (Op.READ, Status.OK, (third,)),
    ]
    assert [str(mark) for mark in run.stored["s"]] == [third]
    assert (run.problems, verdict.judge(run).broken) == ([], ())


def test_what_is_left_of_a_run_does_not_go_on_in_a_real_loop() -> None:
    real = asyncio.new_event_loop()
    asyncio.set_event_loop(real)  # what runs outside of every loop finds this one
    try:
        world.run(draw.draw_plan(9, "sentinel"))
        gc.collect()
        assert asyncio.all_tasks(real) == set()
    finally:
        asyncio.set_event_loop(None)
        real.close()


def test_the_same_seed_gives_the_same_timeline_to_the_byte_in_every_process() -> None:
    script = (
        "from tests.simulation import draw, world\n"
        "for topology in draw.TOPOLOGIES:\n"
        "    for seed in range(2):\n"
        "        print(world.run(draw.draw_plan(seed, topology, processes=3)).timeline.digest())\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for hash_seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert len(set(printed[0])) == 2 * len(draw.TOPOLOGIES)


def test_another_seed_gives_another_run() -> None:
    assert draw.draw_plan(1) != draw.draw_plan(2)
    same = plan(step("append"))
    assert world.run(same).timeline.digest() != world.run(replace(same, seed=2)).timeline.digest()


@pytest.mark.parametrize("kind", ["cut-before", "cut-after", "cut-reply"])
def test_a_change_is_stored_once_when_its_connection_breaks(kind: str) -> None:
    struck = Fault(kind=kind, step=2, arguments={"part": 0.5})
    run = world.run(plan(step("append"), step("append"), faults=(struck,)))
    assert [str(mark) for mark in run.stored["s"]] == ["p0.s:1:0/1", "p0.s:2:0/1"]
    assert run.totals["retries"] == 1
    assert run.totals["repeats_suppressed"] == (kind != "cut-before")


@pytest.mark.parametrize("kind", ["stall-request", "stall-reply"])
def test_a_request_that_is_held_up_is_sent_again(kind: str) -> None:
    fields = {"pool": {"response_timeout_seconds": 0.5}}
    stalled = Fault(kind=kind, step=2, arguments={"seconds": 3.0})
    run = world.run(replace(plan(step("append"), step("append"), faults=(stalled,)), fields=(fields,)))
    assert [str(mark) for mark in run.stored["s"]] == ["p0.s:1:0/1", "p0.s:2:0/1"]
    assert slowest(run).end - slowest(run).begin > 0.5
    assert run.totals["retries"] >= 1


def test_a_process_that_is_killed_says_no_more_and_another_one_takes_its_place() -> None:
    killed = Fault(kind="kill-at-request", step=2, arguments={"seconds": 1.0})
    run = world.run(plan(step("append"), step("append"), step("append"), faults=(killed,)))
    assert [(call.worker, call.status) for call in run.calls] == [
        ("p0.1", Status.OK),
        ("p0.1", Status.UNKNOWN),
        ("p0.2", Status.OK),
        ("p0.2", Status.OK),
    ]
    assert [str(mark) for mark in run.stored["s"]] == ["p0.s:1:0/1", "p0.s:2:0/1", "p0.s:3:0/1"]
    assert verdict.judge(run).broken == ()


def test_a_process_that_stands_still_goes_on_with_what_arrived_meanwhile() -> None:
    steps = (step("append"), step("append"))
    begin = world.run(plan(*steps)).calls[1].begin - 1000.0
    stopped = Fault(kind="pause-process", at=begin + 0.0001, arguments={"process": 0, "seconds": 2.0})
    run = world.run(plan(*steps, faults=(stopped,)))
    (_, append, _) = run.calls
    assert append.status is Status.OK
    assert append.end - append.begin == pytest.approx(2.0, abs=0.01)
    assert run.totals["retries"] == 0


def test_a_cancelled_call_is_seen_through() -> None:
    run = world.run(plan(step("append", cancel_after=0.0), step("read")))
    assert [(call.status, call.error) for call in run.calls[:2]] == [
        (Status.OK, "cancelled, and seen through"),
        (Status.OK, None),
    ]
    assert [str(mark) for mark in run.calls[1].result] == ["p0.s:1:0/1"]


def test_a_server_that_closes_all_connections_as_its_memory_suffices_again_is_not_full_any_more() -> None:
    full = Fault(kind="fill-memory", at=0.3, arguments={"seconds": 0.5})
    stall = Fault(kind="pause-server", at=0.4, arguments={"seconds": 1.0})
    kill = Fault(kind="kill-clients", at=0.5, arguments={})  # waits for the server, in front of what frees the memory
    run = world.run(plan(step("append"), step("append", pause=2.0), faults=(full, stall, kill)))
    assert [call.status for call in run.calls if call.op is Op.APPEND] == [Status.OK] * 2


def test_nothing_passes_through_a_partition_and_everything_behind_it() -> None:
    cut = {"ways": ("there", "back"), "inside": ("h0",), "seconds": 2.0}
    run = world.run(plan(step("append"), faults=(Fault(kind="partition", at=0.05, arguments=cut),)))
    (append, _) = run.calls
    assert append.status is Status.OK
    assert append.end > 1002.05


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_broken_by_the_faults_of_a_seed(seed: int) -> None:
    assert verdict.judge(world.run(draw.draw_plan(seed))).broken == ()


def test_two_primaries_under_one_epoch_last_until_a_person_calls_for_a_failover() -> None:
    cut_off = {"ways": ("there",), "inside": ("primary", "r1", "s2"), "seconds": 5.5}
    faults = (
        Fault(kind="partition", at=0.06, arguments=cut_off),
        Fault(kind="fail-over", at=0.3, arguments={"sentinel": 2}),
    )
    settings = {"replicas": 2, "servers": 3, "sentinels": 3, "quorum": 2, "down_after": 2.0, "failover_timeout": 3.0}
    fields = ({"retry": {"deadline_seconds": 8.0}},)
    steps = (step("read"), replace(step("append"), number=1))
    tied = Plan(seed=1, topology="sentinel", fields=fields, steps=steps, faults=faults, settings=settings)
    run = world.run(tied)
    assert verdict.judge(run).broken == ()
    assert run.promotions == 2
    lines = run.timeline.lines()
    assert {line.split()[-2] for line in lines if "+switch-master mymaster r0" in line} == {"r1", "r2"}
    assert sum("+switch-master mymaster r2" in line or "+switch-master mymaster r1" in line for line in lines) >= 2


def test_a_slot_is_not_moved_twice_at_once() -> None:
    moves = tuple(
        Fault(kind="move-slot", at=at, arguments={"session": "s", "pause": pause})
        for at, pause in ((0.15, 0.1), (0.6, 0.0))
    )
    config = {"cluster-enabled": "yes", "cluster-node-timeout": "1000", "repl-diskless-sync-delay": "0"}
    settings = {"shards": 3, "replicas": 1, "servers": 6, "config": config}
    steps = tuple(
        replace(step(op), number=at) for at, op in enumerate(("append", "append", "read", "append", "read"), 1)
    )
    run = world.run(Plan(seed=1, topology="cluster", fields=({},), steps=steps, faults=moves, settings=settings))
    assert verdict.judge(run).broken == ()
    said = [line.split(maxsplit=1)[1] for line in run.timeline.lines() if " moves to c" in line or " has slot " in line]
    assert ["moves to" in line for line in said] == [True, False, True, False], said


def test_what_was_evicted_is_put_back_by_the_operation_that_misses_it() -> None:
    lost = {"server": 1, "seconds": 0.5, "keep": "snapshot"}
    evicted = {"server": None, "policy": "all", "first": 0, "each": 6}
    faults = (Fault(kind="crash", at=0.5, arguments=lost), Fault(kind="evict", at=1.2, arguments=evicted))
    elsewhere = replace(step("append"), session="used first")
    drawn = (elsewhere, step("append"), step("read", pause=0.2), replace(elsewhere, pause=1.5))
    settings = {"replicas": 2, "servers": 3, "sentinels": 3, "quorum": 2, "down_after": 2.0, "failover_timeout": 3.0}
    steps = tuple(replace(each, number=number) for number, each in enumerate(drawn, start=1))
    run = world.run(Plan(seed=1, topology="sentinel", fields=({},), steps=steps, faults=faults, settings=settings))
    assert run.evicted
    assert run.loses
    assert verdict.judge(run).broken == ()


def test_a_slot_whose_server_stands_still_in_the_midst_of_a_move_moves_when_it_goes_on() -> None:
    faults = (
        Fault(kind="move-slot", at=0.2, arguments={"session": "s", "pause": 0.05}),
        Fault(kind="pause-server", at=0.28, arguments={"server": None, "seconds": 2.0}),
    )
    config = {"cluster-enabled": "yes", "cluster-node-timeout": "5000", "repl-diskless-sync-delay": "0"}
    settings = {"shards": 3, "replicas": 1, "servers": 6, "config": config}
    steps = tuple(replace(step("append", pause=pause), number=number) for number, pause in ((1, 0.1), (2, 0.6)))
    run = world.run(Plan(seed=1, topology="cluster", fields=({},), steps=steps, faults=faults, settings=settings))
    assert verdict.judge(run).broken == ()
    assert sum(" has slot " in line for line in run.timeline.lines()) == 1


@pytest.mark.parametrize("seed", range(5, 8))
def test_what_is_sent_to_a_process_that_ended_without_a_word_is_answered_by_a_reset(seed: int) -> None:
    # c3 stands still while c0 ends and starts again: only a reset tells it that its link leads to the process before.
    faults = (
        Fault(kind="pause-server", at=0.2, arguments={"server": 3, "seconds": 5.0}),
        Fault(kind="crash", at=0.4, arguments={"server": 0, "silently": True, "seconds": 0.9, "keep": "all"}),
    )
    config = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": "500",
        "cluster-replica-validity-factor": "0",
        "repl-diskless-sync-delay": "0",
    }
    settings = {"shards": 3, "replicas": 1, "servers": 6, "config": config}
    steps = tuple(replace(step("append", pause=pause), number=number) for number, pause in ((1, 0.1), (2, 2.5)))
    run = world.run(Plan(seed=seed, topology="cluster", fields=({},), steps=steps, faults=faults, settings=settings))
    assert verdict.judge(run).broken == ()


def test_what_the_server_took_that_a_name_led_to_before_is_lost_when_that_one_ends() -> None:
    moved = Fault(kind="move-name", at=0.05, arguments={"seconds": 2.0})
    crashed = Fault(kind="crash", at=0.4, arguments={"server": 0, "seconds": 5.0, "keep": "all", "silently": False})
    settings = {"servers": 2, "replicas": 1, "config": {"repl-diskless-sync-delay": "0"}}
    drawn = plan(step("append"), step("append", pause=2.5), faults=(moved, crashed))
    run = world.run(replace(drawn, topology="name", settings=settings))
    (append, *_) = run.calls
    assert append.end < 1001.4
    assert run.losses == [pytest.approx(1001.05), pytest.approx(1001.4)]
