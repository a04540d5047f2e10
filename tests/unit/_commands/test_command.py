"""One request to one node: what is sent, when a change counts as confirmed, and what is told of the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from agents_redis_ha._commands.request import (
    APPLIED,
    BEHIND,
    CONFLICT,
    NOTHING,
    REPEAT,
    UNSURE,
    Confirmation,
    Request,
    Subject,
    script,
)
from redis import exceptions as redis_errors

from agents_redis_ha._connections.failures import AttemptError, ShortfallError, classify
from agents_redis_ha._storage.keys import session_keys
from agents_redis_ha.errors import ServerRefusedError

KEYS = session_keys("p", "u")
TWO_REPLICAS = Confirmation(2, False, 500)
UNKNOWN_SCRIPT = redis_errors.NoScriptError("No matching script.")
# What a primary tells those who wait there when it becomes a replica (Redis 6.2 to 8, Valkey).
UNBLOCKED = redis_errors.ResponseError(
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
)


class Node:
    """Replies to each call with the next list of replies; a single error is raised as the real one does."""

    name = "h:1"
    retired = False
    replication_id = "1f"

    def __init__(self, *replies: list[Any]) -> None:
        self.replies = list(replies)
        self.calls: list[tuple[Any, ...]] = []
        self.then: Callable[[], None] = lambda: None

    async def call(
        self,
        *commands: Sequence[Any],
        on_send: Callable[[], None] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> list[Any]:
        self.calls.append(commands)
        for note in (on_send, on_sent):
            if note is not None:
                note()
        replies = self.replies.pop(0)
        self.then()
        assert len(replies) == len(commands)
        if len(replies) == 1 and isinstance(replies[0], Exception):
            raise AttemptError(replies[0], node=self.name, sent=True) from replies[0]
        return replies


def request(**fields: Any) -> Request:
    return Request(script("append"), KEYS, (b"item",), lambda: (4, b"id"), ("head",), **fields)


def sent(key_count: int = 3) -> tuple[Any, ...]:
    keys = (KEYS.items, KEYS.meta, KEYS.ops)[:key_count]
    return ("EVALSHA", script("append").sha, key_count, *keys, "head", 4, b"id", b"item")


async def failure(asked: Request, node: Node) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await asked.send(node)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize(
    ("confirmation", "command"),
    [
        (Confirmation(2, False, 500), ("WAIT", 2, 500)),
        (Confirmation(0, True, 1000), ("WAITAOF", 1, 0, 1000)),
        (Confirmation(3, True, 1), ("WAITAOF", 1, 3, 1)),
    ],
)
def test_a_confirmation_is_one_command(confirmation: Confirmation, command: tuple[Any, ...]) -> None:
    assert confirmation.command == command


@pytest.mark.parametrize(
    ("confirmation", "answer", "text"),
    [
        (TWO_REPLICAS, 2, ""),
        (TWO_REPLICAS, 3, ""),
        (TWO_REPLICAS, 1, "within 500 ms the change was in memory on 1 of 2 replicas"),
        (TWO_REPLICAS, 0, "within 500 ms the change was in memory on 0 of 2 replicas"),
        (Confirmation(0, True, 9), [1, 0], ""),
        (Confirmation(0, True, 9), [0, 0], "within 9 ms the change was not on the primary's disk"),
        (Confirmation(2, True, 9), [1, 2], ""),
        (Confirmation(2, True, 9), [1, 1], "within 9 ms the change was on disk on 1 of 2 replicas"),
        (
            Confirmation(2, True, 9),
            [0, 0],
            "within 9 ms the change was not on the primary's disk, on disk on 0 of 2 replicas",
        ),
    ],
)
def test_a_shortfall_says_what_is_missing(confirmation: Confirmation, answer: Any, text: str) -> None:
    assert confirmation.shortfall(answer) == text


def test_every_change_sends_its_id_retention_ttl_and_session_first() -> None:
    assert Subject(session_keys("p", "u"), "u", ttl_ms=5000).head(b"id") == (b"id", 120_000, 5000, b"u")


async def test_a_request_is_the_script_with_its_keys_head_what_is_known_and_arguments() -> None:
    node, asked = Node(["reply"]), request()
    assert (asked.sent, asked.knew) == (False, NOTHING)
    assert await asked.send(node) == "reply"  # type: ignore[arg-type]
    assert node.calls == [(sent(),)]
    assert (asked.sent, asked.knew, asked.tenure) == (True, (4, b"id"), (node.name, "1f"))


def test_before_a_reply_nobody_has_replied() -> None:
    with pytest.raises(RuntimeError, match="nobody replied"):
        _ = request().tenure


async def test_what_is_known_is_asked_anew_for_each_attempt() -> None:
    known = iter([(1, b"a"), (2, b"b")])
    node = Node([1], [2])
    asked = Request(script("info"), KEYS, (128,), lambda: next(known))
    await asked.send(node)  # type: ignore[arg-type]
    await asked.send(node)  # type: ignore[arg-type]
    assert [call[0][6:] for call in node.calls] == [(1, b"a", 128), (2, b"b", 128)]
    assert asked.knew == (2, b"b")


@pytest.mark.parametrize("confirmation", [None, TWO_REPLICAS])
async def test_a_node_that_does_not_know_the_script_is_sent_its_source(confirmation: Confirmation | None) -> None:
    waits = [2] if confirmation else []
    node = Node([UNKNOWN_SCRIPT, *waits], [[APPLIED, 5], *waits])
    assert await request(confirmation=confirmation).send(node) == [APPLIED, 5]  # type: ignore[arg-type]
    (first, *_), (second, *_) = node.calls
    assert (first[0], second[:2], second[2:]) == ("EVALSHA", ("EVAL", script("append").source), first[2:])


async def test_asking_stands_before_each_command_and_its_answers_are_left_out() -> None:
    node = Node([b"OK", [APPLIED, 5], b"OK", "behind", b"OK", 2])
    asked = request(behind=(("LLEN", "x"),), confirmation=TWO_REPLICAS)
    assert await asked.send(node, asking=True) == [[APPLIED, 5], "behind"]  # type: ignore[arg-type]
    assert node.calls == [(("ASKING",), sent(), ("ASKING",), ("LLEN", "x"), ("ASKING",), ("WAIT", 2, 500))]


async def test_only_the_first_key_is_declared_where_that_is_asked_for() -> None:
    node = Node(["reply"])
    await request(spare_key=2).send(node, only_first_key=True)  # type: ignore[arg-type]
    assert node.calls == [(sent(1),)]


async def test_a_missing_key_that_holds_a_request_up_is_not_declared_where_it_can_be_spared() -> None:
    node = Node([redis_errors.TryAgainError("Multiple keys")], ["reply"])
    assert await request(spare_key=2).send(node) == "reply"  # type: ignore[arg-type]
    assert node.calls == [(sent(3),), (sent(2),)]


@pytest.mark.parametrize(
    ("error", "only_first", "spare"),
    [
        (redis_errors.TryAgainError("x"), False, None),
        (redis_errors.TryAgainError("x"), True, 2),
        (redis_errors.BusyLoadingError("x"), False, 2),
    ],
)
async def test_no_other_failure_and_no_other_request_is_sent_with_fewer_keys(
    error: Exception, only_first: bool, spare: int | None
) -> None:
    node = Node([error])
    with pytest.raises(AttemptError) as caught:
        await request(spare_key=spare).send(node, only_first_key=only_first)  # type: ignore[arg-type]
    assert caught.value.cause is error
    assert len(node.calls) == 1


@pytest.mark.parametrize("status", [APPLIED, REPEAT])
async def test_a_change_is_confirmed_when_enough_replicas_have_it(status: int) -> None:
    node = Node([[status, 5, b""], 2])
    assert await request(confirmation=TWO_REPLICAS).send(node) == [status, 5, b""]  # type: ignore[arg-type]
    assert node.calls == [(sent(), ("WAIT", 2, 500))]


@pytest.mark.parametrize("status", [APPLIED, REPEAT])
async def test_a_change_on_too_few_replicas_is_a_shortfall_that_keeps_the_reply(status: int) -> None:
    reply = [status, 5, b""]
    asked = request(confirmation=TWO_REPLICAS)
    error = await failure(asked, node := Node([reply, 1]))
    assert isinstance(error.cause, ShortfallError)
    assert (error.cause.reply, error.cause.wait_seconds) == (reply, 0.5)
    assert (error.node, error.sent, error.applied) == ("h:1", True, True)
    assert asked.tenure == (node.name, "1f")  # the reply may have to do
    assert classify(error.cause, sent=True).retry


@pytest.mark.parametrize("status", [CONFLICT, UNSURE, BEHIND])
async def test_where_nothing_was_changed_nothing_has_to_be_confirmed(status: int) -> None:
    for answer in (0, redis_errors.ResponseError("unknown command 'WAITAOF'")):
        node = Node([[status, 5], answer])
        assert await request(confirmation=TWO_REPLICAS).send(node) == [status, 5]  # type: ignore[arg-type]


async def test_a_server_that_cannot_confirm_has_the_change() -> None:
    refusal = redis_errors.ResponseError("unknown command 'WAITAOF', with args beginning with: '1'")
    error = await failure(request(confirmation=Confirmation(1, True, 500)), Node([[APPLIED, 5], refusal]))
    assert (error.cause, error.sent, error.applied) == (refusal, True, True)
    verdict = classify(error.cause, sent=True)
    assert (verdict.retry, verdict.error) == (False, ServerRefusedError)


async def test_a_primary_that_is_replaced_while_replicas_are_waited_for_may_have_lost_the_change() -> None:
    error = await failure(request(confirmation=TWO_REPLICAS), Node([[APPLIED, 5], UNBLOCKED]))
    assert (error.cause, error.sent, error.applied) == (UNBLOCKED, True, False)
    verdict = classify(error.cause, sent=True)
    assert (verdict.retry, verdict.applied, verdict.refresh) == (True, True, True)


async def test_a_refused_change_is_not_confirmed() -> None:
    refusal = redis_errors.ReadOnlyError("no")
    error = await failure(request(confirmation=TWO_REPLICAS), Node([refusal, 0]))
    assert (error.cause, error.applied) == (refusal, False)


async def test_an_error_behind_the_script_is_raised_unless_it_may_fail() -> None:
    refusal = redis_errors.NoPermissionError("no INFO for you")
    behind: Any = {"behind": (("INFO", "replication"),)}
    assert (await failure(request(**behind), Node([["reply"], refusal]))).cause is refusal
    assert await request(**behind, lenient=True).send(Node([["reply"], refusal])) == [["reply"], refusal]  # type: ignore[arg-type]
    first = redis_errors.ResponseError("BUSY Redis is busy")
    assert (await failure(request(**behind, lenient=True), Node([first, b"info"]))).cause is first


@pytest.mark.parametrize("confirmation", [None, TWO_REPLICAS])
async def test_the_reply_of_a_node_that_was_replaced_meanwhile_does_not_count(confirmation: Any) -> None:
    node, asked = Node([[APPLIED, 5]] + ([2] if confirmation else [])), request(confirmation=confirmation)
    node.then = lambda: setattr(node, "retired", True)
    error = await failure(asked, node)
    assert (error.node, error.sent, error.applied, asked.node) == ("h:1", True, False, None)
    assert classify(error.cause, sent=True).retry
