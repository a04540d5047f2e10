"""Every error of redis-py has its place in the one table: retried or not, perhaps applied or not."""

from __future__ import annotations

import asyncio
import inspect
import re
import ssl

import pytest
from redis import exceptions as redis_errors
from redis._parsers.base import BaseParser

from agents_redis_ha._connections.failures import (
    BY_FIRST_WORD,
    BY_TYPE,
    DEMOTED,
    AttemptError,
    chained,
    classify,
    in_words,
    tls_error,
)
from agents_redis_ha.errors import (
    AuthenticationFailedError,
    PermissionDeniedError,
    ServerRefusedError,
    TLSError,
    UnsupportedFormatError,
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
    redis_errors.NoScriptError: "answered inside Node.execute by sending the source",
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
if hasattr(redis_errors, "NoSuchFieldsetError"):  # since redis-py 8.1
    NOT_ON_OUR_PATH[redis_errors.NoSuchFieldsetError] = "no HIMPORT is sent"
FOREIGN = [c for _, c in inspect.getmembers(redis_errors, inspect.isclass) if issubclass(c, BaseException)]


def make(kind: type[BaseException], text: str = "no matter") -> BaseException:
    if issubclass(kind, redis_errors.AskError):
        return kind("7 h:1")
    return kind(text)


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
def test_every_error_of_redis_py_is_in_the_table_or_has_a_reason_not_to_be(kind: type[BaseException]) -> None:
    listed = any(kind is known for known, _ in BY_TYPE)
    assert listed is not (kind in NOT_ON_OUR_PATH), (
        f"{kind.__name__}: put it into failures.BY_TYPE, or here with a reason"
    )


def test_an_entry_is_never_hidden_by_a_more_general_one_before_it() -> None:
    for index, (kind, listed) in enumerate(BY_TYPE):
        first = next(each for known, each in BY_TYPE if issubclass(kind, known))
        assert first is listed, f"{kind.__name__} at {index} is never reached"


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("sent", [True, False])
def test_an_unlisted_error_is_given_up_as_it_may_have_been_applied(kind: type[BaseException], sent: bool) -> None:
    found = classify(make(kind), sent=sent)
    if kind in NOT_ON_OUR_PATH:
        assert (found.retry, found.error) == (False, ServerRefusedError)
        refusal = issubclass(kind, redis_errors.ResponseError)
        assert found.may_have_applied is (sent and not refusal)


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
PERMANENT = {
    "NOAUTH": AuthenticationFailedError,
    "WRONGPASS": AuthenticationFailedError,
    "NOPERM": PermissionDeniedError,
    "UNSUPPORTEDFORMAT": UnsupportedFormatError,
    "WRONGTYPE": WrongKeyTypeError,
}


def from_wire(line: str) -> BaseException:
    """Return what redis-py makes of an error reply."""
    error: BaseException = BaseParser.parse_error(line)
    return error


def test_the_table_of_first_words_is_the_one_expected_here() -> None:
    assert set(BY_FIRST_WORD) == set(WAITED_FOR) | set(PERMANENT)


@pytest.mark.parametrize("word", BY_FIRST_WORD)
@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("parsed", [True, False], ids=["as redis-py parses it", "as a plain reply"])
def test_an_error_reply_is_known_by_its_first_word(word: str, sent: bool, parsed: bool) -> None:
    text = f"{word} 7 h:1"
    found = classify(from_wire(text) if parsed else redis_errors.ResponseError(text), sent=sent)
    # Refused before it was executed; but a primary that unblocks a WAIT had executed the script in front of it.
    assert found.may_have_applied is (word == "UNBLOCKED" and sent)
    if word in WAITED_FOR:
        assert (found.retry, found.refresh_topology) == (True, WAITED_FOR[word])
    else:
        assert (found.retry, found.error) == (False, PERMANENT[word])


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
    found = classify(from_wire(template.format(word)), sent=True)
    assert (found.retry, found.may_have_applied) == (word in WAITED_FOR, False)


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
        ("ERR The user executing the script can't run this command or subcommand script: 0123, on @user_script:82.",
         "permission"),
        ("ERR ACL failure in script: User limited has no permissions to run the 'hmget' command script: 0123, on "
         "@user_script:82.", "permission"),
        ("ERR ACL failure in script: User limited has no permissions to access the 'k' key script: on @user_script:82",
         "permission"),
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("READONLY You can't write against a read only replica.", "read_only"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "out_of_memory"),
    ],
)  # fmt: skip
def test_a_reply_of_a_real_server_is_known(line: str, reason: str) -> None:
    found = classify(from_wire(line), sent=True)
    assert (found.reason, found.may_have_applied) == (reason, False)


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
    found = classify(from_wire(line), sent=True)
    assert found == DEMOTED
    assert (found.retry, found.may_have_applied, found.refresh_topology, found.reason) == (True, True, True, "demoted")


def test_a_refusal_is_not_applied_unless_the_script_itself_broke_off() -> None:
    refused = classify(from_wire("ERR unknown command 'EVALSHA'"), sent=True)
    half_way = classify(from_wire("ERR value is not an integer script: 0123, on @user_script:7."), sent=True)
    assert (refused.retry, refused.may_have_applied) == (False, False)
    assert (half_way.retry, half_way.may_have_applied) == (False, True)


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
        found = classify(cause, sent=sent)
        assert (found.retry, found.may_have_applied, found.refresh_topology) == (True, sent, True)


@pytest.mark.parametrize("text", ["No connection available.", "Too many connections"])
def test_an_exhausted_pool_was_never_sent_and_says_nothing_about_the_node(text: str) -> None:
    kind = redis_errors.MaxConnectionsError if text.startswith("Too") else redis_errors.ConnectionError
    found = classify(kind(text), sent=False)
    assert (found.retry, found.may_have_applied, found.refresh_topology, found.reason) == (
        True,
        False,
        False,
        "pool_exhausted",
    )


def wrapped(cause: BaseException) -> BaseException:
    """Return the error that redis-py raises for one of the operating system."""
    try:
        try:
            raise cause
        except OSError as error:
            raise redis_errors.ConnectionError("Error connecting") from error
    except redis_errors.ConnectionError as error:
        return error


def test_an_untrusted_certificate_is_permanent_and_a_broken_connection_is_not() -> None:
    for cause in (ssl.SSLCertVerificationError("self-signed"), ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]")):
        for error in (cause, wrapped(cause)):
            found = classify(error, sent=False)
            assert (found.retry, found.may_have_applied, found.error) == (False, False, TLSError)
            assert tls_error(error) is cause
    for cause in (ssl.SSLEOFError(8, "EOF"), ssl.SSLZeroReturnError(6, "closed"), ssl.SSLSyscallError(5, "reset")):
        for error in (cause, wrapped(cause)):
            assert classify(error, sent=True).retry
            assert tls_error(error) is None


@pytest.mark.parametrize("reason", ["APPLICATION_DATA_AFTER_CLOSE_NOTIFY", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"])
def test_a_tls_connection_that_breaks_after_the_request_left_may_have_been_applied(reason: str) -> None:
    found = classify(wrapped(ssl.SSLError(1, f"[SSL: {reason}]")), sent=True)
    assert found.may_have_applied
    assert found.retry


def test_reasons_are_few_short_words() -> None:
    reasons = {each.reason for each in (*BY_FIRST_WORD.values(), *(each for _, each in BY_TYPE))}
    assert all(re.fullmatch(r"[a-z_]{2,20}", reason) for reason in reasons)
    assert len(reasons) <= 25


ECHO = "unknown command `HELLO`, with args beginning with: `3` `AUTH` `u` `s3cr3t`, \nand more `s3cr3t`"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ECHO, "unknown command `HELLO`"),
        (
            "Error 111 connecting to rediss://u:s3cr3t@host:1/0. Refused",
            "Error 111 connecting to rediss://host:1/0. Refused",
        ),
        ("cannot dial redis://:s3cr3t@a, redis://b@c", "cannot dial redis://a, redis://c"),
        ("WRONGTYPE Operation against a key\nsecond line", "WRONGTYPE Operation against a key"),
        ("mail me@home: no URL", "mail me@home: no URL"),
        ("", "ResponseError"),
        ("x" * 600, "x" * 500),
    ],
)
def test_a_text_from_outside_is_shown_without_what_it_repeats(text: str, words: str) -> None:
    error = redis_errors.ResponseError(text)
    assert in_words(error) == words
    assert str(AttemptError(error, node="h:1", sent=True)) == words


def raised(error: Exception, cause: Exception | None, *, context: Exception | None = None) -> Exception:
    error.__context__ = context
    if cause is not None or context is None:
        error.__cause__ = cause
    return error


def test_an_error_is_chained_below_ours_unless_a_traceback_would_show_too_much() -> None:
    lost, echo = redis_errors.ConnectionError("lost"), redis_errors.ResponseError(ECHO)
    assert chained(lost) is lost
    assert chained(echo) is None
    assert chained(raised(redis_errors.ConnectionError("lost"), echo)) is None
    assert chained(raised(redis_errors.ConnectionError("lost"), None, context=echo)) is None
    hidden = raised(redis_errors.ConnectionError("lost"), lost, context=echo)  # a cause is shown in place of a context
    assert chained(hidden) is hidden
    suppressed = redis_errors.ConnectionError("lost")
    suppressed.__context__, suppressed.__suppress_context__ = echo, True
    assert chained(suppressed) is suppressed
    circle = raised(redis_errors.ConnectionError("a"), lost)
    lost.__cause__ = circle
    assert chained(circle) is circle
