"""An independent judge of a history, written from docs/guarantees.md alone, without the checker and the campaign.

Where servers lost nothing, each session has to be linearizable: there is one order of all its calls, each between its
beginning and its end, in which every call returns what it returned. That is searched for as Wing and Gong, and Lowe, do
(G. Lowe, "Testing for linearizability", 2017). A call of unknown outcome may have happened at any time after it began,
or never.

Where servers may lose what they confirmed, the anomalies of Elle's list-append are looked for (K. Kingsbury, P. Alvaro,
"Elle", 2020), which need no single order: garbage, aborted and torn batches, duplicates, orders that contradict each
other, and what was confirmed, is gone, and was not said to be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_STATES = 200_000
_NOTICED_SECONDS = 0.1  # after a server has taken over, at the latest

Item = tuple[str, int, int]
"""What names an element: the batch (by writer and number) and the place in it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One call of a session.

    Attributes:
        process: Who called.
        kind: ``append``, ``replace``, ``clear``, ``pop`` or ``read``.
        begin: When it began.
        end: When it ended; infinite if it never did.
        outcome: ``ok``; ``applied`` (it happened, but what it returned is not known); ``unknown``; ``failed`` (nothing
            was changed); ``lost`` (nothing was changed, and the caller was told that history is gone).
        items: What it was to write.
        result: What it returned: what was read, oldest first, or the element popped, or nothing.
        limit: How many of the newest elements a read asked for; None means all.
    """

    process: str
    kind: str
    begin: float
    end: float = math.inf
    outcome: str = "ok"
    items: tuple[Item, ...] = ()
    result: tuple[Item | None, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Finding:
    """One promise that was broken: which, and how that shows."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def judge(
    events: Sequence[Event],
    stored: Sequence[Item | None],
    *,
    may_lose: bool,
    losses: Sequence[float] = (),
    may_forget: bool = False,
    may_reorder: bool = False,
    forgetful: Collection[str] = (),
    deletions: Sequence[float] = (),
) -> list[Finding]:
    """Return what one session's history breaks.

    Args:
        events: All calls.
        stored: What is there in the end.
        may_lose: Whether servers may have lost what they confirmed.
        losses: When they did, or others took over.
        may_forget: Whether processes may have ended, or forgotten, that knew it; then it is gone without a word.
        may_reorder: Whether processes put what was displaced by others behind that.
        forgetful: Processes that are set up to keep nothing: what they met, they neither miss nor put back.
        deletions: When servers deleted the session by themselves.
    """
    last = max((event.end for event in events if event.end < math.inf), default=0.0)
    final = Event(process="stored", kind="read", begin=last + 1, end=last + 2, result=tuple(stored))
    everything = [*events, final]
    found = list(_anomalies(everything, may_lose=may_lose, losses=losses))
    if may_lose and may_reorder:
        found = [each for each in found if each.kind != "contradiction"]
    elif may_lose:
        found += _overtaken(everything, forgetful, losses, deletions)
    if may_lose:
        return found if may_forget else [*found, *_losses(everything), *_steps_back(everything, losses)]
    if not found and not is_linearizable(everything):
        found.append(Finding("not linearizable", f"{len(events)} calls have no order that explains what they returned"))
    return found


# -- one order of all calls


def is_linearizable(events: Sequence[Event]) -> bool:
    """Whether there is an order of all calls; true also where that could not be decided within bounds."""
    calls = sorted((e for e in events if e.outcome in ("ok", "applied", "unknown")), key=lambda e: (e.begin, e.end))
    calls = [e for e in calls if e.kind != "read" or e.outcome == "ok"]
    certain = sum(1 << n for n, e in enumerate(calls) if e.outcome != "unknown")
    seen: set[tuple[int, tuple[Any, ...]]] = set()
    stack: list[tuple[int, tuple[Any, ...]]] = [(0, ())]
    while stack:
        done, state = stack.pop()
        if done & certain == certain:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > _MOST_STATES:
            return True
        stack.extend(_next(calls, done, state))
    return False


def _next(calls: Sequence[Event], done: int, state: tuple[Any, ...]) -> list[tuple[int, tuple[Any, ...]]]:
    """Return what can come next: no call before one that had ended when it began; the likeliest last."""
    deadline = math.inf
    likely: list[tuple[int, tuple[Any, ...]]] = []
    unlikely: list[tuple[int, tuple[Any, ...]]] = []
    for number, call in enumerate(calls):
        if done >> number & 1:
            continue
        if call.begin > deadline:
            break
        after = _after(call, state)
        if after is not None:
            (likely if call.outcome != "unknown" else unlikely).append((done | 1 << number, after))
        if call.outcome != "unknown":
            deadline = min(deadline, call.end)
    return [*unlikely, *reversed(likely)]


def _after(call: Event, state: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return the list behind a call, None if the call cannot have happened here."""
    if call.kind == "read":
        shown = state if call.limit is None else state[max(len(state) - call.limit, 0) :]
        return state if shown == call.result else None
    if call.kind == "pop":
        if call.outcome == "ok" and call.result[:1] != state[-1:]:
            return None
        return state[:-1]
    if call.kind == "clear":
        return ()
    return call.items if call.kind == "replace" else state + call.items


# -- anomalies


def _views(events: Iterable[Event]) -> Iterator[Event]:
    return (event for event in events if event.kind == "read" and event.outcome == "ok")


def _anomalies(events: Sequence[Event], *, may_lose: bool, losses: Sequence[float]) -> Iterator[Finding]:
    """Yield what no view may show, whatever servers lose."""
    writers = {item: event for event in events for item in event.items}
    batches: dict[tuple[str, int], int] = Counter(item[:2] for item in writers)
    before: dict[tuple[Item, Item], str] = {}
    for view in _views(events):
        where = f"the read of {view.process} at {view.begin:.3f}"
        for item in view.result:
            writer = writers.get(item) if item is not None else None
            if writer is None:
                yield Finding("garbage", f"{item} in {where}")
            elif writer.outcome in ("failed", "lost") and not (may_lose and view.begin < writer.end):
                # It may have been there while its caller still waited: lost, and then refused.
                yield Finding("aborted", f"{item}, which was reported as not applied, in {where}")
        shown = [item for item in view.result if item is not None]
        for item, count in Counter(shown).items():
            if count > 1:
                yield Finding("duplicate", f"{item} {count} times in {where}")
        yield from _tears(view, shown, batches, where)
        settled = shown if not may_lose else [i for i in shown if _has_one_place(writers.get(i), view.end, losses)]
        yield from _contradictions(settled, before, where)
    for event in events:
        if event.kind == "pop" and event.outcome == "ok" and event.result:
            item = event.result[0]
            writer = writers.get(item) if item is not None else None
            if writer is None or writer.outcome in ("failed", "lost"):
                yield Finding("garbage", f"{item}, popped by {event.process} at {event.end:.3f}")


def _has_one_place(writer: Event | None, then: float, losses: Sequence[float]) -> bool:
    """Whether an item can have been made in one place only.

    What was not confirmed yet can be lost with its server, and be made again at another place. What was under way when
    a server took over can be made on both: the request reaches the old one late.
    """
    if writer is None or writer.outcome != "ok" or writer.end > then:
        return False
    return not any(writer.begin < at < writer.end + _NOTICED_SECONDS for at in losses)


def _tears(view: Event, shown: Sequence[Item], batches: dict[tuple[str, int], int], where: str) -> Iterator[Finding]:
    """A batch stands in one piece, in its order, from its beginning; only a window cuts that off."""
    ended: set[tuple[str, int]] = set()
    for number, item in enumerate(shown):
        previous = shown[number - 1] if number else None
        if previous is not None and previous[:2] == item[:2]:
            fits = item[2] == previous[2] + 1
        else:
            is_cut = number == 0 and view.limit is not None and len(shown) == view.limit
            fits = item[:2] not in ended and (item[2] == 0 or is_cut)
            if previous is not None:
                ended.add(previous[:2])
        if not fits and shown.count(item) == 1 and item[:2] in batches:
            yield Finding("torn", f"{item} behind {previous} in {where}")


def _contradictions(shown: Sequence[Item], before: dict[tuple[Item, Item], str], where: str) -> Iterator[Finding]:
    """Two batches have the same order in all views."""
    heads = list(dict.fromkeys((item[0], item[1], -1) for item in shown))
    for at, later in enumerate(heads):
        for earlier in heads[:at]:
            before.setdefault((earlier, later), where)
            if (later, earlier) in before:
                first = before[later, earlier]
                yield Finding("contradiction", f"{earlier[:2]} before {later[:2]} in {where}, behind it in {first}")


def _overtaken(
    events: Sequence[Event], forgetful: Collection[str], losses: Sequence[float], deletions: Sequence[float]
) -> Iterator[Finding]:
    """Yield what stands behind a batch that was begun after it had been confirmed, by a process that knew it.

    One that did not know it may have written in the place of what was lost; what is put back then comes behind that.
    If all processes that know it also know what stood in front, they notice that, and do not put it back there. The
    same holds where it was deleted, and a process takes that for a loss: what another one had known of it is over.
    """
    writers = {item[:2]: event for event in events for item in event.items}
    keepers = [event for event in events if event.process not in forgetful]
    said: set[tuple[str, int]] = set()
    for view in _views(events):
        shown = dict.fromkeys(item[:2] for item in view.result if item is not None)
        heads = [head for head in shown if head in writers]
        for at, head in enumerate(heads):
            writer = writers[head]
            if writer.outcome not in ("ok", "applied") or head in said:
                continue
            later = [writers[each] for each in heads[:at] if writers[each].begin > writer.end]
            ends = [at for at in deletions if _is_taken_for_a_loss(keepers, head, at, losses)] if later else []
            knowing = [each for each in later if _knows(keepers, each.process, head, each.begin, ends)]
            if knowing or (later and not _was_missed(events, keepers, head, heads[:at])):
                said.add(head)
                text = f"{head}, confirmed at {writer.end:.3f}, behind {(knowing or later)[0].items[0][:2]}"
                yield Finding("overtaken", f"{text} in the read of {view.process} at {view.begin:.3f}")


def _meetings(events: Sequence[Event], head: tuple[str, int]) -> list[tuple[str, float]]:
    """Return who wrote a batch, was shown it or popped of it, and when."""
    met = [e for e in events if any(item is not None and item[:2] == head for item in e.items + e.result)]
    return [(event.process, event.end) for event in met if event.process != "stored"]


def _knows(events: Sequence[Event], process: str, head: tuple[str, int], at: float, deletions: Sequence[float]) -> bool:
    """Whether a process has met a batch by then, and was not told of a loss, nor was the batch deleted, since."""
    met = max((end for who, end in _meetings(events, head) if who == process and end < at), default=math.inf)
    told = (e.end for e in events if e.process == process and e.outcome == "lost")
    return met < at and not any(met < end < at for end in (*told, *deletions))


def _is_taken_for_a_loss(
    keepers: Sequence[Event], head: tuple[str, int], deleted_at: float, losses: Sequence[float]
) -> bool:
    """Whether a process that had met a batch cannot tell that it was deleted.

    "If a failover comes between a process's last use of the session and its next one, [...] this process takes the
    session for lost and puts it back." (docs/guarantees.md)
    """
    for process in {who for who, end in _meetings(keepers, head) if end < deleted_at}:
        own = [event for event in keepers if event.process == process]
        last = max((event.end for event in own if event.end < deleted_at), default=-math.inf)
        following = min((event.end for event in own if event.begin > deleted_at), default=math.inf)
        if any(last < at < following for at in losses):
            return True
    return False


def _was_missed(
    events: Sequence[Event], keepers: Sequence[Event], head: tuple[str, int], front: Sequence[tuple[str, int]]
) -> bool:
    """Whether one that met a batch, and keeps that, lacks something that was before it, and is not in front of it now.

    It lacks what others changed between its last look at the session and a change of its own.
    """
    changes = [e for e in events if e.kind != "read" and e.outcome in ("ok", "applied", "unknown")]
    (written,) = (e for e in changes if e.items and e.items[0][:2] == head)
    gone = [e for e in changes if e is not written and not (e.items and e.items[0][:2] in front)]
    for process, until in _meetings(keepers, head):
        for own in (e for e in changes if e.process == process and e.begin < until):
            looks = (e.begin for e in _views(events) if e.process == process and e.begin < own.begin)
            looked = max(looks, default=-math.inf)
            for each in gone:
                is_known = each.end < looked if each.process != process else True
                may_be_before = each.begin < min(own.end, written.end)
                if may_be_before and (each.outcome == "unknown" or not is_known):
                    return True
    return False


# -- losses


def _losses(events: Sequence[Event]) -> Iterator[Finding]:
    """Yield what was confirmed, nothing can have removed, and is not stored, where too few were told of a loss."""
    *calls, final = events
    stored = {item for item in final.result if item is not None}
    popped = {item for e in calls if e.kind == "pop" and e.outcome == "ok" for item in e.result}
    told = sum(e.outcome == "lost" for e in calls)
    open_pops = sum(e.kind == "pop" and e.outcome in ("unknown", "applied") for e in calls)
    for event in calls:
        if event.outcome != "ok" or event.kind not in ("append", "replace"):
            continue
        missing = [item for item in event.items if item not in stored and item not in popped]
        removers = [e for e in calls if e.kind in ("clear", "replace") and e is not event]
        may_be_cleared = any(e.outcome in ("ok", "applied") and e.end > event.begin for e in removers)
        may_be_cleared |= any(e.outcome == "unknown" for e in removers)  # guarantees.md: "It may also appear later"
        if missing and not may_be_cleared and not told and len(missing) > open_pops:
            yield Finding("lost", f"{missing[0]}, confirmed to {event.process} at {event.end:.3f}")


def _steps_back(events: Sequence[Event], losses: Sequence[float]) -> Iterator[Finding]:
    """Yield what a process was shown, and is not shown any more, with nothing that removed it and no word."""
    changes = [e for e in events if e.kind in ("clear", "replace", "pop") and e.outcome in ("ok", "applied", "unknown")]
    for process in dict.fromkeys(event.process for event in events):
        shown: dict[Item, float] = {}
        told = [event.end for event in events if event.process == process and event.outcome == "lost"]
        for event in sorted((e for e in events if e.process == process), key=lambda e: e.begin):
            # Another call of the process may have been told while this one was under way.
            told_at = max((at for at in told if at <= event.end), default=-math.inf)
            shown = {item: at for item, at in shown.items() if at > told_at}
            if event.kind != "read" or event.outcome != "ok":
                continue
            if event.limit is None or len(event.result) < event.limit:
                missing = [each for each, at in shown.items() if at < event.begin and each not in event.result]
                shown = {each: at for each, at in shown.items() if each not in missing}
                taken = sum(_may_take_another(change, event.end, losses) for change in changes)
                missing = [i for i in missing if not any(_may_remove(change, i, event.end) for change in changes)]
                for item in missing[taken:]:
                    yield Finding("backwards", f"{item}, shown to {process}, not in its read at {event.begin:.3f}")
            for each in event.result:
                if each is not None:
                    shown.setdefault(each, event.end)


def _may_remove(change: Event, item: Item, until: float) -> bool:
    """Whether a change may have taken an item away that was there then."""
    if change.kind == "pop" and change.outcome == "ok":
        return item in change.result and change.begin < until
    return change.begin < until


def _may_take_another(change: Event, then: float, losses: Sequence[float]) -> bool:
    """Whether a pop may have taken another item than the one that it returned.

    It had no reply yet. The server that it was made on was lost, what it took was put back, and its repeat took this.
    """
    is_under_way = change.kind == "pop" and change.outcome == "ok" and change.begin < then < change.end
    return is_under_way and any(then < at < change.end for at in losses)
