"""The checker, on forged histories: it lets every valid one pass, and names each corruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.failover.campaign.checker import check
from tests.failover.campaign.findings import Kind
from tests.failover.campaign.history import Op, Status
from tests.failover.campaign.marks import Mark
from tests.failover.stories import SESSION, Story

WRITERS = st.sampled_from("abc")
SIZES = st.integers(1, 4)
LIMITS = st.sampled_from([None, None, 1, 3, 8])
APPENDS = st.tuples(st.just("append"), WRITERS, SIZES)
READS = st.tuples(st.just("read"), WRITERS, LIMITS)
POPS = st.tuples(st.just("pop"), WRITERS)
CLEARS = st.tuples(st.just("clear"), WRITERS)
REPLACES = st.tuples(st.just("replace"), WRITERS, SIZES)
OUTCOMES = st.sampled_from(
    [
        (Status.OK, "now"),
        (Status.OK, "now"),
        (Status.NOT_APPLIED, "none"),
        (Status.UNKNOWN, "now"),
        (Status.UNKNOWN, "none"),
        (Status.UNCONFIRMED, "now"),
    ]
)
STEPS = st.one_of(APPENDS, APPENDS, READS, POPS, CLEARS, REPLACES)
SLOW = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.filter_too_much])


def tell(steps: list[tuple[Any, ...]], outcomes: Sequence[tuple[Status, str]] = (), spread: float = 0.25) -> Story:
    """Return the story of these steps; those beyond the outcomes end well."""
    story = Story(spread=spread)
    for number, (name, *arguments) in enumerate(steps):
        status, effect = outcomes[number] if number < len(outcomes) else (Status.OK, "now")
        options = {} if name == "read" else {"status": status, "effect": effect}
        getattr(story, name)(*arguments, **options)
    return story


def batches(story: Story) -> list[list[Mark]]:
    """Return what is stored, batch by batch."""
    return [list(group) for _, group in groupby(story.stored, key=lambda mark: mark.batch)]


# -- valid histories pass


@SLOW
@given(st.lists(st.tuples(STEPS, OUTCOMES), max_size=40), st.sampled_from([0.25, 0.6, 0.95]))
def test_a_valid_history_passes(told: list[tuple[Any, ...]], spread: float) -> None:
    story = tell([step for step, _ in told], [outcome for _, outcome in told], spread)
    story.read()
    assert story.check().violations == []


@SLOW
@given(st.lists(APPENDS, max_size=8), st.lists(st.one_of(APPENDS, READS), max_size=8), SIZES)
def test_a_write_of_unknown_outcome_may_appear_late(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], size: int
) -> None:
    story = tell(before)
    story.append("d", size, Status.UNKNOWN, "late")
    for name, *arguments in after:
        getattr(story, name)(*arguments)
    story.arrive()
    story.read()
    assert story.check().violations == []


def test_a_write_that_too_few_replicas_have_may_be_lost() -> None:
    story = Story()
    story.append()
    story.append(status=Status.UNCONFIRMED, effect="none")
    story.append("b")
    assert story.kinds() == set()


def test_a_change_may_be_there_whose_caller_was_told_of_a_loss_after_an_attempt_had_left() -> None:
    for effect in ("now", "none"):
        for is_open in (True, False):
            story = Story()
            story.append("a", status=Status.HISTORY_LOST, effect=effect)
            story.calls[0] = replace(story.calls[0], is_open=is_open)
            story.read("b")
            assert (Kind.GHOST in story.kinds()) is (effect == "now" and not is_open)


def test_a_call_that_a_killed_worker_had_begun_may_have_happened_or_not() -> None:
    for effect in ("now", "none"):
        story = Story()
        story.append()
        story.append("b", status=Status.UNKNOWN, effect=effect)
        report = story.check()
        assert report.violations == []
        assert report.counts["unfinished"] == 1


# -- each corruption of what is stored is named


@SLOW
@given(st.lists(STEPS, min_size=1, max_size=30), st.data())
def test_a_lost_batch_is_caught(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    story = tell(steps)
    whole = [group for group in batches(story) if len(group) == group[0].size]
    assume(whole)
    victim = data.draw(st.sampled_from(whole))
    assert Kind.LOST in story.kinds([mark for mark in story.stored if mark not in victim])


@SLOW
@given(st.lists(STEPS, min_size=1, max_size=30), st.data())
def test_a_duplicate_is_caught(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    story = tell(steps)
    assume(story.stored)
    victim = data.draw(st.sampled_from(story.stored))
    place = data.draw(st.integers(0, len(story.stored)))
    assert Kind.DUPLICATED in story.kinds([*story.stored[:place], victim, *story.stored[place:]])


@SLOW
@given(st.lists(STEPS, min_size=2, max_size=30), st.data())
def test_a_swap_of_two_batches_is_caught(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    story = tell(steps)
    groups = batches(story)
    assume(len(groups) > 1)
    first = data.draw(st.integers(0, len(groups) - 2))
    second = data.draw(st.integers(first + 1, len(groups) - 1))
    groups[first], groups[second] = groups[second], groups[first]
    found = story.kinds([mark for group in groups for mark in group])
    assert found & {Kind.REORDERED, Kind.OVERTAKEN, Kind.PUT_BACK_BEHIND}
    if len({group[0].writer for group in groups}) == 1:
        assert Kind.REORDERED in found


@SLOW
@given(st.lists(STEPS, min_size=1, max_size=30), st.data())
def test_a_torn_batch_is_caught(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    story = tell(steps)
    long = [group for group in batches(story) if len(group) > 1]
    assume(long)
    victim = data.draw(st.sampled_from(data.draw(st.sampled_from(long))))
    without = [mark for mark in story.stored if mark != victim]
    assert Kind.TORN in story.kinds(without), "an item is missing"
    place = story.stored.index(victim)
    other = data.draw(st.integers(0, len(without)).filter(lambda index: index != place))
    assert Kind.TORN in story.kinds([*without[:other], victim, *without[other:]]), "an item has moved"


@SLOW
@given(st.lists(STEPS, max_size=20), SIZES, st.data())
def test_a_ghost_is_caught(steps: list[tuple[Any, ...]], size: int, data: st.DataObject) -> None:
    story = tell(steps)
    refused = story.append("d", size, Status.NOT_APPLIED, "none")
    story.append("d", size)
    place = data.draw(st.integers(0, len(story.stored)))
    assert Kind.GHOST in story.kinds([*story.stored[:place], *refused.items, *story.stored[place:]])


@SLOW
@given(st.lists(STEPS, max_size=20))
def test_what_was_popped_is_gone_and_handed_out_once(steps: list[tuple[Any, ...]]) -> None:
    story = tell(steps)
    story.append("a")
    popped = story.pop("b")
    assert Kind.POPPED_STILL_THERE in story.kinds([*story.stored, *popped.result])
    story.calls.append(replace(popped, worker="c", begin=popped.end + 1, end=popped.end + 2))
    assert Kind.HANDED_OUT_TWICE in story.kinds()


@SLOW
@given(st.lists(STEPS, max_size=20), st.sampled_from(["clear", "replace"]))
def test_what_was_cleared_stays_away(steps: list[tuple[Any, ...]], removal: str) -> None:
    story = tell(steps)
    story.append()
    before = list(story.stored)
    getattr(story, removal)()
    assert Kind.CLEARED_STILL_THERE in story.kinds([*before, *story.stored])


# -- and of what was read


def append_twice_and_read() -> Story:
    story = Story()
    story.append("a")
    story.append("b")
    story.read("c")
    return story


@pytest.mark.parametrize(
    ("corrupt", "kind"),
    [
        (lambda seen: seen[:2], Kind.STALE),
        (lambda seen: seen[:3], Kind.TORN),
        (lambda seen: (*seen, seen[0]), Kind.DUPLICATED),
        (lambda seen: (*seen[2:], *seen[:2]), Kind.OVERTAKEN),
        (lambda seen: (*seen, None), Kind.GHOST),
        (lambda seen: (*seen, Mark("z", 1, 0, 1)), Kind.GHOST),
    ],
)
def test_a_wrong_read_is_caught(corrupt: Callable[[tuple[Any, ...]], tuple[Any, ...]], kind: Kind) -> None:
    story = append_twice_and_read()
    read = story.calls[-1]
    story.calls[-1] = replace(read, result=corrupt(read.result))
    assert story.kinds() == {kind}


def test_reads_of_one_session_object_never_go_backwards() -> None:
    story = Story()
    story.append("a", status=Status.UNKNOWN)
    story.read("c")
    later = story.read("c")
    assert story.kinds() == set()
    story.calls[-1] = replace(later, result=())
    assert story.kinds() == {Kind.BACKWARDS}
    story.calls[-1] = replace(later, result=(), handle="another")
    assert story.kinds() == set(), "nobody had told the other object"


def test_a_replacement_that_is_shown_explains_what_it_removed_also_if_it_was_refused_later() -> None:
    story = Story()
    story.append("a")
    story.read("c")
    refused = story.replace("b", status=Status.NOT_APPLIED, effect="never")
    read = story.read("c")
    assert story.kinds() == set()
    story.calls[-1] = replace(read, result=refused.items)
    assert story.kinds() == {Kind.GHOST}
    story.calls[-1] = replace(read, result=())
    assert story.kinds() == {Kind.BACKWARDS}


def test_a_read_with_a_limit_shows_the_newest() -> None:
    story = Story()
    for _ in range(3):
        story.append("a", 2)
    story.read("b", 3)
    read = story.calls[-1]
    assert [mark.sequence for mark in read.result if mark] == [2, 3, 3]
    assert story.kinds() == set()
    story.calls[-1] = replace(read, result=tuple(story.stored[0:2] + story.stored[4:5]))
    assert Kind.STALE in story.kinds()


# -- what explains an absence, and what does not


def test_a_pop_of_unknown_outcome_explains_one_item() -> None:
    story = Story()
    story.append(size=1)
    story.append(size=1)
    story.pop(status=Status.UNKNOWN, effect="none")
    assert story.kinds(story.stored[:1]) == set()
    assert story.kinds([]) == {Kind.LOST}


def test_a_pop_of_unknown_outcome_does_not_explain_a_loss_below_a_newer_item() -> None:
    story = Story()
    story.append(size=1)
    story.append(size=1)
    story.pop(status=Status.UNKNOWN, effect="none")
    assert story.kinds(story.stored[1:]) == {Kind.LOST}


def test_a_pop_explains_one_item_while_it_is_under_way_and_none_later() -> None:
    story = Story()
    older = story.append("a", 1).items
    newer = story.append("b", 1).items
    pop = story.pop("a")  # of b's item, on a server that is lost: it is put back, and the repeat takes the older one
    read = story.read("c")

    def kinds(pop_ends: float, shown: tuple[Mark, ...]) -> set[Kind]:
        story.calls[2:] = [replace(pop, result=older, end=pop_ends), replace(read, result=shown)]
        return story.kinds([*newer]) - {Kind.POPPED_OUT_OF_TURN}

    assert kinds(read.end + 1, older) == set()
    assert kinds(read.begin - 0.01, older) == {Kind.POPPED_STILL_THERE, Kind.STALE}
    assert kinds(read.begin - 0.01, ()) == {Kind.STALE}
    assert kinds(read.end + 1, ()) == {Kind.STALE}


def test_a_clear_of_unknown_outcome_explains_everything_or_nothing() -> None:
    story = Story()
    story.append()
    story.append()
    story.clear(status=Status.UNKNOWN, effect="none")
    assert story.kinds() == set()
    assert story.kinds([]) == set()
    assert story.kinds(story.stored[:2]) == {Kind.LOST}


def test_a_pop_takes_the_newest() -> None:
    story = Story()
    story.append(size=1)
    story.append(size=1)
    pop = story.pop()
    older = story.calls[0].items
    story.calls[-1] = replace(pop, result=older)
    assert Kind.POPPED_OUT_OF_TURN in story.kinds(list(story.calls[1].items))


def test_an_item_that_came_back_after_its_pop_is_not_held_against_the_next_pop() -> None:
    story = Story()
    story.append(size=1)
    story.append(size=1)
    story.pop()
    story.pop()
    assert story.kinds(list(story.calls[1].items)) == {Kind.POPPED_STILL_THERE}


# -- losses that were said


def test_a_loss_that_was_said_is_told_from_a_silent_one() -> None:
    story = Story()
    for _ in range(3):
        story.append(size=1)
    left = story.stored[:1]
    assert [v.said for v in story.check(left).of(Kind.LOST)] == [False, False]
    story.notice(versions=1)
    assert [v.said for v in story.check(left).of(Kind.LOST)] == [True, False], "one version accounts for one batch"
    story.notice(versions=1)
    assert [v.said for v in story.check(left).of(Kind.LOST)] == [True, True]


def test_a_notice_accounts_for_all_before_it_where_versions_are_counted_anew() -> None:
    story = Story()
    for _ in range(2):
        story.append(size=1)
    story.notice(versions=1)
    story.append(size=1)
    stored: dict[str, list[Mark | None]] = {SESSION: []}
    losses = check(story.calls, stored, counts_versions=False).of(Kind.LOST)
    assert [loss.said for loss in losses] == [True, True, False]


def test_a_loss_says_when_its_change_began() -> None:
    story = Story()
    began = story.append().begin
    assert [loss.begin for loss in story.check([]).of(Kind.LOST)] == [began]


def test_what_the_server_evicted_is_not_missing_and_what_was_written_later_is() -> None:
    story = Story()
    story.append()
    evicted = story.evict()
    story.calls.remove(evicted)
    story.read("b")
    kept = story.append("c")
    stored: dict[str, list[Mark | None]] = {SESSION: list(story.stored)}
    assert {v.kind for v in check(story.calls, stored).violations} == {Kind.LOST}
    told = check(story.calls, stored, [evicted])
    assert told.violations == []
    assert told.counts["unconfirmed"] == 0
    lost = check(story.calls, {SESSION: []}, [evicted]).violations
    assert [violation.begin for violation in lost] == [kept.begin]


@pytest.mark.parametrize("under_way", [True, False])
def test_an_append_that_is_under_way_while_its_session_is_evicted_may_be_made_on_both_sides(under_way: bool) -> None:
    story = Story()
    made = story.append("a", 1)
    story.pop("b")
    evicted = story.evict()
    story.calls.remove(evicted)
    if under_way:
        story.calls[0] = replace(made, end=evicted.end + 1)
    story.now += 2
    story.stored[:] = made.items
    story.read("c")
    found = check(story.calls, {SESSION: story.stored}, [evicted]).kinds
    assert found == (set() if under_way else {Kind.POPPED_STILL_THERE})


def test_a_read_after_the_loss_was_said_may_show_less() -> None:
    for worker, silent in (("c", False), ("d", True)):
        story = append_twice_and_read()
        story.stored.clear()
        story.notice(worker, versions=2)
        story.read("c")
        assert [v.said for v in story.check().of(Kind.BACKWARDS)] == [not silent] * 2


def test_a_foreign_error_is_a_violation() -> None:
    story = Story()
    call = story.append(status=Status.UNKNOWN, effect="none")
    story.calls[0] = replace(call, foreign_error=True, error="AttributeError: x")
    assert story.kinds() == {Kind.FOREIGN_ERROR}


def test_calls_are_counted_by_what_became_of_them() -> None:
    story = Story()
    story.append()
    story.append(status=Status.NOT_APPLIED, effect="none")
    story.append(status=Status.UNCONFIRMED)
    story.pop(status=Status.UNKNOWN, effect="none")
    story.read()
    story.notice()
    story.calls[3] = replace(story.calls[3], end=4.5)  # its caller was told
    expected = {"confirmed": 1, "not_applied": 1, "unconfirmed": 1, "unknown": 1, "reads": 1, "history_lost": 1}
    assert dict(story.check().counts) == {**expected, "stored": 4}
    assert story.calls[4].op is Op.READ
