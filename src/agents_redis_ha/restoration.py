"""What to put back: what a server has, what is known of the rest by this process and others, and what that makes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .connections.node import Tenure
from .journal import KEEP_ALL, MOST_IDS, OPERATION_ID_BYTES, Effect, Record, Sight, Unit
from .operations import members_of, new_operation_id
from .request import APPLIED, Known, Request, Run, Subject, script

__all__ = ["Part", "Plan", "Survey", "fork", "is_gap", "make_plan", "pack", "parts_of", "restore", "survey", "unpack"]

_SURVEY_CHANGES = 4096
_GAP = b"!!"  # no drawn id begins like that

Part: TypeAlias = "Unit | Sight"
"""Something known of a history: one change, or what it had led to."""


@dataclass(frozen=True)
class Survey:
    """What a server has of a session.

    Attributes:
        version: Its version.
        generation: Its generation.
        length: Number of its elements.
        claim: The highest version that somebody misses; 0 if nobody does.
        claim_age_seconds: Time since the first one said so.
        members: The newest changes, as in ``ops``.
        parked: What others know of the changes that are missing.
        tenure: Who answered.
    """

    version: int
    generation: int
    length: int
    claim: int
    claim_age_seconds: float
    members: tuple[tuple[int, bytes], ...]
    parked: tuple[Part, ...]
    tenure: Tenure

    @property
    def ids(self) -> dict[int, bytes]:
        """The ids of the changes that it remembers, by version."""
        return {version: id_ for version, id_ in self.members if len(id_) == OPERATION_ID_BYTES}

    @property
    def latest(self) -> Known:
        """Its version and the id that made it."""
        return self.version, self.ids.get(self.version, b"")


@dataclass(frozen=True)
class Plan:
    """What to put back.

    Attributes:
        version: The version that the session has afterwards.
        generation: Its generation then.
        keep: The elements to keep: the first index and that behind the last.
        push: The elements to put behind them.
        members: What to add to ``ops``.
        missing: Versions that cannot be put back.
    """

    version: int
    generation: int
    keep: tuple[int, int]
    push: tuple[bytes, ...]
    members: tuple[tuple[int, bytes], ...]
    missing: tuple[int, ...]


async def survey(run: Run, subject: Subject, known: Known, parts: Sequence[Part]) -> Survey:
    """Return what a server has of a session.

    Args:
        run: Sends the request.
        subject: The session.
        known: A version that the caller misses there: nobody writes on until it is back, or given up.
        parts: What the caller knows of the missing changes, for others who miss them too.
    """
    # Two know different things up to the same version: one its own change, the other what it has read.
    names = [f"{part.version}{':change' if isinstance(part, Unit) else ':reading'}" for part in parts]
    parked = [field for name, part in zip(names, parts, strict=True) for field in (name, pack(part))]
    arguments = (subject.retention_ms, _SURVEY_CHANGES, *parked)
    behind = (("INFO", "replication"),)
    request = Request(script("survey"), subject.keys, arguments, lambda: known, behind=behind, lenient=True)
    (version, generation, length, claimed, age_ms, members, fields), info = await run(request)
    if request.node is not None:
        request.node.learn(info)
    return Survey(
        version,
        generation,
        length,
        int(claimed or 0),
        age_ms / 1000,
        members_of(members),
        tuple(unpack(field) for field in fields[1::2]),
        request.tenure,
    )


async def restore(run: Run, subject: Subject, found: Survey, plan: Plan) -> bool:
    """Put back what is planned, and let others write again; False without a change if the session has changed.

    It waits for replicas once, whatever they answer: a shortfall must not count as one of the user's operation.
    """
    target = (found.claim, plan.version, plan.generation, *plan.keep, int(bool(plan.missing)))
    members = (field for member in plan.members for field in member)
    arguments = (*target, len(plan.members), *members, *plan.push)
    wait = (subject.confirmation.command,) if subject.confirmation and plan.members else ()
    request = Request(
        script("restore"), subject.keys, arguments, lambda: found.latest, subject.head(b""), behind=wait, lenient=True
    )
    reply = await run(request)
    status, _ = reply[0] if wait else reply
    return bool(status == APPLIED)


def fork(record: Record, found: Survey) -> int | None:
    """Return the first version that is another change at the server than the one that is known, or None."""
    known, there = record.ids, found.ids
    return min((version for version in known.keys() & there.keys() if known[version] != there[version]), default=None)


def is_gap(id_: bytes) -> bool:
    """Whether this stands in ``ops`` for a change that was given up."""
    return id_.startswith(_GAP)


def parts_of(record: Record, found: Survey) -> list[Part]:
    """Return what is known of the changes after those that were surveyed.

    Readings only if it is known what made the surveyed state, or not remembered even there: otherwise others may have
    written it in the place of something that was read.
    """
    units: list[Part] = [unit for version, unit in sorted(record.units.items()) if version > found.version]
    version, id_ = found.latest
    if id_ and record.ids.get(version) != id_:
        return units
    return [*(sight for sight in (record.whole, record.tail) if sight and sight.version > version), *units]


def make_plan(parts: Iterable[Part], found: Survey, target: int) -> Plan:
    """Return how to bring a session from the state that was surveyed to a version, as far as the parts allow.

    Behind a change that is missing, only appends are put back: what else was done is not what it would do now. One more
    version stands behind them then, so that everybody who knew an earlier one sees that something was given up.

    Args:
        parts: What is known, in any order; what is there already is passed over. Of two changes that made one version
            the later one counts.
        found: The state to start from.
        target: The version to reach.
    """
    parts = list(parts)
    sights = sorted((part for part in parts if isinstance(part, Sight)), key=lambda sight: sight.version, reverse=True)
    units = {part.version: part for part in parts if isinstance(part, Unit) and part.effect is not None}
    state = _State(found)
    while state.version < target:
        # As far as a reading leads; where none does, by one change.
        if not any(sight.version <= target and state.jump(sight) for sight in sights):
            state.step(units.get(state.version + 1))
    if state.missing:
        state.mark()
    members = tuple((version, id_) for version, id_ in state.members if version > target - MOST_IDS or not is_gap(id_))
    return Plan(state.version, state.generation, state.keep, tuple(state.push), members, tuple(state.missing))


class _State:
    """A list of elements of which only the beginning, as it was surveyed, is at the server."""

    def __init__(self, survey: Survey) -> None:
        self.version = survey.version
        self.generation = survey.generation
        self.keep = (0, survey.length)
        self.push: list[bytes] = []
        self.members: list[tuple[int, bytes]] = []
        self.missing: list[int] = []

    def jump(self, sight: Sight) -> bool:
        """Go to what was read later, if all that is missing was read."""
        if sight.version <= self.version:
            return False
        grown = sight.length - (self.keep[1] - self.keep[0] + len(self.push))
        if sight.generation == self.generation and 0 <= grown <= sight.count and not self.missing:
            self.push += sight.newest(grown)
        elif sight.count >= sight.length:
            self.keep, self.push = (0, 0), sight.newest(sight.count)
        else:
            return False
        self.members += [(version, member) for version, member in sight.members if version > self.version]
        self.version, self.generation = sight.version, sight.generation
        return True

    def step(self, unit: Unit | None) -> None:
        """Make one change, or miss it."""
        if unit is None or unit.effect is None or (self.missing and unit.effect.keep != KEEP_ALL):
            self.missing.append(self.version + 1)
            self.mark()
            return
        self.version += 1
        self._apply(unit.effect)
        self.members += unit.members
        self.generation += unit.effect.keep != KEEP_ALL

    def mark(self) -> None:
        """Make a change of nothing: by its id, whoever knows another in this place sees that it was given up."""
        self.version += 1
        self.members.append((self.version, _GAP + new_operation_id()[len(_GAP) :]))

    def _apply(self, effect: Effect) -> None:
        if effect.keep == KEEP_ALL:
            self.push.extend(effect.push)
            return
        first, last = self.keep
        kept = last - first
        begin, end, _ = slice(*effect.keep).indices(kept + len(self.push))
        end = max(begin, end)
        self.push = self.push[max(0, begin - kept) : max(0, end - kept)] + list(effect.push)
        self.keep = (first + min(begin, kept), first + min(end, kept))


def pack(part: Part) -> bytes:
    """Return a part as it is parked at the server."""
    if isinstance(part, Unit):
        effect = part.effect and [part.effect.keep, list(map(_text, part.effect.push))]
        result = None if part.result is None else _text(part.result)
        fields: list[object] = [part.version, _text(part.id), _text(part.before), effect, result]
    else:
        members = [[version, _text(member)] for version, member in part.members]
        numbers = [part.version, part.generation, part.length, part.count]
        fields = [*numbers, _text(part.joined), _text(part.separator), members, None]
    return json.dumps(fields, ensure_ascii=False).encode("utf-8")


def unpack(packed: bytes) -> Part:
    """Return a part that `pack` made."""
    fields = json.loads(packed)
    if len(fields) == 5:
        version, id_, before, effect, result = fields
        made = effect and Effect((effect[0][0], effect[0][1]), tuple(map(_bytes, effect[1])))
        return Unit(version, _bytes(id_), _bytes(before), made, None if result is None else _bytes(result))
    version, generation, length, count, joined, separator, members, _ = fields
    names = tuple((at, _bytes(member)) for at, member in members)
    return Sight(version, generation, length, count, _bytes(joined), _bytes(separator), names)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")
