"""Random turns in a session's life: begun, saved, finished and ended, by those who hold them and by others."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agents_redis_ha import _commands as commands
from agents_redis_ha._commands import LogPosition, SessionSpec, TurnSpec, TurnStatus
from agents_redis_ha._commands.command import Command

__all__ = ["TURN_SCRIPTS", "TurnLife"]

TURN_SCRIPTS = ("turn_begin", "turn_save", "turn_finish", "turn_end", "turn_list")

_LEASE_MS = 90_000  # far from what passes between the two runs of a sequence
_IDS = (b"t1", b"t2", b"t3", b"a turn:1")


@dataclass
class _Attempt:
    turn: TurnSpec
    granted: LogPosition
    attempt: int
    saves: int
    number: int = 0


class TurnLife:
    """The turns of a session.

    Args:
        rng: Decides everything.
        run: Sends a command with a log position; returns its decoded reply, None where it failed.
        known: Returns a log position that may be known.
        items: Returns new elements.
    """

    def __init__(
        self,
        rng: random.Random,
        run: Callable[..., Any],
        known: Callable[[], LogPosition],
        items: Callable[[int], list[bytes]],
    ) -> None:
        self.rng, self._run, self._known, self._items = rng, run, known, items
        self._attempts: list[_Attempt] = []
        self.positions: list[LogPosition] = []

    def step(self, spec: SessionSpec) -> None:
        """Do something with a turn."""
        kinds = (self._begin, self._save, self._finish, self._end, self._list, self._release)
        self.rng.choices(kinds, (6, 5, 5, 3, 1, 1))[0](spec)

    def _ask(self, command: Command[Any], newest: LogPosition | None = None) -> Any:
        return self._run(command, known=newest if newest and self.rng.random() < 0.8 else self._known(), keys=(4, 1))

    def _begin(self, spec: SessionSpec) -> None:
        rng = self.rng
        known = self._attempts[-1].turn if self._attempts and rng.random() < 0.2 else None
        turn = known or TurnSpec(
            spec,
            rng.choice(_IDS),
            b"%016x" % rng.getrandbits(64),
            rng.choice((b"-", b"aa", b"aa", b"bb")),
            _LEASE_MS,
            rng.choice((600_000, 600_000, 5_000_000)),
        )
        command = commands.begin_turn(
            turn,
            if_busy=rng.choice(("reject", "enqueue", "enqueue", "interrupt", "rollback")),
            if_unanswered=rng.choice(("resume", "resume", "restart")),
            newest=rng.choice((0, 0, 2)),
            claims=rng.random() < 0.2,
        )
        if rng.random() < 0.2:  # only so many are remembered
            most = rng.choice((1, 2))
            command.arguments = (*command.arguments[:2], most, *command.arguments[3:])
        told = self._ask(command)
        if told is not None and told.status is TurnStatus.GRANTED:
            self._attempts.append(_Attempt(turn, told.position, told.attempt, told.saves, len(told.pieces)))
            self.positions.append(told.position)

    def _attempt(self) -> _Attempt | None:
        return self.rng.choice(self._attempts[-3:]) if self._attempts else None

    def _elements(self) -> Sequence[bytes]:
        return [item for item in self._items(1) if b"\n" not in item] or [b"{}"]

    def _save(self, spec: SessionSpec) -> None:
        rng, attempt = self.rng, self._attempt()
        if attempt is None:
            return
        number = attempt.number + rng.choice((1, 1, 1, 0, 2))
        saves = attempt.saves
        if rng.random() < 0.2:
            saves, number = saves + 1, 1
        if rng.random() < 0.2:
            number = 0
        command = commands.save_turn(
            attempt.turn,
            attempt.granted,
            attempt.attempt,
            saves=saves,
            number=number,
            piece=b"\n".join(self._elements()),
        )
        told = self._ask(command, attempt.granted)
        if told is not None and told.status is TurnStatus.GRANTED and number:
            attempt.number, attempt.saves = number, saves

    def _finish(self, spec: SessionSpec) -> None:
        rng, attempt = self.rng, self._attempt()
        if attempt is None:
            return
        turn = replace(attempt.turn, session=spec)
        keep = rng.choice((None, None, None, 0, 1))
        items = self._elements() if rng.random() < 0.9 else []
        command = commands.finish_turn(turn, attempt.granted, attempt.attempt, items, keep=keep, payload=b'"yes"')
        made = self._ask(command, attempt.granted)
        if made is not None and made.digest:
            self.positions.append(made.position)

    def _end(self, spec: SessionSpec) -> None:
        attempt = self._attempt()
        if attempt is not None:
            rng = self.rng
            granted = attempt.granted if rng.random() < 0.8 else None
            number = rng.choice((0, 0, attempt.number + 1))
            command = commands.end_turn(
                attempt.turn,
                granted,
                state=rng.choice(("unanswered", "suspended", "suspended", "")),
                payload=b'{"state":1}',
                saves=attempt.saves,
                number=number,
                piece=b"{}" if number else b"",
            )
            self._ask(command, attempt.granted)

    def _release(self, spec: SessionSpec) -> None:
        attempt = self._attempt()
        if attempt is not None:
            self._ask(commands.release_turn(spec, attempt.turn.id, attempt.turn.token))

    def _list(self, spec: SessionSpec) -> None:
        self._ask(commands.list_turns(spec))
