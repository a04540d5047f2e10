"""What turns may not do, told from their deliveries and their tools. Pure; the simulation uses it, too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tests.failover.campaign.findings import Kind, Violation
from tests.failover.campaign.history import Attempt, BatchId, Call, Status, ToolRun
from tests.failover.campaign.marks import Mark


def joined(calls: Iterable[Call], stored: Mapping[tuple[str, BatchId], str] | None = None) -> list[Call]:
    """Return calls with one for each turn, which several processes may have delivered, one of them without an end.

    It began when the first of them did, and was confirmed when the first one was told so. One that was lost and made
    anew began with the delivery that made it: the answer that is stored names that.

    Args:
        calls: All calls.
        stored: The answers of turns that are stored.
    """
    turns: dict[tuple[str, Mark], list[Call]] = defaultdict(list)
    others = []
    for call in calls:
        if call.items:
            turns[call.session, call.items[0]].append(call)
        else:
            others.append(call)
    made = stored or {}
    return [*others, *(_joined(each, made.get((name, mark.batch), "")) for (name, mark), each in turns.items())]


def _joined(deliveries: Sequence[Call], answer: str) -> Call:
    if len(deliveries) == 1:
        return deliveries[0]
    since = next((each.begin for each in deliveries if f" {each.handle}.{each.number}." in answer), None)
    if since is not None:
        deliveries = [replace(each, begin=max(each.begin, since)) for each in deliveries if each.end > since]
    confirmed = [call for call in deliveries if call.status is Status.OK]
    is_open = any(call.may_be_applied for call in deliveries)
    last = max(deliveries, key=lambda call: call.end)
    told = min(confirmed, key=lambda call: call.end) if confirmed else last
    status = told.status if confirmed or not is_open else Status.UNKNOWN
    return replace(told, begin=min(call.begin for call in deliveries), status=status)


def tools_run_again(tools: Collection[ToolRun], cleared: Collection[str] = ()) -> Iterator[ToolRun]:
    """Yield tools that ran although their output was saved. Where servers lost that, or evicted it, they may.

    Args:
        tools: All that ran.
        cleared: Sessions that were cleared, and their drafts with them.
    """
    first: dict[tuple[str, BatchId, int], list[ToolRun]] = defaultdict(list)
    for tool in tools:
        first[tool.session, tool.batch, tool.round].append(tool)
    for runs in first.values():
        for tool in runs:
            for other in runs:
                is_later = other.attempt > tool.attempt and tool.saved is not None and other.began > tool.saved
                if is_later and tool.resumes and tool.session not in cleared:
                    yield other


def other_results(attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, str]]:
    """Yield deliveries that were told another result than one before them, and that one's."""
    results: dict[tuple[str, BatchId], str] = {}
    for attempt in attempts:
        if attempt.result is not None:
            known = results.setdefault((attempt.session, attempt.batch), attempt.result)
            if known != attempt.result:
                yield attempt, known


def refused_answers(attempts: Iterable[Attempt], told: Collection[str]) -> Iterator[Attempt]:
    """Yield deliveries of which nothing is stored, as they were told, and whose answer is there all the same.

    Args:
        attempts: All deliveries.
        told: The answers that are stored, or were the result of a delivery.
    """
    return (each for each in attempts if each.ending in ("lost", "failed") and each.answer in told)


def taken_away(attempts: Iterable[Attempt]) -> Iterator[Attempt]:
    """Yield deliveries that were lost within their lease, although no other turn cancelled theirs."""
    attempts = list(attempts)
    cancelled = {(each.session, each.batch) for each in attempts if each.ending == "cancelled"}
    for each in attempts:
        if each.ending == "lost" and each.within_lease and (each.session, each.batch) not in cancelled:
            yield each


def cancelled_and_answered(attempts: Iterable[Attempt]) -> Iterator[Attempt]:
    """Yield deliveries that were told that their turn is cancelled for good, of a turn that was answered."""
    attempts = list(attempts)
    answered = {(each.session, each.batch) for each in attempts if each.ending == "answered"}
    return (each for each in attempts if each.ending == "cancelled" and (each.session, each.batch) in answered)


def check_turns(
    calls: Sequence[Call],
    attempts: Sequence[Attempt],
    tools: Sequence[ToolRun],
    stored: Mapping[tuple[str, BatchId], str],
) -> list[Violation]:
    """Return what is wrong with the turns of all workers; what is wrong with their items, `checker.check` tells.

    Args:
        calls: What was called.
        attempts: All deliveries.
        tools: All tools that ran.
        stored: The answer that is stored of each turn of which anything is stored.
    """
    notices = [call for call in calls if call.status is Status.HISTORY_LOST]

    def violation(kind: Kind, each: Attempt | ToolRun, what: str) -> Violation:
        said = any(call.session == each.session for call in notices)
        name = ":".join(map(str, each.batch))
        return Violation(kind=kind, session=each.session, what=f"{name}: {what}", said=said, batch=each.batch)

    found = []
    for each, before in other_results(attempts):
        found.append(violation(Kind.ANSWERED_TWICE, each, f"{each.result!r}, and {before!r} to another delivery"))
    for each in attempts:
        there = stored.get((each.session, each.batch))
        if each.result is not None and there is not None and there != each.result:
            found.append(violation(Kind.ANSWERED_TWICE, each, f"{each.result!r}, and {there!r} is stored"))
    told = {each.result for each in attempts if each.result is not None}
    for each in refused_answers(attempts, told | set(stored.values())):
        found.append(violation(Kind.REFUSED_AND_STORED, each, f"{each.answer!r}, which was {each.ending}"))
    for each in taken_away(attempts):
        found.append(violation(Kind.TAKEN_AWAY, each, each.answer))
    for each in cancelled_and_answered(attempts):
        found.append(violation(Kind.CANCELLED_AND_ANSWERED, each, each.answer))
    cleared = {call.session for call in calls if call.removes_all}
    for tool in tools_run_again(tools, cleared):
        what = f"round {tool.round} in attempt {tool.attempt} at {tool.began:.3f}"
        found.append(violation(Kind.TOOL_RUN_AGAIN, tool, what))
    return found
