"""What each attempt tells the server of those before it: since when, and whether one may have been applied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents_redis_ha._commands import NO_POSITION, EarlierAttempts, LogPosition, append, info
from agents_redis_ha._connections import Request
from agents_redis_ha.errors import PermissionDeniedError
from tests.support.fakes import SPEC, FakeLocator, failed
from tests.support.operations import BUSY, COMMAND, LOST, NO_PERMISSION, begin

AT_5 = LogPosition(5, b"digest")


class NotingLocator(FakeLocator):
    """Notes what each attempt tells of those before it, and takes part in it as a node at the version 5."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(*replies)
        self.told: list[tuple[int, bool]] = []

    async def reply_to(self, request: Request) -> Any:
        self.told.append((request.earlier.since_this_one(AT_5).version, request.earlier.may_be_applied))
        request.earlier.since = request.earlier.since_this_one(AT_5)
        return await super().reply_to(request)


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ([], [False]),
        ([failed(BUSY, sent=True)], [False, False]),  # refused: it was not applied
        ([failed(LOST, sent=False)], [False, False]),  # never sent
        ([failed(LOST, sent=True)], [False, True]),
        ([failed(BUSY), failed(LOST, sent=True), failed(BUSY, sent=True)], [False, False, True, True]),
    ],
)
async def test_an_attempt_says_whether_one_before_it_may_have_been_applied(
    failures: list[Any], told: list[bool]
) -> None:
    locator = NotingLocator(*failures, "reply")
    await begin(locator).run(COMMAND, NO_POSITION)
    assert locator.told == [(5, each) for each in told]


async def test_a_change_that_is_sent_again_by_its_operation_still_says_what_became_of_it() -> None:
    # Its first attempt may have been applied; then lost changes were put back, and it goes on.
    locator = NotingLocator(failed(LOST, sent=True), "log mismatch", "another's", "reply")
    operation = begin(locator)
    await operation.run(COMMAND, NO_POSITION)
    await operation.run(append(SPEC, [b"{}"]), NO_POSITION)
    await operation.run(COMMAND, NO_POSITION)
    assert locator.told == [(5, False), (5, True), (5, False), (5, True)]
    first, *_, last = locator.requests
    assert first.earlier is last.earlier


async def test_a_change_is_known_by_its_id_wherever_it_lies_in_memory() -> None:
    locator = NotingLocator(failed(LOST, sent=True), "log mismatch", "reply")
    operation = begin(locator)
    for command in (COMMAND, replace(COMMAND)):
        await operation.run(command, NO_POSITION)
    assert locator.told == [(5, False), (5, True), (5, True)]


async def test_a_change_of_which_every_attempt_was_refused_begins_anew() -> None:
    # The session may have been begun anew meanwhile: an old version to look back to would find too much missing.
    locator = NotingLocator(failed(BUSY, sent=True), "log mismatch", "reply")
    operation = begin(locator)
    await operation.run(COMMAND, NO_POSITION)
    await operation.run(COMMAND, NO_POSITION)
    first, *_, last = locator.requests
    assert first.earlier is not last.earlier


async def test_a_change_that_another_operation_began_may_have_been_made_at_any_version() -> None:
    locator = NotingLocator(failed(BUSY, sent=True), "reply")
    await begin(locator).run(replace(COMMAND, repeats=True), NO_POSITION)
    assert locator.told == [(0, True)] * 2


async def test_a_reading_that_was_lost_leaves_nothing_behind_for_the_next() -> None:
    locator = NotingLocator(failed(LOST, sent=True), "reply")
    operation = begin(locator, changes=False)
    command = info(SPEC)
    await operation.run(command, NO_POSITION)
    await operation.run(command, NO_POSITION)
    assert locator.requests[-1].earlier == EarlierAttempts(AT_5)


async def test_a_failed_operation_says_that_its_change_may_be_there_as_its_last_attempt_did() -> None:
    locator = NotingLocator(failed(LOST, sent=True), failed(NO_PERMISSION, sent=True))
    operation = begin(locator)
    with pytest.raises(PermissionDeniedError):
        await operation.run(COMMAND, NO_POSITION)
    assert locator.requests[-1].earlier.may_be_applied
