"""Which turn runs when, and on which worker."""

from __future__ import annotations

from random import Random

import pytest

from agents_redis_ha.demo.messages import TurnError, TurnResult, TurnTask
from agents_redis_ha.demo.schedule import Schedule
from agents_redis_ha.lab.conversations import load_conversations

ERROR = TurnError("ConnectionError", "gone")


def new_schedule(**options: int) -> Schedule:
    return Schedule(tuple(load_conversations(None, 10)), **{"workers": 4, **options}, random=Random(1))


def answer(schedule: Schedule, worker: int, task: TurnTask, now: float, error: TurnError | None = None) -> None:
    schedule.record(TurnResult(worker, task, 0.0, True, error), now)


def test_every_turn_runs_once_in_the_order_of_its_conversation() -> None:
    schedule = new_schedule()
    seen: list[TurnTask] = []
    while not schedule.finished:
        worker, task = schedule.next_turn(0.0) or pytest.fail("nothing may start")
        seen.append(task)
        answer(schedule, worker, task, 0.0)
    assert schedule.done == schedule.total == len(set(seen)) == len(seen)
    for index, conversation in enumerate(schedule.conversations):
        order = [task.turn for task in seen if task.conversation == index]
        assert order == list(range(len(conversation.turns)))


def test_a_turn_never_runs_on_the_worker_of_the_turn_before() -> None:
    schedule = new_schedule(workers=2)
    last: dict[int, int] = {}
    while not schedule.finished:
        worker, task = schedule.next_turn(0.0) or pytest.fail("nothing may start")
        assert last.get(task.conversation) != worker
        last[task.conversation] = worker
        answer(schedule, worker, task, 0.0)


def test_a_turn_waits_for_the_answer_to_the_one_before() -> None:
    schedule = new_schedule()
    started = []
    while (chosen := schedule.next_turn(0.0)) is not None:
        started.append(chosen[1])
    assert {task.turn for task in started} == {0}
    assert len(started) == len(schedule.conversations)


def test_no_worker_gets_more_turns_at_once_than_it_may() -> None:
    schedule = new_schedule(workers=2, per_worker=3)
    workers = []
    while (chosen := schedule.next_turn(0.0)) is not None:
        workers.append(chosen[0])
    assert sorted(workers) == [0, 0, 0, 1, 1, 1]


def test_a_failed_turn_is_sent_again_elsewhere_after_a_pause_until_it_is_given_up() -> None:
    schedule = Schedule(tuple(load_conversations(None, 1)), workers=2, attempts=3)
    workers = []
    for attempt in (1, 2, 3):
        now = 10.0 * attempt
        worker, task = schedule.next_turn(now) or pytest.fail("nothing may start")
        assert task == TurnTask(0, 0, attempt)
        workers.append(worker)
        answer(schedule, worker, task, now, ERROR)
        assert schedule.next_turn(now + 0.9 * schedule.resend_seconds) is None
    assert workers in ([0, 1, 0], [1, 0, 1])
    assert schedule.finished
    assert (schedule.failed, schedule.done, schedule.given_up) == (3, 0, schedule.total)


def test_the_turns_of_a_worker_that_died_go_to_others_at_once_and_it_gets_none_any_more() -> None:
    schedule = new_schedule(workers=2)
    begun: list[tuple[int, TurnTask]] = []
    while (chosen := schedule.next_turn(0.0)) is not None:
        begun.append(chosen)
    lost = [task for worker, task in begun if worker == 0]
    assert lost
    for worker, task in begun:
        if worker == 1:
            answer(schedule, worker, task, 0.0)
    assert schedule.lose_worker(0, 0.0) == [TurnTask(task.conversation, task.turn, 2) for task in lost]
    while not schedule.finished:
        worker, task = schedule.next_turn(0.0) or pytest.fail("nothing may start")
        assert worker == 1
        answer(schedule, worker, task, 0.0)
    assert (schedule.done, schedule.failed) == (schedule.total, 0)


def test_somebody_waits_for_an_answer_while_a_turn_is_in_flight_or_to_be_sent_again() -> None:
    schedule = Schedule(tuple(load_conversations(None, 1)), workers=2)
    assert not schedule.awaits_answer
    worker, task = schedule.next_turn(0.0) or pytest.fail("nothing may start")
    assert schedule.awaits_answer
    answer(schedule, worker, task, 0.0, ERROR)
    assert schedule.awaits_answer
    worker, task = schedule.next_turn(1.0) or pytest.fail("nothing may start")
    answer(schedule, worker, task, 1.0)
    assert not schedule.awaits_answer


def test_with_a_limit_a_conversation_begins_when_another_has_ended_until_it_is_closed() -> None:
    schedule = Schedule(tuple(load_conversations(None, 6)), workers=2, open_at_once=2)
    while schedule.begun < 4:
        worker, task = schedule.next_turn(0.0) or pytest.fail("nothing may start")
        open_now = sum(
            count < len(one.turns)
            for one, count in zip(schedule.conversations[: schedule.begun], schedule.completed, strict=False)
        )
        assert open_now == 2
        answer(schedule, worker, task, 0.0)
    schedule.close()
    while not schedule.finished:
        worker, task = schedule.next_turn(0.0) or pytest.fail("nothing may start")
        answer(schedule, worker, task, 0.0)
    assert schedule.begun == 4
    assert schedule.total == schedule.done == sum(len(one.turns) for one in schedule.conversations[:4])
    assert [one.items for one in schedule.said()] == [one.items for one in schedule.conversations[:4]]
