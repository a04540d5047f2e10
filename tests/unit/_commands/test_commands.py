"""What each command sends, and what it makes of the reply."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from agents_redis_ha import session_keys
from agents_redis_ha._commands import (
    NO_POSITION,
    REPLICATION_INFO,
    Command,
    Confirmation,
    ListEdit,
    LogPosition,
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
from agents_redis_ha._commands.commands import ChangeCommand

SPEC = SessionSpec(session_keys("p", "u"), "u", ttl_ms=5000, confirmation=Confirmation(1, False, 9))
UNCONFIRMED = dataclasses.replace(SPEC, confirmation=None)
HISTORY = ReplicationHistory("h:1", "1f")
ID, OTHER = b"sixteen-bytes-id", b"another-16-bytes"
APPLIED, REPEAT, CONFLICT = Status.APPLIED, Status.REPEAT, Status.CONFLICT


def reply(value: Any, *trailing: Any, position: LogPosition = NO_POSITION) -> Reply:
    return Reply(value, list(trailing), HISTORY, position)


def sha1(element: bytes) -> bytes:
    return hashlib.sha1(element, usedforsecurity=False).hexdigest().encode()


CHANGES = [
    (append(SPEC, [b"a", b"b"], operation_id=ID), "append", ("", b"a", b"b"), ListEdit(push=(b"a", b"b"))),
    (append(SPEC, [b"a"], expected_version=0, operation_id=ID), "append", (0, b"a"), ListEdit(push=(b"a",))),
    (pop(SPEC, operation_id=ID), "pop", ("", b""), ListEdit((0, -1))),
    (pop(SPEC, (-1, b"x"), operation_id=ID), "pop", (-1, sha1(b"x")), ListEdit((0, -1))),
    (pop(SPEC, (-3, b"x"), operation_id=ID), "pop", (-3, sha1(b"x")), None),
    (clear(SPEC, operation_id=ID), "clear", (), ListEdit((0, 0))),
    (replace(SPEC, [b"a"], operation_id=ID), "replace", ("", 0, 0, b"a"), ListEdit((0, 0), (b"a",))),
    (
        replace(SPEC, [b"a"], expected_version=7, keep=(1, 4), operation_id=ID),
        "replace",
        (7, 1, 4, b"a"),
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
    assert (command.key_count, command.key_count_on_tryagain, command.trailing) == (3, None, ())


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
    position = LogPosition(3, OTHER)
    assert command.on_wire(position, key_count=3) == command.on_wire(position, key_count=3)
    assert command.on_wire(position, key_count=3)[0][6] == command.id


def test_a_change_tells_its_entry_with_the_id_before_it() -> None:
    command = append(SPEC, [b"a"], operation_id=ID)
    # The script names the change before it only where the caller did not know it.
    known = command.decode(reply([APPLIED, 5, b""], position=LogPosition(4, OTHER)))
    told = command.decode(reply([APPLIED, 5, OTHER], position=LogPosition(2, b"some-other-change")))
    forgotten = command.decode(reply([APPLIED, 5, b""], position=LogPosition(2, b"some-other-change")))
    again = command.decode(reply([REPEAT, 5, b""], position=LogPosition(4, b"some-other-change")))
    before = [change.entry and change.entry.previous_id for change in (known, told, forgotten, again)]
    assert before == [OTHER, OTHER, b"", b""]
    assert known.entry is not None
    assert (known.status, known.version, known.history) == (APPLIED, 5, HISTORY)
    assert (known.entry.version, known.entry.id, known.entry.edit) == (5, ID, ListEdit(push=(b"a",)))


def test_a_change_tells_its_result() -> None:
    assert pop(SPEC).decode(reply([APPLIED, 5, b"", b"popped"])).result == b"popped"
    assert pop(SPEC).decode(reply([REPEAT, 5, b"", b"popped"])).result == b"popped"
    assert pop(SPEC).decode(reply([REPEAT, 5, b"", None])).result is None  # it is not remembered any more


@pytest.mark.parametrize("status", [APPLIED, CONFLICT, Status.UNSURE, Status.LOG_MISMATCH])
def test_where_nothing_was_changed_there_is_no_entry(status: Status) -> None:
    change = pop(SPEC).decode(reply([status, 5]))  # APPLIED: the session is empty
    assert (change.status, change.version, change.entry, change.result) == (status, 5, None, None)


DESCRIBED = [3, 4000, b"1700000000000", b"1700000000001", b"7", b"2", b"", [ID + b"popped", b"7", ID, b"7"]]
STATE = [7, 2, 3, b"9", 1500, [ID + b"popped", b"7", ID, b"7"], [b"hint:8:entry", b"packed"]]


@pytest.mark.parametrize(
    ("make", "value", "trailing"),
    [
        (lambda: append(SPEC, [b"a"]), [APPLIED, 5, OTHER], []),
        (lambda: pop(SPEC), [APPLIED, 5, OTHER, b"popped"], []),
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
    there = info(SPEC).decode(reply(DESCRIBED, position=LogPosition(6, OTHER)))
    assert (there.length, there.ttl_ms, there.version, there.generation, there.fence) == (3, 4000, 7, 2, 0)
    assert (there.created_ms, there.updated_ms) == (1700000000000, 1700000000001)
    assert there.members == ((7, ID + b"popped"), (7, ID))
    assert (there.history, there.sent_position) == (HISTORY, LogPosition(6, OTHER))
    absent = info(SPEC).decode(reply([0, -2, b"", b"", b"", b"", b"", []]))
    assert (absent.created_ms, absent.updated_ms, absent.version, absent.generation) == (None, None, 0, 0)


def described(version: int, *members: Any, fence: bytes = b"") -> list[Any]:
    return [3, -1, b"1", b"1", b"%d" % version, b"0", fence, list(members)]


@pytest.mark.parametrize(
    ("value", "position", "mismatch"),
    [
        (described(7), LogPosition(7, ID), False),
        (described(7), NO_POSITION, False),
        (described(8, OTHER, b"8", ID, b"7"), LogPosition(7, ID), False),
        (described(6), LogPosition(7, ID), True),  # it misses the change
        (described(8, OTHER, b"8", b"yet-another-16-b", b"7"), LogPosition(7, ID), True),  # another change made it
        (described(8, OTHER, b"8"), LogPosition(7, ID), False),  # the id is not remembered there
        (described(8, OTHER, b"8", ID + b"a result", b"7"), LogPosition(7, OTHER), False),  # a result is no id
        (described(8, OTHER, b"8", ID, b"7"), LogPosition(7, b""), False),  # the id is not known here
        (described(7, fence=b"9"), LogPosition(7, ID), True),
        (described(7, fence=b"9"), NO_POSITION, True),  # another process misses something
    ],
)
def test_a_read_notices_a_log_that_does_not_hold_the_position(
    value: list[Any], position: LogPosition, mismatch: bool
) -> None:
    assert info(SPEC).decode(reply(value, position=position)).log_mismatch is mismatch
    reading = read(SPEC, 0).decode(reply([value, 1, [b"{}"]], position=position))
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
    assert command.trailing == (("LRANGE", SPEC.keys.items, first, -1),)
    assert (command.allow_trailing_errors, command.key_count_on_tryagain) == (False, 2)
    found = command.decode(reply(DESCRIBED, [b"a", b"b"]))
    assert (found.count, found.joined.split(found.separator)) == (2, [b"a", b"b"])
    empty = command.decode(reply(described(0), []))
    assert (empty.count, empty.joined) == (0, b"")


def test_an_inspect_leaves_hints_and_asks_for_the_replication_id_behind_it() -> None:
    command = inspect(SPEC, {"8:entry": b"packed", "9:snapshot": b"more"})
    assert (command.name, command.script.name, command.head) == ("inspect", "inspect", ())
    assert command.arguments == (120_000, 4096, "8:entry", b"packed", "9:snapshot", b"more")
    assert (command.trailing, command.allow_trailing_errors) == ((REPLICATION_INFO,), True)  # a user may not ask INFO
    assert (command.changes, command.confirmation) == (False, None)


def test_a_servers_state_is_what_it_has_and_what_others_left_there() -> None:
    state = inspect(SPEC, {}).decode(reply(STATE, b"info"))
    assert (state.version, state.generation, state.length) == (7, 2, 3)
    assert (state.fence, state.fence_age_seconds) == (9, 1.5)
    assert state.members == ((7, ID + b"popped"), (7, ID))
    assert (state.ids, state.position) == ({7: ID}, LogPosition(7, ID))
    assert (state.hints, state.history) == ((b"packed",), HISTORY)


def test_a_state_without_a_fence_says_so() -> None:
    state = inspect(SPEC, {}).decode(reply([0, 0, 0, b"", 0, [], []], b"info"))
    assert (state.fence, state.ids, state.position, state.hints) == (0, {}, NO_POSITION, ())


def restored(spec: SessionSpec = SPEC, **changed: Any) -> Command[bool]:
    given: dict[str, Any] = {
        "fence": 9,
        "version": 8,
        "generation": 2,
        "keep": (0, 3),
        "push": [b"a", b"b"],
        "members": [(8, ID), (8, ID + b"popped")],
        "abandons": False,
    }
    return restore(spec, **{**given, **changed})


def test_a_restoration_sends_what_to_keep_to_push_and_to_remember() -> None:
    command = restored()
    assert (command.name, command.script.name, command.changes) == ("restore", "restore", False)
    assert command.head == SPEC.head(b"")
    assert command.arguments == (9, 8, 2, 0, 3, 0, 2, 8, ID, 8, ID + b"popped", b"a", b"b")
    assert restored(abandons=True).arguments[5] == 1


def test_a_restoration_waits_for_replicas_once_and_only_where_it_puts_something_back() -> None:
    # Whatever they answer: a shortfall must not count as one of the user's operation.
    assert (restored().trailing, restored().confirmation) == ((("WAIT", 1, 9),), None)
    assert restored().allow_trailing_errors
    assert restored(members=[], push=[]).trailing == ()
    assert restored(UNCONFIRMED).trailing == ()


@pytest.mark.parametrize("answer", [1, 0, ResponseError("unknown command 'WAITAOF'")], ids=["all", "short", "error"])
@pytest.mark.parametrize(("status", "done"), [(APPLIED, True), (CONFLICT, False)])
def test_a_restoration_is_done_if_the_session_still_is_as_it_was_inspected(
    status: Status, done: bool, answer: Any
) -> None:
    assert restored().decode(reply([status, 8], answer)) is done
