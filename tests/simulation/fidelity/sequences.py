"""Random sequences of what is sent to a session's server: the library's own commands, and what happens to the keys.

A sequence is made step by step against the simulated server, whose replies tell the positions that the next commands
know. What was sent is kept as bytes, to be sent to a real server as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from agents_redis_ha import _commands as commands
from agents_redis_ha._commands import NO_POSITION, LogPosition, SessionSpec
from agents_redis_ha._commands.change import OpsRecord, PublishedTurn
from agents_redis_ha._commands.command import Argument, Command, EarlierAttempts, load_script
from agents_redis_ha._commands.state import Description, ServerState
from agents_redis_ha._storage import session_keys

from .plain import plain_command, random_item
from .replies import ErrorReply, Loose, parse
from .steps import ANY, EXACT, LOOSE, PAIRS, TTL, Step
from .turns import TURN_SCRIPTS, TurnLife

__all__ = ["SCRIPTS", "SessionLife", "Step", "make_sequence"]

SCRIPTS = ("append", "pop", "clear", "replace", "read", "info", "inspect", "restore", *TURN_SCRIPTS)


class SessionLife:
    """A session's life under random commands.

    Args:
        rng: Decides everything.
        send: Sends to the simulated server, and returns the replies' bytes.
        now_ms: The simulated server's clock.
        session_id: A new one.
        users: Names of users who lack a right each; their password is ``pw``.
    """

    def __init__(
        self,
        rng: random.Random,
        send: Callable[[bytes], bytes],
        now_ms: Callable[[], int],
        session_id: str,
        users: Sequence[str],
    ) -> None:
        self.rng, self._send, self._now_ms, self._users = rng, send, now_ms, users
        self.keys = session_keys("agents:ha", session_id)
        ttl = rng.choice((0, 0, 600_000, 3_600_000))
        retention = rng.choice((120_000, 120_000, 600_000))
        self._specs = [
            SessionSpec(self.keys, session_id, "off", each, retention, None) for each in (ttl, ttl, 0, 900_000)
        ]
        self.steps: list[Step] = []
        self._replies: list[Any] = []
        self._positions = [LogPosition(0, b"")]
        self._made: list[Command[Any]] = []
        self._described: Description | None = None
        self._state: ServerState | None = None
        self._limited = False
        self._restores: list[Callable[[], None]] = []
        self._turns = TurnLife(rng, self.run, self._known, self._items)

    @property
    def spec(self) -> SessionSpec:
        """The session as one of the processes is configured for it."""
        return self._specs[0] if self.rng.random() < 0.9 else self.rng.choice(self._specs)

    # Sending.

    def ask(self, *words: Argument, loose: Loose = EXACT) -> Any:
        """Send one command and return the reply."""
        step = Step(tuple(word if isinstance(word, bytes) else str(word).encode() for word in words), loose)
        self.steps.append(step)
        found = parse(self._send(step.request), 1)
        assert found is not None, f"no whole reply to {step}"
        assert not found[1], f"more than one reply to {step}"
        return found[0][0]

    def run(
        self,
        command: Command[Any],
        *,
        known: LogPosition,
        earlier: EarlierAttempts | None = None,
        keys: Sequence[int] = (3, 2, 1),
    ) -> Any:
        """Send one of the library's commands; return its decoded reply, None where it failed."""
        rng = self.rng
        key_count = rng.choices(keys, (20, *[2] * (len(keys) - 1)))[0]
        attempts = earlier or EarlierAttempts()
        wire = command.on_wire(known, attempts, key_count=key_count, with_source=rng.random() < 0.02)
        loose = LOOSE.get(command.script.name, EXACT)
        first = self.ask(*wire[0], loose=loose)
        if isinstance(first, ErrorReply) and first.startswith(b"NOSCRIPT"):
            wire = command.on_wire(known, attempts, key_count=key_count, with_source=True)
            first = self.ask(*wire[0], loose=loose)
        trailing = [self.ask(*words, loose=ANY if words[0] == "INFO" else EXACT) for words in wire[1:]]
        if isinstance(first, ErrorReply) or any(isinstance(each, ErrorReply) for each in trailing):
            return None
        history = commands.ReplicationHistory("there", None)
        try:
            return command.decode(commands.Reply(first, trailing, history, known))
        except ValueError:  # a field was overwritten with something else
            return None

    # What the library does.

    def step(self) -> None:
        """Do something."""
        kinds = (
            (self._append, 20),
            (self._pop, 14),
            (self._clear, 3),
            (self._replace, 8),
            (self._read, 8),
            (self._info, 5),
            (self._inspect, 8),
            (self._restore, 8),
            (self._repeat, 12),
            (self._tamper, 12),
            (self._condition, 9),
            (self._plain, 10),
            (self._turn, 30),
        )
        self.rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]()

    def _turn(self) -> None:
        """Do a few steps with turns: one alone seldom meets another."""
        for _ in range(self.rng.randint(1, 5)):
            self._turns.step(self.spec)
            self._positions += self._turns.positions
            self._turns.positions.clear()

    def _known(self) -> LogPosition:
        rng, newest = self.rng, self._positions[-1]
        return rng.choices(
            (
                newest,
                rng.choice(self._positions),
                LogPosition(0, b""),
                LogPosition(newest.version + rng.randint(1, 3), rng.randbytes(6).hex().encode()),
                LogPosition(newest.version, rng.randbytes(6).hex().encode()),
                LogPosition(newest.version, b""),
            ),
            (60, 10, 10, 6, 3, 3),
        )[0]

    def _expected(self) -> LogPosition | None:
        return None if self.rng.random() < 0.6 else self._known()

    def _change(self, command: Command[Any]) -> None:
        self._made.append(command)
        made = self.run(command, known=self._known())
        if made is not None and made.digest:
            self._positions.append(made.position)

    def _items(self, least: int = 1) -> list[bytes]:
        rng = self.rng
        return [random_item(rng) for _ in range(rng.choices((least, 1, 2, 3, 40), (8, 30, 8, 4, 1))[0])]

    def _append(self) -> None:
        if self.rng.random() < 0.002:
            items = [b'{"n":%d}' % n for n in range(self.rng.choice((4_001, 8_100)))]
        else:
            items = self._items()
        self._change(commands.append(self.spec, items, expected=self._expected(), operation_id=_id(self.rng)))

    def _pop(self) -> None:
        rng = self.rng
        at = None
        if self._described is not None and rng.random() < 0.4:
            length = self._described.length
            at = (rng.choice((-1, -2, -max(length, 1), -length - 1)), self._described)
        acknowledged = rng.choice(self._positions) if rng.random() < 0.5 else None
        self._change(commands.pop(self.spec, at, acknowledged=acknowledged, operation_id=_id(rng)))

    def _clear(self) -> None:
        command = commands.clear(self.spec, operation_id=_id(self.rng))
        self._made.append(command)
        made = self.run(command, known=self._known(), keys=(4, 3, 1))
        if made is not None and made.digest:
            self._positions.append(made.position)

    def _replace(self) -> None:
        rng = self.rng
        first = rng.choice((0, 0, 0, 1, 2))
        keep = (first, max(0, first + rng.choice((-1, 0, 1, 2, 3))))
        items = self._items(0)
        self._change(commands.replace(self.spec, items, expected=self._expected(), keep=keep, operation_id=_id(rng)))

    def _read(self) -> None:
        newest, known = self.rng.choice((0, 0, 1, 2, 5)), self._known()
        if self.rng.random() < 0.5:
            command = commands.read(self.spec, newest)
            found = self.run(command, known=known)
        else:  # as without hiredis
            arguments = (self.rng.choice((0, 1, 128)), newest, b",%d," % self.rng.getrandbits(40))
            plain = commands.read(self.spec, newest)
            script = type(plain)("read", load_script("read"), self.spec, arguments, separator=arguments[2])  # type: ignore[call-arg]
            found = self.run(script, known=known)
        if found is not None:
            self._described = found.session
            self._positions.append(found.session.position)

    def _info(self) -> None:
        found = self.run(commands.info(self.spec), known=self._known())
        if found is not None:
            self._described = found
            self._positions.append(found.position)

    def _inspect(self) -> None:
        rng = self.rng
        hints = {
            f"{rng.randint(1, 9)}:{rng.randint(1, 3)}": rng.randbytes(rng.choice((3, 90)))
            for _ in range(rng.randint(0, 2))
        }
        self._state = self.run(commands.inspect(self.spec, hints), known=self._known()) or self._state

    def _restore(self) -> None:
        if self._state is None or self.rng.random() < 0.3:
            self._inspect()
        found, rng = self._state, self.rng
        if found is None:
            return
        added = rng.choice((0, 0, 1, 1, 2, 3))
        gap = rng.choice((0, 0, 0, 0, 2))
        end = found.version + gap + added
        records = [OpsRecord(0, rng.choice((_id(rng), b"-")), rng.randbytes(6).hex().encode()) for _ in range(added)]
        if rng.random() < 0.003:
            records = [OpsRecord(0, _id(rng), b"%012x" % at) for at in range(2_100)]
            end = found.version + len(records)
        digest = records[-1].digest if records else found.digest
        first = rng.choice((0, 0, 1))
        keep = rng.choice(((0, found.length), (first, found.length), (0, 0), (0, max(found.length - 1, 0))))
        results = {end: b'{"popped":1}'} if rng.random() < 0.3 else {}
        turn = PublishedTurn(rng.choice((b"t1", b"t4")), 2, b"aa", _id(rng), b'"yes"', 600_000, 1024)
        turns = [turn] if rng.random() < 0.2 else []
        command = commands.restore(
            self.spec,
            found,
            position=LogPosition(end, digest),
            generation=found.generation + rng.randint(0, 1),
            keep=keep,
            push=self._items(0) if rng.random() < 0.6 else [],
            records=records,
            results=results,
            turns=turns,
            abandons=rng.random() < 0.2,
            evicted=rng.random() < 0.2,
        )
        known = found.position if rng.random() < 0.85 else self._known()
        if self.run(command, known=known, keys=(4,) if turns else (3, 2, 1)):
            self._positions.append(LogPosition(end, digest))
            self._state = None

    def _repeat(self) -> None:
        if not self._made:
            return
        rng = self.rng
        command = rng.choice(self._made[-6:])
        none = EarlierAttempts().since
        since = rng.choice((NO_POSITION, self._positions[-1], rng.choice(self._positions), none))
        earlier = EarlierAttempts(since, rng.random() < 0.7)
        made = self.run(command, known=self._known(), earlier=earlier)
        if made is not None and made.digest:
            self._positions.append(made.position)

    # What happens to the keys.

    def _key(self) -> bytes:
        return self.rng.choice((self.keys.items, self.keys.meta, self.keys.ops, self.keys.turns))

    def _tamper(self) -> None:
        rng, keys = self.rng, self.keys
        words: tuple[Argument, ...] = rng.choice(
            (
                ("DEL", self._key()),
                ("DEL", self._key()),
                ("DEL", keys.meta, keys.ops),
                ("DEL", keys.items, keys.meta, keys.ops),
                ("RPOP", keys.items),
                ("LPOP", keys.ops),
                ("LSET", keys.ops, 0, f"{max(self._positions[-1].version - 3, 0)}:abc!"),
                ("RPUSH", keys.items, rng.choice((b"\xff\xfe", b"no item", b"{}", b'{"x":\x01}'))),
                *([("HDEL", keys.meta, rng.choice(_FIELDS))] * 2),
                *([("HSET", keys.meta, *self._odd_field())] * 8),
            )
        )
        self.ask(*words)
        if rng.random() < 0.12:
            self._spoil()

    def _odd_field(self) -> tuple[Argument, ...]:
        rng, now, version = self.rng, self._now_ms(), self._positions[-1].version
        past, future, before = now - 700_000, now + 500_000, max(version - 1, 0)
        marks = (f"0:{past}", f"{before}:{past} {version}:{now}", f"{version}:{future}", f"1:{past} 2:{past}", "?")
        return rng.choice(
            (
                ("low_watermarks", rng.choice(marks)),
                ("low_watermarks", rng.choice(marks)),
                ("updated_at", rng.choice((past, future, now))),
                ("format", rng.choice(("1", "2"))),
                ("fence", rng.choice((0, version, version + 2)), "fenced_at", rng.choice((now - 90_000, future))),
                ("abandoned_at", version + rng.randint(-2, 2)),
                ("hint:3:1", "packed"),
                (f"result:{version}", "7"),
                (
                    "holder",
                    f"{'0' * 16} {rng.choice((past, now + 60_000, future))} 90000 {past} 1 {rng.choice(('t1', 't9'))}",
                ),
                ("wipe", "1"),
            )
        )

    def _spoil(self) -> None:
        """Give a key another type, or a life that is over."""
        key = self._key()
        kind = self.rng.randrange(3)
        if kind == 0:
            self.ask("SET", key, "text")
        elif kind == 1:
            self.ask("PEXPIRE", key, self.rng.choice((-1, 0, 3)))
            self.ask("DEBUG", "SLEEP", "0.012", loose=ANY)
        else:
            self.ask("DEL", key)
            self.ask(*self.rng.choice((("RPUSH", key, "x"), ("HSET", key, "f", "v"))))

    def _condition(self) -> None:
        """Change what the server refuses, for the next few steps."""
        rng = self.rng
        if self._restores:
            self.restore()
            return
        kind = rng.choices(range(5), (1, 1, 1, 1, 4))[0]
        if kind == 0:
            self._until(("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0))
        elif kind == 1:
            self._until(("REPLICAOF", "127.0.0.1", 1), ("REPLICAOF", "NO", "ONE"))
        elif kind == 2:
            self._until(("CONFIG", "SET", "min-replicas-to-write", 1), ("CONFIG", "SET", "min-replicas-to-write", 0))
        elif kind == 3:
            self.ask("SCRIPT", "FLUSH")
            self._restores.append(self._load_scripts)
        elif self._users:
            self._limited = True
            self._until(("AUTH", rng.choice(self._users), "pw"), ("AUTH", "default", "any"))

    def _until(self, words: tuple[Argument, ...], back: tuple[Argument, ...]) -> None:
        self.ask(*words)
        self._restores.append(lambda: self.ask(*back))
        for _ in range(self.rng.randint(1, 5)):
            self.step()

    def _load_scripts(self) -> None:
        for name in SCRIPTS:
            self.ask("SCRIPT", "LOAD", load_script(name).source)

    def restore(self) -> None:
        """Have the server as it was."""
        while self._restores:
            self._restores.pop()()

    # Plain commands.

    def _plain(self) -> None:
        in_transaction = self.rng.random() < 0.15
        if in_transaction:
            self.ask("MULTI")
        for _ in range(self.rng.randint(1, 4)):
            words = plain_command(self.rng, self._key(), self._key())
            has_pairs = words[0] == "HGETALL" or (words[0] == "EVAL" and "HGETALL" in str(words[1]))
            self.ask(*words, loose=TTL if words[0] in ("PTTL", "TTL") else PAIRS if has_pairs else EXACT)
        if in_transaction:
            everywhere = Loose(milliseconds=tuple((at,) for at in range(4)), pairs=tuple((at,) for at in range(4)))
            self.ask(self.rng.choice(("EXEC", "EXEC", "DISCARD")), loose=everywhere)

    def finish(self) -> None:
        """Look at all that is stored, and remove it."""
        self.restore()
        looks = {b"string": ("GET",), b"list": ("LRANGE", 0, -1), b"hash": ("HGETALL",)}
        base = self.keys.items[: -len(b"items")]
        everything = (self.keys.items, self.keys.meta, self.keys.ops, self.keys.turns, base + b"probe")
        # Before 7.0 a user who may not DEL leaves a probe that expires within a millisecond.
        for key in everything[:-1] if self._limited else everything:
            kind = bytes(self.ask("TYPE", key))
            self.ask("PTTL", key, loose=TTL)
            if kind in looks:
                name, *rest = looks[kind]
                self.ask(name, key, *rest, loose=PAIRS if name == "HGETALL" else EXACT)
        self.ask("DEL", *everything, loose=ANY)


_FIELDS = ("version", "digest", "generation", "length", "ttl", "fence", "updated_at")


def _id(rng: random.Random) -> bytes:
    return b"%016x" % rng.getrandbits(64)


def make_sequence(
    rng: random.Random,
    send: Callable[[bytes], bytes],
    now_ms: Callable[[], int],
    session_id: str,
    users: Sequence[str],
) -> list[Step]:
    """Return the steps of a new sequence, which the simulated server has seen; its replies are the caller's to keep."""
    sequence = SessionLife(rng, send, now_ms, session_id, users)
    for _ in range(rng.choices((3, 8, 20), (2, 5, 3))[0]):
        sequence.step()
    sequence.finish()
    return sequence.steps
