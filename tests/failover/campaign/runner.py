"""Runs one scenario: servers, workers, load, fault, recovery, load, an orderly end, and the check."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from redis.exceptions import RedisError

from agents_redis_ha import DurabilityConfig, RetryConfig, lab, session_keys
from agents_redis_ha.lab import Lab, Proxy
from agents_redis_ha.lab.workers import WorkerProcesses
from tests.failover.campaign.checker import check
from tests.failover.campaign.findings import Report, Violation
from tests.failover.campaign.fleets import PREFIX, Member, Site
from tests.failover.campaign.record import load, load_turns
from tests.failover.campaign.scenarios import Durability, Scenario
from tests.failover.campaign.stored import read_stored
from tests.failover.campaign.strike import CLIENT_NAME, Strike, dialled
from tests.failover.campaign.turn_checker import check_turns, joined
from tests.failover.campaign.worker import PutBack, WorkerSetup, work

SHARED = ("shared-0", "shared-1")
_PASSWORD = "secret-0"
_FEWEST = {"operations": 100, "turns": 30}  # confirmed changes
_START_SECONDS = 120.0
_SETTLE_SECONDS = 60.0
_STOP_SECONDS = 45.0  # two deadlines and some: a call that had begun, and the last reads
_STOP_TURNS_SECONDS = 100.0  # a turn is delivered for 30 s, and what others left then, too
# A lease is as long, and a worker that was killed has the session for as long.
_TURN_DEADLINE_SECONDS = 6.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How scenarios are run.

    Attributes:
        durability: "primary", or "replicas" for one replica's confirmation of each change.
        seconds: Load before the fault; two thirds of it after the recovery.
        seed: Decides what workers and faults do, though not when.
        workers: Number of processes.
        keep: Directory for the workers' records; None throws them away.
        conversations: A file of conversations to colour the items with; None means the packaged ones.
        workload: "operations", or "turns": most of what is added is added in turns, some of them delivered twice.
    """

    durability: Durability = "primary"
    seconds: float = 4.0
    seed: int = 1
    workers: int = 3
    keep: Path | None = None
    conversations: Path | None = None
    workload: Literal["operations", "turns"] = "operations"


@dataclass(kw_only=True)
class Result:
    """What a scenario gave.

    Attributes:
        scenario: Its name.
        topology: Where it ran.
        report: What the checker found.
        unexpected: The violations that the scenario does not allow.
        problems: What went wrong with the run itself: a worker, or servers that did not recover.
        notes: What the fault had to say.
        seconds: How long the run took; `fault_seconds` from the strike until all had settled.
    """

    scenario: str
    topology: str
    report: Report = field(default_factory=Report)
    unexpected: list[Violation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    fault_seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether it ran and nothing was broken that may not break."""
        return not (self.unexpected or self.problems)


def run(scenario: Scenario, topology: str, options: Options) -> Result:
    """Run a scenario on one topology; everything that it started is gone afterwards."""
    result = Result(scenario=scenario.name, topology=topology)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agents-redis-ha-campaign-") as directory:
        try:
            _run_in(Path(directory), scenario, options, result)
        except Exception as error:  # noqa: BLE001 (the other scenarios are still to run)
            result.problems.append(f"the run broke off: {type(error).__name__}: {error}")
    result.seconds = time.monotonic() - began
    return result


def _run_in(directory: Path, scenario: Scenario, options: Options, result: Result) -> None:
    records = _records(options, scenario, result.topology) or directory
    secret = directory / "secret"
    secret.write_text(_PASSWORD)
    kind = "sentinel" if result.topology == "standalone" else result.topology
    with (
        lab.start(kind, **scenario.lab) as servers,  # type: ignore[arg-type]  # from the command line
        _site(servers, result.topology, options, secret) as site,
    ):
        setups = {setup.name: setup for setup in make_setups(scenario.fleet(site, options.workers), options, records)}
        with WorkerProcesses(work, setups) as workers:
            strike = Strike(
                servers=servers,
                workers=workers,
                random=random.Random(options.seed),
                prefix=PREFIX,
                session=SHARED[0],
                secret=secret,
                name=site.name,
                notes=result.notes,
            )
            _load_and_strike(scenario, strike, options, result)
        _judge(scenario, strike, [setup.record for setup in setups.values()], options, result)


@contextmanager
def _site(servers: Lab, topology: str, options: Options, secret: Path) -> Iterator[Site]:
    """Provide where the workers are to be; on "standalone" with a name for the primary of the servers."""
    fields: dict[str, Any] = {"client_name": CLIENT_NAME}
    if options.durability == "replicas":
        fields["durability"] = DurabilityConfig(replicas=1, timeout_seconds=0.5)
    if options.workload == "turns":
        fields["retry"] = RetryConfig(deadline_seconds=_TURN_DEADLINE_SECONDS)
    victim = servers.primary(session_keys(PREFIX, SHARED[0]).items)
    with ExitStack() as undo:
        name = undo.enter_context(Proxy(*dialled(victim))) if topology == "standalone" else None
        yield Site(servers=servers, victim=victim, name=name, secret=secret, password=_PASSWORD, fields=fields)


def make_setups(members: Sequence[Member], options: Options, records: Path) -> list[WorkerSetup]:
    """Return what each worker is told."""
    return [
        WorkerSetup(
            name=f"w{number}",
            config=member.config,
            hiredis=member.hiredis,
            record=records / f"w{number}.jsonl",
            seed=options.seed,
            shared=SHARED,
            pops_shared=options.durability == "replicas",
            conversations=options.conversations,
            turns_of=tuple(f"w{each}" for each, _ in enumerate(members, start=1))
            if options.workload == "turns"
            else (),
        )
        for number, member in enumerate(members, start=1)
    ]


def _load_and_strike(scenario: Scenario, strike: Strike, options: Options, result: Result) -> None:
    workers = strike.workers
    workers.wait_until_ready(_START_SECONDS)
    time.sleep(options.seconds)
    struck = time.monotonic()
    try:
        scenario.strike(strike)
        strike.servers.wait_ready(_SETTLE_SECONDS)
    except Exception as error:  # noqa: BLE001 (the other scenarios are still to run)
        result.problems.append(f"the fault did not go as planned: {type(error).__name__}: {error}")
    result.fault_seconds = time.monotonic() - struck
    time.sleep(options.seconds * 2 / 3)
    result.problems += workers.stop(_STOP_TURNS_SECONDS if options.workload == "turns" else _STOP_SECONDS)
    put_back = 0
    while isinstance(said := workers.receive(0), PutBack):
        put_back += said.changes
    if put_back:
        result.notes.append(f"{put_back} lost changes put back")


def _judge(scenario: Scenario, strike: Strike, records: Sequence[Path], options: Options, result: Result) -> None:
    calls = [call for record in records for call in load(record)]
    names = sorted({call.session for call in calls})
    try:
        stored, answers = read_stored(strike.servers, strike.prefix, names)
    except (lab.LabError, OSError, RedisError) as error:
        result.problems.append(f"what is stored cannot be read: {error}")
        return
    calls = joined(calls, answers)
    result.report = check(calls, stored, strike.removals, counts_versions=scenario.counts_versions)
    attempts, tools = (list(chain(*each)) for each in zip(*map(load_turns, records), strict=True))
    result.report.violations += check_turns(calls, attempts, tools, answers)
    result.report.counts.update(f"turns_{attempt.ending}" for attempt in attempts)
    if result.report.counts["confirmed"] < _FEWEST[options.workload]:
        result.problems.append("hardly anything was confirmed: this run proves nothing")
    result.unexpected = scenario.unexpected(result.report, options.durability, strike.kept_from)


def _records(options: Options, scenario: Scenario, topology: str) -> Path | None:
    if options.keep is None:
        return None
    directory = options.keep / f"{topology}-{scenario.name}"
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.jsonl"):
        old.unlink()
    return directory


def chosen(scenarios: Sequence[Scenario], topologies: Sequence[str]) -> list[tuple[Scenario, str]]:
    """Return each scenario with each topology that it makes sense on."""
    return [
        (scenario, topology) for scenario in scenarios for topology in topologies if topology in scenario.topologies
    ]
