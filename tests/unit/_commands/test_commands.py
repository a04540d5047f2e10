"""What each command sends, and what it makes of the reply."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from redis.exceptions import ResponseError

from agents_redis_ha import session_keys
from agents_redis_ha._commands import (
    NO_POSITION,
    REPLICATION_INFO,
    ChangeCommand,
    Command,
    Confirmation,
    Description,
    EarlierAttempts,
    ListEdit,
    LogEntry,
    LogPosition,
    OpsRecord,
    PublishedTurn,
    ReplicationHistory,
    Reply,
    SessionSpec,
    Status,
    append,
    clear,
    commands,
    info,
    inspect,
    new_operation_id,
    pop,
    read,
    replace,
    restore,
)

SPEC = SessionSpec(session_keys("p", "u"), "u", ttl_ms=5000, confirmation=Confirmation(1, False, 9))
UNCONFIRMED = dataclasses.replace(SPEC, confirmation=None)
HISTORY = ReplicationHistory("h:1", "1f")
ID, OTHER = b"sixteen-bytes-id", b"another-16-bytes"
DIGEST, BEFORE = b"0123456789ab", b"ba9876543210"
AT_7 = LogPosition(7, DIGEST)
APPLIED, REPEAT, CONFLICT = Status.APPLIED, Status.REPEAT, Status.CONFLICT


def reply(value: Any, *trailing: Any, position: LogPosition = NO_POSITION) -> Reply:
    return Reply(value, list(trailing), HISTORY, position)


def seen(length: int) -> Description:
    """Return a session with this many elements, as a read describes it."""
    return Description(length, -1, 1, 1, 7, 0, DIGEST, None, False, (), HISTORY)


CHANGES = [
    (append(SPEC, [b"a", b"b"], operation_id=ID), "append", ("", b"", b"a", b"b"), ListEdit(push=(b"a", b"b"))),
    (append(SPEC, [b"a"], expected=NO_POSITION, operation_id=ID), "append", (0, b"", b"a"), ListEdit(push=(b"a",))),
    (append(SPEC, [b"a"], expected=AT_7, operation_id=ID), "append", (7, DIGEST, b"a"), ListEdit(push=(b"a",))),
    (pop(SPEC, operation_id=ID), "pop", ("", 0, b"", 0, "", b""), ListEdit((0, -1))),
    (pop(SPEC, acknowledged=AT_7, operation_id=ID), "pop", ("", 0, b"", 0, 7, DIGEST), ListEdit((0, -1))),
    (pop(SPEC, (-1, seen(3)), operation_id=ID), "pop", (-1, 7, DIGEST, 3, "", b""), ListEdit((0, -1))),
    (pop(SPEC, (-3, seen(4)), acknowledged=AT_7, operation_id=ID), "pop", (-3, 7, DIGEST, 4, 7, DIGEST), None),
    (clear(SPEC, operation_id=ID), "clear", (86_400_000,), ListEdit((0, 0))),
    (replace(SPEC, [b"a"], operation_id=ID), "replace", ("", b"", 0, 0, b"a"), ListEdit((0, 0), (b"a",))),
    (
        replace(SPEC, [b"a"], expected=AT_7, keep=(1, 4), operation_id=ID),
        "replace",
        (7, DIGEST, 1, 4, b"a"),
        ListEdit((1, 4), (b"a",)),
    ),
]


@pytest.mark.parametrize(("command", "name", "arguments", "edit"), CHANGES)
def test_a_change_sends_its_id_and_what_it_does_and_is_confirmed(
    command: ChangeCommand, name: str, arguments: tuple[Any, ...], edit: ListEdit | None
) -> None:
    assert (command.name, command.script.name, command.id) == (name, name, ID)
    assert (command.head, command.arguments, command.edit) == (SPEC.head(ID), arguments, edit)
    assert (command.confirmation, command.changes) == (SPEC.confirmation, True)
    # Clearing drops what turns hold, too, whose key a session need not have.
    key_counts = (4, 3) if name == "clear" else (3, None)
    assert (command.key_count, command.key_count_on_tryagain, command.trailing) == (*key_counts, ())


def test_an_append_alone_tells_how_many_items_it_adds() -> None:
    assert append(SPEC, [b"a", b"b"]).batch_size == 2
    assert {command.batch_size for command in (pop(SPEC), clear(SPEC), replace(SPEC, [b"a"]), info(SPEC))} == {None}


def test_a_change_draws_an_id_of_16_characters_that_no_other_has() -> None:
    ids = {append(SPEC, [b"a"]).id for _ in range(100)}
    assert len(ids) == 100
    assert {len(id_) for id_ in ids} == {16}
    assert len(new_operation_id()) == 16


@pytest.mark.parametrize("command", [append(SPEC, [b"a"]), pop(SPEC), clear(SPEC), replace(SPEC, [b"a"])])
def test_a_change_sent_again_is_the_same_bytes(command: ChangeCommand) -> None:
    first, second = (command.on_wire(AT_7, EarlierAttempts(), key_count=3) for _ in range(2))
    assert first == second
    assert first[0][6] == command.id


def test_a_change_that_is_made_again_by_another_operation_says_that_it_repeats_earlier_attempts() -> None:
    makers: list[Callable[..., ChangeCommand]] = [pop, clear, partial(append, items=[b"a"])]
    assert [make(SPEC).repeats for make in makers] == [False] * 3
    assert [make(SPEC, operation_id=ID).repeats for make in makers] == [True] * 3


@pytest.mark.parametrize("status", [APPLIED, REPEAT])
def test_a_change_tells_its_entry_with_the_digest_that_the_server_has_behind_it(status: Status) -> None:
    change = append(SPEC, [b"a"], operation_id=ID).decode(reply([status, 5, DIGEST], position=LogPosition(4, BEFORE)))
    assert (change.status, change.version, change.history) == (status, 5, HISTORY)
    assert change.position == (5, DIGEST)
    assert change.entry is not None
    assert (change.entry.record, change.entry.edit) == (OpsRecord(5, ID, DIGEST), ListEdit(push=(b"a",)))


def test_a_change_tells_its_result() -> None:
    assert pop(SPEC).decode(reply([APPLIED, 5, DIGEST, b"popped"])).result == b"popped"
    assert pop(SPEC).decode(reply([REPEAT, 5, DIGEST, b"popped"])).result == b"popped"
    assert clear(SPEC).decode(reply([APPLIED, 5, DIGEST, b"3"])).result == b"3"
    assert pop(SPEC).decode(reply([REPEAT, 5, DIGEST])).result is None  # it is not remembered any more


@pytest.mark.parametrize(
    ("command", "answer", "lost"),
    [
        (pop(SPEC), [REPEAT, 5, DIGEST], True),
        (pop(SPEC), [REPEAT, 5, DIGEST, None], True),
        (clear(SPEC), [REPEAT, 5, DIGEST], True),
        (pop(SPEC), [REPEAT, 5, DIGEST, b""], False),
        (pop(SPEC, (-3, seen(4))), [REPEAT, 5, DIGEST], False),  # the caller has read it
        (append(SPEC, [b"a"]), [REPEAT, 5, DIGEST], False),
        (replace(SPEC, [b"a"]), [REPEAT, 5, DIGEST], False),
        (pop(SPEC), [Status.UNCHANGED, 5], False),
    ],
)
def test_a_result_is_lost_where_the_server_should_keep_one_and_does_not(
    command: ChangeCommand, answer: list[Any], lost: bool
) -> None:
    assert command.decode(reply(answer)).result_lost is lost


@pytest.mark.parametrize(("kept", "status"), [(b"", Status.UNCHANGED), (b"?", Status.UNSURE)])
def test_the_repeat_of_a_pop_that_removed_nothing_is_answered_as_the_first_time(kept: bytes, status: Status) -> None:
    command = pop(SPEC)
    first, repeat = (command.decode(reply([told, 5, DIGEST, kept])) for told in (status, REPEAT))
    assert first == repeat
    assert (first.status, first.position, first.result_lost) == (status, (5, DIGEST), False)
    assert first.entry == LogEntry(5, command.id, DIGEST, ListEdit(), kept)  # a change of nothing, kept like any other


@pytest.mark.parametrize("status", sorted(set(Status) - {APPLIED, REPEAT}))
def test_where_nothing_was_changed_there_is_no_entry_and_no_digest(status: Status) -> None:
    change = pop(SPEC).decode(reply([status, 5]))
    assert (change.status, change.version, change.entry, change.result) == (status, 5, None, None)
    assert change.digest == b""


# As in ops, with the header in front of them where it was read along.
NEWEST = [OTHER, BEFORE + b"2", ID, DIGEST + b"3"]
DESCRIBED = [3, 4000, b"1700000000000", b"1700000000001", 7, 2, DIGEST, b"30000", 0, NEWEST]
STATE = [7, 2, DIGEST, 3, 4, b"9", 1500, b"6", NEWEST, [b"hint:8:entry:0123", b"packed"]]
RECORDS = (OpsRecord(6, OTHER, BEFORE), OpsRecord(7, ID, DIGEST))


@pytest.mark.parametrize(
    ("make", "value", "trailing"),
    [
        (lambda: append(SPEC, [b"a"]), [APPLIED, 5, DIGEST], []),
        (lambda: pop(SPEC), [APPLIED, 5, DIGEST, b"popped"], []),
        (lambda: info(SPEC), DESCRIBED, []),
        (lambda: read(SPEC, 0), [DESCRIBED, 2, [b"{}", b"{}"]], []),
        (lambda: inspect(SPEC, {"8:entry": b"packed"}), STATE, [b"info"]),
    ],
)
def test_reading_a_reply_changes_neither_the_command_nor_the_reply(
    make: Callable[[], Command[Any]], value: Any, trailing: list[Any]
) -> None:
    command, answered = make(), reply(value, *trailing)
    before, same = copy.deepcopy(answered), copy.deepcopy(command)
    assert command.decode(answered) == command.decode(answered)
    assert (answered, command) == (before, same)


def test_info_asks_for_the_newest_changes_and_can_do_without_their_key() -> None:
    command = info(SPEC)
    assert (command.name, command.script.name, command.arguments) == ("info", "info", (128,))
    assert (command.head, command.changes, command.confirmation) == ((), False, None)
    assert (command.key_count, command.key_count_on_tryagain) == (3, 2)


def test_a_description_is_what_the_script_tells() -> None:
    there = info(SPEC).decode(reply(DESCRIBED, position=LogPosition(6, BEFORE)))
    assert (there.length, there.ttl_ms, there.version, there.generation) == (3, 4000, 7, 2)
    assert (there.created_ms, there.updated_ms, there.retention_ms) == (1700000000000, 1700000000001, 30_000)
    assert (there.records, there.position, there.history) == (RECORDS, AT_7, HISTORY)
    assert there.log_mismatch is False
    absent = info(SPEC).decode(reply([0, -2, b"", b"", 0, 0, b"", b"", 0, []]))
    assert (absent.created_ms, absent.updated_ms, absent.version, absent.generation) == (None, None, 0, 0)
    assert (absent.retention_ms, absent.records, absent.position) == (None, (), NO_POSITION)


@pytest.mark.parametrize(
    ("changes", "records"),
    [
        ([b"5:" + BEFORE, *NEWEST], RECORDS),  # all that are remembered, from the header on
        ([b"5:!", *NEWEST], RECORDS),
        (NEWEST[2:], RECORDS[1:]),
        ([b"7:" + DIGEST], ()),
        ([], ()),
        ([b"", b"", ID, DIGEST + b"3"], (OpsRecord(6, b"", b""), RECORDS[1])),  # of 6 nothing is known
        ([OTHER, BEFORE, ID, DIGEST + b"1234567"], RECORDS),  # a length, if any, is not a part of the digest
    ],
)
def test_the_newest_changes_are_read_from_the_end_of_ops(changes: list[bytes], records: tuple[OpsRecord, ...]) -> None:
    assert info(SPEC).decode(reply([*DESCRIBED[:-1], changes])).records == records
    assert inspect(SPEC, {}).decode(reply([*STATE[:-2], changes, []])).records == records


@pytest.mark.parametrize("mismatch", [False, True])
def test_whether_a_log_holds_the_position_is_what_the_script_says(mismatch: bool) -> None:
    value = [*DESCRIBED[:-2], int(mismatch), []]
    assert info(SPEC).decode(reply(value)).log_mismatch is mismatch
    reading = read(SPEC, 0).decode(reply([value, 1, [b"{}"]]))
    assert reading.log_mismatch is mismatch
    assert (reading.version, reading.length) == (reading.session.version, 3)


def test_without_hiredis_the_elements_come_joined_by_a_number_drawn_for_this_read() -> None:
    first, second = read(SPEC, 5), read(SPEC, 5)
    assert (first.name, first.script.name, first.trailing) == ("read", "read", ())
    limit, newest, separator = first.arguments
    assert (limit, newest) == (128, 5)
    assert isinstance(separator, bytes)
    assert separator[:1] == separator[-1:] == b","
    assert separator[1:-1].isdigit()
    assert separator != second.arguments[2]
    found = first.decode(reply([DESCRIBED, 3, [b"a" + separator + b"b", b"c"]]))
    assert (found.count, found.joined, found.separator) == (3, separator.join((b"a", b"b", b"c")), separator)


@pytest.mark.parametrize(("newest", "first"), [(0, 0), (5, -5)])
def test_with_hiredis_the_elements_are_read_behind_a_description(
    newest: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "HIREDIS_AVAILABLE", True)
    command = read(SPEC, newest)
    assert (command.name, command.script.name, command.arguments) == ("read", "info", (128,))
    assert command.trailing == (("LRANGE", SPEC.keys.items, first, -1), ("HGET", SPEC.keys.meta, "digest"))
    assert (command.allow_trailing_errors, command.key_count_on_tryagain) == (False, 2)
    found = command.decode(reply(DESCRIBED, [b"a", b"b"], DIGEST))
    assert (found.count, found.joined.split(found.separator), found.is_of_version) == (2, [b"a", b"b"], True)
    empty = command.decode(reply([0, -2, b"", b"", 0, 0, b"", b"", 0, []], [], None))
    assert (empty.count, empty.joined, empty.is_of_version) == (0, b"", True)
    changed_meanwhile = command.decode(reply(DESCRIBED, [b"a", b"b", b"c"], OTHER[:12]))
    assert (changed_meanwhile.count, changed_meanwhile.is_of_version) == (3, False)


def test_an_inspect_leaves_hints_and_asks_for_the_replication_id_behind_it() -> None:
    command = inspect(SPEC, {"8:entry:0123": b"packed", "9:whole:": b"more"})
    assert (command.name, command.script.name, command.head) == ("inspect", "inspect", ())
    assert command.arguments == (120_000, "8:entry:0123", b"packed", "9:whole:", b"more")
    assert (command.trailing, command.allow_trailing_errors) == ((REPLICATION_INFO,), True)  # a user may not ask INFO
    assert (command.changes, command.confirmation) == (False, None)


def test_a_servers_state_is_what_it_has_and_what_others_left_there() -> None:
    state = inspect(SPEC, {}).decode(reply(STATE, b"info"))
    assert (state.version, state.generation, state.length, state.expected_length) == (7, 2, 3, 4)
    assert (state.fence, state.fence_age_seconds, state.evicted_at) == (9, 1.5, 6)
    assert (state.records, state.position) == (RECORDS, AT_7)
    assert (state.ids, state.digests) == ({6: OTHER, 7: ID}, {6: BEFORE, 7: DIGEST})
    assert (state.hints, state.history) == ((b"packed",), HISTORY)


def test_a_server_knows_the_digest_of_its_version_where_it_remembers_no_change() -> None:
    assert inspect(SPEC, {}).decode(reply([*STATE[:-2], [], []])).digests == {7: DIGEST}
    unnamed = [OTHER, b"", b"", DIGEST + b"3"]
    state = inspect(SPEC, {}).decode(reply([*STATE[:-2], unnamed, []]))
    assert (state.ids, state.digests) == ({6: OTHER}, {7: DIGEST})


@pytest.mark.parametrize(("length", "lacks"), [(3, True), (0, True), (4, False), (5, False)])
def test_a_server_lacks_elements_where_there_are_fewer_than_it_should_have(length: int, lacks: bool) -> None:
    value = [*STATE[:3], length, *STATE[4:]]
    assert inspect(SPEC, {}).decode(reply(value)).lacks_elements is lacks


def test_a_state_without_a_fence_says_so() -> None:
    state = inspect(SPEC, {}).decode(reply([0, 0, b"", 0, 0, b"", 0, b"", [], []], b"info"))
    assert (state.fence, state.ids, state.position, state.hints) == (0, {}, NO_POSITION, ())
    assert (state.evicted_at, state.digests, state.lacks_elements) == (0, {}, False)


FOUND = inspect(SPEC, {}).decode(reply(STATE, b"info"))


def restored(spec: SessionSpec = SPEC, **changed: Any) -> Command[bool]:
    given: dict[str, Any] = {
        "position": LogPosition(9, b"digest of 9-"),
        "generation": 2,
        "keep": (0, 3),
        "push": [b"a", b"b"],
        "records": [OpsRecord(8, OTHER, b"digest of 8-"), OpsRecord(9, ID, b"digest of 9-")],
        "results": {9: b"popped"},
        "abandons": False,
        "evicted": False,
    }
    return restore(spec, FOUND, **{**given, **changed})


def test_a_restoration_sends_what_to_keep_to_push_and_to_remember() -> None:
    command = restored()
    assert (command.name, command.script.name, command.changes) == ("restore", "restore", False)
    assert command.head == SPEC.head(b"")
    # Length and fence that were found; position, generation and what to keep; nothing given up; and the lists, of
    # changes (the last note has the length that the session will have), of results, of turns, and of elements.
    assert command.arguments[:9] == (3, 9, 9, b"digest of 9-", 2, 0, 3, 0, 0)
    assert command.arguments[9:14] == (2, OTHER, b"digest of 8-", ID, b"digest of 9-5")
    assert command.arguments[14:] == (1, 9, b"popped", 0, b"a", b"b")
    assert command.key_count == 3
    assert restored(abandons=True).arguments[7:9] == (1, 0)
    assert restored(evicted=True).arguments[7:9] == (0, 1)


@pytest.mark.parametrize(("keep", "length"), [((0, 3), 5), ((1, 3), 4), ((2, 2), 2), ((3, 1), 2)])
def test_the_last_note_of_a_restoration_tells_the_length_that_it_makes(keep: tuple[int, int], length: int) -> None:
    assert restored(keep=keep).arguments[13] == b"digest of 9-%d" % length


def test_a_restoration_of_nothing_lifts_the_fence() -> None:
    nothing = restored(position=FOUND.position, records=[], push=[], results={})
    assert nothing.arguments == (3, 9, 7, DIGEST, 2, 0, 3, 0, 0, 0, 0, 0)


def test_a_restoration_sends_the_turns_that_were_published_with_what_it_puts_back() -> None:
    turn = PublishedTurn(b"t1", 2, b"digest", b"token", b'"yes"', 86_400_000, 1024)
    command = restored(turns=[turn])
    assert command.arguments[14:] == (1, 9, b"popped", 1, *turn, b"a", b"b")
    assert command.key_count == 4


def test_a_restoration_names_the_turns_of_which_no_more_is_known_than_the_ids_of_their_changes() -> None:
    seen = PublishedTurn(b"t1", 2, b"digest", b"token", b'"yes"', 86_400_000, 1024)
    begins = [hashlib.sha1(b"turn:" + id_, usedforsecurity=False).hexdigest()[:10].encode() for id_ in (b"t1", b"t2")]
    records = [OpsRecord(8 + at, begin + b"-token", b"digest") for at, begin in enumerate(begins)]
    unseen = PublishedTurn(b"\xff" + begins[1], 1, b"-", b"-", b"", SPEC.turn_retention_ms, 1024)
    assert restored(records=records, turns=[seen]).arguments[17:-2] == (2, *unseen, *seen)
    assert restored(records=records, turns=[seen]).key_count_on_tryagain is None
    alone = restored(records=records[1:])
    assert alone.arguments[15:-2] == (1, *unseen)
    # Where the slot moves, the session does not wait for what tells no more than ops does.
    assert (alone.key_count, alone.key_count_on_tryagain) == (4, 3)


def test_a_restoration_waits_for_replicas_once_and_only_where_it_puts_something_back() -> None:
    # Whatever they answer: a shortfall must not count as one of the user's operation.
    assert (restored().trailing, restored().confirmation) == ((("WAIT", 1, 9),), None)
    assert restored().allow_trailing_errors
    assert restored(records=[], push=[]).trailing == ()
    assert restored(UNCONFIRMED).trailing == ()


@pytest.mark.parametrize("answer", [1, 0, ResponseError("unknown command 'WAITAOF'")], ids=["all", "short", "error"])
@pytest.mark.parametrize(("status", "done"), [(APPLIED, True), (CONFLICT, False)])
def test_a_restoration_is_done_if_the_session_still_is_as_it_was_inspected(
    status: Status, done: bool, answer: Any
) -> None:
    assert restored().decode(reply([status, 8], answer)) is done
