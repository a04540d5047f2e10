"""What was lost and put back may stand behind what a process wrote that did not know it, and nothing else may."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.failover.campaign.findings import Kind
from tests.failover.campaign.history import Status
from tests.failover.stories import Story

ORDER = {Kind.OVERTAKEN, Kind.PUT_BACK_BEHIND, Kind.REORDERED}


def put_back_behind(before: Callable[[Story], object], between: Callable[[Story], object]) -> set[Kind]:
    """Return what the checker says of a batch of b that is put back behind one of c, which was begun later.

    Args:
        before: What happens until b writes.
        between: What happens then, until c writes.
    """
    story = Story()
    before(story)
    story.stored.clear()  # what a killed process alone had known
    story.append("b")
    between(story)
    lost = story.stored.copy()
    story.stored.clear()
    story.append("c")
    story.stored += lost
    return story.kinds() & ORDER


def a_gap(story: Story) -> None:
    story.append("a")


def nothing(story: Story) -> None:
    pass


def told(worker: str) -> Callable[[Story], None]:
    def tell(story: Story) -> None:
        story.read(worker)
        story.notice(worker)

    return tell


def test_a_batch_whose_writer_did_not_know_what_was_in_front_may_be_put_back_behind_a_later_one() -> None:
    assert put_back_behind(a_gap, nothing) == {Kind.PUT_BACK_BEHIND}


def test_a_process_that_knew_the_batch_writes_nothing_in_its_place() -> None:
    assert put_back_behind(a_gap, lambda story: story.read("c")) == {Kind.OVERTAKEN}
    assert put_back_behind(a_gap, lambda story: story.read("c", 1)) == {Kind.OVERTAKEN}
    assert put_back_behind(a_gap, told("c")) == {Kind.PUT_BACK_BEHIND}
    assert put_back_behind(a_gap, told("b")) == {Kind.PUT_BACK_BEHIND}


@pytest.mark.parametrize(
    "before",
    [
        nothing,
        lambda story: (story.append("a"), story.read("b")),
        lambda story: (story.append("a"), story.pop("a"), story.read("b", 1)),
        lambda story: story.append("a", status=Status.NOT_APPLIED, effect="none"),
        lambda story: (story.append("b"), story.read("a")),
    ],
)
def test_a_process_that_knew_what_was_in_front_notices_another_change_there(before: Callable[[Story], object]) -> None:
    assert put_back_behind(before, nothing) - {Kind.REORDERED} == {Kind.OVERTAKEN}


@pytest.mark.parametrize(
    "before",
    [
        lambda story: (story.append("a"), story.append("b"), story.read("b")),
        lambda story: (story.read("b"), story.append("a", status=Status.UNKNOWN)),
        lambda story: (story.append("b", status=Status.UNKNOWN), story.read("b")),
    ],
)
def test_a_read_tells_nothing_of_what_was_in_front_of_an_own_change(before: Callable[[Story], object]) -> None:
    assert put_back_behind(before, nothing) == {Kind.PUT_BACK_BEHIND}


def test_each_process_counts_that_knew_the_batch() -> None:
    def known(story: Story) -> None:
        story.append("a")
        story.read("b")

    def known_to_b_alone(story: Story) -> None:
        story.append("a")
        story.append("d")
        story.read("b")

    assert put_back_behind(known, lambda story: story.read("d")) == {Kind.OVERTAKEN}
    assert put_back_behind(known_to_b_alone, nothing) == {Kind.OVERTAKEN}
    assert put_back_behind(known_to_b_alone, lambda story: story.read("d")) == {Kind.PUT_BACK_BEHIND}


def test_what_still_stands_in_front_was_not_replaced() -> None:
    story = Story()
    first, second, third = story.append("a"), story.append("b"), story.append("c")
    assert story.kinds([*first.items, *third.items, *second.items]) & ORDER == {Kind.OVERTAKEN}
    assert story.kinds([*third.items, *second.items]) & ORDER == {Kind.PUT_BACK_BEHIND}


def test_each_batch_in_front_counts() -> None:
    story = Story()
    story.append("a")
    story.stored.clear()
    story.append("b")
    story.read("d")
    lost = story.stored.copy()
    story.stored.clear()
    story.append("d")
    story.append("c")
    assert story.kinds([*story.stored, *lost]) & ORDER == {Kind.OVERTAKEN}


def test_a_batch_of_the_same_writer_is_never_put_back_behind_its_later_one() -> None:
    story = Story()
    story.append("a")
    first, second = story.append("b"), story.append("b")
    assert story.kinds([*second.items, *first.items]) & ORDER == {Kind.REORDERED}
