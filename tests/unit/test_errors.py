"""Every error of redis-py has its place in the one table, and every error of ours says what state the data is in."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import re
import ssl
from typing import Any

import pytest
from redis import exceptions as redis_errors
from redis._parsers.base import BaseParser

import agents_redis_ha
from agents_redis_ha import errors
from agents_redis_ha._connections.failures import BY_FIRST_WORD, BY_TYPE, DEMOTED, classify, tls_error
from agents_redis_ha.errors import (
    AgentsRedisError,
    AuthenticationFailedError,
    ClosedError,
    ConfigurationError,
    ConflictError,
    DeadlineExceededError,
    HistoryLostError,
    InvalidItemError,
    NotPrimaryError,
    OperationError,
    Outcome,
    PermissionDeniedError,
    ServerRefusedError,
    TLSError,
    WrongKeyTypeError,
)

# Classes of redis-py that need no entry in the table, each with the reason.
NOT_ON_OUR_PATH: dict[type[BaseException], str] = {
    redis_errors.RedisError: "only the base; nothing raises it as it is",
    redis_errors.ResponseError: "the server's other refusals: looked up by their first word",
    redis_errors.ClusterError: "only a base",
    redis_errors.ClusterCrossSlotError: "all keys of a session share a slot; the general refusal fits",
    redis_errors.ExecAbortError: "no MULTI is sent",
    redis_errors.WatchError: "no WATCH is sent",
    redis_errors.ModuleError: "no MODULE command is sent",
    redis_errors.NoScriptError: "answered inside Request.send by sending the source",
    redis_errors.NoSuchFieldsetError: "no HIMPORT is sent",
    redis_errors.PubSubError: "the listener's own connection; nothing waits for it",
    redis_errors.LockError: "no redis-py lock is used",
    redis_errors.LockNotOwnedError: "no redis-py lock is used",
    redis_errors.ChildDeadlockedError: "raised by redis-py's synchronous pools only",
    redis_errors.RedisClusterException: "RedisCluster never carries a session's data",
    redis_errors.SlotNotCoveredError: "RedisCluster never carries a session's data",
    redis_errors.CrossSlotTransactionError: "RedisCluster never carries a session's data",
    redis_errors.InvalidPipelineStack: "RedisCluster never carries a session's data",
    redis_errors.IncorrectPolicyType: "RedisCluster never carries a session's data",
}
FOREIGN = [c for _, c in inspect.getmembers(redis_errors, inspect.isclass) if issubclass(c, BaseException)]
OURS = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, AgentsRedisError)]
OPERATION_ERRORS = [c for c in OURS if issubclass(c, OperationError)]


def make(kind: type[BaseException], text: str = "no matter") -> BaseException:
    if issubclass(kind, redis_errors.AskError):
        return kind("7 h:1")
    return kind(text)


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
def test_every_error_of_redis_py_is_in_the_table_or_has_a_reason_not_to_be(kind: type[BaseException]) -> None:
    listed = any(kind is known for known, _ in BY_TYPE)
    assert listed is not (kind in NOT_ON_OUR_PATH), (
        f"{kind.__name__}: put it into errors.BY_TYPE, or here with a reason"
    )


def test_an_entry_is_never_hidden_by_a_more_general_one_before_it() -> None:
    for index, (kind, verdict) in enumerate(BY_TYPE):
        first = next(v for known, v in BY_TYPE if issubclass(kind, known))
        assert first is verdict, f"{kind.__name__} at {index} is never reached"


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("sent", [True, False])
def test_an_unlisted_error_is_given_up_as_it_may_have_been_applied(kind: type[BaseException], sent: bool) -> None:
    verdict = classify(make(kind), sent=sent)
    if kind in NOT_ON_OUR_PATH:
        assert (verdict.retry, verdict.error) == (False, ServerRefusedError)
        refusal = issubclass(kind, redis_errors.ResponseError)
        assert verdict.applied is (sent and not refusal)


WAITED_FOR = {
    "ASK": True,
    "BUSY": False,
    "CLUSTERDOWN": True,
    "LOADING": True,
    "MASTERDOWN": True,
    "MISCONF": False,
    "MOVED": True,
    "NOREPLICAS": True,
    "OOM": False,
    "READONLY": True,
    "TRYAGAIN": False,
    "UNBLOCKED": True,
}
LASTING = {
    "NOAUTH": AuthenticationFailedError,
    "WRONGPASS": AuthenticationFailedError,
    "NOPERM": PermissionDeniedError,
    "WRONGTYPE": WrongKeyTypeError,
}


def from_wire(line: str) -> BaseException:
    """Return what redis-py makes of an error reply."""
    error: BaseException = BaseParser.parse_error(line)
    return error


def test_the_table_of_first_words_is_the_one_expected_here() -> None:
    assert set(BY_FIRST_WORD) == set(WAITED_FOR) | set(LASTING)


@pytest.mark.parametrize("word", BY_FIRST_WORD)
@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("parsed", [True, False], ids=["as redis-py parses it", "as a plain reply"])
def test_an_error_reply_is_known_by_its_first_word(word: str, sent: bool, parsed: bool) -> None:
    text = f"{word} 7 h:1"
    verdict = classify(from_wire(text) if parsed else redis_errors.ResponseError(text), sent=sent)
    # Refused before it was executed; but a primary that unblocks a WAIT had executed the script in front of it.
    assert verdict.applied is (word == "UNBLOCKED" and sent)
    if word in WAITED_FOR:
        assert (verdict.retry, verdict.refresh) == (True, WAITED_FOR[word])
    else:
        assert (verdict.retry, verdict.error) == (False, LASTING[word])


IN_SCRIPTS = [
    "ERR Error running script (call to f_0123): @user_script:7: {} is why",
    "ERR Error running script (call to f_0123): @user_script:91: @user_script: 91: -{} is why",  # refused, 6.2
    "@user_script: 6: -{} is why",  # what redis.pcall returned, returned by the script, 6.2
    "{} is why script: 0123, on @user_script:7.",  # from 7.0 on
]


@pytest.mark.parametrize(
    ("template", "word"),
    [
        pytest.param(template, word, id=f"{index}-{word}")
        for index, template in enumerate(IN_SCRIPTS)
        for word in BY_FIRST_WORD
        if not (word in ("ASK", "MOVED") and template.startswith("{}"))  # these say where to, and have their own test
        if word != "UNBLOCKED"  # no script blocks
    ],
)
def test_an_error_inside_a_script_is_known_by_the_word_in_it(template: str, word: str) -> None:
    verdict = classify(from_wire(template.format(word)), sent=True)
    assert (verdict.retry, verdict.applied) == (word in WAITED_FOR, False)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ERR max number of clients reached", "max_clients"),
        ("ERR Protocol error: unauthenticated multibulk length", "authentication"),
        ("ERR Error running script: Script killed by user with SCRIPT KILL...", "script_killed"),
        ("ERR AUTH <password> called without any password configured for the default user. Are you sure your "
         "configuration is correct?", "authentication"),
        ("ERR invalid password", "authentication"),
        ("ERR problem with LDAP service", "credential_provider"),
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("READONLY You can't write against a read only replica.", "read_only"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "out_of_memory"),
    ],
)  # fmt: skip
def test_a_reply_of_a_real_server_is_known(line: str, reason: str) -> None:
    verdict = classify(from_wire(line), sent=True)
    assert (verdict.reason, verdict.applied) == (reason, False)


@pytest.mark.parametrize(
    "line",
    [
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is "
        "configured to be writable (which is not the default) writes to replicas are just local and are not "
        "propagated.",
        "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local "
        "and are not propagated.",
    ],
)
def test_a_primary_that_became_a_replica_during_a_wait_is_left_for_the_new_one(line: str) -> None:
    verdict = classify(from_wire(line), sent=True)
    assert verdict == DEMOTED
    assert (verdict.retry, verdict.applied, verdict.refresh, verdict.reason) == (True, True, True, "demoted")


def test_a_refusal_is_not_applied_unless_the_script_itself_broke_off() -> None:
    refused = classify(from_wire("ERR unknown command 'EVALSHA'"), sent=True)
    half_way = classify(from_wire("ERR value is not an integer script: 0123, on @user_script:7."), sent=True)
    assert (refused.retry, refused.applied) == (False, False)
    assert (half_way.retry, half_way.applied) == (False, True)


LOST = [
    redis_errors.ConnectionError("Connection reset by peer"),
    redis_errors.TimeoutError("Timeout reading from socket"),
    redis_errors.InvalidResponse("Protocol Error"),
    asyncio.TimeoutError(),
    asyncio.IncompleteReadError(b"", 1),
    ConnectionResetError(),
    OSError(113, "No route to host"),
    EOFError(),
]


@pytest.mark.parametrize("cause", LOST, ids=lambda cause: type(cause).__name__)
def test_a_lost_reply_may_have_been_applied_and_an_unsent_request_was_not(cause: BaseException) -> None:
    for sent in (True, False):
        verdict = classify(cause, sent=sent)
        assert (verdict.retry, verdict.applied, verdict.refresh) == (True, sent, True)


@pytest.mark.parametrize("text", ["No connection available.", "Too many connections"])
def test_an_exhausted_pool_was_never_sent_and_says_nothing_about_the_node(text: str) -> None:
    kind = redis_errors.MaxConnectionsError if text.startswith("Too") else redis_errors.ConnectionError
    verdict = classify(kind(text), sent=False)
    assert (verdict.retry, verdict.applied, verdict.refresh, verdict.reason) == (True, False, False, "pool_exhausted")


def wrapped(cause: BaseException) -> BaseException:
    """Return the error that redis-py raises for one of the operating system."""
    try:
        try:
            raise cause
        except OSError as error:
            raise redis_errors.ConnectionError("Error connecting") from error
    except redis_errors.ConnectionError as error:
        return error


def test_an_untrusted_certificate_lasts_and_a_broken_connection_does_not() -> None:
    for cause in (ssl.SSLCertVerificationError("self-signed"), ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]")):
        for error in (cause, wrapped(cause)):
            verdict = classify(error, sent=False)
            assert (verdict.retry, verdict.applied, verdict.error) == (False, False, TLSError)
            assert tls_error(error) is cause
    for cause in (ssl.SSLEOFError(8, "EOF"), ssl.SSLZeroReturnError(6, "closed"), ssl.SSLSyscallError(5, "reset")):
        for error in (cause, wrapped(cause)):
            assert classify(error, sent=True).retry
            assert tls_error(error) is None


@pytest.mark.parametrize("reason", ["APPLICATION_DATA_AFTER_CLOSE_NOTIFY", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"])
def test_a_tls_connection_that_breaks_after_the_request_left_may_have_been_applied(reason: str) -> None:
    verdict = classify(wrapped(ssl.SSLError(1, f"[SSL: {reason}]")), sent=True)
    assert verdict.applied
    assert verdict.retry


def test_reasons_are_few_short_words() -> None:
    reasons = {v.reason for v in (*BY_FIRST_WORD.values(), *(v for _, v in BY_TYPE))}
    assert all(re.fullmatch(r"[a-z_]{2,20}", reason) for reason in reasons)
    assert len(reasons) < 25


def operation_error(kind: type[OperationError], **more: Any) -> OperationError:
    given: dict[str, Any] = {"operation": "append", "topology": "cluster", "outcome": Outcome.UNKNOWN, "node": "h:1"}
    versions = {"versions": (4, 6)} if kind is HistoryLostError else {}
    return kind("the reason", **{**given, "attempts": 3, **versions, **more})


@pytest.mark.parametrize("kind", OPERATION_ERRORS, ids=lambda kind: kind.__name__)
def test_a_message_names_operation_topology_node_reason_state_and_what_to_do(kind: type[OperationError]) -> None:
    text = str(operation_error(kind))
    for part in (
        "append failed",
        "cluster node h:1",
        "3 attempts",
        "the reason",
        "may or may not be stored",
        kind.hint,
    ):
        assert part in text
    unchanged = str(operation_error(kind, outcome=Outcome.NOT_APPLIED, node=None, attempts=1))
    for part in ("failed on cluster after 1 attempt:", "the data is unchanged by it"):
        assert part in unchanged
    assert "its change is stored on the primary: do not send it again" in str(
        operation_error(kind, outcome=Outcome.APPLIED)
    )
    assert "None" not in unchanged
    if kind not in (OperationError, ServerRefusedError):
        assert kind.hint.endswith(".")
        assert text.endswith(kind.hint)


@pytest.mark.parametrize("kind", OPERATION_ERRORS, ids=lambda kind: kind.__name__)
def test_an_operation_error_survives_pickling(kind: type[OperationError]) -> None:
    error = operation_error(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.args, copy.__dict__) == (str(error), error.args, error.__dict__)
    assert copy.outcome is Outcome.UNKNOWN
    assert getattr(copy, "versions", (4, 6)) == (4, 6)


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("tls.verify", "no"),
        InvalidItemError(4, "it is a set"),
        ConflictError(3, 4),
        ClosedError("closed"),
        AgentsRedisError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_other_errors_survive_pickling(error: AgentsRedisError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


def test_every_error_class_is_covered_by_the_pickling_tests() -> None:
    others = {AgentsRedisError, ConfigurationError, ConflictError, InvalidItemError, ClosedError}
    assert set(OURS) == others | set(OPERATION_ERRORS)


def test_errors_are_what_their_callers_expect_to_catch() -> None:
    assert issubclass(DeadlineExceededError, TimeoutError)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(InvalidItemError, ValueError)
    assert issubclass(ClosedError, RuntimeError)
    assert not issubclass(NotPrimaryError, (OSError, redis_errors.RedisError))


def test_every_error_class_is_public() -> None:
    assert {kind.__name__ for kind in OURS} <= set(agents_redis_ha.__all__)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth:] = [found[2]]
            drawn[found[2]] = parents[depth - 1] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in OURS}
