"""Leaves out of a plan what a failure does not need: faults, calls, processes that call nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from tests.simulation.plan import Fault, Plan, Step

_Part = TypeVar("_Part")
_MOST_TRIES = 400


def shrink(plan: Plan, fails: Callable[[Plan], Any], *, most_tries: int = _MOST_TRIES) -> Plan:
    """Return the smallest plan that was found which still fails.

    Args:
        plan: One that fails.
        fails: Whether a plan fails in the same way.
        most_tries: So many plans are tried at most.
    """
    tries = [most_tries]

    def still_fails(candidate: Plan) -> bool:
        tries[0] -= 1
        return tries[0] >= 0 and bool(fails(candidate))

    before = None
    while before != plan and tries[0] > 0:
        before = plan
        faults = _shortest(plan.faults, partial(_with_faults, plan, still_fails))
        plan = replace(plan, faults=faults)
        steps = _shortest(plan.steps, partial(_with_steps, plan, still_fails))
        plan = replace(plan, steps=steps)
        plan = _calmer(plan, still_fails)
    return plan


def _with_faults(plan: Plan, fails: Callable[[Plan], bool], faults: tuple[Fault, ...]) -> bool:
    return fails(replace(plan, faults=faults))


def _with_steps(plan: Plan, fails: Callable[[Plan], bool], steps: tuple[Step, ...]) -> bool:
    return bool(steps) and fails(replace(plan, steps=steps))


def _shortest(parts: Sequence[_Part], fails: Callable[[tuple[_Part, ...]], bool]) -> tuple[_Part, ...]:
    """Leave out halves, quarters, …, single ones, as long as it fails without them (delta debugging)."""
    left, size = tuple(parts), max(1, len(parts) // 2)
    while left:
        at = 0
        while at < len(left):
            fewer = (*left[:at], *left[at + size :])
            if fails(fewer):
                left = fewer
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return left


def _calmer(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Let no caller be cancelled, and each process have the same settings, where that is not needed."""
    for index, step in enumerate(plan.steps):
        if step.cancel_after is not None:
            calm = replace(step, cancel_after=None)
            candidate = replace(plan, steps=(*plan.steps[:index], calm, *plan.steps[index + 1 :]))
            plan = candidate if fails(candidate) else plan
    alike = replace(plan, fields=(plan.fields[0],) * len(plan.fields))
    return alike if alike != plan and fails(alike) else plan
