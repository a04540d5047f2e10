"""What explains that something is missing where servers lose changes, on forged histories."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.failover.campaign.findings import Kind
from tests.failover.campaign.history import Status
from tests.failover.campaign.marks import Mark
from tests.failover.stories import Story


@pytest.mark.parametrize("put_back", ["behind", "in front", "behind, and not read again"])
def test_a_window_leaves_out_what_was_begun_later_and_stands_in_front_of_it(put_back: str) -> None:
    story = Story()
    lost = story.append("a", 1).items
    story.stored.clear()
    story.append("b", 1)
    story.stored += lost
    window = story.read("c", 1)
    assert window.result == lost
    if put_back == "in front":
        story.stored.reverse()
    if put_back != "behind, and not read again":
        story.read("d")
    assert (Kind.STALE in story.kinds()) is (put_back != "behind")


@pytest.mark.parametrize(("shown", "found"), [(1, {Kind.STALE}), (2, {Kind.STALE, Kind.BACKWARDS})])
def test_a_pop_of_unknown_outcome_took_what_its_own_process_had_been_shown(shown: int, found: set[Kind]) -> None:
    story = Story()
    story.append("b", 1)  # on another server than the one that a is led to
    elsewhere = list(story.stored)
    story.stored.clear()
    for _ in range(shown):
        story.append("a", 1)
    story.read("a")
    there = list(story.stored)
    story.pop("a", status=Status.UNKNOWN)
    story.stored.clear()
    story.read("a")
    assert story.kinds([*elsewhere, *there]) == found


def test_a_pop_of_unknown_outcome_took_the_missing_end_of_a_batch() -> None:
    story = Story()
    story.append("b", 2)
    story.pop("c", status=Status.UNKNOWN)
    story.append("a", 1)
    story.read("a")
    there = list(story.stored)
    story.stored.pop()  # which a server loses
    story.read("a")
    assert story.kinds(there) == {Kind.BACKWARDS}


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_a_pop_that_is_answered_with_what_was_made_later_may_have_taken_something_before(is_confirmed: bool) -> None:
    story = Story()
    older = story.append("a", 2).items
    pop = story.pop("b")  # of a's second item, on a server that is lost: it is put back, and the repeat takes c's
    written = story.append("c", 1)
    read = story.read("d")
    late = read.end + 1
    shown: tuple[Mark, ...] = older[:1]
    story.calls[1:] = [
        replace(pop, result=written.items, end=late),
        replace(written, end=written.end if is_confirmed else late),
        replace(read, result=shown),
    ]
    # If c's item was there already, the pop may have taken only that.
    assert (Kind.TORN in story.kinds(list(older))) is is_confirmed


@pytest.mark.parametrize("callers", ["b", "bc", "bcd"])
def test_a_pop_that_is_answered_with_what_another_had_taken_may_have_taken_something_before(callers: str) -> None:
    story = Story()
    older = story.append("a", 3).items
    pops = [story.pop(caller) for caller in callers]  # on a server that is lost: all answers but the first come late
    read = replace(story.read("e"), result=older[:1])
    late = [replace(pop, result=older[2:], end=pop.end if pop is pops[0] else read.end + 1) for pop in pops]
    story.calls[1:] = [*late, read]
    # One pop has taken the newest item in any case, and each of the others may have taken one before.
    assert (Kind.TORN in story.kinds([*older[:2]])) is (len(callers) < 2)


@pytest.mark.parametrize(
    ("of_older", "of_newer", "begins_behind", "is_torn"),
    [(2, 2, False, False), (2, 1, False, True), (1, 2, False, True), (2, 2, True, True)],
)
def test_a_pop_whose_answer_is_there_again_has_taken_one_other_item_that_was_written_meanwhile(
    of_older: int, of_newer: int, begins_behind: bool, is_torn: bool
) -> None:
    story = Story()
    older = story.append("a", 2).items
    pop = story.pop("b")  # first on a server that has c's items already; it is answered by one that has not
    newer = story.append("c", 3)
    story.calls[1] = replace(pop, begin=newer.end + 0.01 if begins_behind else pop.begin, end=newer.end + 0.02)
    story.stored = [*older[:of_older], *newer.items[:of_newer]]  # what the first one has; the other one is lost
    story.read("d")
    # It has taken one item there, the newest; and none but its answer where that is not there.
    assert (Kind.TORN in story.kinds()) is is_torn
    assert (Kind.POPPED_STILL_THERE in story.kinds()) is (of_older == 2)
